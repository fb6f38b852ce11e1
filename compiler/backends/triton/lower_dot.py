"""Products of tiles: floats accumulate in fp32 (fp64 in fp64), integers in int32.

With `tf32x3` operands in fp32 are split as Triton splits them for matrix units (`product_tf32x3` in tile.h), so that a
model's error is here what it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusible.compiler.backends.triton.elements import narrowed, widened
from fusible.compiler.backends.triton.state import Handler, Lowering
from fusible.compiler.backends.triton.tiles import Tile, computed, stored
from fusible.compiler.backends.triton.ttir import Element, Operation, Value

__all__ = ["DOT_HANDLERS"]

_FUNCTIONS = {"float": "product_f32", "double": "product_f64", "int32_t": "product_i32"}
_HELD = {"float": Element.F32, "double": Element.F64, "int32_t": Element.I32}
_PRECISIONS = {"ieee", "tf32", "tf32x3", "bf16x3", "bf16x6"}


def _dot(state: Lowering, operation: Operation) -> None:
    """`inputPrecision`: tf32 rounds fp32 operands as tensor cores do, tf32x3 splits them; others are exact."""
    left, right, start = (state.tile(value) for value in operation.operands)
    kinds = [tile.element for tile in (left, right, start)]
    if not all(isinstance(kind, Element) for kind in kinds):
        raise state.refuse(operation, "its operands are no numbers")
    precision = operation.attributes.get("inputPrecision", "ieee")
    if precision not in _PRECISIONS:
        raise state.refuse(
            operation, f"the precision {precision!r} is not known ({', '.join(sorted(_PRECISIONS))} are)"
        )
    result = start.element
    assert isinstance(result, Element)
    kind = "double" if result is Element.F64 else "float" if result.is_float else "int32_t"
    single = left.element is right.element is Element.F32
    rounded = precision == "tf32" and single
    sum_tile = _accumulator(state, operation.operands[2], start, kind)
    with state.code.braces(""):
        arrays = [_operand(state, each, kind, rounded).buffer for each in (left, right)]
        *batch, m, k = left.shape
        n = right.shape[-1]
        sizes, function = f"{m}, {n}, {k}", _FUNCTIONS[kind]
        if precision == "tf32x3" and single:
            parts = state.code.buffer("float", 2 * k * (m + n))
            sizes, function = f"{sizes}, {parts}", "product_tf32x3"
        if not batch:
            state.code.line(f"{function}({sizes}, {arrays[0]}, {arrays[1]}, {sum_tile.buffer});")
        else:
            b = state.code.fresh("b")
            places = (
                f"{arrays[0]} + {b} * {m * k}",
                f"{arrays[1]} + {b} * {k * n}",
                f"{sum_tile.buffer} + {b} * {m * n}",
            )
            state.code.line(f"for (long {b} = 0; {b} < {batch[0]}; {b}++)")
            state.code.line(f"    {function}({sizes}, {', '.join(places)});")
    if result is not sum_tile.element:
        sum_tile = _converted(sum_tile, result, lambda text: narrowed(result, text))
    state.define(operation.results[0], sum_tile)


def _accumulator(state: Lowering, value: Value, start: Tile, kind: str) -> Tile:
    """An array that holds what the sums start from: that of the third operand itself, if nothing else reads it."""
    if start.element is _HELD[kind]:
        return start if state.may_overwrite(value) else state.copy(start)
    assert isinstance(start.element, Element)
    element = start.element
    return _as(state, start, kind, lambda text: widened(element, text))


def _operand(state: Lowering, tile: Tile, kind: str, rounded: bool) -> Tile:
    """An operand's array in the type that is computed in."""
    element = tile.element
    assert isinstance(element, Element)
    if element is _HELD[kind] and not rounded:
        return state.store(tile)
    if rounded:
        return _as(state, tile, kind, lambda text: f"f32_to_tf32({text})")
    return _as(state, tile, kind, lambda text: widened(element, text) if element.is_float else f"(int32_t){text}")


def _as(state: Lowering, tile: Tile, kind: str, convert: Callable[[str], str]) -> Tile:
    target = stored(state.code.buffer(kind, tile.size), tile.shape, _HELD[kind])
    state.write(target, _converted(tile, _HELD[kind], convert))
    return target


def _converted(tile: Tile, element: Element, convert: Callable[[str], str]) -> Tile:
    def text(arguments: Sequence[str]) -> str:
        return convert(arguments[0])

    return computed(tile.shape, element, 1, [tile], text)


DOT_HANDLERS: dict[str, Handler] = {"tt.dot": _dot}
