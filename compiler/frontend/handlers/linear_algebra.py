"""Det."""

from __future__ import annotations

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value


@onnx_op("Det", since=11)
def det(context: NodeContext) -> Value:
    """Det-11: the determinant of each matrix."""
    return context.add("det", context.required(0))
