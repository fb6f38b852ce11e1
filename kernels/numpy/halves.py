"""The rounding of float16 and bfloat16: computed in float32, rounded once where an op delivers its result."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

HALVES = frozenset({np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)})


def widened(x: Array) -> Array:
    """x itself, or as float32 if it is a half."""
    return x.astype(np.float32) if x.dtype in HALVES else x


def working_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which an op on `dtype` computes."""
    return np.dtype(np.float32) if dtype in HALVES else dtype


def delivered(result: Any, dtype: np.dtype[Any], out: Array | None = None) -> Array:
    """`result` rounded to `dtype`, in `out` where that is given. It may be `out` already."""
    if out is not None and result is out:
        return out
    found: Array = np.asarray(result)
    with np.errstate(all="ignore"):
        if out is None:
            return found.astype(dtype, copy=False)
        np.copyto(out, found, casting="unsafe")
    return out


def workspace(out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Where to compute a result of `dtype`: `out` itself, or a new array of the working type if that does not fit."""
    working = working_type(dtype)
    if out is not None and out.dtype == working:
        return out
    return np.empty(shape, working)
