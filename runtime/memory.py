"""The arena: offsets for buffers whose lifetimes are known, so that those that never live together share bytes.

Several ways, and the smallest arena of them. In the order of time: each buffer, as it comes alive, takes the smallest
hole that holds it, and gives its range back when it dies; linear in the number of buffers times that of holes. Or the
weightiest buffers first, each into the smallest gap between those that live with it: by size, and by size times
lifetime; quadratic, so only while there is something to gain. What lives at once is a bound for all of them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

from fusible.kernels.aligned import ALIGNMENT

__all__ = ["Placement", "are_apart", "least_peak", "overlaps", "place"]

_MOST_BY_WEIGHT = 2000  # buffers; above, it takes seconds


class Placement(NamedTuple):
    """offsets[i] of buffer i, and the size of the whole arena, in bytes."""

    offsets: tuple[int, ...]
    peak: int


def place(sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]]) -> Placement:
    """Give each buffer an offset. lifetimes: (first, last) step, both inclusive."""
    found = _in_time(sizes, lifetimes)
    bound = least_peak(sizes, lifetimes)
    spans = [size * (last - first + 1) for size, (first, last) in zip(sizes, lifetimes, strict=True)]
    for weights in (sizes, spans) if len(sizes) <= _MOST_BY_WEIGHT else ():
        if found.peak > bound:
            found = min(found, _by_weight(sizes, lifetimes, weights), key=lambda placement: placement.peak)
    return found


def least_peak(sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]]) -> int:
    """The most bytes that live at once, each buffer rounded up: no arena is smaller."""
    changes: dict[int, int] = {}
    for size, (first, last) in zip(sizes, lifetimes, strict=True):
        changes[first] = changes.get(first, 0) + _rounded(size)
        changes[last + 1] = changes.get(last + 1, 0) - _rounded(size)
    alive = peak = 0
    for step in sorted(changes):
        alive += changes[step]
        peak = max(peak, alive)
    return peak


def _in_time(sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]]) -> Placement:
    offsets = [0] * len(sizes)
    deaths: list[tuple[int, int]] = []  # (last, buffer), sorted
    holes: list[tuple[int, int]] = []  # (offset, size), sorted by offset, never adjacent
    peak = 0
    for number in sorted(range(len(sizes)), key=lambda n: (lifetimes[n][0], -sizes[n], n)):
        first, last = lifetimes[number]
        while deaths and deaths[0][0] < first:
            _, dead = deaths.pop(0)
            _release(holes, offsets[dead], _rounded(sizes[dead]))
        wanted = _rounded(sizes[number])
        fit = min((h for h in holes if h[1] >= wanted), key=lambda h: (h[1], h[0]), default=None)
        if fit is not None:
            holes.remove(fit)
            offsets[number] = fit[0]
            if fit[1] > wanted:
                insort(holes, (fit[0] + wanted, fit[1] - wanted))
        else:
            start = peak
            if holes and sum(holes[-1]) == peak:
                start = holes.pop()[0]
            offsets[number], peak = start, start + wanted
        insort(deaths, (last, number))
    return Placement(tuple(offsets), peak)


def _by_weight(sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]], weights: Sequence[int]) -> Placement:
    offsets = [0] * len(sizes)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), sorted
    peak = 0
    for number in sorted(range(len(sizes)), key=lambda n: (-weights[n], lifetimes[n][0], n)):
        first, last = lifetimes[number]
        offsets[number] = start = _gap(placed, first, last, _rounded(sizes[number]))
        end = start + _rounded(sizes[number])
        insort(placed, (start, end, first, last))
        peak = max(peak, end)
    return Placement(tuple(offsets), peak)


def _gap(placed: Sequence[tuple[int, int, int, int]], first: int, last: int, wanted: int) -> int:
    """The offset of the smallest gap of at least `wanted` bytes between buffers that live in [first, last]."""
    at, best, least = 0, -1, 0
    for offset, end, born, dead in placed:
        if born > last or dead < first:
            continue
        if offset - at >= wanted and (best < 0 or offset - at < least):
            best, least = at, offset - at
        at = max(at, end)
    return at if best < 0 else best


def _rounded(size: int) -> int:
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT


def _release(holes: list[tuple[int, int]], offset: int, size: int) -> None:
    """Give a range back, merged with the holes it touches."""
    position = bisect_left(holes, (offset, 0))
    if position < len(holes) and offset + size == holes[position][0]:
        size += holes.pop(position)[1]
    if position > 0 and sum(holes[position - 1]) == offset:
        offset, before = holes.pop(position - 1)
        size += before
    insort(holes, (offset, size))


def overlaps(
    sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]], offsets: Sequence[int]
) -> list[tuple[int, int]]:
    """The oracle: all pairs of buffers that share a byte while both live (quadratic, for tests)."""
    found = []
    for a in range(len(sizes)):
        for b in range(a):
            alive = lifetimes[a][0] <= lifetimes[b][1] and lifetimes[b][0] <= lifetimes[a][1]
            shared = offsets[a] < offsets[b] + sizes[b] and offsets[b] < offsets[a] + sizes[a]
            if alive and shared and sizes[a] and sizes[b]:
                found.append((b, a))
    return found


def are_apart(read: Sequence[tuple[int, int]], written: Sequence[tuple[int, int]]) -> bool:
    """True if no range that is written overlaps another one. Ranges: [first, last); empty ones overlap nothing."""
    ranges = sorted([*((*r, False) for r in read if r[0] < r[1]), *((*w, True) for w in written if w[0] < w[1])])
    reach, written_reach = 0, 0
    for first, last, writes in ranges:
        if first < (reach if writes else written_reach):
            return False
        reach = max(reach, last)
        written_reach = max(written_reach, last) if writes else written_reach
    return True
