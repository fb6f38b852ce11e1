"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, and their com.microsoft spellings."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType


@onnx_op("QuantizeLinear")
@onnx_op("QuantizeLinear", domain="com.microsoft")
def quantize_linear(c: NodeContext) -> Value:
    """QuantizeLinear: axis since opset 13, saturate since 19, block_size and output_dtype since 21, precision since 23."""
    zero_point = c.optional(2)
    dtype = DType.U8 if zero_point is None else c.tensor_type(2).dtype
    if c.attr_int("output_dtype", 0):
        stated = c.attr_dtype("output_dtype")
        if zero_point is not None and stated is not dtype:
            c.invalid(f"output_dtype is {stated.value}, the zero point {dtype.value}")
        dtype = stated
    return c.add(
        "quantize_linear",
        c.required(0),
        c.required(1),
        zero_point,
        output_dtype=dtype,
        axis=c.attr_int("axis", 1),
        block_size=c.attr_int("block_size", 0),
        saturate=c.attr_int("saturate", 1) != 0,
        precision=c.attr_dtype("precision") if c.attr_int("precision", 0) else None,
    )


@onnx_op("DequantizeLinear")
@onnx_op("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(c: NodeContext) -> Value:
    """DequantizeLinear: axis since opset 13, block_size since 21, output_dtype since 23."""
    dtype = c.tensor_type(1).dtype
    return c.add(
        "dequantize_linear",
        c.required(0),
        c.required(1),
        c.optional(2),
        output_dtype=c.attr_dtype("output_dtype") if c.attr_int("output_dtype", 0) else dtype,
        axis=c.attr_int("axis", 1),
        block_size=c.attr_int("block_size", 0),
    )


@onnx_op("DynamicQuantizeLinear")
def dynamic_quantize_linear(c: NodeContext) -> Sequence[Value]:
    """DynamicQuantizeLinear."""
    return c.add_node("dynamic_quantize_linear", c.required(0), outputs=3).outputs
