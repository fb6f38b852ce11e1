"""if(c, ..., a branch that only fails)  ->  require(c), then the nodes of the other branch, in place.

A branch fails if it cannot be compiled for the sizes that are fixed. Without the `if` around them, the nodes of the
other one fuse with their surroundings, and a run has one plan to go through.
"""

from __future__ import annotations

from fusible.compiler.ir.failing import failure_of
from fusible.compiler.ir.graph import Graph, Node
from fusible.passes.base import PassContext
from fusible.passes.inline_constant_if import InlineConstantIf

__all__ = ["InlineGuardedIf"]


class InlineGuardedIf(InlineConstantIf):
    """The pass `inline-guarded-if`."""

    name = "inline-guarded-if"

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Inline the `if`s of one graph of which one branch only fails."""
        changes = 0
        for node in graph:
            if node.op.name == "if":
                then, otherwise = (failure_of(branch) for branch in node.subgraphs)
                if (then is None) != (otherwise is None) and self._inline(graph, node, then is None, context):
                    changes += 1
        return changes

    def guard(self, graph: Graph, node: Node, condition: bool) -> None:
        """Stop the run where the other branch would be taken."""
        failure = failure_of(node.subgraphs[1 if condition else 0])
        assert failure is not None
        graph.add_node("require", [node.inputs[0]], {"expected": condition, "message": failure.attrs.message})

    def why(self, condition: bool) -> str:
        """The other branch would stop the run."""
        return f"the {'else' if condition else 'then'} branch only fails"
