"""Pools over sliding windows and over whole images.

Maxima and sums over a window are separable: first along the last axis, then along the one before, so that a 3x3 window
costs six passes rather than nine. Loops run over taps only. The outputs that a tap reaches are cut out by slices:
nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened
from fusible.kernels.numpy.windows import Windows, split_pads, windows

Array = np.ndarray[Any, Any]


def max_pool(
    X: Array, /, *, kernel_shape: Sequence[int], strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), ceil_mode: bool = False, auto_pad: str = "NOTSET", out: Array | None = None,
) -> Array:  # fmt: skip
    """The maximum of every window: X [N, C, *spatial] -> [N, C, *output]. NaN propagates."""
    _check_rank(X, len(kernel_shape))
    result = X
    for axis, w in _from_last(windows(X.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)):
        result = _axis_maximum(result, axis, w)
    return delivered(result.copy() if result is X and out is None else result, X.dtype, out)


def max_pool_with_indices(
    X: Array, /, *, kernel_shape: Sequence[int], strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), ceil_mode: bool = False, auto_pad: str = "NOTSET", storage_order: int = 0,
) -> tuple[Array, Array]:  # fmt: skip
    """`max_pool` and where each maximum stands: int64 numbers into the whole of X, the first of equals.

    They count in row-major order; with storage_order 1 the spatial part of the number is column-major.
    """
    _check_rank(X, len(kernel_shape))
    spatial = X.shape[2:]
    values, indices = X, np.broadcast_to(np.arange(prod(spatial)).reshape(spatial), X.shape)
    for axis, w in _from_last(windows(spatial, kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)):
        values, indices = _axis_arg_maximum(values, indices, axis, w)
    if storage_order:
        indices = np.ravel_multi_index(np.unravel_index(indices, spatial), spatial, order="F")
    images = np.arange(prod(X.shape[:2])).reshape(*X.shape[:2], *(1,) * len(spatial))
    return (values.copy() if values is X else values), indices + images * prod(spatial)


def average_pool(
    X: Array, /, *, kernel_shape: Sequence[int], strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), ceil_mode: bool = False, count_include_pad: bool = False, auto_pad: str = "NOTSET",
    out: Array | None = None,
) -> Array:  # fmt: skip
    """The mean of every window: X [N, C, *spatial] -> [N, C, *output].

    The padding does not count unless `count_include_pad`; what a window of `ceil_mode` reads beyond it never does.
    """
    _check_rank(X, len(kernel_shape))
    spatial = windows(X.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    with np.errstate(all="ignore"):
        total = _window_sum(widened(X), spatial)
        counts = reduce(np.multiply.outer, (axis_counts(w, count_include_pad) for w in spatial)).astype(total.dtype)
        total = np.divide(total, counts, out=None if total is X else total)
    return delivered(total, X.dtype, out)


def lp_pool(
    X: Array, /, *, kernel_shape: Sequence[int], p: int = 2, strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), ceil_mode: bool = False, auto_pad: str = "NOTSET", out: Array | None = None,
) -> Array:  # fmt: skip
    """(sum of |x|**p)**(1 / p) over every window: X [N, C, *spatial] -> [N, C, *output]."""
    _check_rank(X, len(kernel_shape))
    spatial = windows(X.shape[2:], kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    with np.errstate(all="ignore"):
        return delivered(_root(_window_sum(_power(widened(X), p), spatial), p), X.dtype, out)


def global_max_pool(X: Array, /, *, out: Array | None = None) -> Array:
    """The maximum of each channel: [N, C, *spatial] -> [N, C, 1, ...]. Raises ValueError if there are no pixels."""
    if prod(X.shape[2:]) == 0:
        raise ValueError(f"GlobalMaxPool needs at least one pixel, got shape {X.shape}")
    return delivered(X.max(axis=_spatial(X), keepdims=True), X.dtype, out)


def global_average_pool(X: Array, /, *, out: Array | None = None) -> Array:
    """The mean of each channel: [N, C, *spatial] -> [N, C, 1, ...]."""
    wide, axes = widened(X), _spatial(X)
    with np.errstate(all="ignore"):
        total = np.sum(wide, axis=axes, keepdims=True, dtype=wide.dtype)
        return delivered(total / wide.dtype.type(prod(X.shape[2:])), X.dtype, out)


def global_lp_pool(X: Array, /, *, p: int = 2, out: Array | None = None) -> Array:
    """(sum of |x|**p)**(1 / p) over each channel: [N, C, *spatial] -> [N, C, 1, ...]."""
    wide = widened(X)
    with np.errstate(all="ignore"):
        total = np.sum(_power(wide, p), axis=_spatial(X), keepdims=True, dtype=wide.dtype)
        return delivered(_root(total, p), X.dtype, out)


def max_unpool(
    X: Array, indices: Array, /, *, kernel_shape: Sequence[int], strides: Sequence[int] = (),
    pads: Sequence[int] = (), output_shape: Sequence[int] | None = None,
) -> Array:  # fmt: skip
    """Zeros, but X at the places that `max_pool_with_indices` gave: [N, C, *pooled] -> [N, C, *spatial].

    Each axis has (pooled - 1) * stride + kernel - pads elements; the indices number those. `output_shape`, the whole
    shape, may be larger: then the result stands at its beginning.
    """
    _check_rank(X, len(kernel_shape))
    inferred = unpooled_shape(X.shape, kernel_shape, strides, pads)
    shape = inferred if output_shape is None else tuple(output_shape)
    if indices.shape != X.shape:
        raise ValueError(f"MaxUnpool takes one index for each element, got shapes {X.shape} and {indices.shape}")
    if len(shape) != X.ndim:
        raise ValueError(f"output_shape must have rank {X.ndim}, got {shape}")
    if indices.size and not 0 <= indices.min() <= indices.max() < prod(inferred):
        raise ValueError(f"an index of MaxUnpool lies outside the unpooled shape {inferred}")
    Y = np.zeros(shape, X.dtype)
    if shape == inferred:
        Y.reshape(-1)[indices.reshape(-1)] = X.reshape(-1)
        return Y
    # The inferred shape may be far larger than the one that is asked for: it is never allocated.
    places = np.unravel_index(indices.reshape(-1), inferred)
    kept = np.all([place < size for place, size in zip(places, shape, strict=True)], axis=0)
    Y[tuple(place[kept] for place in places)] = X.reshape(-1)[kept]
    return Y


def max_unpool_dynamic(
    X: Array, indices: Array, output_shape: Array, /, *, kernel_shape: Sequence[int], strides: Sequence[int] = (),
    pads: Sequence[int] = (),
) -> Array:  # fmt: skip
    """`max_unpool` with an output shape known at run time."""
    shape = [int(d) for d in output_shape]
    return max_unpool(X, indices, kernel_shape=kernel_shape, strides=strides, pads=pads, output_shape=shape)


def unpooled_shape(
    shape: Sequence[int], kernel_shape: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> tuple[int, ...]:
    """The shape that a pool of these attributes turns into `shape`."""
    rank = len(kernel_shape)
    before, after = split_pads(pads, rank)
    steps = tuple(strides) or (1,) * rank
    parts = zip(shape[2:], kernel_shape, steps, before, after, strict=True)
    return (*shape[:2], *((size - 1) * step + kernel - b - a for size, kernel, step, b, a in parts))


def axis_counts(w: Windows, include_pad: bool) -> Array:
    """How many elements each window of one axis has, int64 [count]."""
    first = np.arange(w.count) * w.stride - w.before
    low, high = (-w.before, w.size + w.after) if include_pad else (0, w.size)
    begin = np.maximum(0, -((first - low) // w.dilation))
    end = np.minimum(w.kernel - 1, (high - 1 - first) // w.dilation)
    return np.asarray(np.maximum(end - begin + 1, 0))


def _check_rank(X: Array, rank: int) -> None:
    if X.ndim != rank + 2:
        raise ValueError(f"a pool with a kernel of rank {rank} takes X [N, C, *spatial], got shape {X.shape}")


def _spatial(X: Array) -> tuple[int, ...]:
    if X.ndim < 2:
        raise ValueError(f"a global pool takes X [N, C, *spatial], got shape {X.shape}")
    return tuple(range(2, X.ndim))


def _from_last(spatial: Sequence[Windows]) -> list[tuple[int, Windows]]:
    """(axis of X, windows), innermost first, without axes on which nothing happens."""
    return [(a + 2, w) for a, w in reversed(list(enumerate(spatial))) if not _is_trivial(w)]


def _is_trivial(w: Windows) -> bool:
    return w.kernel == 1 and w.stride == 1 and w.before == 0 and w.count == w.size


def _at(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


def _resized(x: Array, axis: int, count: int, fill: Any) -> Array:
    return np.full((*x.shape[:axis], count, *x.shape[axis + 1 :]), fill, x.dtype)


def _lowest(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _axis_maximum(x: Array, axis: int, w: Windows) -> Array:
    best = _resized(x, axis, w.count, _lowest(x.dtype))
    for tap in w.taps:
        outputs, positions = w.tap(tap)
        place = best[_at(axis, outputs)]
        np.maximum(place, x[_at(axis, positions)], out=place)
    return best


def _axis_arg_maximum(x: Array, indices: Array, axis: int, w: Windows) -> tuple[Array, Array]:
    best = _resized(x, axis, w.count, _lowest(x.dtype))
    where = _resized(indices, axis, w.count, -1)
    for tap in w.taps:
        outputs, positions = w.tap(tap)
        place, number = best[_at(axis, outputs)], where[_at(axis, outputs)]
        value, candidate = x[_at(axis, positions)], indices[_at(axis, positions)]
        # Strictly greater, so that the first of equals stays; NaN is greater than all others.
        better = (value > place) | (number < 0)
        if x.dtype.kind not in "iu":
            better |= (value != value) & (place == place)
        np.copyto(place, value, where=better)
        np.copyto(number, candidate, where=better)
    return best, where


def _window_sum(x: Array, spatial: Sequence[Windows]) -> Array:
    for axis, w in _from_last(spatial):
        total = _resized(x, axis, w.count, 0)
        for tap in w.taps:
            outputs, positions = w.tap(tap)
            total[_at(axis, outputs)] += x[_at(axis, positions)]
        x = total
    return x


def _power(x: Array, p: int) -> Array:
    """|x|**p."""
    if p == 1:
        return np.abs(x)
    return x * x if p == 2 else np.abs(x) ** x.dtype.type(p)


def _root(x: Array, p: int) -> Array:
    """x**(1 / p) of non-negative x."""
    if p == 1:
        return x
    return np.sqrt(x) if p == 2 else x ** x.dtype.type(1 / p)
