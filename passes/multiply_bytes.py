"""Multiply bytes where operands were dequantised only to be multiplied, on processors that do so several at a time."""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph
from fusible.passes.base import PassContext
from fusible.passes.driver import RewritePass
from fusible.passes.rules import byte_convolutions, quantised_operands

__all__ = ["FAST_BYTES", "MultiplyBytes"]

FAST_BYTES = "fast_bytes"  # in `context.target`: products of bytes take less time than those of floats


class MultiplyBytes(RewritePass):
    """The pass `multiply-bytes`. It comes before constants are folded, or weights would be floats already."""

    def __init__(self) -> None:
        super().__init__("multiply-bytes", [*quantised_operands.RULES, *byte_convolutions.DEQUANTISED])

    def run(self, graph: Graph, context: PassContext) -> int:
        """Rewrite, where the target says that it pays."""
        return super().run(graph, context) if context.target.get(FAST_BYTES) else 0
