"""Assertions over `fusible.compiler.accuracy`, the one policy by which numbers are called equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt

from fusible.compiler import accuracy

_SHARES: ContextVar[list[float] | None] = ContextVar("shares", default=None)


def assert_close(
    got: npt.ArrayLike, reference: npt.ArrayLike, *, accumulation: int = 1, bound: accuracy.Bound | None = None
) -> None:
    """Fail unless `got`, a kernel's result, agrees with `reference` (same dtype, or float64 for floats).

    `accumulation` is the number of terms that the kernel adds up for each element; `bound` replaces the table's row and
    must not be looser than it.
    """
    row = accuracy.kernel_bound(np.asarray(got).dtype, accumulation)
    if bound is not None:
        assert bound.max <= row.max and bound.rms <= row.rms, f"{bound} is looser than the table's {row}"
        row = bound
    outcome = accuracy.compare(reference, got, row)
    if (shares := _SHARES.get()) is not None:
        pairs = (outcome.max_error, row.max), (outcome.rms_error, row.rms)
        shares += [error / largest if largest else error for error, largest in pairs]
    assert outcome, _describe(outcome)


@contextmanager
def shares_of_bounds() -> Iterator[list[float]]:
    """What each `assert_close` within it finds: errors in units of what they may be at most (1: all of it)."""
    found: list[float] = []
    token = _SHARES.set(found)
    try:
        yield found
    finally:
        _SHARES.reset(token)


def assert_outputs_close(
    got: Mapping[str, Any], reference: Mapping[str, Any], *, precision: str = "fp32", quantised: bool = False
) -> None:
    """Fail unless every output of a whole model agrees with the reference's output of that name."""
    bound = accuracy.model_bound(precision, quantised=quantised)
    outcomes = accuracy.compare_outputs(reference, got, bound)
    wrong = {name: _describe(outcome) for name, outcome in outcomes.items() if not outcome}
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())


def assert_same_indices(
    got: npt.ArrayLike, reference: npt.ArrayLike, scores: npt.ArrayLike, axis: int, *, accumulation: int = 1
) -> None:
    """Fail unless the indices agree where the scores they point at are not tied."""
    bound = accuracy.kernel_bound(np.asarray(scores).dtype, accumulation)
    outcome = accuracy.compare_indices(reference, got, scores, axis, bound)
    assert outcome, _describe(outcome)


def poisoned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """An array for results whose every element must be overwritten: NaN, or a value that no test expects."""
    kind = np.dtype(dtype)
    if ("float" in kind.name and not kind.name.startswith("float4")) or kind.kind == "c":
        return np.full(shape, np.nan, dtype=kind)
    if kind.kind in "iu":
        return np.full(shape, np.iinfo(kind).max - 13, dtype=kind)
    return np.full(shape, 1, dtype=kind)


def _describe(outcome: accuracy.Comparison) -> str:
    return f"{outcome.reason} (at {outcome.worst}; max {outcome.max_error:.3g}, RMS {outcome.rms_error:.3g})"
