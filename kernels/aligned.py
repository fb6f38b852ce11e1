"""Arrays that begin at a cache line: a vector of 64 bytes that lies across two lines is read in two steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ALIGNMENT", "aligned_array", "aligned_bytes", "aligned_joined", "aligned_zeros", "is_aligned"]

ALIGNMENT = 64
"""Bytes: a cache line, and the longest vector."""


def aligned_bytes(nbytes: int) -> npt.NDArray[np.uint8]:
    """Memory that begins at a multiple of ALIGNMENT: uint8 [nbytes], not initialised."""
    return _from_line(np.empty(nbytes + ALIGNMENT, np.uint8), nbytes)


def aligned_zeros(shape: Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
    """Zeros at a multiple of ALIGNMENT, C-contiguous: no memory is touched until it is written."""
    kind = np.dtype(dtype)
    nbytes = math.prod(shape) * kind.itemsize
    return _from_line(np.zeros(nbytes + ALIGNMENT, np.uint8), nbytes).view(kind).reshape(shape)


def aligned_array(array: np.ndarray) -> np.ndarray:
    """The array if it is C-contiguous and at a multiple of ALIGNMENT, or a copy that is; strings may lie anywhere."""
    if array.flags.c_contiguous and (is_aligned(array) or not array.size or array.dtype.hasobject):
        return array
    if array.dtype.hasobject:
        return array.copy(order="C")
    copy = aligned_zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


def aligned_joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one axis and of one type, one after the other; a single one as it is. Raises ValueError for none."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        raise ValueError("there are no arrays to join")
    return np.concatenate(parts, out=aligned_zeros((sum(part.size for part in parts),), parts[0].dtype))


def is_aligned(array: np.ndarray) -> bool:
    """Whether an array begins at a multiple of ALIGNMENT."""
    return int(array.ctypes.data) % ALIGNMENT == 0


def _from_line(raw: npt.NDArray[np.uint8], nbytes: int) -> npt.NDArray[np.uint8]:
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
