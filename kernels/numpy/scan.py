"""Along one axis: running sums and products, and the positions of extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened
from fusible.kernels.numpy.movement import normalise_axis

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")


def cum_sum(x: Array, /, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Array:
    """y[i] = x[0] + ... + x[i] along the axis; exclusive: without x[i]; reverse: from the end.

    Any numeric type, which is the result's; integers wrap, halves are added in float32.
    """
    return _scan(np.add, x, axis, exclusive, reverse)


def cum_prod(x: Array, /, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Array:
    """y[i] = x[0] * ... * x[i] along the axis; exclusive: without x[i]; reverse: from the end. Types as in cum_sum."""
    return _scan(np.multiply, x, axis, exclusive, reverse)


def cum_sum_dynamic(x: Array, axis: Array, /, *, exclusive: bool = False, reverse: bool = False) -> Array:
    """cum_sum with the axis as an integer tensor of one element."""
    return cum_sum(x, axis=_one(axis), exclusive=exclusive, reverse=reverse)


def cum_prod_dynamic(x: Array, axis: Array, /, *, exclusive: bool = False, reverse: bool = False) -> Array:
    """cum_prod with the axis as an integer tensor of one element."""
    return cum_prod(x, axis=_one(axis), exclusive=exclusive, reverse=reverse)


def _one(axis: Array) -> int:
    if axis.size != 1:
        raise ValueError(f"the axis must be one number, got shape {axis.shape}")
    return int(axis.reshape(()))


@_quiet
def _scan(function: np.ufunc, x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    axis = normalise_axis(axis, x.ndim)
    wide = np.moveaxis(widened(x), axis, -1)
    if reverse:
        wide = wide[..., ::-1]
    running = np.empty(wide.shape, wide.dtype)
    if exclusive:
        running[..., :1] = 0 if function is np.add else 1
        function.accumulate(wide[..., :-1], axis=-1, out=running[..., 1:])
    else:
        function.accumulate(wide, axis=-1, out=running)
    if reverse:
        running = running[..., ::-1]
    return delivered(np.ascontiguousarray(np.moveaxis(running, -1, axis)), x.dtype)


def arg_max(x: Array, /, *, axis: int = 0, keepdims: bool = True, select_last_index: bool = False) -> Array:
    """y (int64) = the position of the maximum along the axis, of the first or the last one among equals.

    Any real type; NaN counts as the maximum. Raises ValueError over an empty axis of a tensor that is not empty else.
    """
    return _position(np.argmax, x, axis, keepdims, select_last_index)


def arg_min(x: Array, /, *, axis: int = 0, keepdims: bool = True, select_last_index: bool = False) -> Array:
    """y (int64) = the position of the minimum along the axis; otherwise as arg_max, with NaN as the minimum."""
    return _position(np.argmin, x, axis, keepdims, select_last_index)


def _position(find: Any, x: Array, axis: int, keepdims: bool, last: bool) -> Array:
    axis = normalise_axis(axis, x.ndim)
    wide = widened(x)
    if last:
        found = x.shape[axis] - 1 - find(np.flip(wide, axis), axis=axis, keepdims=keepdims)
    else:
        found = find(wide, axis=axis, keepdims=keepdims)
    return np.asarray(found, np.int64)
