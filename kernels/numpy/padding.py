"""Pad in all its modes. Any element type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.kernels.numpy.movement import integers, normalise_axes, zero_of

Array = np.ndarray[Any, Any]

MODES = ("constant", "reflect", "edge", "wrap")


def pad(
    x: Array,
    constant_value: Array | None = None,
    /,
    *,
    pads: Sequence[int],
    mode: str = "constant",
    axes: Sequence[int] | None = None,
) -> Array:
    """Add `pads[i]` elements before and `pads[i + len(axes)]` after axis `axes[i]`; negative pads crop.

    Cropping comes first, so that reflect, edge and wrap see the cropped tensor. reflect mirrors about the outermost
    elements without repeating them, wrap repeats periodically; both go round as often as needed. constant_value: one
    element of x's type, default 0. Raises ValueError if an axis would get a negative size, or an empty one a
    non-constant border.
    """
    if mode not in MODES:
        raise ValueError(f"pad mode must be one of {', '.join(MODES)}, got {mode!r}")
    before, after = full_pads(x.ndim, pads, axes)
    cropped = x[tuple(_crop(*item) for item in zip(before, after, x.shape, strict=True))]
    low, high = [max(0, p) for p in before], [max(0, p) for p in after]
    if mode == "constant":
        return _pad_constant(cropped, low, high, constant_value)
    for axis, size in enumerate(cropped.shape):
        if low[axis] or high[axis]:
            source = border_index(np.arange(-low[axis], size + high[axis]), size, mode)
            cropped = cropped.take(source, axis=axis)
    return cropped


def pad_dynamic(
    x: Array,
    pads: Array,
    constant_value: Array | None = None,
    axes: Array | None = None,
    /,
    *,
    mode: str = "constant",
) -> Array:
    """Pad by run-time amounts."""
    return pad(x, constant_value, pads=integers(pads), mode=mode, axes=None if axes is None else integers(axes))


def full_pads(rank: int, pads: Sequence[int], axes: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """The amounts (before, after) for every axis of a tensor of that rank."""
    axes = normalise_axes(range(rank) if axes is None else axes, rank)
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads takes two amounts for each of {len(axes)} axes, got {len(pads)}")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[i]), int(pads[i + len(axes)])
    return before, after


def border_index(position: Array, size: int, mode: str) -> Array:
    """Where in [0, size) the element at each `position` outside or inside comes from, for the non-constant modes."""
    if size == 0:
        raise ValueError(f"an empty axis cannot be padded in mode {mode!r}: there is nothing to repeat")
    match mode:
        case "edge":
            return np.clip(position, 0, size - 1)
        case "wrap":
            return position % size
        case _:
            period = max(1, 2 * (size - 1))
            phase = position % period
            return np.minimum(phase, period - phase) if size > 1 else np.zeros_like(position)


def _crop(before: int, after: int, size: int) -> slice:
    start, stop = max(0, -before), size + min(0, after)
    if size + before + after < 0 or min(0, before) + min(0, after) + size < 0:
        raise ValueError(f"pads {before} and {after} leave a negative size of an axis of {size}")
    return slice(start, stop)


def _pad_constant(x: Array, low: list[int], high: list[int], constant_value: Array | None) -> Array:
    fill = zero_of(x.dtype) if constant_value is None else constant_value
    if fill.size != 1 or fill.dtype != x.dtype:
        raise ValueError(f"constant_value must be one element of type {x.dtype}, got {fill.shape} of {fill.dtype}")
    shape = [lo + size + hi for lo, size, hi in zip(low, x.shape, high, strict=True)]
    result = np.empty(shape, x.dtype)
    result[...] = fill.reshape(())
    result[tuple(slice(lo, lo + size) for lo, size in zip(low, x.shape, strict=True))] = x
    return result
