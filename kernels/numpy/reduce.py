"""Reductions along axes.

Each takes `x`, `axes` (the axes to reduce; None: all; (): none, which leaves only the element-wise part of the op) and
`keepdims` (keep reduced axes with extent 1). The result has the type of x. Integers wrap as in C; float16 and bfloat16
are computed in float32 and rounded once. Over no elements the result is the neutral element. `<op>_dynamic` takes the
axes as an integer tensor or None; with `noop_with_empty_axes` no axes mean () instead of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened
from fusible.kernels.numpy.movement import integers, normalise_axes

Array = np.ndarray[Any, Any]
Axes = Sequence[int] | None

_quiet = np.errstate(all="ignore")


def _normal(axes: Axes, rank: int) -> tuple[int, ...]:
    return tuple(range(rank)) if axes is None else normalise_axes(axes, rank)


def _total(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """The sum, in the type of x (NumPy adds small integers in a wider type unless told)."""
    return np.asarray(np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype))


@_quiet
def reduce_sum(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the sum."""
    return delivered(_total(widened(x), _normal(axes, x.ndim), keepdims), x.dtype)


@_quiet
def reduce_mean(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the sum / the number of elements; integers add in 64 bits and truncate. Over no elements NaN, or 0."""
    normal = _normal(axes, x.ndim)
    count = _count(x, normal)
    if x.dtype.kind in "iu":
        wide = x.astype(np.uint64 if x.dtype.kind == "u" else np.int64)
        total = _total(wide, normal, keepdims)
        quotient = np.sign(total) * (np.abs(total) // np.asarray(max(count, 1), total.dtype))
        return delivered(quotient, x.dtype)
    total = _total(widened(x), normal, keepdims)
    return delivered(total / np.asarray(count, total.dtype), x.dtype)


def _count(x: Array, axes: tuple[int, ...]) -> int:
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


@_quiet
def reduce_prod(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the product."""
    wide = widened(x)
    product = np.prod(wide, axis=_normal(axes, x.ndim), keepdims=keepdims, dtype=wide.dtype)
    return delivered(product, x.dtype)


@_quiet
def reduce_max(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the maximum, bool too (True > False); over no elements the lowest value of the type. NaN wins."""
    return _extreme(np.maximum, x, _normal(axes, x.ndim), keepdims, lowest(x.dtype))


@_quiet
def reduce_min(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the minimum, bool too (False < True); over no elements the highest value of the type. NaN wins."""
    return _extreme(np.minimum, x, _normal(axes, x.ndim), keepdims, highest(x.dtype))


def _extreme(function: np.ufunc, x: Array, axes: tuple[int, ...], keepdims: bool, neutral: Any) -> Array:
    reduced = function.reduce(widened(x), axis=axes, keepdims=keepdims, initial=neutral)
    return delivered(reduced, x.dtype)


def lowest(dtype: np.dtype[Any]) -> Any:
    """The neutral element of max: -infinity, the least integer, or False."""
    if dtype.kind == "b":
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def highest(dtype: np.dtype[Any]) -> Any:
    """The neutral element of min: infinity, the greatest integer, or True."""
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


@_quiet
def reduce_l1(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the sum of |x|."""
    return delivered(_total(np.abs(widened(x)), _normal(axes, x.ndim), keepdims), x.dtype)


@_quiet
def reduce_l2(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the root of the sum of x^2; integers are computed in float64 and truncated."""
    wide = _as_float(x)
    return delivered(np.sqrt(_total(wide * wide, _normal(axes, x.ndim), keepdims)), x.dtype)


@_quiet
def reduce_log_sum(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = ln(the sum); integers are computed in float64 and truncated."""
    return delivered(np.log(_total(_as_float(x), _normal(axes, x.ndim), keepdims)), x.dtype)


@_quiet
def reduce_log_sum_exp(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = ln(the sum of e^x), with the maximum taken out first; integers are computed in float64 and truncated."""
    wide, normal = _as_float(x), _normal(axes, x.ndim)
    top = np.max(wide, axis=normal, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(top), top, np.zeros((), wide.dtype))
    total = _total(np.exp(wide - shift), normal, True)
    result = np.log(total) + shift
    if not keepdims:
        result = result.reshape([d for axis, d in enumerate(result.shape) if axis not in normal])
    return delivered(result, x.dtype)


@_quiet
def reduce_sum_square(x: Array, /, *, axes: Axes = None, keepdims: bool = True) -> Array:
    """y = the sum of x^2."""
    wide = widened(x)
    return delivered(_total(wide * wide, _normal(axes, x.ndim), keepdims), x.dtype)


def _as_float(x: Array) -> Array:
    return x.astype(np.float64) if x.dtype.kind in "iu" else widened(x)


def _run_time_axes(axes: Array | None, noop_with_empty_axes: bool) -> Axes:
    if axes is not None and axes.size:
        return integers(axes)
    return () if noop_with_empty_axes else None


def reduce_dynamic(
    x: Array, axes: Array | None = None, /, *, reduction: str, keepdims: bool = True,
    noop_with_empty_axes: bool = False,
) -> Array:  # fmt: skip
    """Any of the reductions, by name ("reduce_sum"...), with axes known only now."""
    kernel = REDUCTIONS.get(reduction)
    if kernel is None:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    return kernel(x, axes=_run_time_axes(axes, noop_with_empty_axes), keepdims=keepdims)


REDUCTIONS = {
    "reduce_sum": reduce_sum,
    "reduce_mean": reduce_mean,
    "reduce_prod": reduce_prod,
    "reduce_max": reduce_max,
    "reduce_min": reduce_min,
    "reduce_l1": reduce_l1,
    "reduce_l2": reduce_l2,
    "reduce_log_sum": reduce_log_sum,
    "reduce_log_sum_exp": reduce_log_sum_exp,
    "reduce_sum_square": reduce_sum_square,
}
