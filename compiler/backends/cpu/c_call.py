"""The struct by which a printed function hands its operands to its tasks, and how it is filled."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.backends.cpu.c_kinds import ELEMENT_TYPES
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.region.region import Region

__all__ = ["call_fields", "call_members", "check_elements", "own_call"]


def check_elements(region: Region) -> None:
    """Raise NotPrintable if an operand or result has elements that printed code does not read."""
    for buffer in (*region.inputs, *region.outputs):
        if buffer.dtype not in ELEMENT_TYPES:
            raise NotPrintable(f"it has an operand of {buffer.dtype.value}")


def own_call(name: str, copy: str = "hooks") -> str:
    """A task's copy of its call, which no store can change: what is read of it stays in registers.

    Only as long as no function that is not inlined gets its address: where some do, hooks have a copy to themselves.
    """
    return f"struct {name}_call {copy} = *(const struct {name}_call *)context;"


def call_members(region: Region, symbols: Sequence[str], numbers: int = 0) -> list[str]:
    """The members for operands, results, shape symbols and parameters."""
    members = [f"    const {ELEMENT_TYPES[b.dtype]} *x{n};" for n, b in enumerate(region.inputs)]
    members += [f"    {ELEMENT_TYPES[b.dtype]} *y{n};" for n, b in enumerate(region.outputs)]
    members += [f"    long s_{name};" for name in symbols]
    return members + [f"    long n{n};" for n in range(numbers)]


def call_fields(region: Region, symbols: Sequence[str], numbers: int = 0, before: int = 0) -> list[str]:
    """Their values: `buffers` holds operands, then results; `dims` symbols, then parameters, after `before` others."""
    inputs, first = len(region.inputs), len(symbols) + before
    fields = [f".x{n} = buffers[{n}]" for n in range(inputs)]
    fields += [f".y{n} = buffers[{inputs + n}]" for n in range(len(region.outputs))]
    fields += [f".s_{name} = dims[{n}]" for n, name in enumerate(symbols)]
    return fields + [f".n{n} = dims[{first + n}]" for n in range(numbers)]
