"""Loops, branches and the ends of blocks: values that they carry live in slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.backends.triton.elements import c_type
from fusible.compiler.backends.triton.state import Handler, Lowering, Slot
from fusible.compiler.backends.triton.tiles import Tile
from fusible.compiler.backends.triton.ttir import Block, Element, Operation, Region, Tensor, Value

__all__ = ["CONTROL_HANDLERS", "lower_body"]


def assign(state: Lowering, slots: Sequence[Slot], values: Sequence[Value]) -> None:
    """Let slots hold values, all at once: what reads a slot that is written is saved before any is."""
    if not slots:
        return
    with state.code.braces(""):
        sources = [_unhurt(state, slot, value, slots) for slot, value in zip(slots, values, strict=True)]
        for slot, source in zip(slots, sources, strict=True):
            if isinstance(source, str):
                state.code.line(f"{slot.name} = {source};")
            elif source.buffer != slot.name:
                state.write(slot.tile, source)


def _unhurt(state: Lowering, slot: Slot, value: Value, slots: Sequence[Slot]) -> Tile | str:
    """A value as a tile or a scalar's text that writing the slots does not change before it is read."""
    others = {each.name for each in slots if each is not slot}
    if isinstance(slot.type, Tensor):
        tile = state.tile(value)
        return state.copy(tile) if tile.reads & others or slot.name in tile.elsewhere else tile
    return state.scalar(value)  # never a slot's own name, see Slot.bind


def lower_region(state: Lowering, region: Region) -> Operation:
    """Write the one block of a region; returns the operation that ends it."""
    return state.lower_block(region.blocks[0])


def _for(state: Lowering, operation: Operation) -> None:
    low, high, step, *starts = operation.operands
    block = operation.regions[0].blocks[0]
    counter, *carried = block.arguments
    slots = [Slot.declare(state, value.type) for value in starts]
    assign(state, slots, starts)
    assert isinstance(counter.type, Element)
    name, kind = state.code.fresh("n"), c_type(counter.type)
    wide = "uint64_t" if "unsigned" in operation.words else "int64_t"
    cast = f"({wide})({'u' if wide[0] == 'u' else ''}{kind})"
    first, last, stride = (f"{cast}{state.scalar(each)}" for each in (low, high, step))
    with state.code.braces(f"for ({wide} {name} = {first}; {name} < {last}; {name} += {stride})"):
        state.scalars[counter] = f"(({kind}){name})"
        for slot, value in zip(slots, carried, strict=True):
            slot.bind(state, value)
        assign(state, slots, lower_region(state, operation.regions[0]).operands)
    for slot, value in zip(slots, operation.results, strict=True):
        slot.bind(state, value)


def _if(state: Lowering, operation: Operation) -> None:
    slots = [Slot.declare(state, value.type) for value in operation.results]
    for region, head in zip(operation.regions, (f"if ({state.scalar(operation.operands[0])})", "else"), strict=False):
        with state.code.braces(head):
            assign(state, slots, lower_region(state, region).operands)
    for slot, value in zip(slots, operation.results, strict=True):
        slot.bind(state, value)


def _while(state: Lowering, operation: Operation) -> None:
    before, after = operation.regions
    carried = [Slot.declare(state, value.type) for value in operation.operands]
    handed = [Slot.declare(state, value.type) for value in operation.results]
    assign(state, carried, operation.operands)
    with state.code.braces("for (;;)"):
        for slot, value in zip(carried, before.blocks[0].arguments, strict=True):
            slot.bind(state, value)
        condition, *values = lower_region(state, before).operands
        assign(state, handed, values)
        state.code.line(f"if (!{state.scalar(condition)}) break;")
        for slot, value in zip(handed, after.blocks[0].arguments, strict=True):
            slot.bind(state, value)
        assign(state, carried, lower_region(state, after).operands)
    for slot, value in zip(handed, operation.results, strict=True):
        slot.bind(state, value)


@dataclass(frozen=True, slots=True)
class _Target:
    """A block of a function's body that others jump to."""

    label: str
    slots: tuple[Slot, ...]


def lower_body(state: Lowering, region: Region) -> None:
    """Write a function's body. Several blocks, which an early return makes, become labels and jumps."""
    targets: dict[str, _Target] = {}
    for block in region.blocks[1:]:
        slots = tuple(Slot.declare(state, value.type) for value in block.arguments)
        targets[block.label] = _Target(state.code.fresh("block"), slots)
    for number, block in enumerate(region.blocks):
        _refuse_jumps_back(state, block, {each.label for each in region.blocks[: number + 1]})
        if block.label in targets:
            state.code.line(f"{targets[block.label].label}:;")
            for slot, value in zip(targets[block.label].slots, block.arguments, strict=True):
                slot.bind(state, value)
        _end(state, state.lower_block(block), targets)


def _refuse_jumps_back(state: Lowering, block: Block, passed: set[str]) -> None:
    """Triton's early returns jump forward only, and where tiles lie relies on that (scratch.py)."""
    end = block.operations[-1]
    if any(label in passed for label, _ in end.successors):
        raise state.refuse(end, "it jumps back, where scf.for or scf.while was expected")


def _end(state: Lowering, operation: Operation, targets: dict[str, _Target]) -> None:
    if operation.name == "tt.return" and not operation.operands:
        state.code.line("return;")
        return
    if operation.name not in ("cf.br", "cf.cond_br"):
        raise state.refuse(operation, "a function's block cannot end so")
    heads = ("",) if operation.name == "cf.br" else (f"if ({state.scalar(operation.operands[0])})", "else")
    for head, (label, values) in zip(heads, operation.successors, strict=True):
        with state.code.braces(head):
            assign(state, targets[label].slots, values)
            state.code.line(f"goto {targets[label].label};")


CONTROL_HANDLERS: dict[str, Handler] = {"scf.for": _for, "scf.if": _if, "scf.while": _while}
