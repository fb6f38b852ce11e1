"""Arrays over planned memory: a value in its buffer, with its dimensions as they are stored, or as a block of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fusible.errors import ExecutionError
from fusible.runtime.dims import evaluate_dim
from fusible.runtime.plan import PlanValue
from fusible.runtime.signature import DTYPES

__all__ = ["arena_view", "shape_of", "stored"]


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
    array = _arranged(arena[start : start + nbytes].view(dtype), held, value.order)
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


def _arranged(flat: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...] | None) -> np.ndarray:
    """Memory as an array of `shape` whose dimensions are stored in an order."""
    if order is None:
        return flat.reshape(shape)
    return flat.reshape([shape[d] for d in order]).transpose(np.argsort(order))
