"""Quantising, dequantising and the integer products of the standard, and their com.microsoft spellings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.frontend.handlers.convolution import window_attributes
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType


@onnx_op("QuantizeLinear")
@onnx_op("QuantizeLinear", domain="com.microsoft")
def quantize_linear(c: NodeContext) -> Value:
    """QuantizeLinear: axis since opset 13, saturate 19, block_size and output_dtype 21, precision 23."""
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


@onnx_op("MatMulInteger")
def matmul_integer(c: NodeContext) -> Value:
    """MatMulInteger."""
    return c.add("matmul_integer", c.required(0), c.required(1), c.optional(2), c.optional(3))


@onnx_op("QLinearMatMul")
def qlinear_matmul(c: NodeContext) -> Value:
    """QLinearMatMul (float16 scales and float8 operands since opset 21)."""
    return c.add("qlinear_matmul", *c.all_inputs())


@onnx_op("ConvInteger")
def conv_integer(c: NodeContext) -> Value:
    """ConvInteger."""
    return c.add(
        "conv_integer", c.required(0), c.required(1), c.optional(2), c.optional(3), **_window_attributes(c, kernel=1)
    )


@onnx_op("QLinearConv")
def qlinear_conv(c: NodeContext) -> Value:
    """QLinearConv."""
    return quantised_convolution(c)


def quantised_convolution(c: NodeContext) -> Value:
    """QLinearConv of X [N, C, *spatial]."""
    return c.add("qlinear_conv", *(c.required(i) for i in range(8)), c.optional(8), **_window_attributes(c, kernel=3))


def _window_attributes(c: NodeContext, kernel: int) -> dict[str, Any]:
    """The attributes of a convolution whose kernel is input `kernel`."""
    shape, stated = c.shape(kernel), c.attr_ints("kernel_shape")
    spatial = stated if shape is None else shape[2:]
    if stated is not None and spatial is not None and not _agree(stated, spatial):
        c.invalid(f"kernel_shape is {list(stated)}, but the kernel has spatial shape {list(spatial)}")
    return {"group": c.attr_int("group", 1), **window_attributes(c, spatial)}


def _agree(stated: Sequence[int], found: Sequence[Dim]) -> bool:
    pairs = zip(stated, found, strict=False)
    return len(stated) == len(found) and all(not isinstance(own, int) or own == size for size, own in pairs)
