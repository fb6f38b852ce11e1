"""Dynamic quantisation of large tensors in two kernels:

    dynamic_quantize(x)  ->  dynamic_quantize(x, reduce_min(x, -1), reduce_max(x, -1))        (NaN is 0 in these)

One program finds the range of a small tensor and quantises it, in one launch. Of a large one many programs find the
extremes of rows, and the quantisation goes through these; so it does where the size is known only in a run.
"""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.ledger import Kind

__all__ = ["RangeByRows"]

_SMALL = 2**16  # elements that one program goes through


class RangeByRows(GraphPass):
    """The pass `range-by-rows`, for targets that have kernels for both forms."""

    name = "range-by-rows"
    exactness = Exactness.EXACT

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Rewrite every such node."""
        done = 0
        for node in list(graph):
            if node.op.name != "dynamic_quantize_linear" or len(node.inputs) > 1:
                continue
            x = node.inputs[0]
            assert x is not None
            elements = x.type.elements if isinstance(x.type, TensorType) else None
            if (x.type.rank or 0) < 2 or (isinstance(elements, int) and elements <= _SMALL):  # type: ignore[union-attr]
                self.note(context, Kind.DECLINED, node.origin, f"one program quantises {x.type}", x)
                continue
            if not context.take():
                continue
            with graph.inserting_before(node, node.origin):
                low, high = _extremes(graph, x)
                made = graph.add_node(node.op, [x, low, high], {}, outputs=3, names=[v.name for v in node.outputs])
            self.note(context, Kind.FIRED, node.origin, f"the extremes of the rows of {x.type} are found first", x)
            graph.replace(node, list(made.outputs))
            done += 1
        return done


def _extremes(graph: Graph, x: Value) -> tuple[Value, ...]:
    """The least and the greatest element of each row, by one `fused` node.

    NaN counts as 0, which every range holds: it takes no part in the range, and the rest of its row does.
    """
    inner = Graph("fused", graph.symbols)
    formal = inner.input(x.type, x.name)
    numbers = inner.add("where", inner.add("is_nan", formal), inner.constant(np.asarray(0, np.float32)), formal)
    inner.set_outputs([inner.add(f"reduce_{e}", numbers, axes=(-1,), keepdims=False) for e in ("min", "max")])
    return graph.add_node("fused", [x], {}, outputs=2, subgraphs=[inner]).outputs
