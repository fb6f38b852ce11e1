"""Compute several results of the same operands in one go:  f(x), g(x)  ->  one `fused` node with two results.

Only groups of views and element-wise nodes with results of one type: they cost little more than to be called. Groups
that read the same operands cannot depend on each other, so the graph stays without cycles. Where a launch costs more
than cases inside a kernel (Triton's), one common operand is enough, as of the caches of keys and values that one
product extends; then the first group must have no reader in front of the second, or the second read nothing that is
made behind the first.
"""

from __future__ import annotations

from collections.abc import Mapping

from fusible.compiler.ir.definition import Elementwise, View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fuse_regions import Printable
from fusible.passes.fusion import copy_node, graphs_outside_groups
from fusible.passes.ledger import Cost, Entry, Kind
from fusible.passes.packed_weights import READS_PACKED

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
        if context.target.get(READS_PACKED):
            return self._merge_near(graph, printable, context)
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

    def _merge_near(self, graph: Graph, printable: Printable, context: PassContext) -> int:
        """Merge each group into the nearest one before it that has an operand of its own and gives the same type."""
        done = 0
        recent: list[Node] = []
        for node in [n for n in graph if _is_light(n)]:
            place = {n: number for number, n in enumerate(graph)}
            for other in reversed(recent):
                far = place[node] - place[other] > _NEAR and not set(node.outputs) <= set(graph.outputs)
                if far or other.outputs[0].type != node.outputs[0].type or not _shared(other, node):
                    continue
                at = _meeting(other, node, place)
                merged = None if at is None else self._merged(graph, other, node, printable, context, at)
                if merged is not None:
                    recent[recent.index(other)] = merged
                    done += 1
                    break
            else:
                recent.append(node)
        return done

    def _merged(
        self,
        graph: Graph,
        first: Node,
        second: Node,
        printable: Printable,
        context: PassContext,
        at: Node | None = None,
    ) -> Node | None:
        """One group for both, in the place of the first or of the node `at`, or None."""
        origin = tuple(dict.fromkeys((*first.origin, *second.origin)))
        inner, operands = _together(graph, (first, second))
        reason = printable(list(inner), inner.outputs)
        if reason is not None:
            entry = Entry(Kind.REFUSED, self.name, "", origin, reason, cost=Cost(0, 1))
            context.ledger.add(entry)
        if reason is not None or not context.take():
            inner.release()
            return None
        with graph.inserting_before(at or first, origin):
            fused = graph.add_node("fused", operands, {}, outputs=len(inner.outputs), subgraphs=[inner])
        results = list(fused.outputs)
        for node in (first, second):
            graph.replace(node, [results.pop(0) for _ in node.outputs])
        alike = "the same" if set(first.inputs) == set(second.inputs) else "common"
        chain = f"{len(fused.outputs)} results of {alike} operands"
        context.ledger.add(Entry(Kind.FUSED, self.name, "", origin, chain, saved=Cost(0, 1)))
        return fused


def _shared(first: Node, second: Node) -> bool:
    """True if two groups have an operand in common that is made in each run."""
    return any(v is not None and v.constant is None and v in first.inputs for v in second.inputs)


def _meeting(first: Node, second: Node, place: Mapping[Node, int]) -> Node | None:
    """Before which of two groups what both do can stand, or None: all operands are made by then, no result is read."""
    made = [place.get(v.producer, -1) for v in second.inputs if v is not None and v.producer is not None]
    if max(made, default=-1) < place[first]:
        return first
    read = [place[user] for v in first.outputs for user in v.users if user in place]
    inside = any(user not in place for v in first.outputs for user in v.users)
    return second if not inside and min(read, default=place[second] + 1) > place[second] else None


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
    operands: list[Value | None] = list(dict.fromkeys(v for node in nodes for v in node.inputs))
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
