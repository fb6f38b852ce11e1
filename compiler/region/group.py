"""Groups from nodes: one region for each part of a partition, with local buffers for what goes from part to part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.ir.definition import Contraction, Elementwise, View
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.region.build import Built, build_region
from fusible.compiler.region.index import IndexMap, axis
from fusible.compiler.region.inverse import inverse_views, is_even_join
from fusible.compiler.region.region import Buffer, Group, Load, Region, Step, Store
from fusible.compiler.region.tensors import NoRegion, buffer_of, shape_of

__all__ = ["BuiltGroup", "build_group", "home_of"]


@dataclass(frozen=True, slots=True)
class BuiltGroup:
    """A group, and the graph values that its inputs and outputs stand for."""

    group: Group
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def home_of(nodes: Sequence[Node], outputs: Sequence[Value]) -> Value | None:
    """The anchor's result, over whose axes the loops run: the contraction from which the first output follows.

    Between the two stand element-wise nodes and views that can be turned round; a split only if its pieces are the
    outputs. None if there is none.
    """
    inside = set(nodes)
    start = list(outputs[:1])
    first = outputs[0].producer
    if first is not None and first in inside and len(first.outputs) > 1 and set(first.outputs) <= set(outputs):
        start = [v for v in first.inputs[:1] if v is not None]
    seen: set[Value] = set()
    while start:
        value = start.pop()
        node = value.producer
        if node is None or node not in inside or value in seen or len(node.outputs) != 1:
            continue
        seen.add(value)
        match node.op.definition(node):
            case Contraction():
                return value
            case Elementwise():
                shape = shape_of(value)
                start += [v for v in reversed(node.inputs) if v is not None and shape_of(v) == shape]
            case View() if is_even_join(node):
                start += [v for v in reversed(node.inputs) if v is not None]
            case View() if inverse_views(node)[0] is not None:
                start += [v for v in node.inputs[:1] if v is not None]
    return None


def build_group(
    parts: Sequence[Sequence[Node]],
    outputs: Sequence[Value],
    *,
    joins: Sequence[Node] = (),
    inputs: Sequence[Value] = (),
    inline_scalars: bool = False,
) -> BuiltGroup:
    """The group whose regions compute the parts, in order.

    joins: concatenations that no part computes: each region writes its piece of the result where it belongs. inputs:
    values whose buffers come first. Raises NoRegion.
    """
    maker = _Maker(parts, outputs, joins, inline_scalars)
    made = [maker.part(part) for part in parts]
    made += [maker.piece(join, number) for join in joins for number in maker.missing(join)]
    read = dict.fromkeys([*inputs, *(v for built in made for v in built.inputs if v not in maker.written)])
    local = [v for v in dict.fromkeys(v for built in made for v in built.outputs) if v not in outputs]
    numbers = {v: n for n, v in enumerate([*read, *outputs, *local])}
    steps = tuple(
        Step(b.region, tuple(numbers[v] for v in b.inputs), tuple(numbers[v] for v in b.outputs)) for b in made
    )
    group = Group(len(read), len(outputs), tuple(buffer_of(v) for v in numbers), steps)
    return BuiltGroup(group, tuple(read), tuple(outputs))


class _Maker:
    def __init__(
        self, parts: Sequence[Sequence[Node]], outputs: Sequence[Value], joins: Sequence[Node], inline_scalars: bool
    ) -> None:
        self.outputs, self.joins, self.inline_scalars = outputs, joins, inline_scalars
        self.written = {v for part in parts for node in part for v in node.outputs} | {j.outputs[0] for j in joins}
        self.pieces: dict[Value, tuple[Node, int]] = {
            v: (join, n) for join in joins for n, v in enumerate(join.inputs) if v is not None
        }

    def part(self, nodes: Sequence[Node]) -> Built:
        """The region of one part; results that only a join reads go straight to their place in it."""
        inside = set(nodes)
        made = [v for node in nodes for v in node.outputs if v in self.outputs or any(u not in inside for u in v.users)]
        built = build_region(nodes, made, home=home_of(nodes, made), inline_scalars=self.inline_scalars)
        region, results = built.region, list(made)
        for number, value in enumerate(made):
            if value in self.pieces and value not in self.outputs and len(value.users) == 1:
                join, position = self.pieces[value]
                results[number] = join.outputs[0]
                region = _shifted(region, number, buffer_of(join.outputs[0]), _offsets(join, position))
        return Built(region, built.inputs, tuple(results))

    def missing(self, join: Node) -> list[int]:
        """The operands of a join that no part writes into place."""
        return [
            n
            for n, v in enumerate(join.inputs)
            if v is not None and not (v in self.written and v not in self.outputs and len(v.users) == 1)
        ]

    def piece(self, join: Node, number: int) -> Built:
        """The region that copies an operand to its place in a join."""
        operand = join.inputs[number]
        assert operand is not None
        shape = shape_of(operand)
        index = IndexMap(tuple(0 if d == 1 else axis(n) for n, d in enumerate(shape)))
        buffer = buffer_of(operand)
        region = Region(shape, (buffer,), (buffer,), (Load(0, index),), (Store(0, index, 0),))
        return Built(_shifted(region, 0, buffer_of(join.outputs[0]), _offsets(join, number)), (operand,), join.outputs)


def _offsets(join: Node, number: int) -> IndexMap:
    """The place in a join of its operand's element i0, i1, ...: the join's map turned round."""
    definition = join.op.definition(join)
    if not isinstance(definition, View):
        raise NoRegion(f"{join.op.name} does not put its operands side by side", join)
    forward = definition.maps[number]
    zero = {f"i{n}": 0 for n in range(len(forward.components))}
    return IndexMap(tuple(axis(n) - substitute(c, zero) for n, c in enumerate(forward.components)))


def _shifted(region: Region, number: int, buffer: Buffer, place: IndexMap) -> Region:
    """The region with output `number` stored into a larger buffer."""
    stores: list[Store] = []
    for store in region.stores:
        if store.buffer == number:
            names = {f"i{n}": c for n, c in enumerate(store.map.components)}
            moved = tuple(substitute(c, names) for c in place.components)
            store = Store(number, IndexMap(moved, store.map.bounds), store.value)
        stores.append(store)
    outputs = tuple(buffer if n == number else b for n, b in enumerate(region.outputs))
    return Region(region.extents, region.inputs, outputs, region.stages, tuple(stores))
