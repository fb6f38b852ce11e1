"""ONNX Runtime's quantised operators (com.microsoft), written out in standard ones.

A quantised element-wise operator becomes dequantize - operator - quantize, an integer product with floats becomes the
product and its scaling. DynamicQuantizeLSTM is with the recurrent layers.
"""

from __future__ import annotations

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType

_DOMAIN = "com.microsoft"


@onnx_op("QLinearAdd", "QLinearMul", domain=_DOMAIN)
def qlinear_binary(c: NodeContext) -> Value:
    """QLinearAdd, QLinearMul: A, its scale and zero point, B likewise, scale and zero point of the result."""
    a, b = _dequantised(c, 0), _dequantised(c, 3)
    return _quantised(c, c.add("add" if c.node.op_type == "QLinearAdd" else "mul", a, b), 6, like=0)


@onnx_op("QLinearSigmoid", "QLinearLeakyRelu", domain=_DOMAIN)
def qlinear_unary(c: NodeContext) -> Value:
    """QLinearSigmoid, QLinearLeakyRelu: X, its scale and zero point, those of the result."""
    x = _dequantised(c, 0)
    if c.node.op_type == "QLinearSigmoid":
        return _quantised(c, c.add("sigmoid", x), 3, like=0)
    return _quantised(c, c.add("leaky_relu", x, alpha=c.attr_float("alpha", 0.01)), 3, like=0)


@onnx_op("QLinearConcat", domain=_DOMAIN)
def qlinear_concat(c: NodeContext) -> Value:
    """QLinearConcat: scale and zero point of the result, then each tensor with its scale and zero point."""
    if len(c.inputs) < 5 or len(c.inputs) % 3 != 2:
        c.invalid(f"takes two inputs and three more for each tensor, got {len(c.inputs)}")
    parts = [_dequantised(c, index) for index in range(2, len(c.inputs), 3)]
    return _quantised(c, c.add("concat", *parts, axis=c.attr_int("axis")), 0, like=2)


@onnx_op("QGemm", domain=_DOMAIN)
def qgemm(c: NodeContext) -> Value:
    """QGemm: alpha * (A' @ B' + C), quantised where there is a scale of the result, else float32."""
    a, b = _transposed(c, 0, "transA"), _transposed(c, 3, "transB")
    total = c.add("matmul_integer", a, b, c.required(2), c.required(5))
    bias = c.optional(6)
    if bias is not None:
        total = c.add("add", total, bias)
    y = _scaled(c, total, c.required(1), c.required(4))
    alpha = c.attr_float("alpha", 1.0)
    if alpha != 1:
        y = c.add("mul", y, c.constant(np.asarray(alpha, np.float32)))
    return y if c.optional(7) is None else _quantised(c, y, 7, like=0)


@onnx_op("MatMulIntegerToFloat", domain=_DOMAIN)
def matmul_integer_to_float(c: NodeContext) -> Value:
    """MatMulIntegerToFloat: A, B, their scales, their zero points, a bias."""
    total = c.add("matmul_integer", c.required(0), c.required(1), c.optional(4), c.optional(5))
    return _biased(c, _scaled(c, total, c.required(2), c.required(3)), 6)


@onnx_op("DynamicQuantizeMatMul", domain=_DOMAIN)
def dynamic_quantize_matmul(c: NodeContext) -> Value:
    """DynamicQuantizeMatMul: A is quantised by its own range; B, its scale and zero point, a bias."""
    a, scale, zero_point = c.add_node("dynamic_quantize_linear", c.required(0), outputs=3).outputs
    total = c.add("matmul_integer", a, c.required(1), zero_point, c.optional(3))
    return _biased(c, _scaled(c, total, scale, c.required(2)), 4)


def _dequantised(c: NodeContext, index: int) -> Value:
    """The tensor at `index` by the scale and zero point that follow it."""
    return c.add(
        "dequantize_linear",
        c.required(index),
        c.required(index + 1),
        c.optional(index + 2),
        output_dtype=c.tensor_type(index + 1).dtype,
    )


def _quantised(c: NodeContext, y: Value, index: int, like: int) -> Value:
    """y by the scale and zero point at `index`; without a zero point in the type of input `like`."""
    zero_point = c.optional(index + 1)
    dtype = c.tensor_type(like if zero_point is None else index + 1).dtype
    return c.add("quantize_linear", y, c.required(index), zero_point, output_dtype=dtype)


def _scaled(c: NodeContext, total: Value, a_scale: Value, b_scale: Value) -> Value:
    """An integer product as float32. A vector of scales belongs to the columns."""
    return c.add("mul", c.add("cast", total, dtype=DType.F32), c.add("mul", a_scale, b_scale))


def _biased(c: NodeContext, y: Value, index: int) -> Value:
    bias = c.optional(index)
    return y if bias is None else c.add("add", y, bias)


def _transposed(c: NodeContext, index: int, flag: str) -> Value:
    value = c.required(index)
    return c.add("transpose", value, perm=(1, 0)) if c.attr_int(flag, 0) else value
