"""Ordering and selection: TopK, NonZero, Unique."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.movement import normalise_axis

Array = np.ndarray[Any, Any]


def top_k(x: Array, /, *, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Array, Array]:
    """The k largest (or smallest) elements along an axis and their int64 indices, best first.

    Of equal elements the one with the lower index comes first; NaN counts as the greatest. `sorted=False` leaves the
    order open; it is sorted here as well. Raises ValueError unless 0 <= k <= size.
    """
    del sorted
    axis = normalise_axis(axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"k must lie in [0, {x.shape[axis]}], the size of axis {axis}, got {k}")
    moved = np.moveaxis(x, axis, -1)
    rows = np.ascontiguousarray(moved).reshape(-1, x.shape[axis]) if x.size else np.empty((0, x.shape[axis]), x.dtype)
    indices = _best(_sortable(rows), k, largest)
    values = np.take_along_axis(rows, indices, axis=1)
    shape = (*moved.shape[:-1], k)
    return np.moveaxis(values.reshape(shape), -1, axis), np.moveaxis(indices.reshape(shape), -1, axis)


def top_k_dynamic(
    x: Array,
    k: Array,
    /,
    *,
    axis: int = -1,
    largest: bool = True,
    sorted: bool = True,
) -> tuple[Array, Array]:
    """TopK with a run-time k (one int64)."""
    return top_k(x, k=int(k.reshape(())), axis=axis, largest=largest, sorted=sorted)


def _sortable(x: Array) -> Array:
    """The small floats as float32, which sorts fast and in the same order."""
    return x.astype(np.float32) if x.dtype.itemsize <= 2 and x.dtype.kind not in "iub" else x


def _best(rows: Array, k: int, largest: bool) -> Array:
    """Indices [n, k] of the k best of each row, in order."""
    size = rows.shape[1]
    if 0 < 4 * k < size and not (rows.dtype.kind == "f" and np.isnan(rows).any()):
        candidates = _best_unordered(rows, k, largest)
        order = _stable_order(np.take_along_axis(rows, candidates, axis=1), largest)
        return np.take_along_axis(candidates, order, axis=1)
    return np.ascontiguousarray(_stable_order(rows, largest)[:, :k])


def _best_unordered(rows: Array, k: int, largest: bool) -> Array:
    """Indices [n, k], ascending, of the k best of each row: all beyond the k-th value, then the first equal to it."""
    place = rows.shape[1] - k if largest else k - 1
    threshold = np.partition(rows, place, axis=1)[:, place : place + 1]
    beyond = rows > threshold if largest else rows < threshold
    equal = rows == threshold
    room = k - beyond.sum(axis=1, keepdims=True)
    chosen = beyond | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(chosen)[1].reshape(-1, k)


def _stable_order(rows: Array, largest: bool) -> Array:
    if not largest:
        return np.argsort(rows, axis=1, kind="stable")
    # Reversed twice: descending, and equal elements still in the order of their indices.
    return np.asarray(rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1])


def non_zero(x: Array, /) -> Array:
    """The indices of the elements that are not 0 (or False, or empty), row-major, as int64 [rank, count]."""
    if x.ndim == 0:
        return np.empty((0, int(bool(x))), np.int64)
    return np.array(np.nonzero(x), dtype=np.int64)


def unique(
    x: Array,
    /,
    *,
    axis: int | None = None,
    sorted: bool = True,
) -> tuple[Array, Array, Array, Array]:
    """The distinct elements (axis None: of the flattened tensor), or distinct slices along an axis.

    Returns (values, index of the first occurrence, inverse indices, counts), the last three int64 vectors; ascending
    (slices: lexicographic), or by first occurrence if not `sorted`. NaN equals NaN here and comes last.
    """
    flat = x.reshape(-1) if axis is None else x
    axis = 0 if axis is None else normalise_axis(axis, x.ndim)
    size = flat.shape[axis]
    keys = _order_keys(np.moveaxis(flat, axis, 0)).reshape(size, -1 if size else 0)
    order = np.lexsort(keys.T[::-1]) if keys.shape[1] else np.arange(size)
    ordered = keys[order]
    starts = np.ones(size, bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group_of_sorted = np.cumsum(starts) - 1
    # lexsort is stable: the first of a group is its first occurrence.
    first = order[starts]
    inverse = np.empty(size, np.int64)
    inverse[order] = group_of_sorted
    counts = np.bincount(group_of_sorted, minlength=first.size).astype(np.int64)
    if not sorted:
        by_occurrence = np.argsort(first, kind="stable")
        place = np.empty_like(by_occurrence)
        place[by_occurrence] = np.arange(first.size)
        first, counts, inverse = first[by_occurrence], counts[by_occurrence], place[inverse]
    values = flat.take(first, axis=axis)
    return values, first.astype(np.int64), inverse.astype(np.int64), counts


def _order_keys(x: Array) -> Array:
    """Keys of a type that lexsort takes and that compares like x: ranks for strings, complex and floats with NaN."""
    keys = _sortable(x)
    if keys.dtype.kind in "Oc" or (keys.dtype.kind == "f" and np.isnan(keys).any()):
        return np.unique(keys, return_inverse=True)[1].reshape(x.shape)
    return keys
