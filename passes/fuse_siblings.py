"""Compute several results of the same operands in one go:  f(x), g(x)  ->  one `fused` node with two results.

Only groups of views and element-wise nodes with results of one type: they cost little more than to be called. Groups
that read the same operands cannot depend on each other, so the graph stays without cycles. Where a launch costs more
than cases inside a kernel (Triton's), one common operand is enough, as of the caches of keys and values that one
product extends; then the first group must have no reader in front of the second, or the second read nothing that is
made behind the first. There the second may also map the elements of the first's result, which others read as well: a
cast for the caller.

A kernel has 16 results at most: they are computed before any is stored, in vectors of up to eight elements, so that 16
fill half of a GPU thread's 255 registers, and processors follow not many more lines that are written. A further launch
is then a sixteenth of what the results took apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusible.compiler.ir.definition import Elementwise
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import Shape, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fuse_regions import MOST_READ, Printable
from fusible.passes.fusion import copy_node, graphs_outside_groups, is_pointwise
from fusible.passes.ledger import Cost, Entry, Kind
from fusible.passes.packed_weights import READS_PACKED

__all__ = ["FuseSiblings"]


_NEAR = 16  # nodes between two groups, at most: the second result is kept from the first one's place on
_MOST = 16  # results of a kernel: see above
_TRIED = 4  # groups that a node is tried with, or many that no kernel can be printed for took quadratic time


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
        wanted = _wanted(graph)
        for place, node in enumerate(list(graph)):
            if not _is_light(node):
                continue
            key = (tuple(dict.fromkeys(node.inputs)), node.outputs[0].type)
            other = before.get(key)
            near = other is not None and (place - other[0] <= _NEAR or node in wanted)
            merged = self._merged(graph, other[1], node, printable, context) if other is not None and near else None
            done += merged is not None
            before[key] = (place, node) if other is None or merged is None else (other[0], merged)
        return done

    def _merge_near(self, graph: Graph, printable: Printable, context: PassContext) -> int:
        """Merge each group into the nearest one before it that has an operand of its own and gives the same shape."""
        done = 0
        recent: dict[Node, int] = {}  # groups, by when they were met
        wanted, place = _wanted(graph), _places(graph)
        for number, node in enumerate([n for n in graph if _is_light(n) or _is_map(n)]):
            for other, at in self._candidates(node, recent, place, node in wanted):
                merged = self._merged(graph, other, node, printable, context, at)
                if merged is not None:
                    recent[merged] = recent.pop(other)
                    place = _places(graph)
                    done += 1
                    break
            else:
                recent.update({node: number} if _is_light(node) else {})
        return done

    @staticmethod
    def _candidates(
        node: Node, recent: Mapping[Node, int], place: Mapping[Node, int], wanted: bool
    ) -> list[tuple[Node, Node]]:
        """The groups that a node may join, the last first, and before which node what both do can stand."""
        found: list[tuple[Node, Node]] = []
        for other in sorted((n for n in _neighbours(node) if n in recent), key=recent.__getitem__, reverse=True):
            near = place[node] - place[other] <= _NEAR or wanted
            at = _meeting(other, node, place) if near and _shape(other) == _shape(node) else None
            if at is not None and _shared(other, node):
                found.append((other, at))
            if len(found) == _TRIED:
                break
        return found

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
        read = {v for node in (first, second) for v in node.inputs if v is not None}
        results = len(first.outputs) + len(second.outputs)
        if results > _MOST or len(read) > MOST_READ:
            most = f"have more than {_MOST} results" if results > _MOST else f"read more than {MOST_READ} values"
            reason = f"the kernel would {most}"
            context.ledger.add(Entry(Kind.REFUSED, self.name, "", origin, reason, cost=Cost(0, 1)))
            return None
        kept = [v for v in first.outputs if v in graph.outputs or any(user is not second for user in v.users)]
        kept += second.outputs
        inner, operands = _together((first, second), graph, kept)
        refusal = printable(list(inner), inner.outputs)
        if refusal is not None:
            context.ledger.add(Entry(Kind.REFUSED, self.name, "", origin, refusal, cost=Cost(0, 1)))
        if refusal is not None or not context.take():
            inner.release()
            return None
        with graph.inserting_before(at or first, origin):
            fused = graph.add_node("fused", operands, {}, outputs=len(kept), subgraphs=[inner])
        alike = "the same" if set(first.inputs) == set(second.inputs) else "common"
        for old, new in zip(kept, fused.outputs, strict=True):
            new.name = new.name or old.name
            graph.redirect(old, new)
        graph.erase(second)  # before the first, whose result it may read
        graph.erase(first)
        chain = f"{len(fused.outputs)} results of {alike} operands"
        context.ledger.add(Entry(Kind.FUSED, self.name, "", origin, chain, saved=Cost(0, 1)))
        return fused


def _wanted(graph: Graph) -> set[Node]:
    """The nodes whose results are all the graph's: they are kept to the end wherever they are computed."""
    results = set(graph.outputs)
    return {node for node in graph if set(node.outputs) <= results}


def _places(graph: Graph) -> dict[Node, int]:
    return {node: number for number, node in enumerate(graph)}


def _neighbours(node: Node) -> set[Node]:
    """The nodes that make what a node reads, or read it too, but for constants."""
    read = [v for v in node.inputs if v is not None and v.constant is None]
    return {user for v in read for user, _ in v.uses} | {v.producer for v in read if v.producer is not None}


def _shape(node: Node) -> Shape | None:
    """Of the results, which have one type in each group."""
    type_ = node.outputs[0].type
    assert isinstance(type_, TensorType)
    return type_.shape


def _shared(first: Node, second: Node) -> bool:
    """True if two groups have an operand in common that is made in each run, or the second maps the first's result."""
    if _is_map(second) and any(v in first.outputs for v in second.inputs):
        return True
    return _is_light(second) and any(v is not None and v.constant is None and v in first.inputs for v in second.inputs)


def _meeting(first: Node, second: Node, place: Mapping[Node, int]) -> Node | None:
    """Before which of two groups what both do can stand, or None: all operands are made by then, no result is read."""
    own = set(first.outputs) if _is_map(second) else set()
    read = [v for v in second.inputs if v is not None and v not in own]
    made = [place.get(v.producer, -1) for v in read if v.producer is not None]
    if max(made, default=-1) < place[first]:
        return first
    seen = [place[user] for v in first.outputs for user in v.users if user in place and not (own and user is second)]
    inside = any(user not in place for v in first.outputs for user in v.users)
    return second if not inside and min(seen, default=place[second] + 1) > place[second] else None


def _is_light(node: Node) -> bool:
    """True for groups of views and element-wise nodes with results of one type."""
    if node.op.name != "fused" or node.subgraphs[0].name != "fused":
        return False
    plain = all(map(is_pointwise, node.subgraphs[0]))
    return plain and len({v.type.shape for v in node.outputs if isinstance(v.type, TensorType)}) == 1


def _is_map(node: Node) -> bool:
    """True for element-wise nodes, and groups of nothing else: an element of the result needs the same of operands."""
    if node.op.name == "fused" and node.subgraphs[0].name == "fused":
        return all(isinstance(inner.op.definition(inner), Elementwise) for inner in node.subgraphs[0])
    return not node.subgraphs and len(node.outputs) == 1 and isinstance(node.op.definition(node), Elementwise)


def _is_number(value: Value, nodes: tuple[Node, Node]) -> bool:
    """True for constants of one element, free in subgraphs, that no group has as an operand."""
    taken = any(value in node.inputs for node in nodes if node.op.name == "fused")
    return not taken and value.constant is not None and value.constant.size == 1


def _together(nodes: tuple[Node, Node], graph: Graph, kept: Sequence[Value]) -> tuple[Graph, list[Value | None]]:
    """A graph that holds what both groups do, and its operands. kept: the results of theirs that become its own."""
    made = Graph("fused", graph.symbols)
    inside, wanted = set(nodes[0].outputs), (v for node in nodes for v in node.inputs if v is not None)
    operands: list[Value | None] = [v for v in dict.fromkeys(wanted) if v not in inside and not _is_number(v, nodes)]
    known = {v: made.input_for(v) for v in operands if v is not None}
    for node in nodes:
        if node.op.name != "fused":
            known.update(zip(node.outputs, copy_node(made, node, known).outputs, strict=True))
            continue
        inner = node.subgraphs[0]
        mapped = {f: known[v] for f, v in zip(inner.inputs, node.inputs, strict=True) if v is not None}
        for part in inner:
            copy = copy_node(made, part, mapped)
            mapped.update(zip(part.outputs, copy.outputs, strict=True))
        known.update(zip(node.outputs, (mapped[v] for v in inner.outputs), strict=True))
    made.set_outputs([known[v] for v in kept])
    return made, operands
