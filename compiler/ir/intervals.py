"""Intervals of integers with or without ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Interval", "interval_product", "narrower"]

Interval: TypeAlias = "tuple[int | None, int | None]"
"""(least, most), both inclusive; None for no end."""


def interval_product(a: Interval, b: Interval) -> Interval:
    """An interval that contains the product of any two elements."""
    if a == (0, 0) or b == (0, 0):
        return 0, 0
    ends = [x * y for x in a if x is not None for y in b if y is not None]
    if None not in a and None not in b:
        return min(ends), max(ends)
    nonnegative_a = a[0] is not None and a[0] >= 0
    nonnegative_b = b[0] is not None and b[0] >= 0
    if nonnegative_a and nonnegative_b:
        return a[0] * b[0], None  # type: ignore[operator]
    if nonnegative_a and b[1] is not None and b[1] <= 0:
        return None, a[0] * b[1]  # type: ignore[operator]
    if nonnegative_b and a[1] is not None and a[1] <= 0:
        return None, b[0] * a[1]  # type: ignore[operator]
    return None, None


def narrower(choose: Callable[[int, int], int], a: int | None, b: int | None) -> int | None:
    """The `choose` of two ends, of which None is none."""
    return b if a is None else a if b is None else choose(a, b)
