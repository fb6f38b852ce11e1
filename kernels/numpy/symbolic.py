"""Tensors made of dimensions, and the shape of a tensor."""

from __future__ import annotations

import numpy as np

__all__ = ["dims", "shape", "size"]


def dims(*, values: tuple[int, ...], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A tensor of `shape` whose elements, in C order, are `values`: dimensions known when a run starts."""
    return np.asarray(values, dtype=np.int64).reshape(shape).astype(dtype)


def shape(x: np.ndarray, /, *, start: int, end: int | None) -> np.ndarray:
    """The int64 shape of x, from axis `start` to `end` (exclusive, None: the last)."""
    return np.asarray(x.shape[start:end], dtype=np.int64).reshape(-1)


def size(x: np.ndarray, /) -> np.ndarray:
    """The number of elements of x, a 0-d int64."""
    return np.asarray(x.size, dtype=np.int64)
