"""A model to be measured: file, inputs, what comes out, how much work it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusible.benchmarks.costs import model_cost
from fusible.benchmarks.reference import model_tolerance, reference_outputs
from fusible.benchmarks.zoo.catalog import Obtained, names
from fusible.compiler.accuracy import Bound, StepBound
from fusible.errors import FusibleError

__all__ = ["Work", "work_of"]


@dataclass(frozen=True, slots=True)
class Work:
    """A model with what every contestant is measured by.

    zoo_name: its name in the zoo, "" for a file; expected: the reference's outputs, None if nothing is to be checked;
    flops: of one inference, None if unknown; bytes: inputs, weights and outputs, read or written once.
    """

    name: str
    zoo_name: str
    variant: str
    path: Path
    inputs: Mapping[str, np.ndarray]
    batch: int
    expected: Mapping[str, np.ndarray] | None
    bound: Bound | StepBound
    flops: float | None
    bytes: float | None


def work_of(model: Obtained, *, check: bool = True) -> Work:
    """Compute the reference's outputs and the cost. Raises PeerError if the reference cannot run the model."""
    expected = reference_outputs(model.path, model.inputs) if check else None
    flops, nbytes = _cost(model)
    first = next(iter(model.inputs.values()), np.zeros(()))
    return Work(
        name=model.name,
        zoo_name=model.name if model.name in names() else "",
        variant=model.variant,
        path=model.path,
        inputs=model.inputs,
        batch=int(first.shape[0]) if first.ndim > 0 else 1,
        expected=expected,
        bound=model_tolerance(model.path),
        flops=flops,
        bytes=nbytes,
    )


def _cost(model: Obtained) -> tuple[float | None, float | None]:
    """Operations and bytes; unknown for a model that Fusible cannot import (its own row will say why)."""
    try:
        return model_cost(model.path, model.inputs)
    except FusibleError:
        return None, None
