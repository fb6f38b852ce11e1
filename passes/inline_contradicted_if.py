"""if(c, ...)  ->  require(c), then the nodes of one branch, where the results of the other contradict what follows.

Exporters write `squeeze(x, d)` of a size that they do not know as an `if` whose branches differ in rank: `x` without
that dimension, or `x` as it is. Nothing behind it has a known rank then. Often only one of the ranks suits the nodes
that follow, and with the other one the run would end in an error: it may as well end before.
"""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.clone import clone_graph
from fusible.compiler.ir.failing import failure_of
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.errors import InvalidModel
from fusible.passes.base import PassContext
from fusible.passes.inline_constant_if import InlineConstantIf, condition_of
from fusible.passes.ledger import Kind

__all__ = ["InlineContradictedIf"]

_MOST_ROUNDS = 8  # conditions that each become known by the one before
_MOST_NODES = 100_000  # copied in all by a run of the pass


class InlineContradictedIf(InlineConstantIf):
    """The pass `inline-contradicted-if`."""

    name = "inline-contradicted-if"

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph."""
        self._copied = 0
        return super().run(graph, context)

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Inline the `if`s of one graph of which one branch contradicts what follows."""
        changes = 0
        for node in graph:
            if not _differs_in_rank(node) or context.exhausted:
                continue
            size = sum(len(g) for g in graph.all_graphs())
            if self._copied + 2 * size > _MOST_NODES:
                self.note(context, Kind.DECLINED, node.origin, "the graph is too large to try both branches", node)
                continue
            self._copied += 2 * size
            then, otherwise = (_contradiction(graph, node, condition) for condition in (True, False))
            if (then is None) != (otherwise is None):
                self._error = then or otherwise
                changes += self._inline(graph, node, then is None, context)
        return changes

    def guard(self, graph: Graph, node: Node, condition: bool) -> None:
        """Stop the run where the other branch would be taken."""
        message = f"{_name(not condition)} branch of the If at {node.where} leads to an error: {self._error}"
        graph.add_node("require", [node.inputs[0]], {"expected": condition, "message": message})

    def why(self, condition: bool) -> str:
        """The other branch would end in an error."""
        return f"{_name(not condition)} branch contradicts what follows: {self._error}"


def _name(condition: bool) -> str:
    return "the then" if condition else "the else"


def _differs_in_rank(node: Node) -> bool:
    """True for an `if` that only a run decides, with a result whose rank is another one in each branch."""
    if node.op.name != "if" or condition_of(node) is not None:
        return False
    if any(failure_of(branch) is not None for branch in node.subgraphs):
        return False
    pairs = zip(*(branch.outputs for branch in node.subgraphs), strict=True)
    return any(None not in (ranks := {_rank(v) for v in pair}) and len(ranks) > 1 for pair in pairs)


def _rank(value: Value) -> int | None:
    return value.type.rank if isinstance(value.type, TensorType) else None


def _contradiction(graph: Graph, node: Node, condition: bool) -> InvalidModel | None:
    """The error that every run ends with in which the condition has this value; None if there may be none."""
    values: dict[Value, Value] = {}
    copy = clone_graph(graph, values)
    twin = values[node.outputs[0]].producer
    assert twin is not None
    graphs = list(copy.all_graphs())
    if any(n.subgraphs and n.op.name != "if" for g in graphs for n in g):
        return None  # the error could be that of a loop's body, which may run no time at all
    table = graph.symbols.copy()
    for inner in graphs:
        inner.symbols = table
    copy.set_input(twin, 0, copy.constant(np.asarray(condition)))
    try:
        for _ in range(_MOST_ROUNDS):
            if not InlineConstantIf().run(copy, PassContext()):
                break
    except InvalidModel as error:
        return error
    return None
