"""MatMul, Gemm, Einsum, and ONNX Runtime's FusedMatMul."""

from __future__ import annotations

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value


@onnx_op("MatMul")
def matmul(c: NodeContext) -> Value:
    """MatMul (integers since opset 9)."""
    return c.add("matmul", c.required(0), c.required(1))


@onnx_op("Gemm")
def gemm(c: NodeContext) -> Value:
    """Gemm: C is optional since opset 11 and broadcasts by itself since 7, before with broadcast=1."""
    return c.add(
        "gemm",
        c.required(0),
        c.required(1),
        c.optional(2),
        alpha=c.attr_float("alpha", 1.0),
        beta=c.attr_float("beta", 1.0),
        transA=c.attr_int("transA", 0) != 0,
        transB=c.attr_int("transB", 0) != 0,
    )


@onnx_op("Einsum")
def einsum(c: NodeContext) -> Value:
    """Einsum."""
    return c.add("einsum", *c.all_inputs(), equation=c.attr_string("equation"))
