"""Compile and run mutants of the conformance models; anything but a result or a FusibleError is a finding."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

import fusible
from tests.fuzz.mutations import mutated

__all__ = ["Findings", "fuzz", "small_models"]

SECONDS = 2.0  # of processor time, for one mutant


@dataclass
class Findings:
    """Counts, and for each kind of finding the name of a model and the bytes of the mutant."""

    mutants: int = 0
    ran: int = 0
    refused: int = 0
    found: dict[str, tuple[str, bytes]] = field(default_factory=dict)


def small_models(limit: int = 20_000) -> list[tuple[str, onnx.ModelProto]]:
    """The node conformance models of at most `limit` bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return [(c.name, c.model) for c in cases if c.model is not None and c.model.ByteSize() <= limit]


def mutants(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` mutants of randomly chosen models, the same for the same seed."""
    rng, models = random.Random(seed), small_models()
    for _ in range(count):
        name, model = rng.choice(models)
        yield name, mutated(model, rng).SerializeToString()


def fuzz(seed: int, count: int, seconds: float | None = None) -> Findings:
    """Try up to `count` mutants, for at most `seconds` of wall time."""
    result, deadline = Findings(), None if seconds is None else time.monotonic() + seconds
    for name, data in mutants(seed, count):
        if deadline is not None and time.monotonic() > deadline:
            break
        _try(name, data, result)
    return result


def _try(name: str, data: bytes, result: Findings) -> None:
    result.mutants += 1
    started = time.thread_time()
    try:
        executable = fusible.compile(data, target="numpy")
        inputs = _inputs(executable)
        if inputs is not None:
            executable.run(inputs)
            result.ran += 1
    except fusible.FusibleError:
        result.refused += 1
    except Exception as error:  # noqa: BLE001 - the point of the search: anything else is a finding
        result.found.setdefault(f"{type(error).__name__}: {str(error)[:100]}", (name, data))
    took = time.thread_time() - started
    if took > SECONDS:
        result.found.setdefault(f"took {took:.1f} s", (name, data))


def _inputs(executable: fusible.Executable) -> dict[str, np.ndarray] | None:
    """Random inputs, None where an input is no tensor or too large to try."""
    rng, made = np.random.default_rng(0), {}
    for spec in executable.inputs:
        shape = [d if isinstance(d, int) else 2 for d in spec.shape or (1,)]
        if spec.kind != "tensor" or np.prod(shape, dtype=object) > 1e6:
            return None
        text = np.full(shape, "a", object)
        made[spec.name] = text if spec.dtype == object else (rng.standard_normal(shape) * 3).astype(spec.dtype)
    return made
