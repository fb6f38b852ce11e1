"""Remove what nothing needs: nodes with neither a used result nor a symbol that something mentions.

Nodes of other domains stay unless their op is pure: a custom kernel may print or store. Captures that a subgraph does
not read stay operands; they cost nothing.
"""

from __future__ import annotations

from fusible.compiler.ir.analysis import node_symbols
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import type_symbols
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.refinement import is_removable

__all__ = ["DeadCode"]


class DeadCode(GraphPass):
    """The pass `dead-code`."""

    name = "dead-code"

    def run(self, graph: Graph, context: PassContext) -> int:
        """One walk backwards over each graph; symbols that a subgraph mentions are needed around it."""
        return self._sweep(graph, context, set())

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Sweep one graph and those below it."""
        return self._sweep(graph, context, set())

    def _sweep(self, graph: Graph, context: PassContext, needed: set[str]) -> int:
        results = set(graph.outputs)
        for value in graph.outputs:
            needed.update(s.name for s in type_symbols(value.type))
        removed = 0
        node = graph._tail
        while node is not None:
            before = node._prev
            if not _wanted(node, results, needed) and context.take():
                graph.erase(node)
                removed += 1
            else:
                needed.update(s.name for s in node_symbols(node))
                for subgraph in node.subgraphs:
                    removed += self._sweep(subgraph, context, needed)
            node = before
        for value in graph.inputs:
            needed.update(s.name for s in type_symbols(value.type))
        return removed


def _wanted(node: Node, results: set[Value], needed: set[str]) -> bool:
    if not is_removable(node) or any(s.name in needed for s in node.defines):
        return True
    return any(value.uses or value in results for value in node.outputs)
