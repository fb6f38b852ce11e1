"""Write splits as slices:  a, b = split(x)  ->  a = x[:n], b = x[n:].

A slice has one result, so each reader can take its own part of the operand in place; a split would have to stay whole.
"""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import graphs_outside_groups
from fusible.passes.ledger import Entry, Kind

__all__ = ["SplitSlices"]


class SplitSlices(GraphPass):
    """The pass `split-into-slices`, for targets whose kernels read slices in place."""

    name = "split-into-slices"
    exactness = Exactness.EXACT

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Replace every split."""
        done = 0
        for node in list(graph):
            if node.op.name == "split" and _covers(node) and context.take():
                graph.replace(node, _slices(graph, node))
                context.ledger.add(Entry(Kind.FIRED, self.name, "", node.origin, f"{len(node.outputs)} slices"))
                done += 1
        return done


def _covers(node: Node) -> bool:
    """True if it is known before a run that the sizes add up: the split itself would check them."""
    type_ = None if node.inputs[0] is None else node.inputs[0].type
    if not isinstance(type_, TensorType) or type_.shape is None:
        return False
    total: Dim = 0
    for size in node.attrs.split:
        total = total + size
    return bool(total == type_.shape[node.attrs.axis])


def _slices(graph: Graph, node: Node) -> list[Value]:
    operand, axis = node.inputs[0], node.attrs.axis
    made: list[Value] = []
    start: Dim = 0
    with graph.inserting_before(node, node.origin):
        for size, output in zip(node.attrs.split, node.outputs, strict=True):
            end = start + size
            piece = graph.add_node(
                "slice",
                [operand],
                {"starts": (start,), "ends": (end,), "axes": (axis,), "steps": (1,)},
                names=[output.name],
                types=[output.type],
            )
            made.append(piece.output)
            start = end
    return made
