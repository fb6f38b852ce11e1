"""Operations that move elements: constants, ranges, views, joins, gathers, casts of shape."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusible.compiler.backends.triton.elements import c_type, literal, literals
from fusible.compiler.backends.triton.scalar_ops import SCALAR_OPS, Unknown, scalar_expression
from fusible.compiler.backends.triton.state import CHEAP, Handler, Lowering
from fusible.compiler.backends.triton.tiles import Index, Loop, Tile, computed, flat_index, stored, uniform, viewed
from fusible.compiler.backends.triton.ttir import Element, Operation, Tensor, Value, element_of, shape_of
from fusible.compiler.backends.triton.ttir_text import BadText

__all__ = ["SHAPE_HANDLERS", "lower_elementwise"]

_DENSE = re.compile(r"dense<(.*)>", re.DOTALL)


def lower_elementwise(state: Lowering, operation: Operation) -> None:
    """Bind the result to the expression of one of its elements."""
    result, operands = operation.results[0], [state.tile(value) for value in operation.operands]
    shape = shape_of(result.type)
    operands = [each if each.shape else viewed(each, shape, lambda _: ()) for each in operands]

    def text(arguments: Sequence[str]) -> str:
        return scalar_expression(operation, arguments)

    try:
        scalar_expression(operation, ["x"] * len(operands))
    except Unknown as error:
        raise state.refuse(operation, str(error)) from error
    state.define(result, computed(shape, element_of(result.type), SCALAR_OPS[operation.name][1], operands, text))


def _constant(state: Lowering, operation: Operation) -> None:
    result, text = operation.results[0], operation.attributes["value"]
    element, shape = element_of(result.type), shape_of(result.type)
    match = _DENSE.fullmatch(text)
    try:
        if match is None or not match.group(1).startswith("["):
            state.define(result, uniform(literal(element, match.group(1) if match else text), shape, element))
            return
        numbers = literals(element, match.group(1))
    except BadText as error:
        raise state.refuse(operation, f"expected {error}") from error
    name = state.code.fresh("c")
    state.code.line(f"static const {c_type(element)} {name}[{len(numbers)}] = {{{', '.join(numbers)}}};")
    state.tiles[result] = stored(name, shape, element)
    state.shared.add(result)


def _poison(state: Lowering, operation: Operation) -> None:
    result = operation.results[0]
    state.define(result, uniform("0", shape_of(result.type), element_of(result.type)))


def _program_id(state: Lowering, operation: Operation) -> None:
    state.scalars[operation.results[0]] = f"program[{'xyz'.index(operation.words[0])}]"


def _program_count(state: Lowering, operation: Operation) -> None:
    state.scalars[operation.results[0]] = f"((int32_t)launch->grid[{'xyz'.index(operation.words[0])}])"


def _range(state: Lowering, operation: Operation) -> None:
    result, start = operation.results[0], int(operation.attributes["start"])
    offset = f"{start} + " if start else ""

    def at(_: Loop, index: Index) -> str:
        return f"((int32_t)({offset}{index[0]}))"

    state.define(result, Tile(shape_of(result.type), Element.I32, at, flat=True))


def _splat(state: Lowering, operation: Operation) -> None:
    result = operation.results[0]
    state.define(result, uniform(state.scalar(operation.operands[0]), shape_of(result.type), element_of(result.type)))


def _unsplat(state: Lowering, operation: Operation) -> None:
    tile = state.tile(operation.operands[0])
    state.define(operation.results[0], viewed(tile, (), lambda _: ("0",) * len(tile.shape)))


def _broadcast(state: Lowering, operation: Operation) -> None:
    result, tile = operation.results[0], state.tile(operation.operands[0])
    if tile.cost > CHEAP:
        tile = state.stored_value(operation.operands[0])
    old, new = tile.shape, shape_of(result.type)

    def place(index: Index) -> Index:
        return tuple("0" if extent == 1 else each for extent, each in zip(old, index, strict=True))

    state.define(result, viewed(tile, new, place))


def _expand(state: Lowering, operation: Operation) -> None:
    axis = int(operation.attributes["axis"])
    result, tile = operation.results[0], state.tile(operation.operands[0])
    shape = shape_of(result.type)
    state.define(result, viewed(tile, shape, lambda index: index[:axis] + index[axis + 1 :], in_order=True))


def _transpose(state: Lowering, operation: Operation) -> None:
    result, tile = operation.results[0], state.tile(operation.operands[0])
    order = [int(each) for each in re.findall(r"-?\d+", operation.attributes["order"].partition(":")[2])]
    if tile.cost > CHEAP:
        tile = state.stored_value(operation.operands[0])

    def place(index: Index) -> Index:
        return tuple(index[order.index(axis)] for axis in range(len(order)))

    state.define(result, viewed(tile, shape_of(result.type), place))


def _reshape(state: Lowering, operation: Operation) -> None:
    """The same array under another shape; a tile that is computed is stored first, or it would divide indices."""
    result, tile = operation.results[0], state.stored_value(operation.operands[0])
    assert tile.buffer is not None
    state.shared |= {result, operation.operands[0]}
    state.tiles[result] = stored(tile.buffer, shape_of(result.type), tile.element)


def _new(state: Lowering, value: Value) -> Tile:
    """An array for a result."""
    assert isinstance(value.type, Tensor)
    return stored(state.code.buffer(value.type.element, value.type.size), value.type.shape, value.type.element)


def _join(state: Lowering, operation: Operation) -> None:
    target = _new(state, operation.results[0])
    first, second = (state.tile(value) for value in operation.operands)
    with state.code.loops(first.shape) as (loop, index):
        for k, tile in enumerate((first, second)):
            state.code.line(f"{target.at(loop, (*index, str(k)))} = {loop.at(tile, index)};")
    state.tiles[operation.results[0]] = target


def _split(state: Lowering, operation: Operation) -> None:
    tile = state.tile(operation.operands[0])
    if tile.cost > CHEAP:
        tile = state.stored_value(operation.operands[0])
    for k, result in enumerate(operation.results):
        state.define(result, viewed(tile, shape_of(result.type), lambda index, k=k: (*index, str(k))))  # type: ignore[misc]


def _concatenate(state: Lowering, operation: Operation) -> None:
    """`tt.cat` may put the elements in any order; here the second operand follows the first."""
    target = _new(state, operation.results[0])
    rows = 0
    for value in operation.operands:
        tile = state.tile(value)
        with state.code.loops(tile.shape) as (loop, index):
            first = f"{index[0]} + {rows}"
            state.code.line(f"{target.at(loop, (first, *index[1:]))} = {loop.at(tile, index)};")
        rows += tile.shape[0]
    state.tiles[operation.results[0]] = target


def _gather(state: Lowering, operation: Operation) -> None:
    axis = int(operation.attributes["axis"])
    source, where = state.stored_value(operation.operands[0]), state.tile(operation.operands[1])
    extent = source.shape[axis]
    target = _new(state, operation.results[0])
    with state.code.loops(where.shape) as (loop, index):
        # Triton leaves an index out of range undefined; here it wraps, for nothing may be read outside the tile.
        along = f"((unsigned long){loop.at(where, index)} % {extent})"
        place = flat_index(source.shape, (*index[:axis], along, *index[axis + 1 :]))
        state.code.line(f"{target.at(loop, index)} = {source.buffer}[{place}];")
    state.tiles[operation.results[0]] = target


def _histogram(state: Lowering, operation: Operation) -> None:
    """Numbers outside the bins, and those that the mask leaves out, are not counted."""
    tile = state.tile(operation.operands[0])
    target = _new(state, operation.results[0])
    mask = state.tile(operation.operands[1]) if len(operation.operands) > 1 else None
    state.code.line(f"memset({target.buffer}, 0, {target.size} * sizeof *{target.buffer});")
    with state.code.loops(tile.shape, vector=False) as (loop, index):
        number = loop.at(tile, index)
        kept = f" && {loop.at(mask, index)}" if mask is not None else ""
        state.code.line(f"if ((uint64_t){number} < {target.size}{kept}) {target.buffer}[{number}]++;")
    state.tiles[operation.results[0]] = target


SHAPE_HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(SCALAR_OPS, lower_elementwise),
    "arith.constant": _constant,
    "ub.poison": _poison,
    "tt.get_program_id": _program_id,
    "tt.get_num_programs": _program_count,
    "tt.make_range": _range,
    "tt.splat": _splat,
    "tt.unsplat": _unsplat,
    "tt.broadcast": _broadcast,
    "tt.expand_dims": _expand,
    "tt.trans": _transpose,
    "tt.reshape": _reshape,
    "tt.join": _join,
    "tt.split": _split,
    "tt.cat": _concatenate,
    "tt.gather": _gather,
    "tt.histogram": _histogram,
}
