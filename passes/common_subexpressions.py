"""Compute equal things once:  y1 = f(x); y2 = f(x)  ->  y1 alone.

Two nodes are equal if op, attributes and operands are; small constants are compared by content. Only pure ops without
subgraphs; the first of them stays and gathers the origins.
"""

from __future__ import annotations

from collections.abc import Hashable

from fusible.compiler.ir.constant import Constant, FileRange
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.passes.base import GraphPass, PassContext

__all__ = ["CommonSubexpressions"]

_DIGEST_BYTES = 1 << 16  # larger constants are compared by identity, or by the file range that they come from


class CommonSubexpressions(GraphPass):
    """The pass `common-subexpressions`."""

    name = "common-subexpressions"

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """One walk: operands are merged before their users."""
        seen: dict[Hashable, Node] = {}
        merged = 0
        for node in graph:
            if not node.op.pure or node.subgraphs or node.defines:
                continue
            first = seen.setdefault(_key(node), node)
            if first is node or _both_results(graph, first, node):
                continue
            if any(a.type != b.type for a, b in zip(first.outputs, node.outputs, strict=True)) or not context.take():
                continue
            first.origin = tuple(dict.fromkeys((*first.origin, *node.origin)))
            graph.replace(node, first.outputs)
            merged += 1
        return merged


def _both_results(graph: Graph, first: Node, second: Node) -> bool:
    """True if merging would make one value two results of the graph."""
    results = graph.outputs
    pairs = zip(first.outputs, second.outputs, strict=True)
    return any(any(r is a for r in results) and any(r is b for r in results) for a, b in pairs)


def _key(node: Node) -> Hashable:
    operands = [_operand(v) for v in node.inputs]
    if node.op.commutative and len(operands) == 2:
        operands.sort(key=repr)
    attrs = tuple((name, _exact(getattr(node.attrs, name))) for name in node.op.attribute_names)
    return (node.op.name, attrs, tuple(operands), len(node.outputs))


def _exact(attribute: object) -> Hashable:
    """Floats by their text: 0.0 is not -0.0 and nan is nan; 1 is not 1.0 or True."""
    return repr(attribute)


def _operand(value: Value | None) -> Hashable:
    if value is None:
        return None
    if value.constant is None:
        return id(value)
    return _constant_key(value.constant)


def _constant_key(constant: Constant) -> Hashable:
    if constant.nbytes <= _DIGEST_BYTES:
        return constant.digest
    source = constant.source
    if isinstance(source, FileRange):
        return (source.identity, source.offset, source.nbytes, str(constant.dtype), constant.shape)
    return id(constant)
