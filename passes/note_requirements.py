"""Note what the sizes must satisfy, before rewrites rely on it and the nodes that say so are gone.

A kernel trusts the sizes that were inferred: `Add` of f32[C, 5] and f32[3, 5] reads three rows of both. Inference says
what that takes (C is 1 or 3); here the graphs keep it, plans state it, and every run checks it before its first step.
"""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.reinfer import infer_again
from fusible.compiler.ir.requirements import Requirement
from fusible.compiler.ir.types import type_symbols
from fusible.passes.base import GraphPass, PassContext

__all__ = ["NoteRequirements"]


class NoteRequirements(GraphPass):
    """The pass `note-requirements`; it changes no node, so it is no application that a limit counts."""

    name = "note-requirements"

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Infer the nodes of one graph that read symbolic sizes again, and keep what they require."""
        before = len(graph.requirements)
        for node in graph:
            if any(v is not None and type_symbols(v.type) for v in (*node.inputs, *node.outputs)):
                _, infer = infer_again(node, graph.symbols)
                graph.requirements.update((r, None) for r in infer.requirements if _is_of(graph, r))
        return len(graph.requirements) - before


def _is_of(graph: Graph, requirement: Requirement) -> bool:
    """False where it speaks of a size that inference has just invented: the node's own symbol may stand there."""
    return all(graph.symbols.get(s.name) is not None for s in requirement.symbols)
