"""What checking mode found in a run, told to people."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from fusible.compiler.backends.triton.lower import LoweredKernel

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
    lowered: LoweredKernel, findings: np.ndarray, grid: tuple[int, int, int], arguments: Sequence[object]
) -> str:
    """Return one text on all findings: how many, and the first of each operation and kind, by program."""
    count = int(findings[0])
    entries = sorted(
        map(tuple, findings[1 : 1 + min(count, len(findings) // FIELDS) * FIELDS].reshape(-1, FIELDS).tolist())
    )
    first: dict[tuple[int, int], tuple[int, ...]] = {}
    for entry in entries:
        first.setdefault((entry[0], entry[1]), entry)
    told = [_describe(lowered, entry, grid, arguments) for entry in list(first.values())[:_SHOWN]]
    return f"checking mode found {count} defect{'s' if count > 1 else ''}: " + "; ".join(told)


def _describe(
    lowered: LoweredKernel, entry: Sequence[int], grid: tuple[int, int, int], arguments: Sequence[object]
) -> str:
    kind, site, program, detail, argument = entry
    operation = lowered.sites[site]
    place = f"{operation.name}, line {operation.line} of its TTIR"
    where = f"{place} ({operation.location})" if operation.location else place
    who = f"program {_program(program, grid)} at {where}"
    name = repr(lowered.parameters[argument].name) if argument >= 0 else "any argument"
    match _Kind(kind):
        case _Kind.ASSERTION:
            return f"{who}: the assertion does not hold"
        case _Kind.WRITTEN_TWICE:
            return f"{who} stores an element of {name} that program {_program(detail, grid)} stored too"
        case _Kind.OUT_OF_RANGE_READ:
            return f"{who} reads {_element(name, detail, argument, arguments)}"
        case _Kind.OUT_OF_RANGE_WRITE:
            return f"{who} writes {_element(name, detail, argument, arguments)}"


def _program(number: int, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    return number % grid[0], number // grid[0] % grid[1], number // grid[0] // grid[1]


def _element(name: str, address: int, argument: int, arguments: Sequence[object]) -> str:
    array = arguments[argument] if argument >= 0 else None
    if not isinstance(array, np.ndarray):
        return f"at address {address:#x}, which is in no argument"
    place = (address - array.ctypes.data) // array.dtype.itemsize
    return f"element {place} of {name}, which has {array.size}"
