"""Fuse chains of element-wise nodes:  f(g(x, y), z)  ->  one `fused` node whose subgraph is the chain.

A node joins the group of its producer when the value between them has no other user, both have the same shape and
every element type is one that the target computes without a widening of its own. Rounding does not move: each node
stays a stage with its own type, so results are bit-equal.
"""

from __future__ import annotations

from fusible.compiler.ir.definition import Elementwise
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.build import is_elementwise
from fusible.compiler.region.expr import Apply, Convert, Expr
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import graphs_outside_groups, literal_bytes
from fusible.passes.ledger import Cost, Entry, Kind

__all__ = ["FuseElementwise"]

_TYPES = (DType.F32, DType.F64)


class FuseElementwise(GraphPass):
    """The pass `fuse-elementwise`."""

    name = "fuse-elementwise"
    exactness = Exactness.EXACT

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups made before."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Group, then replace each group of two or more."""
        groups: dict[Node, list[Node]] = {}
        for node in graph:
            if _candidate(node) and replacement_kernel(node, str(context.target.get("name", ""))) is None:
                groups[node] = self._join(node, groups, graph, context)
                groups[node].append(node)
        made = 0
        for members in {id(g): g for g in groups.values()}.values():
            if len(members) > 1 and context.take():
                self._replace(graph, members, context)
                made += 1
        return made

    def _join(self, node: Node, groups: dict[Node, list[Node]], graph: Graph, context: PassContext) -> list[Node]:
        """The group of the first operand that allows it, else a new one."""
        for value in dict.fromkeys(node.inputs):
            producer = value.producer if value is not None else None
            if value is None or producer is None or producer not in groups:
                continue
            reason = _refusal(value, node, graph)
            if reason is None:
                return groups[producer]
            cost = Cost(2 * literal_bytes(value), 1)
            nodes = (*producer.origin, *node.origin)
            context.ledger.add(Entry(Kind.REFUSED, self.name, "", nodes, reason, (value.name,), cost=cost))
        return []

    def _replace(self, graph: Graph, members: list[Node], context: PassContext) -> None:
        last = members[-1]
        inside = set(members)
        inner = Graph("fused", graph.symbols)
        mapped: dict[Value, Value] = {}
        operands: list[Value] = []
        saved = 0
        for node in members:
            for value in node.inputs:
                if (
                    value is not None
                    and value not in mapped
                    and (value.producer is None or value.producer not in inside)
                ):
                    mapped[value] = inner.input_for(value)
                    operands.append(value)
            attrs = {name: getattr(node.attrs, name) for name in node.op.attribute_names}
            copy = inner.add_node(
                node.op,
                [None if v is None else mapped[v] for v in node.inputs],
                attrs,
                names=[node.output.name],
                origin=node.origin,
                types=[node.output.type],
            )
            mapped[node.output] = copy.output
            saved += 2 * literal_bytes(node.output) if node is not last else 0
        inner.set_outputs([mapped[last.output]])
        origin = tuple(o for node in members for o in node.origin)
        with graph.inserting_before(last, origin):
            fused = graph.add_node("fused", operands, {}, outputs=1, subgraphs=[inner])
        graph.replace(last, fused.outputs[0])
        for node in reversed(members[:-1]):
            graph.erase(node)
        cost = Cost(saved, len(members) - 1)
        chain = " -> ".join(node.op.name for node in members)
        context.ledger.add(Entry(Kind.FUSED, self.name, "", origin, chain, saved=cost))


def _candidate(node: Node) -> bool:
    if not is_elementwise(node) or not node.op.pure:
        return False
    types = [v.type for v in (*node.inputs, *node.outputs) if v is not None]
    first = node.output.type
    definition = node.op.definition(node)
    assert isinstance(first, TensorType) and isinstance(definition, Elementwise)
    if _converts(definition.expr):
        return False
    return first.dtype in _TYPES and all(isinstance(t, TensorType) and t.dtype is first.dtype for t in types)


def _converts(expr: Expr) -> bool:
    return isinstance(expr, Convert) or (isinstance(expr, Apply) and any(_converts(a) for a in expr.args))


def _refusal(value: Value, node: Node, graph: Graph) -> str | None:
    """Why the two ends of `value` stay apart, or None."""
    if any(user is not node for user, _ in value.uses):
        return f"the value has {len(value.users)} users"
    if any(v is value for v in graph.outputs):
        return "the value is an output of the model"
    if not isinstance(value.type, TensorType) or value.type != node.output.type:
        return f"shapes differ: {value.type} and {node.output.type}"
    return None
