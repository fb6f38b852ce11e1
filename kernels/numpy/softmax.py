"""Softmax, LogSoftmax and Hardmax along one axis, for float tensors.

The maximum is subtracted first, so nothing overflows; a row of only -infinity gives NaN. float16 and bfloat16 are
computed in float32 and rounded once. `out` is an array of the shape and type of x that receives the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened, workspace
from fusible.kernels.numpy.movement import normalise_axis

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")


@_quiet
def softmax(x: Array, /, *, axis: int = -1, out: Array | None = None) -> Array:
    """y = e^x / sum of e^x along the axis."""
    axis = normalise_axis(axis, x.ndim)
    buffer = workspace(out, x.shape, x.dtype)
    _shift(widened(x), axis, buffer)
    np.exp(buffer, out=buffer)
    buffer /= np.sum(buffer, axis=axis, keepdims=True)
    return delivered(buffer, x.dtype, out)


@_quiet
def log_softmax(x: Array, /, *, axis: int = -1, out: Array | None = None) -> Array:
    """y = x - ln(sum of e^x along the axis)."""
    axis = normalise_axis(axis, x.ndim)
    buffer = workspace(out, x.shape, x.dtype)
    _shift(widened(x), axis, buffer)
    buffer -= np.log(np.sum(np.exp(buffer), axis=axis, keepdims=True))
    return delivered(buffer, x.dtype, out)


def _shift(x: Array, axis: int, buffer: Array) -> None:
    """x less its maximum along the axis, into the buffer."""
    np.subtract(x, np.max(x, axis=axis, keepdims=True, initial=-np.inf), out=buffer)


@_quiet
def hardmax(x: Array, /, *, axis: int = -1, out: Array | None = None) -> Array:
    """y = 1 at the first maximum along the axis, else 0."""
    axis = normalise_axis(axis, x.ndim)
    result = np.zeros(x.shape, x.dtype) if out is None else out
    result[...] = 0
    if x.size:
        first = np.argmax(widened(x), axis=axis, keepdims=True)
        np.put_along_axis(result, first, np.ones((), x.dtype), axis)
    return result
