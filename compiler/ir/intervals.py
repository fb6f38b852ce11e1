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
    if a[1] is not None and a[1] <= 0:
        return _negated(interval_product(_negated(a), b))
    if b[1] is not None and b[1] <= 0:
        return _negated(interval_product(a, _negated(b)))
    if b[0] is not None and b[0] >= 0:
        a, b = b, a
    if a[0] is not None and a[0] >= 0:  # b has elements above 0 at least
        least = a[0] if b[0] is not None and b[0] >= 0 else a[1]
        return _times(least, b[0]), _times(a[1], b[1])
    if a[0] is None or a[1] is None or b[0] is None or b[1] is None:
        return None, None
    return min(a[0] * b[1], a[1] * b[0]), max(a[0] * b[0], a[1] * b[1])


def _negated(a: Interval) -> Interval:
    return None if a[1] is None else -a[1], None if a[0] is None else -a[0]


def _times(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a * b


def narrower(choose: Callable[[int, int], int], a: int | None, b: int | None) -> int | None:
    """The `choose` of two ends, of which None is none."""
    return b if a is None else a if b is None else choose(a, b)
