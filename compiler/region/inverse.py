"""Where the elements of a view's operand land: index maps turned round.

A view after an anchor becomes the place that the anchor's epilogue stores to.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.definition import View
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, SymInt, product
from fusible.compiler.ir.view_maps import reshape_map
from fusible.compiler.region.index import Bound, IndexMap, axis
from fusible.compiler.region.tensors import shape_of

__all__ = ["inverse_views", "is_even_join", "moved"]


def is_even_join(node: Node) -> bool:
    """True for a concatenation of different values of one shape: a point of one of them is a point of each."""
    if node.op.name != "concat" or any(v is None for v in node.inputs) or len(set(node.inputs)) < len(node.inputs):
        return False
    return len({shape_of(v) for v in node.inputs if v is not None}) == 1


def inverse_views(node: Node) -> list[IndexMap | None]:
    """For each output of a view its index for operand index i0, i1, ...; bounded for the pieces of a split.

    None where an element is seen at several places, or where not all of the operand is seen, or where part of the
    output comes from elsewhere.
    """
    definition = node.op.definition(node)
    assert isinstance(definition, View)
    operand = node.inputs[definition.operands[0]]
    if operand is None or not (definition.split or len(definition.maps) == 1):
        return [None] * len(node.outputs)
    own = shape_of(operand)
    found = [
        _inverse(map_, own, shape_of(output)) for map_, output in zip(definition.maps, node.outputs, strict=True)
    ]
    return [f if f is not None and (definition.split or not f.bounds) else None for f in found]


def _inverse(map_: IndexMap, operand: Sequence[Dim], output: Sequence[Dim]) -> IndexMap | None:
    if map_.bounds or map_.indirect:
        return None
    if product(operand) == product(output) and map_ == reshape_map(operand, output):
        return reshape_map(output, operand)
    places: list[Dim | None] = [0 if size == 1 else None for size in output]
    bounds: list[Bound] = []
    for dimension, (component, size) in enumerate(zip(map_.components, operand, strict=True)):
        names = [s.name for s in symbols_of(component)]
        if not names:
            if size != 1 or component != 0:
                bounds.append(Bound(axis(dimension), component, component + 1))
            continue
        if len(names) != 1 or names[0][0] != "i" or not names[0][1:].isdigit():
            return None
        number = int(names[0][1:])
        shift = component - axis(number)
        if isinstance(shift, SymInt) or (places[number] is not None and output[number] != 1):
            return None
        places[number] = axis(dimension) - shift
        if shift != 0 or size != output[number]:
            bounds.append(Bound(axis(dimension), shift, shift + output[number]))
    if any(place is None for place in places):
        return None
    return IndexMap(tuple(place for place in places if place is not None), tuple(bounds))


def moved(map_: IndexMap, index: Sequence[Dim]) -> IndexMap:
    """The map with its axes replaced by an index."""
    names = {f"i{n}": dim for n, dim in enumerate(index)}
    bounds = tuple(Bound(*(substitute(d, names) for d in (b.expr, b.low, b.high))) for b in map_.bounds)
    return IndexMap(tuple(substitute(c, names) for c in map_.components), bounds, map_.fill)
