"""if(constant, ...)  ->  the nodes of the branch that is taken, in place."""

from __future__ import annotations

from fusible.compiler.ir.clone import copy_nodes
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import SymInt
from fusible.passes.base import PassContext
from fusible.passes.ledger import Kind
from fusible.passes.refinement import type_change
from fusible.passes.refining_pass import RefiningPass

__all__ = ["InlineConstantIf", "condition_of"]


class InlineConstantIf(RefiningPass):
    """The pass `inline-constant-if`."""

    name = "inline-constant-if"

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Inline the `if`s of one graph whose condition is known."""
        changes = 0
        for node in graph:
            if node.op.name != "if":
                continue
            condition = condition_of(node)
            if condition is None:
                continue
            if self._inline(graph, node, condition, context):
                changes += 1
        return changes

    def guard(self, graph: Graph, node: Node, condition: bool) -> None:
        """Add what must hold before the branch runs: nothing, for what is known is so."""

    def why(self, condition: bool) -> str:
        """Why a branch takes the place of its `if`, for the ledger."""
        return f"the {'then' if condition else 'else'} branch is always taken"

    def _inline(self, graph: Graph, node: Node, condition: bool, context: PassContext) -> bool:
        branch = node.subgraphs[0 if condition else 1]
        pairs = zip(branch.inputs, node.inputs[1:], strict=True)
        mapping: dict[Value, Value] = {inner: outer for inner, outer in pairs if outer is not None}
        results = [mapping.get(v, v) for v in branch.outputs]
        own = {v for n in branch for v in n.outputs}
        changes = [type_change(old, new, [node], self._known) for old, new in zip(node.outputs, results, strict=True)]
        if any(c.wrong or c.reason for c in changes):
            self.note(context, Kind.DECLINED, node.origin, "the types of the branch do not fit", node)
            return False
        if not context.take():
            return False
        with graph.inserting_before(node, node.origin):
            self.guard(graph, node, condition)
            copy_nodes(branch, graph, mapping)
            graph.requirements.update(branch.requirements)
        for old, new, change in zip(node.outputs, branch.outputs, changes, strict=True):
            assert new in mapping or new not in own
            graph.redirect(old, mapping.get(new, new))
            self.learn(change)
        self.note(context, Kind.FIRED, node.origin, self.why(condition))
        self.retire(graph, node)
        self._refined = True  # what was copied may say more than the branch's own types did
        return True


def condition_of(node: Node) -> bool | None:
    """What the condition of an `if` is known to be, or None."""
    value = node.inputs[0]
    if value is None:
        return None
    if value.constant is not None and value.constant.size == 1:
        return bool(value.constant.array.reshape(()))
    content = value.content
    if content is None or content.size != 1 or isinstance(content.reshape(())[()], SymInt):
        return None
    return bool(content.reshape(())[()])
