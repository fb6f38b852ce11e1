"""What is wrong with the answer of a target with kernels to a sample, if anything.

The target numpy is the reference. Where the two differ by more than the rows of `tests/tolerance.py` allow and the
graph computes in float32 throughout, float64 decides: an output of which the error of numpy or of ONNX Runtime has
the size of cpu's is ill-conditioned, and no finding. "cpu" below stands for any target with kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

import fusible
from fusible.compiler.accuracy import compare
from fusible.passes.manager import Pipeline
from tests.differential.builder import OPSET, Sample
from tests.differential.conditioning import is_ill_conditioned
from tests.differential.tensors import bound_of
from tests.kernels.cpu.layers import guarded

__all__ = ["Settings", "Verdict", "judge", "merged", "native", "plain", "reference", "without_symbols"]


@dataclass(frozen=True)
class Settings:
    """How the target with kernels compiles. triton-cpu with one thread checks every access of the kernels."""

    cache: Path
    threads: int = 1
    exact: bool = False
    target: str = "cpu"

    @property
    def options(self) -> fusible.Options:
        """As `fusible.compile` takes them."""
        exactness = fusible.Exactness.EXACT if self.exact else fusible.Exactness.REASSOCIATING
        verify = "kernels" if self.target == "triton-cpu" and self.threads == 1 else "off"
        return fusible.Options(threads=self.threads, exactness=exactness, cache_dir=self.cache, verify=verify)


@dataclass(frozen=True)
class Verdict:
    """reason: what is wrong, or "". refused: the target numpy does not take the model, so it proves nothing.

    ill: outputs that no bound can be stated for.
    """

    reason: str = ""
    refused: str = ""
    ill: int = 0


def reference(sample: Sample) -> dict[str, np.ndarray]:
    """The answer of the target numpy. Raises FusibleError."""
    return fusible.compile(sample.model, target="numpy").run(sample.feeds)


def plain(sample: Sample) -> dict[str, np.ndarray]:
    """The answer of the target numpy without any pass."""
    return fusible.compile(sample.model, target="numpy", passes=Pipeline.of({})).run(sample.feeds)


def native(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], settings: Settings) -> dict[str, np.ndarray]:
    """The answer of the target with kernels; buffers start as NaN, inputs end where an unreadable page begins."""
    session = fusible.compile(model, target=settings.target, options=settings.options).session()
    session._poison = True
    return session.run({name: guarded(array) for name, array in feeds.items()})


def without_symbols(sample: Sample) -> Sample:
    """The sample with every size of its inputs literal."""
    model = onnx.ModelProto()
    model.CopyFrom(sample.model)
    for value in model.graph.input:
        for dim, extent in zip(value.type.tensor_type.shape.dim, sample.feeds[value.name].shape, strict=True):
            dim.dim_value = extent
    return Sample(model, sample.feeds, sample.known)


def merged(samples: Sequence[Sample]) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Samples with different prefixes side by side in one model, and all their inputs."""
    graph = helper.make_graph(
        [node for s in samples for node in s.model.graph.node],
        "side_by_side",
        [value for s in samples for value in s.model.graph.input],
        [value for s in samples for value in s.model.graph.output],
        [tensor for s in samples for tensor in s.model.graph.initializer],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return model, {name: array for s in samples for name, array in s.feeds.items()}


def judge(sample: Sample, expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> Verdict:
    """Compare the outputs of a sample."""
    ill = 0
    for name in sample.outputs:
        known = sample.known[name]
        outcome = compare(expected[name], got[name], bound_of(known))
        if outcome:
            continue
        if not known.exact and is_ill_conditioned(sample, name, expected[name], got[name]):
            ill += 1
            continue
        where = f"output {name!r} ({known.dtype}{list(np.shape(expected[name]))}"
        kind = "exact" if known.exact else f"{known.terms} terms"
        return Verdict(f"{where}, {kind}): {outcome.reason}", ill=ill)
    return Verdict(ill=ill)
