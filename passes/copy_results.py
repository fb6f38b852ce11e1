"""Compute outputs that are views of something else where the caller wants them:  output = view(x)  ->  copy(view(x)).

The caller owns the outputs, so each of them is copied in any case. As a kernel the copy follows the view's index map in
the same run of native steps; a view that NumPy makes and a copy after it would be two steps outside.
"""

from __future__ import annotations

from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.copy_images import copy_before, erase_views, views_to
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import graphs_outside_groups

__all__ = ["CopyResults"]


class CopyResults(GraphPass):
    """The pass `copy-results`."""

    name = "copy-results"
    exactness = Exactness.EXACT

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Copy each such output once; what else reads it reads the copy."""
        target = str(context.target.get("name", ""))
        changed = 0
        for value in dict.fromkeys(graph.outputs):
            if not _is_copied_view(value, target) or not context.take():
                continue
            before = value.producer
            assert before is not None
            copy = copy_before(graph, before, value)
            copy.name = value.name
            graph.redirect(value, copy)
            erase_views(graph, value)
            changed += 1
        return changed


def _is_copied_view(value: Value, target: str) -> bool:
    """True for what views of a tensor lead to, none of which was given a kernel from outside."""
    type_ = value.type
    if not isinstance(type_, TensorType) or type_.dtype is DType.STRING or type_.shape is None:
        return False
    views = views_to(value)
    return bool(views) and all(replacement_kernel(view, target) is None for view in views)
