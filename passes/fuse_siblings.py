"""Compute several results of the same operands in one go:  f(x), g(x)  ->  one `fused` node with two results.

Only groups of views and element-wise nodes with results of one type: they cost little more than to be called. Groups
that read the same operands cannot depend on each other, so the graph stays without cycles.
"""

from __future__ import annotations

from fusible.compiler.ir.definition import Elementwise, View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fuse_regions import Printable
from fusible.passes.fusion import copy_node, graphs_outside_groups
from fusible.passes.ledger import Cost, Entry, Kind

__all__ = ["FuseSiblings"]


_NEAR = 16  # nodes between two groups, at most: the second result is kept from the first one's place on


class FuseSiblings(GraphPass):
    """The pass `fuse-siblings`. The target says what it can print: `context.target["printable"]`."""

    name = "fuse-siblings"
    exactness = Exactness.EXACT

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups made before."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Merge each group into the last one before it that reads the same and gives the same type."""
        printable = context.target.get("printable")
        if not callable(printable):
            return 0
        done = 0
        before: dict[tuple[object, ...], tuple[int, Node]] = {}
        for place, node in enumerate(list(graph)):
            if not _is_light(node):
                continue
            key = (tuple(dict.fromkeys(node.inputs)), node.outputs[0].type)
            other = before.get(key)
            near = other is not None and (place - other[0] <= _NEAR or set(node.outputs) <= set(graph.outputs))
            merged = self._merged(graph, other[1], node, printable, context) if other is not None and near else None
            done += merged is not None
            before[key] = (place, node) if other is None or merged is None else (other[0], merged)
        return done

    def _merged(
        self, graph: Graph, first: Node, second: Node, printable: Printable, context: PassContext
    ) -> Node | None:
        """One group for both, in the place of the first, or None."""
        origin = tuple(dict.fromkeys((*first.origin, *second.origin)))
        inner, operands = _together(graph, (first, second))
        reason = printable(list(inner), inner.outputs)
        if reason is not None:
            entry = Entry(Kind.REFUSED, self.name, "", origin, reason, cost=Cost(0, 1))
            context.ledger.add(entry)
        if reason is not None or not context.take():
            inner.release()
            return None
        with graph.inserting_before(first, origin):
            fused = graph.add_node("fused", operands, {}, outputs=len(inner.outputs), subgraphs=[inner])
        results = list(fused.outputs)
        for node in (first, second):
            graph.replace(node, [results.pop(0) for _ in node.outputs])
        chain = f"{len(fused.outputs)} results of the same operands"
        context.ledger.add(Entry(Kind.FUSED, self.name, "", origin, chain, saved=Cost(0, 1)))
        return fused


def _is_light(node: Node) -> bool:
    """True for groups of views and element-wise nodes with results of one type."""
    if node.op.name != "fused" or node.subgraphs[0].name != "fused":
        return False
    definitions = [inner.op.definition(inner) for inner in node.subgraphs[0]]
    plain = all(
        isinstance(d, Elementwise) or (isinstance(d, View) and not any(m.indirect for m in d.maps)) for d in definitions
    )
    return plain and len({v.type for v in node.outputs}) == 1


def _together(graph: Graph, nodes: tuple[Node, Node]) -> tuple[Graph, list[Value | None]]:
    """A graph that holds what both groups do, results of the first before those of the second, and its operands."""
    made = Graph("fused", graph.symbols)
    operands: list[Value | None] = list(dict.fromkeys(nodes[0].inputs))
    formal = {v: made.input(v.type, v.name) for v in operands if v is not None}
    results: list[Value] = []
    for node in nodes:
        inner = node.subgraphs[0]
        mapped = {f: formal[v] for f, v in zip(inner.inputs, node.inputs, strict=True) if v is not None}
        for part in inner:
            copy = copy_node(made, part, mapped)
            mapped.update(zip(part.outputs, copy.outputs, strict=True))
        results += [mapped[v] for v in inner.outputs]
    made.set_outputs(results)
    return made, operands
