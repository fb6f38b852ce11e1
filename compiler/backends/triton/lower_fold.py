"""Reductions and scans with the combiner that the kernel brings, over one operand or several together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fusible.compiler.backends.triton.elements import c_type
from fusible.compiler.backends.triton.state import Handler, Lowering
from fusible.compiler.backends.triton.tiles import Tile, stored
from fusible.compiler.backends.triton.ttir import Operation, Tensor

__all__ = ["FOLD_HANDLERS"]


def _copies(state: Lowering, operation: Operation) -> list[Tile]:
    """Arrays of the operands' elements, which the fold may overwrite."""
    return [state.copy(state.tile(value)) for value in operation.operands]


def _combine(state: Lowering, operation: Operation, arrays: Sequence[Tile], left: str, right: str, target: str) -> None:
    """Write the combiner once: elements `left` and `right` of each array (in this order) become element `target`."""
    block = operation.regions[0].blocks[0]
    for arguments, place in ((block.arguments[: len(arrays)], left), (block.arguments[len(arrays) :], right)):
        for argument, array in zip(arguments, arrays, strict=True):
            name = state.code.fresh("a")
            state.code.line(f"const {c_type(array.element)} {name} = {array.buffer}[{place}];")
            state.scalars[argument] = name
    end = state.lower_block(block)
    for value, array in zip(end.operands, arrays, strict=True):
        state.code.line(f"{array.buffer}[{target}] = {state.scalar(value)};")


def _reduce(state: Lowering, operation: Operation) -> None:
    """Halve the axis until one element is left: vectors all the way, and rounding errors that grow with its logarithm.

    Element j meets j + n / 2, so the combiner must be associative and commutative, as on a GPU.
    """
    axis = int(operation.attributes["axis"])
    arrays = _copies(state, operation)
    shape = arrays[0].shape
    outer, extent, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    if extent & (extent - 1):
        raise state.refuse(operation, f"the axis has {extent} elements, not a power of two")
    block = state.code.fresh("o")
    if extent > 1:
        with state.code.braces(f"for (long {block} = 0; {block} < {outer}; {block}++)"):
            half, place = state.code.fresh("h"), state.code.fresh("i")
            with state.code.braces(f"for (long {half} = {extent * inner // 2}; {half} >= {inner}; {half} /= 2)"):
                state.code.line("INDEPENDENT")
                with state.code.braces(f"for (long {place} = 0; {place} < {half}; {place}++)"):
                    left = f"{block} * {extent * inner} + {place}"
                    _combine(state, operation, arrays, left, f"{left} + {half}", left)
    for value, array in zip(operation.results, arrays, strict=True):
        if not isinstance(value.type, Tensor):
            name = state.code.fresh("v")
            state.code.line(f"const {c_type(array.element)} {name} = {array.buffer}[0];")
            state.scalars[value] = name
            continue
        result = stored(state.code.buffer(array.element, value.type.size), value.type.shape, array.element)
        with state.code.loops((outer, inner)) as (_, (o, i)):
            state.code.line(f"{result.buffer}[{o} * {inner} + {i}] = {array.buffer}[{o} * {extent * inner} + {i}];")
        state.tiles[value] = result


def _scan(state: Lowering, operation: Operation) -> None:
    """Element after element along the axis, from its end if the scan is reversed."""
    axis = int(operation.attributes["axis"])
    arrays = _copies(state, operation)
    shape = arrays[0].shape
    outer, extent, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    step, block, place = state.code.fresh("k"), state.code.fresh("o"), state.code.fresh("i")
    reverse = operation.attributes.get("reverse", "false") == "true"
    position = f"({extent - 1} - {step})" if reverse else step
    with (
        state.code.braces(f"for (long {block} = 0; {block} < {outer}; {block}++)"),
        state.code.braces(f"for (long {step} = 1; {step} < {extent}; {step}++)"),
        state.code.braces(f"for (long {place} = 0; {place} < {inner}; {place}++)"),
    ):
        here = f"({block} * {extent} + {position}) * {inner} + {place}"
        before = f"{here} {'+' if reverse else '-'} {inner}"
        _combine(state, operation, arrays, before, here, here)
    for value, array in zip(operation.results, arrays, strict=True):
        state.tiles[value] = array


FOLD_HANDLERS: dict[str, Handler] = {"tt.reduce": _reduce, "tt.scan": _scan}
