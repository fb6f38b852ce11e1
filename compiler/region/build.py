"""Regions from nodes: which axes the loops run over, and where the outputs are stored.

The axes are those of a *home* value, by default the first output. Views between it and the outputs are turned round and
become the places that are stored to; everything else is derived by demand (`derive.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.ir.definition import Composite, Elementwise, View
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.derive import Derivation
from fusible.compiler.region.index import IndexMap
from fusible.compiler.region.inverse import inverse_views, is_even_join, moved
from fusible.compiler.region.prune import pruned
from fusible.compiler.region.region import Region, Store
from fusible.compiler.region.tensors import NoRegion, buffer_of, holds, shape_of

__all__ = ["Built", "NoRegion", "build_region", "is_elementwise", "region_of"]


@dataclass(frozen=True, slots=True)
class Built:
    """A region, and the graph values that its inputs and outputs stand for."""

    region: Region
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def is_elementwise(node: Node) -> bool:
    """True if the node has one output, computed by a scalar expression, and every shape has a known rank."""
    if len(node.outputs) != 1 or any(v is None for v in node.inputs) or not node.inputs:
        return False
    types = [v.type for v in (*node.inputs, *node.outputs) if v is not None]
    if not all(isinstance(t, TensorType) and t.shape is not None for t in types):
        return False
    return isinstance(node.op.definition(node), Elementwise)


def region_of(node: Node) -> Region | None:
    """The region of an element-wise node or of a `fused` node, a buffer for each operand; None for any other."""
    if node.op.name == "fused":
        graph = node.subgraphs[0]
        return build_region(list(graph), graph.outputs, inputs=graph.inputs).region
    if not is_elementwise(node):
        return None
    return build_region([node], node.outputs, inputs=[v for v in node.inputs if v is not None]).region


def build_region(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    *,
    inputs: Sequence[Value] = (),
    home: Value | None = None,
    inline_scalars: bool = False,
) -> Built:
    """The region that computes `outputs` by `nodes`, which are in topological order.

    The shapes of the outputs are that of `home` (a value that the nodes compute, by default the first output), have
    dimensions of 1 in its place, or follow from it by views. inputs: values whose buffers come first, in this order;
    others follow as they are met. inline_scalars: constants of one element become literals. Raises NoRegion.
    """
    made = Derivation(nodes, inputs, inline_scalars)
    places = _Places(made, home if home is not None else outputs[0], outputs)
    for node in nodes:
        places.follow(node)
    stores = tuple(store for number, output in enumerate(outputs) for store in places.stores(number, output))
    buffers = tuple(buffer_of(v) for v in made.inputs), tuple(buffer_of(v) for v in outputs)
    region = pruned(Region(tuple(made.extents), *buffers, tuple(made.stages), stores))
    return Built(region, tuple(made.inputs), tuple(outputs))


class _Places:
    """Where the point of the home value lands in each value downstream of it."""

    def __init__(self, made: Derivation, home: Value, outputs: Sequence[Value]) -> None:
        self.made, self.home = made, home
        index: list[Dim] = [0 if d == 1 else made.axis(made.new_axis(d)) for d in shape_of(home)]
        made.home = tuple(index)
        self.known: dict[Value, IndexMap] = {home: IndexMap(made.home)}
        self.joined: dict[Value, list[tuple[IndexMap, int]]] = {}  # of what is joined, the place of each piece's value
        self.upstream = self._upstream([home, *outputs])

    def _upstream(self, values: Sequence[Value]) -> set[Value]:
        """What values are made from at their own index: no contraction, fold or view stands between.

        A value beyond one may have the home's shape by chance (attention with as many keys as elements of a head).
        """
        found: set[Value] = set(values)
        waiting = list(values)
        while waiting:
            node = waiting.pop().producer
            if node is None or node not in self.made.inside:
                continue
            if isinstance(node.op.definition(node), Elementwise | Composite):
                new = [v for v in node.inputs if v is not None and v not in found]
                found.update(new)
                waiting += new
        return found

    def follow(self, node: Node) -> None:
        """Place the node's output; derive element-wise values in order, which keeps the recursion flat."""
        definition = node.op.definition(node)
        if isinstance(definition, View):
            self._follow_view(node, definition)
        elif isinstance(definition, Elementwise):
            place = self._follow_elementwise(node, node.outputs[0])
            if place is not None:
                self.made.value(node.outputs[0], place.components, place.bounds)

    def _follow_elementwise(self, node: Node, output: Value) -> IndexMap | None:
        if output is self.home:
            return self.known[output]
        for operand in node.inputs:
            if operand is not None and operand in self.known and shape_of(operand) == shape_of(output):
                return self.known.setdefault(output, self.known[operand])
        if output in self.upstream and shape_of(output) == shape_of(self.home):
            return self.known[self.home]
        return None

    def _follow_view(self, node: Node, definition: View) -> None:
        operand = node.inputs[definition.operands[0]]
        placed = {self.known[v] for v in node.inputs if v is not None and v in self.known}
        if len(placed) == 1 and is_even_join(node):
            self._follow_join(node, placed.pop())
            return
        if operand in self.joined and len(definition.maps) == 1:
            (inverse,) = inverse_views(node)
            if inverse is not None:
                moves = [(moved(inverse, place.components), value) for place, value in self.joined[operand]]
                self.joined[node.outputs[0]] = moves
            return
        if operand is None or operand not in self.known:
            return
        before = self.known[operand]
        for output, inverse in zip(node.outputs, inverse_views(node), strict=True):
            if inverse is None or output in self.known:
                continue
            place = moved(inverse, before.components)
            bounds = tuple(b for b in place.bounds if not holds(b))
            self.known[output] = IndexMap(place.components, (*before.bounds, *bounds))
            # Whoever asks for the view at this place means the operand's point: no digits are taken apart.
            self.made.same(output, self.known[output], self.made.value(operand, before.components, before.bounds))

    def _follow_join(self, node: Node, place: IndexMap) -> None:
        """The pieces of a concatenation, each of which has an element for each point of the home value."""
        along, pieces = node.attrs.axis % len(shape_of(node.outputs[0])), list[tuple[IndexMap, int]]()
        offset: Dim = 0
        for operand in node.inputs:
            assert operand is not None
            at = tuple(c + offset if d == along else c for d, c in enumerate(place.components))
            value = self.made.value(operand, place.components, place.bounds)
            pieces.append((IndexMap(at, place.bounds), value))
            offset = offset + shape_of(operand)[along]
        self.joined[node.outputs[0]] = pieces

    def stores(self, number: int, output: Value) -> tuple[Store, ...]:
        """The stores of an output: one, or one for each piece that it is joined of. Raises NoRegion as `store`."""
        if output in self.joined:
            return tuple(Store(number, place, value) for place, value in self.joined[output])
        return (self.store(number, output),)

    def store(self, number: int, output: Value) -> Store:
        """The store of an output. Raises NoRegion if its shape does not follow from the home value's."""
        place = self.known.get(output)
        if place is None:
            own, shape = shape_of(output), shape_of(self.home)
            if len(own) != len(shape) or not all(d in (1, s) for d, s in zip(own, shape, strict=True)):
                raise NoRegion(f"the shape of output {output.name!r} is not that of the others", output.producer)
            place = IndexMap(tuple(0 if d == 1 else i for d, i in zip(own, self.made.home, strict=True)))
        return Store(number, place, self.made.value(output, place.components, place.bounds))
