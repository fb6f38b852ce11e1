"""Arrays over planned memory: a value in its buffer, with its dimensions as they are stored, or as a block of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fusible.errors import ExecutionError
from fusible.runtime.dims import evaluate_dim
from fusible.runtime.plan import PlanValue
from fusible.runtime.signature import DTYPES

__all__ = ["Block", "arena_view", "arranged", "block_of", "ordered_strides", "row_strides", "shape_of", "stored"]


class Block(NamedTuple):
    """Where the elements of a value lie in its buffer: the first, in bytes, the shape, and the strides in bytes."""

    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    @property
    def extent(self) -> int:
        """The bytes from the first element to the end of the last one."""
        if not math.prod(self.shape):
            return 0
        return self.itemsize + sum((d - 1) * s for d, s in zip(self.shape, self.strides, strict=True))


def block_of(value: PlanValue, env: Mapping[str, int]) -> Block:
    """Where an arena value lies in its buffer. Raises ExecutionError for sizes that cannot be."""
    shape, itemsize = shape_of(value, env), DTYPES[value.dtype].itemsize
    held = shape if value.whole is None else tuple(evaluate_dim(d, env) for d in value.whole)
    strides = ordered_strides(held, itemsize, value.order)
    corner = (0,) * len(held) if value.corner is None else tuple(evaluate_dim(d, env) for d in value.corner)
    first = sum(c * s for c, s in zip(corner, strides, strict=True))
    return Block(first, shape, strides, itemsize)


def ordered_strides(shape: tuple[int, ...], itemsize: int, order: tuple[int, ...] | None) -> tuple[int, ...]:
    """The strides in bytes of an array whose dimensions are stored in an order, None for row-major."""
    if order is None:
        return row_strides(shape, itemsize)
    strides = [0] * len(shape)
    for dim, stride in zip(order, row_strides(tuple(shape[d] for d in order), itemsize), strict=True):
        strides[dim] = stride
    return tuple(strides)


@lru_cache(maxsize=4096)
def row_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides in bytes of a row-major array."""
    strides, step = [], itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def shape_of(value: PlanValue, env: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a value for some values of the symbols. Raises ExecutionError if a dimension is negative."""
    shape = tuple(evaluate_dim(d, env) for d in value.shape or ())
    if any(d < 0 for d in shape):
        raise ExecutionError(value.name or "a value", f"has a negative dimension for these inputs: {shape}")
    return shape


def arena_view(arena: np.ndarray, start: int, value: PlanValue, env: Mapping[str, int]) -> np.ndarray:
    """An arena value as an array of its logical shape; `start`: where its buffer begins. Raises ExecutionError."""
    shape, dtype = shape_of(value, env), DTYPES[value.dtype]
    held = shape if value.whole is None else tuple(evaluate_dim(d, env) for d in value.whole)
    nbytes = math.prod(held) * dtype.itemsize
    array = arranged(arena[start : start + nbytes].view(dtype), held, value.order)
    if value.corner is None:
        return array
    first = [evaluate_dim(d, env) for d in value.corner]
    return array[tuple(slice(f, f + size) for f, size in zip(first, shape, strict=True))]


def stored(array: Any, value: PlanValue | None) -> Any:
    """What a native kernel gets for a value: the array with its dimensions in the order in which they are stored.

    Of a block of something larger the kernel gets the address and knows the distances, so an array of one element does.
    """
    if value is None or not isinstance(array, np.ndarray):
        return array
    if value.corner is not None:
        return np.lib.stride_tricks.as_strided(array, (1,), (array.itemsize,))
    return array if value.order is None else array.transpose(value.order)


def arranged(flat: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...] | None) -> np.ndarray:
    """Memory as an array of `shape` whose dimensions are stored in an order."""
    if order is None:
        return flat.reshape(shape)
    return flat.reshape([shape[d] for d in order]).transpose(np.argsort(order))
