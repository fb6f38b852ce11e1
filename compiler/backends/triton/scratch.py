"""Where tiles lie in scratch memory: arrays that are never alive at once share it.

Lifetimes are read off the C itself, so every way in which a name can come to stand in it counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["lifetimes", "place"]

_NAME = re.compile(r"\bt\d+\b")
_ALIGNMENT = 64


def lifetimes(lines: Sequence[str], names: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the first and the last line at which each array's elements may matter.

    An array is alive from its declaration to its last use; a use in a block inside that of the declaration counts to
    the end of that block, for it may be a loop. Jumps must go forward.
    """
    blocks, ends = _blocks(lines)
    found: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(lines):
        for name in _NAME.findall(line):
            if name not in names:
                continue
            if name not in found:
                found[name] = (number, number)
            first, last = found[name]
            home = blocks[first]
            inside = blocks[number]
            end = number if len(inside) == len(home) else ends[inside[len(home)]]
            found[name] = (first, max(last, end))
    return found


def place(lines: Sequence[str], sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return the offset of each array and the bytes needed in all; sizes: bytes of each array.

    Each array in turn is put into the first gap that is free over its whole life.
    """
    alive = lifetimes(lines, sizes)
    offsets: dict[str, int] = {}
    peak = 0
    for name, (first, last) in alive.items():
        size = -(-sizes[name] // _ALIGNMENT) * _ALIGNMENT
        taken = sorted(
            (offsets[other], offsets[other] + sizes[other]) for other in offsets if _meet(alive[other], (first, last))
        )
        offset = 0
        for start, end in taken:
            if offset + size <= start:
                break
            offset = max(offset, -(-end // _ALIGNMENT) * _ALIGNMENT)
        offsets[name] = offset
        peak = max(peak, offset + size)
    return offsets, peak


def _meet(first: tuple[int, int], second: tuple[int, int]) -> bool:
    return first[0] <= second[1] and second[0] <= first[1]


def _blocks(lines: Sequence[str]) -> tuple[list[tuple[int, ...]], dict[int, int]]:
    """For each line the lines that opened the blocks around it, and for each block the line that closes it."""
    around: list[tuple[int, ...]] = []
    ends: dict[int, int] = {}
    opened: list[int] = []
    for number, line in enumerate(lines):
        change = line.count("{") - line.count("}")
        if change < 0:
            ends[opened.pop()] = number
        around.append(tuple(opened))
        if change > 0:
            opened.append(number)
    return around, ends
