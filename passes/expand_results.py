"""Write ops with several results as the simpler ops of their definition:  y, scale = f(x)  ->  the nodes of f.

A region stores results of one shape; of an op whose results differ in shape, such as a quantisation and its scale, each
must follow from nodes of its own. Only definitions without loops are expanded, and no op that the target has a kernel
for (`context.target["own_kernels"]`).
"""

from __future__ import annotations

from fusible.compiler.ir.definition import Composite
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import copy_node, graphs_outside_groups
from fusible.passes.ledger import Entry, Kind

__all__ = ["ExpandResults"]


class ExpandResults(GraphPass):
    """The pass `expand-results`, for targets without kernels for such ops."""

    name = "expand-results"
    exactness = Exactness.REASSOCIATING

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Expand every such node."""
        done = 0
        own = context.target.get("own_kernels")
        own = own if isinstance(own, frozenset) else frozenset()
        for node in list(graph):
            if node.op.name in own:
                continue
            inner = _expansion(node)
            if inner is None or not context.take():
                continue
            reason = f"its {len(node.outputs)} results differ in shape: {len(inner)} nodes"
            context.ledger.add(Entry(Kind.FIRED, self.name, "", node.origin, reason))
            _put(graph, node, inner)
            done += 1
        return done


def _expansion(node: Node) -> Graph | None:
    """The graph to put in the place of a node, or None."""
    if len(node.outputs) < 2 or node.subgraphs or len({str(v.type).partition("[")[2] for v in node.outputs}) == 1:
        return None
    definition = node.op.definition(node)
    if not isinstance(definition, Composite):
        return None
    inner = definition.build(node)
    given = [v for v in node.inputs if v is not None]
    if any(part.subgraphs for part in inner) or len(inner.inputs) != len(given):
        return None
    return inner


def _put(graph: Graph, node: Node, inner: Graph) -> None:
    mapped: dict[Value, Value] = dict(zip(inner.inputs, (v for v in node.inputs if v is not None), strict=True))
    with graph.inserting_before(node, node.origin):
        for part in inner:
            copy = copy_node(graph, part, mapped)
            mapped.update(zip(part.outputs, copy.outputs, strict=True))
    graph.replace(node, [mapped[v] for v in inner.outputs])
    inner.release()
