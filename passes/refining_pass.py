"""A pass whose results may be known more precisely than what they replace: types that follow are inferred again."""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.refine import rebuild_types
from fusible.compiler.ir.symbols import Dim
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.refinement import TypeChange, erase_dead

__all__ = ["RefiningPass"]


class RefiningPass(GraphPass):
    """`run_one` calls `learn` for each value it replaces and `retire` for each node; `run` does the rest."""

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph, then infer again what follows from dimensions that became known."""
        self._known: dict[str, Dim] = {}
        self._refined = False
        self._retired: list[tuple[Graph, Node]] = []
        changes = super().run(graph, context)
        if self._refined:
            rebuild_types(graph, self._known)
            for inner, node in self._retired:
                erase_dead(inner, node)
        return changes

    def learn(self, change: TypeChange) -> None:
        """Take note of what a replacement's type says."""
        self._refined = self._refined or change.refines
        self._known.update(change.known)

    def retire(self, graph: Graph, node: Node) -> None:
        """Erase a replaced node, at the end of the pass if types still mention its symbols."""
        erase_dead(graph, node)
        if node.graph is graph:
            self._retired.append((graph, node))
