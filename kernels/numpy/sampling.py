"""Reading images between their pixels: what GridSample and DeformConv share.

A sample is a sum over taps of weight times pixel, and separable: along each axis a position has one tap (nearest), two
(linear) or four (cubic, Keys 1981 with a = -0.75).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as each
from math import prod
from typing import Any, TypeAlias

import numpy as np

Array = np.ndarray[Any, Any]
# What to do with pixel numbers beyond an axis of given length: (numbers, length) -> (numbers inside, which were inside)
Border: TypeAlias = Callable[[Array, int], "tuple[Array, Array | None]"]

GRID_CUBIC = -0.75


def sample(planes: Array, positions: Sequence[Array], mode: str, border: Border) -> Array:
    """The planes [C, *spatial] at P positions, one array [P] of coordinates an axis: [C, P].

    `mode`: nearest (positions are whole numbers already), linear or cubic.
    """
    spatial = planes.shape[1:]
    flat = planes.reshape(planes.shape[0], -1)
    # One more pixel, zero, for taps that are outside: a weight of 0 would still turn infinities into NaN.
    flat = np.concatenate([flat, np.zeros((flat.shape[0], 1), flat.dtype)], axis=1)
    axes = [_Axis(p, size, mode, border) for p, size in zip(positions, spatial, strict=True)]
    steps = [prod(spatial[a + 1 :]) for a in range(len(spatial))]
    total: Array | None = None
    for taps in each(*(range(axis.taps) for axis in axes)):
        where: Any = 0
        outside: Any = False
        for axis, tap, step in zip(axes, taps, steps, strict=True):
            pixel, inside = axis.pixel(tap)
            where = where + pixel * step
            outside = outside if inside is None else outside | ~inside
        values = np.take(flat, np.where(outside, flat.shape[1] - 1, where), axis=1)
        if mode == "nearest":
            return values
        for axis, tap in zip(axes, taps, strict=True):
            values *= axis.weights[tap]
        total = values if total is None else np.add(total, values, out=total)
    assert total is not None
    return total


class _Axis:
    """The taps of all positions along one axis."""

    def __init__(self, positions: Array, size: int, mode: str, border: Border) -> None:
        self.size, self.border = size, border
        low = np.floor(positions)
        fraction = positions - low
        # Far positions are pulled in before they become integers, but stay as far outside as taps can see.
        self.base = np.clip(np.nan_to_num(low, nan=-4.0), -4, size + 4).astype(np.int64)
        self.first = -1 if mode == "cubic" else 0
        if mode == "nearest":
            self.weights: Sequence[Array] = (np.ones_like(fraction),)
        else:
            self.weights = (1 - fraction, fraction) if mode == "linear" else cubic_weights(fraction, GRID_CUBIC)
        self.taps = len(self.weights)

    def pixel(self, tap: int) -> tuple[Array, Array | None]:
        return self.border(self.base + (self.first + tap), self.size)


def cubic_weights(fraction: Array, a: float) -> tuple[Array, Array, Array, Array]:
    """The weights of the pixels at -1, 0, 1, 2 for a position `fraction` beyond pixel 0 (Keys 1981, equation 4)."""
    return tuple(cubic_filter(distance, a) for distance in (fraction + 1, fraction, 1 - fraction, 2 - fraction))  # type: ignore[return-value]


def cubic_filter(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel, 0 from a distance of 2 on."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.asarray(np.where(x <= 1, near, np.where(x < 2, far, 0)).astype(x.dtype))


def linear_filter(distance: Array) -> Array:
    """The triangle 1 - |distance|, 0 from a distance of 1 on."""
    return np.asarray(np.maximum(1 - np.abs(distance), 0))


def outside_is_zero(numbers: Array, size: int) -> tuple[Array, Array | None]:
    """Pixels beyond the image are 0."""
    return numbers, (numbers >= 0) & (numbers < size)


def outside_is_edge(numbers: Array, size: int) -> tuple[Array, Array | None]:
    """Pixels beyond the image are those at its edge."""
    return np.clip(numbers, 0, size - 1), None


def reflected(positions: Array, low: float, high: float) -> Array:
    """Positions mirrored at `low` and `high` until they lie between them."""
    span = high - low
    if span <= 0:
        return np.full_like(positions, low)
    beyond = np.where(positions < low, low - positions, np.where(positions > high, positions - high, 0))
    times = np.floor(beyond / span)
    rest = beyond - times * span
    even = np.mod(times, 2) == 0
    below = np.where(even, low + rest, high - rest)
    above = np.where(even, high - rest, low + rest)
    found = np.where(positions < low, below, np.where(positions > high, above, positions))
    return np.asarray(found.astype(positions.dtype))
