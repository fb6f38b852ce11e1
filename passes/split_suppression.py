"""Non-maximum suppression in two steps:  non_max_suppression(b, s)  ->  first_rows(suppressed_rows(b, s))

How many boxes it selects is known only when it has run, and kernels write results whose sizes are known beforehand: one
has room for all there can be. For targets with a kernel for it.
"""

from __future__ import annotations

from dataclasses import asdict

from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.symbols import minimum, product
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.ledger import Kind

__all__ = ["SplitSuppression"]

# 50 MB: room for more is not made on a file's word. By symbolic sizes it is at most 6 times what the scores take.
_MOST_ROWS = 2**21


class SplitSuppression(GraphPass):
    """The pass `split-suppression`."""

    name = "split-suppression"
    exactness = Exactness.EXACT

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Rewrite every such node."""
        done = 0
        for node in [n for n in graph if n.op.name == "non_max_suppression"]:
            reason = _refusal(node)
            if reason:
                self.note(context, Kind.DECLINED, node.origin, reason, node)
                continue
            if not context.take():
                continue
            with graph.inserting_before(node, node.origin):
                found = graph.add_node("suppressed_rows", node.inputs, asdict(node.attrs), outputs=2)
                types = [node.output.type]  # with the symbol that says how many there are
                first = graph.add_node("first_rows", found.outputs, types=types, names=[node.output.name])
                first.defines = node.defines
            self.note(context, Kind.FIRED, node.origin, "a kernel finds the rows, and the first of them are taken")
            graph.replace(node, list(first.outputs))
            done += 1
        return done


def _refusal(node: Node) -> str:
    """Why a node stays as it is, or an empty text."""
    types = [None if v is None else v.type for v in node.inputs]
    if not all(isinstance(t, TensorType) and t.dtype is DType.F32 and t.shape is not None for t in types):
        return "boxes or scores are not f32, or of unknown rank"
    scores = types[1]
    assert isinstance(scores, TensorType)
    batch, classes, n = scores.shape or (0, 0, 0)
    most = product((batch, classes, minimum(max(node.attrs.max_output_boxes_per_class, 0), n)))
    return f"it may select {most} boxes" if isinstance(most, int) and most > _MOST_ROWS else ""
