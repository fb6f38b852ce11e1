"""What a checked kernel found in a run, told to people."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from fusible.runtime.devices.device import Span

__all__ = ["FIELDS", "describe_findings"]

FIELDS = 5
"""The numbers that a finding consists of: kind, site, program, detail, argument (tile.h)."""

_SHOWN = 6


class _Kind(IntEnum):
    """`enum finding_kind` of tile.h."""

    OUT_OF_RANGE_READ = 0
    OUT_OF_RANGE_WRITE = 1
    WRITTEN_TWICE = 2
    ASSERTION = 3


def describe_findings(
    findings: np.ndarray,
    grid: tuple[int, int, int],
    sites: Sequence[str],
    names: Sequence[str],
    spans: Sequence[Span | None],
) -> str:
    """One text on all findings: how many, and the first of each operation and kind, by program.

    findings: int64, as tile.h has them. sites: the operations by number. names: of the arguments; spans: their memory,
    None for numbers.
    """
    count = int(findings[0])
    entries = sorted(
        map(tuple, findings[1 : 1 + min(count, len(findings) // FIELDS) * FIELDS].reshape(-1, FIELDS).tolist())
    )
    first: dict[tuple[int, int], tuple[int, ...]] = {}
    for entry in entries:
        first.setdefault((entry[0], entry[1]), entry)
    told = [_describe(entry, grid, sites, names, spans) for entry in list(first.values())[:_SHOWN]]
    return f"checking mode found {count} defect{'s' if count > 1 else ''}: " + "; ".join(told)


def _describe(
    entry: Sequence[int],
    grid: tuple[int, int, int],
    sites: Sequence[str],
    names: Sequence[str],
    spans: Sequence[Span | None],
) -> str:
    kind, site, program, detail, argument = entry
    who = f"program {_program(program, grid)} at {sites[site]}"
    name = repr(names[argument]) if argument >= 0 else "any argument"
    match _Kind(kind):
        case _Kind.ASSERTION:
            return f"{who}: the assertion does not hold"
        case _Kind.WRITTEN_TWICE:
            return f"{who} stores an element of {name} that program {_program(detail, grid)} stored too"
        case _Kind.OUT_OF_RANGE_READ:
            return f"{who} reads {_element(name, detail, argument, spans)}"
        case _Kind.OUT_OF_RANGE_WRITE:
            return f"{who} writes {_element(name, detail, argument, spans)}"


def _program(number: int, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    return number % grid[0], number // grid[0] % grid[1], number // grid[0] // grid[1]


def _element(name: str, address: int, argument: int, spans: Sequence[Span | None]) -> str:
    span = spans[argument] if argument >= 0 else None
    if span is None:
        return f"at address {address:#x}, which is in no argument"
    place = (address - span.address) // span.itemsize
    return f"element {place} of {name}, which has {span.nbytes // span.itemsize}"
