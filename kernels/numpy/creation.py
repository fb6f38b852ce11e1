"""Tensors made of positions: Range, EyeLike. (A tensor of equal elements is an `expand` of one.)"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def range_(start: Array, limit: Array, delta: Array, /) -> Array:
    """Y[i] = start + i * delta for i < max(ceil((limit - start) / delta), 0); three scalars of one type.

    float16 and bfloat16 are computed in float32 and rounded once. Raises ValueError if delta is 0 or the
    range is not finite.
    """
    dtype = start.dtype
    first, last, step = (v.reshape(()) for v in (start, limit, delta))
    count = range_count(first, last, step)
    if dtype.kind in "iu":
        with np.errstate(over="ignore"):
            return np.asarray(first + np.arange(count, dtype=np.int64).astype(dtype) * step)
    wide = np.float64 if dtype == np.float64 else np.float32
    steps = np.arange(count, dtype=np.int64).astype(wide)
    return np.asarray(first.astype(wide) + steps * step.astype(wide)).astype(dtype, copy=False)


def range_count(start: Array, limit: Array, delta: Array) -> int:
    """The number of elements of a range: exact for integers, in the accumulation type for floats."""
    if not delta:
        raise ValueError("the delta of a range must not be 0")
    if start.dtype.kind in "iu":
        return max(0, -((int(start) - int(limit)) // int(delta)))
    wide = np.float64 if start.dtype == np.float64 else np.float32
    if not all(np.isfinite(v.astype(wide)) for v in (start, limit, delta)):
        raise ValueError(f"a range needs finite bounds, got {start}, {limit}, {delta}")
    with np.errstate(over="ignore"):
        distance = (limit.astype(wide) - start.astype(wide)).astype(np.float64)
        count = np.ceil(distance / delta.astype(np.float64))
    if not np.isfinite(count):
        raise ValueError(f"the range from {start} to {limit} by {delta} is too long")
    return max(0, int(count))


def eye_like(x: Array, /, *, dtype: np.dtype[Any], k: int = 0) -> Array:
    """Ones on diagonal k of a matrix shaped like x, zeros elsewhere."""
    if x.ndim != 2:
        raise ValueError(f"eye_like takes a matrix, got shape {x.shape}")
    rows, columns = x.shape
    # A diagonal outside the matrix is empty, however far.
    return np.eye(rows, columns, k=min(max(k, -rows), columns), dtype=np.bool_).astype(dtype)
