"""Convolutions of quantised images: exact integer sums, and their rounding back to bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fusible.compiler.ir.definition import Composite, Definition, Opaque
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.opset.convolution import ConvAttrs, convolution_definition
from fusible.compiler.ir.opset.quantized_products import centred, check_byte, check_scale, formal_graph, requantised
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.compiler.ir.window_shapes import automatic_pads, check_windows, window_extents

__all__ = ["ConvBytesAttrs"]


@dataclass(frozen=True, slots=True)
class ConvBytesAttrs(ConvAttrs):
    """As ConvAttrs; fill: the byte that stands in the padding, the zero point of the image."""

    fill: int = 0


def _conv_bytes(ctx: Infer) -> TensorType:
    for index, dtype in enumerate((DType.U8, DType.I8, DType.I32)):
        if ctx.dtype(index) is not dtype:
            ctx.fail(f"input {index} must be {dtype.value}, got {ctx.type(index)}")
    if not 0 <= ctx.attrs.fill <= 255:
        ctx.fail(f"the fill must be a byte, got {ctx.attrs.fill}")
    shape, kernel, bias = _convolved(ctx, 0, 1), ctx.shape(1), ctx.shape(2)
    if kernel is not None and bias is not None and (len(bias) != 1 or not ctx.equal(bias[0], kernel[0])):
        ctx.fail(f"the bias must have shape [{kernel[0]}], got {ctx.type(2)}")
    return TensorType(DType.I32, shape)


def _conv_bytes_definition(node: Node) -> Definition:
    x, w = (v.type.shape if v is not None and isinstance(v.type, TensorType) else None for v in node.inputs[:2])
    if x is None or w is None:
        return Opaque("the rank of an operand is not known")
    return convolution_definition(x, w, node.attrs, node.attrs.fill)


def _conv_integer(ctx: Infer) -> TensorType:
    check_byte(ctx, 0, 2)
    check_byte(ctx, 1, 3)
    shape = _convolved(ctx, 0, 1)
    _check_per_filter(ctx, 1, 3)
    _check_single(ctx, 2)
    return TensorType(DType.I32, shape)


def _qlinear_conv(ctx: Infer) -> TensorType:
    check_byte(ctx, 0, 2)
    check_byte(ctx, 3, 5)
    if ctx.dtype(7) not in (DType.I8, DType.U8):
        ctx.fail(f"the zero point of the result must be int8 or uint8, got {ctx.type(7)}")
    for index in (1, 4, 6):
        check_scale(ctx, index)
    shape = _convolved(ctx, 0, 3)
    for index in (4, 5):
        _check_per_filter(ctx, 3, index)
    for index in (1, 2, 6, 7):
        _check_single(ctx, index)
    if ctx.has(8):
        kernel, bias = ctx.shape(3), ctx.shape(8)
        if ctx.dtype(8) is not DType.I32:
            ctx.fail(f"the bias must be int32, got {ctx.type(8)}")
        if kernel is not None and bias is not None and (len(bias) != 1 or not ctx.equal(bias[0], kernel[0])):
            ctx.fail(f"the bias must have shape [{kernel[0]}], got {ctx.type(8)}")
    return TensorType(ctx.dtype(7), shape)


def _convolved(ctx: Infer, image: int, kernel: int) -> Shape | None:
    """The shape of the result; None if a rank is unknown."""
    attrs, x, w = ctx.attrs, ctx.shape(image), ctx.shape(kernel)
    if attrs.group < 1:
        ctx.fail(f"group must be positive, got {attrs.group}")
    if x is None or w is None:
        return None
    if len(x) < 3 or len(x) != len(w):
        ctx.fail(f"the image and the kernel must have the same rank, at least 3, got {list(x)} and {list(w)}")
    if not ctx.equal(x[1], w[1] * attrs.group):
        ctx.fail(f"the image has {x[1]} channels, the kernel takes {w[1] * attrs.group}")
    if not ctx.divides(attrs.group, w[0]):
        ctx.fail(f"{w[0]} filters cannot be cut into {attrs.group} groups")
    check_windows(ctx, len(x) - 2, w[2:], attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad)
    pads = attrs.pads
    if attrs.auto_pad != "NOTSET":
        pads = automatic_pads(attrs.auto_pad, x[2:], w[2:], attrs.strides, attrs.dilations)
    return (x[0], w[0], *window_extents(x[2:], w[2:], attrs.strides, pads, attrs.dilations))


def _check_single(ctx: Infer, index: int) -> None:
    elements = ctx.type(index).elements if ctx.has(index) else None
    if elements is not None and not ctx.equal(elements, 1):
        ctx.fail(f"input {index} must have one element, got {ctx.type(index)}")


def _check_per_filter(ctx: Infer, kernel: int, index: int) -> None:
    """One element, or one a filter."""
    shape, w = (ctx.shape(index) if ctx.has(index) else None), ctx.shape(kernel)
    if shape is None or w is None or all(d == 1 for d in shape):
        return
    if len(shape) != 1 or not ctx.fits(shape[0], w[0]):
        ctx.fail(f"input {index} must have one element or {w[0]}, got {ctx.type(index)}")


def _definition(node: Node) -> Definition:
    ranks = [v.type.rank for v in node.inputs if v is not None and isinstance(v.type, TensorType)]
    if None in ranks or node.attrs.auto_pad != "NOTSET":
        return Opaque("the rank of an operand is not known")
    return Composite(_conv_integer_graph if node.op.name == "conv_integer" else _qlinear_conv_graph)


def _conv_integer_graph(node: Node) -> Graph:
    """The convolution of the operands as int32, less their zero points."""
    g, operands = formal_graph(node, "xwxw")
    x, w, x_zero, w_zero = (*operands, None, None)[:4]
    assert x is not None and w is not None
    shifted = None if w_zero is None else _by_filter(g, w_zero, w, trailing=_rank(w) - 1)
    g.set_outputs([g.add("conv", centred(g, x, x_zero), centred(g, w, shifted), **_attributes(node))], ["y"])
    return g


def _qlinear_conv_graph(node: Node) -> Graph:
    g, operands = formal_graph(node, "xxxwwwyyb")
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias = (*operands, None)[:9]
    assert x is not None and x_scale is not None and x_zero is not None and w is not None
    assert w_scale is not None and w_zero is not None and y_scale is not None and y_zero is not None
    total = g.add("conv_integer", x, w, x_zero, w_zero, **_attributes(node))
    spatial = _rank(w) - 2
    if bias is not None:
        total = g.add("add", total, _by_filter(g, bias, w, trailing=spatial))
    scale = _by_filter(g, w_scale, w, trailing=spatial)
    g.set_outputs([requantised(g, total, x_scale, scale, y_scale, y_zero)], ["y"])
    return g


def _attributes(node: Node) -> dict[str, Any]:
    return {name: getattr(node.attrs, name) for name in node.op.attribute_names}


def _rank(value: Value) -> int:
    assert isinstance(value.type, TensorType) and value.type.rank is not None
    return value.type.rank


def _by_filter(g: Graph, parameter: Value, kernel: Value, trailing: int) -> Value:
    """A parameter [M] as [M, 1, ...] with `trailing` ones; one of one element as it is."""
    assert isinstance(parameter.type, TensorType) and isinstance(kernel.type, TensorType)
    if parameter.type.elements == 1 or parameter.type.shape is None:
        return parameter
    return g.add("reshape", parameter, shape=(parameter.type.shape[0], *(1,) * trailing))


OPS.register(
    Op("conv_integer", _conv_integer, _definition, "quantized_products:conv_integer", ConvAttrs, inputs=(2, 4))
)
OPS.register(
    Op("qlinear_conv", _qlinear_conv, _definition, "quantized_products:qlinear_conv", ConvAttrs, inputs=(8, 9))
)
OPS.register(
    Op(
        "conv_bytes",
        _conv_bytes,
        _conv_bytes_definition,
        "quantized_products:conv_bytes",
        ConvBytesAttrs,
        inputs=(3, 3),
    )
)
