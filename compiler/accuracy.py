"""The one policy by which numbers are called equal, for kernels and for whole models.

The error of an element is scaled by the reference's own size:

    error[i] = |reference[i] - got[i]| / max(rms(reference), |reference[i]|)

and both its maximum and its root mean square (RMS) are bounded, by a row of one of two tables: `kernel_bound` (by dtype
and accumulation length) or `model_bound` (by precision). Scaling by the RMS makes the error of a near-zero element of a
sum comparable to that of its neighbours; bounding the RMS as well finds errors that are small everywhere, such as a
factor 1.05. Integers, booleans, strings and the 8-bit and 4-bit floats are compared exactly; NaN and infinities must
stand in the same places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fusible.errors import UsageError

__all__ = [
    "Bound",
    "Comparison",
    "StepBound",
    "compare",
    "compare_indices",
    "compare_outputs",
    "compare_selection",
    "kernel_bound",
    "model_bound",
    "rounds_to_steps",
    "widened",
]

Array = npt.NDArray[Any]
Value = Array | Sequence["Value"] | None
"""What a model returns under a name: an array, a list for a sequence, None for an empty optional."""

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class Bound:
    """What the scaled error may be at most: in any element, and as an RMS over all of them."""

    max: float
    rms: float


@dataclass(frozen=True)
class StepBound:
    """The bound of quantised models: how many elements may be off by how many quantisation steps.

    At most `fraction` of the elements may be more than one step off, and none more than `max_steps`. A step of a float
    output is 1/255 of its range including zero, as DynamicQuantizeLinear would choose it; of an integer output it is 1.
    """

    fraction: float
    max_steps: float


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing one value: `agrees`, else `reason`; the errors found and where the worst one stands.

    The errors are scaled errors under a `Bound`, steps under a `StepBound`; inf where no number can be given.
    """

    agrees: bool
    max_error: float
    rms_error: float
    worst: tuple[int, ...] | None
    reason: str

    def __bool__(self) -> bool:
        return self.agrees


# (accumulation length up to, max, rms). fp32 leaves room for Winograd F(4x4), whose error is ten times a plain sum's.
# fp16 and bf16 accumulate in fp32, so that their rows are little more than the one rounding of the result.
_KERNEL_ROWS: Mapping[np.dtype[np.generic], tuple[tuple[float, float, float], ...]] = MappingProxyType(
    {
        np.dtype(np.float64): ((1, 4e-15, 1e-15), (64, 2e-14, 2e-15), (4096, 1e-13, 1e-14), (math.inf, 4e-13, 4e-14)),
        np.dtype(np.float32): ((1, 2e-6, 5e-7), (64, 1e-5, 1e-6), (4096, 5e-5, 5e-6), (math.inf, 2e-4, 2e-5)),
        np.dtype(np.float16): ((1, 1e-3, 5e-4), (64, 2e-3, 8e-4), (4096, 3e-3, 1e-3), (math.inf, 4e-3, 2e-3)),
        _BFLOAT16: ((1, 8e-3, 4e-3), (64, 1e-2, 5e-3), (4096, 2e-2, 6e-3), (math.inf, 3e-2, 8e-3)),
    }
)

# bf16 has 8 bits of mantissa: rounding moves an operand by 2^-9 of itself at most and by 0.12 % as an RMS, the two of a
# product its sum by 0.17 %, and ten layers that pass errors on as they are by 0.5 %, a hundred by 1.7 %.
_MODEL_ROWS: Mapping[str, Bound] = MappingProxyType(
    {"fp32": Bound(1e-3, 1e-4), "fp16": Bound(2e-2, 4e-3), "bf16": Bound(1e-1, 2e-2)}
)
_QUANTISED_ROW = StepBound(fraction=0.01, max_steps=16)


def kernel_bound(dtype: npt.DTypeLike, accumulation: int = 1) -> Bound:
    """The bound of a kernel that returns `dtype` and adds up `accumulation` terms for each element (1: elementwise).

    Complex numbers take the row of their parts. A dtype without rows (integers, 8-bit floats) must be exact:
    `Bound(0, 0)`.
    """
    kind = np.dtype(dtype)
    if kind.kind == "c":
        kind = np.empty(0, kind).real.dtype
    for length, largest, rms in _KERNEL_ROWS.get(kind, ()):
        if accumulation <= length:
            return Bound(largest, rms)
    return Bound(0.0, 0.0)


def model_bound(precision: str = "fp32", *, quantised: bool = False) -> Bound | StepBound:
    """The bound of a whole model computed in `precision` ("fp32", "fp16", "bf16"), or of a quantised one.

    Raises `UsageError` for another precision.
    """
    if precision not in _MODEL_ROWS:
        raise UsageError(f"precision must be one of {', '.join(_MODEL_ROWS)}, got {precision!r}")
    return _QUANTISED_ROW if quantised else _MODEL_ROWS[precision]


def widened(row: Bound, rounded: Iterable[Comparison]) -> Bound:
    """A row for a model that amplifies rounding, as networks of random weights do.

    rounded: how far the outputs of the reference itself move when it rounds the operands of its products. What computes
    in that precision may be twice as far off (two such runs differ as much from each other as from the reference), and
    always as far as the row says.
    """
    verdicts = [v for v in rounded if math.isfinite(v.max_error)]
    largest = max((v.max_error for v in verdicts), default=0.0)
    rms = max((v.rms_error for v in verdicts), default=0.0)
    return Bound(max(row.max, 2 * largest), max(row.rms, 2 * rms))


def rounds_to_steps(operators: Iterable[str]) -> bool:
    """True if a model with these ONNX operators quantises: then it has the row of quantised models."""
    return any("Quantize" in o or o.startswith("QLinear") or o.endswith("Integer") for o in operators)


def compare_outputs(
    reference: Mapping[str, Value], got: Mapping[str, Value], bound: Bound | StepBound
) -> dict[str, Comparison]:
    """Compare the outputs of a model by name; a name that only one side has is a disagreement."""
    result = {name: _compare_value(value, got[name], bound) for name, value in reference.items() if name in got}
    for name in [*reference, *got]:
        if name not in result:
            result[name] = _differs(f"only the {'reference' if name in reference else 'result'} has this output")
    return result


def _compare_value(reference: Value, got: Value, bound: Bound | StepBound) -> Comparison:
    if reference is None or got is None:
        return _equal() if reference is got else _differs("one side is an empty optional, the other is not")
    if isinstance(reference, np.ndarray) and isinstance(got, np.ndarray):
        return compare(reference, got, bound)
    if isinstance(reference, np.ndarray) or isinstance(got, np.ndarray):
        return _differs("one side is a tensor, the other a sequence")
    if len(reference) != len(got):
        return _differs(f"a sequence of length {len(reference)} was expected, got {len(got)}")
    pairs = [_compare_value(one, other, bound) for one, other in zip(reference, got, strict=True)]
    for place, pair in enumerate(pairs):
        if not pair:
            return Comparison(False, pair.max_error, pair.rms_error, pair.worst, f"element {place}: {pair.reason}")
    return max(pairs, key=lambda pair: pair.max_error, default=_equal())


def compare(reference: npt.ArrayLike, got: npt.ArrayLike, bound: Bound | StepBound) -> Comparison:
    """Compare `got` with `reference` element by element.

    Shapes and dtypes must be equal, but a reference for floats may be float64 (complex128 for complex numbers).
    """
    expected, result = np.asarray(reference), np.asarray(got)
    if expected.shape != result.shape:
        return _differs(f"shape {expected.shape} was expected, got {result.shape}")
    if not _comparable(expected.dtype, result.dtype):
        return _differs(f"dtype {expected.dtype} was expected, got {result.dtype}")
    if result.size == 0:
        return _equal()
    if isinstance(bound, StepBound) and result.dtype.kind in "iu":
        return _compare_steps(expected.astype(np.float64), result.astype(np.float64), 1.0, bound)
    if not _is_arithmetic(result.dtype):
        return _compare_exactly(expected, result)
    largest = _largest(result.dtype)
    wide: npt.DTypeLike = np.complex128 if result.dtype.kind == "c" else np.float64
    expected, result = expected.astype(wide), result.astype(wide)
    misplaced = _misplaced(expected, result)
    if misplaced is not None:
        return misplaced
    finite = np.isfinite(expected)
    if not finite.all():
        expected, result = np.where(finite, expected, 0), np.where(finite, result, 0)
    if isinstance(bound, StepBound):
        step = (max(float(expected.real.max()), 0.0) - min(float(expected.real.min()), 0.0)) / 255
        return _compare_steps(expected, result, step, bound)
    # A mask of the lowest finite number is no measure of the rest: it would let every error pass.
    ordinary = finite & (np.abs(expected) <= largest / 4)
    scale = np.maximum(np.abs(expected), _rms(expected[ordinary]))
    return _compare_scaled(np.abs(expected - result), scale, bound)


def compare_indices(
    reference: npt.ArrayLike, got: npt.ArrayLike, scores: npt.ArrayLike, axis: int, bound: Bound
) -> Comparison:
    """Compare indices along `axis` of `scores` (arg-max, arg-min, top-k), setting ties within `bound.max` aside.

    `reference` and `got` have the shape of `scores` but for `axis`, where they may have any length (1 for arg-max).
    Where they differ, the scores they point at must be equal within the bound.
    """
    expected, result, ranked = np.asarray(reference), np.asarray(got), np.asarray(scores).astype(np.float64)
    if expected.shape != result.shape or expected.dtype != result.dtype:
        return _differs(f"{expected.dtype}{expected.shape} was expected, got {result.dtype}{result.shape}")
    length = ranked.shape[axis]
    if result.size and (result.min() < -length or result.max() >= length):
        return _differs(f"an index lies outside the axis of length {length}")
    gap = np.abs(np.take_along_axis(ranked, expected, axis) - np.take_along_axis(ranked, result, axis))
    return _ties(np.where(expected == result, 0.0, gap), ranked, bound)


def compare_selection(reference: npt.ArrayLike, got: npt.ArrayLike, scores: npt.ArrayLike, bound: Bound) -> Comparison:
    """Compare two selections of elements of `scores`, in any order, setting ties within `bound.max` aside (NMS).

    `reference` and `got` are int arrays [n, rank of scores], a row being the index of a selected element. Rows that
    only one side has are paired by score; each pair must be equal within the bound.
    """
    ranked = np.asarray(scores).astype(np.float64)
    expected, result = ({tuple(row) for row in np.asarray(side).tolist()} for side in (reference, got))
    if len(expected) != len(result):
        return _differs(f"{len(expected)} rows were expected, got {len(result)}")
    if any(not -extent <= place < extent for row in result for place, extent in zip(row, ranked.shape, strict=True)):
        return _differs(f"a row lies outside the scores of shape {ranked.shape}")
    ours = sorted(float(ranked[row]) for row in result - expected)
    theirs = sorted(float(ranked[row]) for row in expected - result)
    return _ties(np.abs(np.asarray(ours) - np.asarray(theirs)), ranked, bound)


def _ties(gap: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], bound: Bound) -> Comparison:
    if gap.size == 0 or not gap.any():
        return _equal()
    scale = _rms(scores[np.isfinite(scores)])
    return _compare_scaled(gap, np.full(gap.shape, scale), Bound(bound.max, bound.max))


def _comparable(expected: np.dtype[np.generic], got: np.dtype[np.generic]) -> bool:
    if expected == got:
        return True
    wide = np.complex128 if got.kind == "c" else np.float64
    return expected == wide and _is_arithmetic(got)


def _is_arithmetic(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "c" or dtype in _KERNEL_ROWS


def _largest(dtype: np.dtype[np.generic]) -> float:
    if dtype == _BFLOAT16:
        return float(np.finfo(np.float32).max)
    return float(np.finfo(np.empty(0, dtype).real.dtype).max)


def _rms(values: Array) -> float:
    """The root mean square, by way of the largest magnitude: squares of large numbers would overflow."""
    magnitude = np.abs(values).astype(np.float64)
    largest = float(magnitude.max(initial=0.0))
    if largest in (0.0, math.inf):
        return largest
    return largest * math.sqrt(float(np.mean(np.square(magnitude / largest))))


def _misplaced(expected: Array, got: Array) -> Comparison | None:
    """A disagreement about where NaN and the infinities stand, or None."""
    for what, wrong in (
        ("NaN", np.isnan(expected) != np.isnan(got)),
        ("infinity", (np.isinf(expected) | np.isinf(got)) & (expected != got) & ~np.isnan(expected)),
    ):
        if wrong.any():
            where = _index(int(np.argmax(wrong)), wrong.shape)
            detail = f"{what} out of place in {int(wrong.sum())} elements: expected {expected[where]}, got {got[where]}"
            return _differs(detail, where)
    return None


def _compare_exactly(expected: Array, got: Array) -> Comparison:
    wrong = np.asarray(expected != got)
    if expected.dtype.kind in "fV":  # the small floats of ml_dtypes; NaN agrees with NaN
        wrong &= ~(np.asarray(expected != expected) & np.asarray(got != got))
    if not wrong.any():
        return _equal()
    where = _index(int(np.argmax(wrong)), wrong.shape)
    return _differs(
        f"{int(wrong.sum())} of {wrong.size} elements differ: expected {expected[where]!r}, got {got[where]!r}", where
    )


def _compare_scaled(difference: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], bound: Bound) -> Comparison:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = np.where(difference == 0.0, 0.0, difference / scale)
    largest, rms = float(error.max()), _rms(error)
    where = _index(int(np.argmax(error)), error.shape)
    if largest > bound.max:
        return Comparison(False, largest, rms, where, f"largest error {largest:.3g} exceeds {bound.max:.3g}")
    if rms > bound.rms:
        return Comparison(False, largest, rms, where, f"RMS of the error {rms:.3g} exceeds {bound.rms:.3g}")
    return Comparison(True, largest, rms, where, "")


def _compare_steps(expected: Array, got: Array, step: float, bound: StepBound) -> Comparison:
    difference = np.abs(expected - got).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = np.where(difference == 0.0, 0.0, difference / step)
    largest, rms = float(steps.max()), _rms(steps)
    where = _index(int(np.argmax(steps)), steps.shape)
    # A step computed from the range is itself rounded, hence the hair above one.
    share = float(np.mean(steps > 1 + 1e-6))
    if largest > bound.max_steps:
        return Comparison(False, largest, rms, where, f"largest error {largest:.3g} steps exceeds {bound.max_steps}")
    if share > bound.fraction:
        reason = f"{share:.2%} of the elements are more than a step off, {bound.fraction:.2%} may be"
        return Comparison(False, largest, rms, where, reason)
    return Comparison(True, largest, rms, where, "")


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(place) for place in np.unravel_index(flat, shape))


def _equal() -> Comparison:
    return Comparison(True, 0.0, 0.0, None, "")


def _differs(reason: str, where: tuple[int, ...] | None = None) -> Comparison:
    return Comparison(False, math.inf, math.inf, where, reason)
