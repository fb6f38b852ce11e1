"""Gather and scatter in all their forms, OneHot, Compress, TensorScatter.

Indices are int32 or int64; a negative one counts from the end. One outside [-size, size) raises ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fusible.kernels.numpy.movement import normalise_axis

Array = np.ndarray[Any, Any]

_REDUCTIONS: dict[str, Callable[[Array, Array, Array], None]] = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def wrap_indices(indices: Array, size: int, axis: int) -> Array:
    """Indices as int64 in [0, size). Raises ValueError naming the first that lies outside [-size, size)."""
    indices = indices.astype(np.int64, copy=False)
    if indices.size == 0:
        return indices
    low, high = int(indices.min()), int(indices.max())
    if low < -size or high >= size:
        wrong = low if low < -size else high
        raise ValueError(f"index {wrong} is out of range for axis {axis} of size {size}")
    return np.where(indices < 0, indices + size, indices) if low < 0 else indices


def gather(x: Array, indices: Array, /, *, axis: int = 0) -> Array:
    """Y[i..., j..., k...] = x[i..., indices[j...], k...] with `indices` in place of `axis`."""
    axis = normalise_axis(axis, x.ndim)
    return np.asarray(np.take(x, wrap_indices(indices, x.shape[axis], axis), axis=axis))


def gather_elements(x: Array, indices: Array, /, *, axis: int = 0) -> Array:
    """Y[i, j, k] = x[i, indices[i, j, k], k] (for axis 1); shaped like `indices`, which fits x on the other axes."""
    return np.asarray(x.reshape(-1).take(_element_positions(x.shape, indices, axis)))


def _element_positions(shape: tuple[int, ...], indices: Array, axis: int) -> Array:
    """The flat positions in a tensor of `shape` that `indices` along `axis` name."""
    axis = normalise_axis(axis, len(shape))
    others = [(n, m) for d, (n, m) in enumerate(zip(indices.shape, shape, strict=False)) if d != axis]
    if indices.ndim != len(shape) or any(n > m for n, m in others):
        raise ValueError(f"indices of shape {indices.shape} must have the rank of {shape} and fit it off axis {axis}")
    strides = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
    positions = wrap_indices(indices, shape[axis], axis) * strides[axis]
    for d, stride in enumerate(strides):
        if d != axis:
            steps = np.arange(indices.shape[d]) * stride
            positions = positions + steps.reshape([-1 if e == d else 1 for e in range(len(shape))])
    return positions


def gather_nd(x: Array, indices: Array, /, *, batch_dims: int = 0) -> Array:
    """Y[b..., j...] = x[b..., indices[b..., j..., 0], indices[b..., j..., 1], ...].

    The last axis of `indices` [b..., j..., n] holds n <= rank - batch_dims coordinates; the leading `batch_dims`
    axes of x and indices agree.
    """
    depth = _depth(x, indices, batch_dims)
    if x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise ValueError(f"the first {batch_dims} axes of {x.shape} and {indices.shape} must agree")
    rows = _row_positions(x.shape[batch_dims : batch_dims + depth], indices, batch_dims)
    if batch_dims:
        batches = np.arange(math.prod(x.shape[:batch_dims])).reshape(x.shape[:batch_dims])
        batches = batches.reshape(batches.shape + (1,) * (rows.ndim - batch_dims))
        rows = rows + batches * math.prod(x.shape[batch_dims : batch_dims + depth])
    flat = x.reshape((math.prod(x.shape[: batch_dims + depth]), *x.shape[batch_dims + depth :]))
    return np.asarray(flat.take(rows, axis=0))


def _depth(x: Array, indices: Array, batch_dims: int) -> int:
    """The number of coordinates of each index vector. Raises ValueError where it does not fit x."""
    if indices.ndim == 0 or not 0 <= batch_dims < min(x.ndim, indices.ndim):
        raise ValueError(f"index vectors need rank > batch_dims >= 0, got {x.shape}, {indices.shape}, {batch_dims}")
    if indices.shape[-1] > x.ndim - batch_dims:
        raise ValueError(f"index vectors of length {indices.shape[-1]} are too long for {x.shape}")
    return int(indices.shape[-1])


def _row_positions(shape: tuple[int, ...], indices: Array, first_axis: int = 0) -> Array:
    """Row-major positions in a tensor of `shape` of the index vectors along the last axis of `indices`."""
    rows = np.zeros(indices.shape[:-1], np.int64)
    for d, size in enumerate(shape):
        rows = rows * size + wrap_indices(indices[..., d], size, first_axis + d)
    return rows


def scatter_elements(x: Array, indices: Array, updates: Array, /, *, axis: int = 0, reduction: str = "none") -> Array:
    """A copy of x with x[i, indices[i, j, k], k] (for axis 1) set to, or combined with, updates[i, j, k].

    reduction: none (the last of several updates wins), add, mul, max, min (NaN wins). updates: shaped like indices.
    """
    if updates.shape != indices.shape:
        raise ValueError(f"updates and indices must have one shape, got {updates.shape} and {indices.shape}")
    positions = _element_positions(x.shape, indices, axis)
    return _scatter(x, positions.reshape(-1), updates.reshape(-1), reduction)


def scatter_nd(x: Array, indices: Array, updates: Array, /, *, reduction: str = "none") -> Array:
    """A copy of x with x[indices[j..., 0], indices[j..., 1], ...] set to, or combined with, updates[j...].

    indices: [j..., n], n <= rank; updates: [j..., x.shape[n:]...]. reduction: as in `scatter_elements`.
    """
    depth = _depth(x, indices, 0)
    expected = indices.shape[:-1] + x.shape[depth:]
    if updates.shape != expected:
        raise ValueError(f"updates must have shape {expected}, got {updates.shape}")
    rows = _row_positions(x.shape[:depth], indices)
    inner = math.prod(x.shape[depth:])
    positions = rows.reshape(-1, 1) * inner + np.arange(inner)
    return _scatter(x, positions.reshape(-1), updates.reshape(-1), reduction)


def _scatter(x: Array, positions: Array, updates: Array, reduction: str) -> Array:
    """A copy of x with flat `positions` updated in order."""
    if updates.dtype != x.dtype:
        raise ValueError(f"updates must have type {x.dtype}, got {updates.dtype}")
    result = np.array(x, order="C", copy=True)
    flat = result.reshape(-1)
    if reduction == "none":
        flat[positions] = updates
        return result
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be none, add, mul, max or min, got {reduction!r}")
    if x.dtype == object:
        raise ValueError("strings are scattered with reduction none only")
    with np.errstate(all="ignore"):
        _REDUCTIONS[reduction](flat, positions, updates)
    return result


def one_hot(indices: Array, values: Array, /, *, depth: int, axis: int = -1) -> Array:
    """A new axis of size `depth` at `axis`: values[1] at the index, values[0] elsewhere.

    indices: any real type (truncated); outside [-depth, depth) nothing is hot. values: [off, on].
    """
    if values.shape != (2,):
        raise ValueError(f"values must be [off, on], got shape {values.shape}")
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}")
    axis = normalise_axis(axis, indices.ndim + 1)
    lead, tail = math.prod(indices.shape[:axis]), math.prod(indices.shape[axis:])
    hot = _integral(indices).reshape(lead, tail)
    valid = (hot >= -depth) & (hot < depth)
    row, column = np.nonzero(valid)
    chosen = hot[valid]
    chosen = np.where(chosen < 0, chosen + depth, chosen)
    result = np.empty((lead, depth, tail), values.dtype)
    result[...] = values[0]
    result[row, chosen, column] = values[1]
    return result.reshape((*indices.shape[:axis], depth, *indices.shape[axis:]))


def _integral(indices: Array) -> Array:
    """Indices of any real type as int64; what int64 cannot hold becomes its least value (never in range)."""
    if indices.dtype.kind in "ib":
        return indices.astype(np.int64)
    if indices.dtype.kind == "u":
        return np.where(indices > np.iinfo(np.int64).max, np.iinfo(np.int64).min, indices.astype(np.int64))
    wide = indices.astype(np.float64)
    fits = np.abs(wide) < 2.0**62
    return np.where(fits, np.where(fits, wide, 0).astype(np.int64), np.iinfo(np.int64).min)


def one_hot_dynamic(indices: Array, depth: Array, values: Array, /, *, axis: int = -1) -> Array:
    """OneHot with a run-time depth (a scalar or one element of any real type)."""
    return one_hot(indices, values, depth=int(depth.reshape(())), axis=axis)


def compress(x: Array, condition: Array, /, *, axis: int | None = None) -> Array:
    """The slices of x along `axis` (None: the elements of x) where the bool vector `condition` holds.

    A shorter condition drops the rest. Raises ValueError if one past the end is selected.
    """
    if condition.ndim != 1:
        raise ValueError(f"condition must have rank 1, got shape {condition.shape}")
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = normalise_axis(axis, x.ndim)
    return np.asarray(x.take(wrap_indices(np.flatnonzero(condition), x.shape[axis], axis), axis=axis))


def tensor_scatter(
    past_cache: Array,
    update: Array,
    write_indices: Array | None = None,
    /,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Array:
    """A copy of the cache whose steps write_indices[b] + 0, 1, ... along `axis` are those of `update`.

    past_cache: [batch, ..., capacity, ...]; update: the same with fewer steps; write_indices: int64 [batch], default
    0. mode circular takes the step modulo the capacity; linear raises ValueError where it leaves the cache.
    """
    if mode not in ("linear", "circular"):
        raise ValueError(f"tensor_scatter mode must be linear or circular, got {mode!r}")
    axis = normalise_axis(axis, past_cache.ndim)
    capacity, steps, batch = past_cache.shape[axis], update.shape[axis], past_cache.shape[0]
    if axis == 0 or steps > capacity or _without(update.shape, axis) != _without(past_cache.shape, axis):
        raise ValueError(f"update {update.shape} must fit the cache {past_cache.shape} along axis {axis} >= 1")
    starts = np.zeros(batch, np.int64) if write_indices is None else write_indices
    if starts.shape != (batch,):
        raise ValueError(f"write_indices must have shape ({batch},), got {starts.shape}")
    targets = starts[:, None] + np.arange(steps)
    if mode == "circular" and capacity:
        targets = targets % capacity
    elif targets.size and (targets.min() < 0 or targets.max() >= capacity):
        raise ValueError(f"write_indices put {steps} steps outside the cache of {capacity}")
    result = np.array(past_cache, order="C", copy=True)
    # Batch and time first, so that one indexed assignment writes whole rows.
    np.moveaxis(result, axis, 1)[np.arange(batch)[:, None], targets] = np.moveaxis(update, axis, 1)
    return result


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
