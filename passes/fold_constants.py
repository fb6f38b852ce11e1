"""Compute now what does not depend on inputs:  f(constants)  ->  constant.

Computed with the NumPy meaning of the op. A result larger than `fold_bytes` is left alone unless it is no larger than
its operands, and the ledger says so loudly. Weights that kernels unpack themselves stay packed until groups are made.
Ops of chance, control flow and strings of other domains are not folded.
"""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.analysis import attribute_symbols
from fusible.compiler.ir.evaluate import RuntimeValue, evaluate_node
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import kernel_arguments
from fusible.compiler.ir.types import TensorType
from fusible.errors import FusibleError
from fusible.passes.base import PassContext
from fusible.passes.ledger import Cost, Entry, Kind
from fusible.passes.packed_weights import READS_PACKED, packed_saving
from fusible.passes.refinement import is_used, type_change
from fusible.passes.refining_pass import RefiningPass

__all__ = ["FoldConstants"]


class FoldConstants(RefiningPass):
    """The pass `fold-constants`."""

    name = "fold-constants"

    def __init__(self, *, grouped: bool = False) -> None:
        """Fold everything; but as long as groups are not made (`grouped`), kernels may be wanted for packed weights."""
        self._grouped = grouped

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Fold in graph order, so that a result feeds the next node."""
        folded = 0
        if self._grouped and graph.name in ("fused", "copy"):
            return 0
        for node in graph:
            if not _is_constant(node) or not any(is_used(graph, v) for v in node.outputs):
                continue
            if self._stays_packed(node, context) or self._too_large(node, context):
                continue
            context.check_deadline(f"pass {self.name!r}")
            results = self._compute(node, context)
            if results is not None and not context.exhausted and self._replace(graph, node, results):
                context.take()
                folded += 1
        return folded

    def _stays_packed(self, node: Node, context: PassContext) -> bool:
        """True, and a line, if kernels read fewer bytes by dequantising the node's operand themselves."""
        if self._grouped or not context.target.get(READS_PACKED):
            return False
        saved = packed_saving(node)
        if saved is None:
            return False
        size, packed = saved
        reason = f"kernels read {packed} bytes of packed weights in place of {size} dequantised ones"
        culprits = tuple(v.name for v in node.outputs)
        entry = Entry(
            Kind.DECLINED, self.name, "packed-weights", node.origin, reason, culprits, saved=Cost(size - packed)
        )
        context.ledger.add(entry)
        return True

    def _too_large(self, node: Node, context: PassContext) -> bool:
        """True, and a loud line, if a result would be larger than the budget and than what it replaces."""
        size, operands = _bytes(node.outputs), _bytes([v for v in node.inputs if v is not None])
        if size is None or operands is None or size <= max(context.fold_bytes, 0) or size <= operands:
            return False
        reason = f"the result has {size} bytes, folding may make {context.fold_bytes}; raise Options.fold_bytes"
        culprits = tuple(v.name for v in node.outputs)
        context.ledger.add(Entry(Kind.LOUD, self.name, "", node.origin, reason, culprits, Cost(size, 1)))
        return True

    def _compute(self, node: Node, context: PassContext) -> list[RuntimeValue] | None:
        operands = [None if v is None or v.constant is None else v.constant.array for v in node.inputs]
        try:
            results = evaluate_node(node, operands, {})
        except FusibleError as error:
            self.note(context, Kind.DECLINED, node.origin, f"it fails when it is run: {error}", node)
            return None
        limit = max(context.fold_bytes, _bytes([v for v in node.inputs if v is not None]) or 0)
        if any(not isinstance(r, np.ndarray) for r in results):
            return None
        size = sum(r.nbytes for r in results if isinstance(r, np.ndarray))
        if size > limit:
            reason = f"the result has {size} bytes, folding may make {context.fold_bytes}; raise Options.fold_bytes"
            context.ledger.add(Entry(Kind.LOUD, self.name, "", node.origin, reason, cost=Cost(size, 1)))
            return None
        return results

    def _replace(self, graph: Graph, node: Node, results: list[RuntimeValue]) -> bool:
        made = [graph.constant(np.array(r), v.name) for r, v in zip(results, node.outputs, strict=True)]
        changes = [type_change(old, new, [node], self._known) for old, new in zip(node.outputs, made, strict=True)]
        if any(c.wrong or c.reason for c in changes):
            return False
        for old, new, change in zip(node.outputs, made, changes, strict=True):
            graph.redirect(old, new)
            self.learn(change)
        self.retire(graph, node)
        return True


def _is_constant(node: Node) -> bool:
    """True if everything that the node reads is known, and it always gives the same."""
    if not node.op.pure or node.subgraphs or node.op.numpy_missing:
        return False
    if any(attribute_symbols(a) for a in kernel_arguments(node.attrs).values()):
        return False
    return all(v is None or v.constant is not None for v in node.inputs)


def _bytes(values: list[Value] | tuple[Value, ...]) -> int | None:
    """The bytes of values, None if a size is not known."""
    total = 0
    for value in values:
        if not isinstance(value.type, TensorType) or value.type.static_shape is None:
            return None
        total += int(np.prod(value.type.static_shape, dtype=object)) * value.type.dtype.numpy.itemsize
    return total
