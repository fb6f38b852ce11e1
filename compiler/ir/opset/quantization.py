"""Quantise, dequantise, and the dynamic range of a tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.definition import Composite, Definition, Elementwise, Opaque, same
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.symbols import Dim, ceildiv
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.compiler.region.expr import Arg, Convert, Expr, Literal, apply

__all__ = ["QUANTISED_INTEGERS", "DequantizeLinearAttrs", "QuantizeLinearAttrs"]

QUANTISED_INTEGERS: dict[DType, tuple[int, int]] = {
    DType.U8: (0, 255),
    DType.I8: (-128, 127),
    DType.U16: (0, 65535),
    DType.I16: (-32768, 32767),
    DType.U4: (0, 15),
    DType.I4: (-8, 7),
    DType.U2: (0, 3),
    DType.I2: (-2, 1),
}
_SMALL_FLOATS: dict[DType, float] = {  # greatest finite value
    DType.F8E4M3FN: 448.0,
    DType.F8E4M3FNUZ: 240.0,
    DType.F8E5M2: 57344.0,
    DType.F8E5M2FNUZ: 57344.0,
    DType.F4E2M1: 6.0,
}
_REALS = (DType.F32, DType.F16, DType.BF16)


@dataclass(frozen=True, slots=True)
class QuantizeLinearAttrs:
    """output_dtype: of the result; axis, block_size (0: none), saturate as in ONNX; precision: of the quotient."""

    output_dtype: DType
    axis: int = 1
    block_size: int = 0
    saturate: bool = True
    precision: DType | None = None


@dataclass(frozen=True, slots=True)
class DequantizeLinearAttrs:
    """output_dtype: of the result; axis and block_size (0: none) as in ONNX."""

    output_dtype: DType
    axis: int = 1
    block_size: int = 0


def _quantize_linear(ctx: Infer) -> TensorType:
    x, dtype = ctx.type(0), ctx.attrs.output_dtype
    if x.dtype not in (*_REALS, DType.I32):
        ctx.fail(f"input 0 must be float32, float16, bfloat16 or int32, got {x}")
    if dtype not in QUANTISED_INTEGERS and dtype not in _SMALL_FLOATS:
        ctx.fail(f"{dtype.value} is no type to quantise to")
    if ctx.has(2) and ctx.dtype(2) is not dtype:
        ctx.fail(f"the zero point is {ctx.dtype(2).value}, the result {dtype.value}")
    _check_parameters(ctx)
    return TensorType(dtype, x.shape)


def _dequantize_linear(ctx: Infer) -> TensorType:
    x, dtype = ctx.type(0), ctx.attrs.output_dtype
    if x.dtype not in (*QUANTISED_INTEGERS, *_SMALL_FLOATS, DType.I32):
        ctx.fail(f"{x} cannot be dequantised")
    if dtype not in _REALS:
        ctx.fail(f"{dtype.value} is no type to dequantise to")
    if ctx.has(2) and ctx.dtype(2) is not x.dtype:
        ctx.fail(f"the zero point is {ctx.dtype(2).value}, the operand {x.dtype.value}")
    _check_parameters(ctx)
    return TensorType(dtype, x.shape)


def _check_parameters(ctx: Infer) -> None:
    x = ctx.shape(0)
    if ctx.attrs.block_size < 0:
        ctx.fail(f"block_size must not be negative, got {ctx.attrs.block_size}")
    for index in (1, 2):
        shape = ctx.shape(index) if ctx.has(index) else None
        if x is None or shape is None or (_is_single(shape) and not ctx.attrs.block_size):
            continue
        expected = _parameter_shape(ctx, x)
        if len(shape) == len(x) and not ctx.attrs.block_size:
            expected = tuple(1 if own == 1 else dim for own, dim in zip(shape, x, strict=True))
        if not _fit_blocks(ctx, shape, expected):
            ctx.fail(f"input {index} must have shape {list(expected)} or one element, got {ctx.type(index)}")


def _fit_blocks(ctx: Infer, shape: Shape, expected: Shape) -> bool:
    """Whether a scale has the expected shape, or without blocks one element along an axis."""
    if ctx.attrs.block_size:
        return ctx.equal_shapes(shape, expected)
    return len(shape) == len(expected) and all(ctx.fits(a, b) for a, b in zip(shape, expected, strict=True))


def _parameter_shape(ctx: Infer, x: Shape) -> Shape:
    """The shape of a scale along an axis or in blocks."""
    axis = 0 if len(x) == 1 else ctx.axis(ctx.attrs.axis, len(x))
    if not ctx.attrs.block_size:
        return (x[axis],) if x else ()
    if not x:
        ctx.fail("a tensor of rank 0 has no blocks")
    return (*x[:axis], ceildiv(x[axis], ctx.attrs.block_size), *x[axis + 1 :])


def _is_single(shape: Shape) -> bool:
    return all(dim == 1 for dim in shape)


def _quantize_definition(node: Node) -> Definition:
    return _per_element(node, _quantize_expression)


def _dequantize_definition(node: Node) -> Definition:
    return _per_element(node, _dequantize_expression)


def _per_element(node: Node, expression: Callable[[Node], Expr]) -> Definition:
    """The expression where the parameters broadcast as they are; else the same op after spreading them."""
    types = [None if v is None else v.type for v in node.inputs]
    shapes = [t.shape if isinstance(t, TensorType) else None for t in types]
    x, scale = shapes[0], shapes[1]
    if x is None or scale is None or (len(shapes) > 2 and types[2] is not None and shapes[2] is None):
        return Opaque("the ranks of its operands are not known")
    attrs = node.attrs
    parameters = [s for s in shapes[1:] if s is not None]
    axis = attrs.axis % len(x) if len(x) > 1 else 0
    if not attrs.block_size and all(_broadcasts(s, x, axis) for s in parameters):
        return Elementwise(expression(node))
    if not x or (attrs.block_size and not isinstance(x[axis], int)):
        return Opaque("its scale does not broadcast, and the length of the quantised axis is not known")
    return Composite(_spread)


def _broadcasts(parameter: Shape, x: Shape, axis: int) -> bool:
    if _is_single(parameter):
        return len(parameter) <= len(x)
    return len(parameter) == len(x) or (len(parameter) == 1 and axis == len(x) - 1)


def _spread(node: Node) -> Graph:
    """The op with parameters that broadcast against x."""
    g = Graph(node.op.name)
    formal = [None if v is None else g.input(v.type, name) for v, name in zip(node.inputs, "xsz", strict=False)]
    operands = [formal[0], *(None if p is None else _spread_parameter(g, node, p) for p in formal[1:])]
    attributes = {name: getattr(node.attrs, name) for name in node.op.attribute_names} | {"block_size": 0}
    g.set_outputs([g.add_node(node.op, operands, attributes).output], ["y"])
    return g


def _spread_parameter(g: Graph, node: Node, parameter: Value) -> Value:
    x, own = node.inputs[0], parameter.type
    assert x is not None and isinstance(x.type, TensorType) and x.type.shape is not None
    assert isinstance(own, TensorType) and own.shape is not None
    shape, attrs = x.type.shape, node.attrs
    axis = attrs.axis % len(shape) if len(shape) > 1 else 0
    if attrs.block_size:
        return _repeated(g, parameter, axis, attrs.block_size, shape[axis])
    if _is_single(own.shape):
        return g.add("reshape", parameter, shape=())
    length = own.shape[0] if len(own.shape) == 1 else own.shape[axis]  # which may turn out to be 1
    return g.add("reshape", parameter, shape=tuple(length if k == axis else 1 for k in range(len(shape))))


def _repeated(g: Graph, parameter: Value, axis: int, times: int, extent: Dim) -> Value:
    """A parameter whose elements along an axis stand for `times` neighbours each, of which there are `extent`.

    By views alone, so that kernels find an element by a division and read nothing to know where it lies.
    """
    assert isinstance(parameter.type, TensorType) and parameter.type.shape is not None and isinstance(extent, int)
    before, blocks, behind = (parameter.type.shape[:axis], parameter.type.shape[axis], parameter.type.shape[axis + 1 :])
    split = g.add("reshape", parameter, shape=(*before, blocks, 1, *behind))
    spread = g.add("expand", split, shape=(*before, blocks, times, *behind))
    whole = g.add("reshape", spread, shape=(*before, blocks * times, *behind))
    if blocks * times == extent:
        return whole
    return g.add("slice", whole, starts=(0,), ends=(extent,), axes=(axis,), steps=(1,))


def _quantize_expression(node: Node) -> Expr:
    """Rounding follows bounding: an infinity must not reach the conversion. Comparisons send NaN to the lower bound."""
    attrs: QuantizeLinearAttrs = node.attrs
    quotient = _quotient(node)
    zero: Expr | None = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        zero = Convert(Arg(2), DType.F32)
    if attrs.output_dtype in _SMALL_FLOATS:
        levels: Expr = quotient if zero is None else apply("add", quotient, zero)
        if attrs.saturate or attrs.output_dtype is DType.F4E2M1:
            limit = _SMALL_FLOATS[attrs.output_dtype]
            levels = apply("min", apply("max", levels, -limit), limit)
        return Convert(levels, attrs.output_dtype)
    least, greatest = (Literal(float(n)) for n in QUANTISED_INTEGERS[attrs.output_dtype])
    low: Expr = least if zero is None else apply("sub", least, zero)
    high: Expr = greatest if zero is None else apply("sub", greatest, zero)
    rounded = apply("round", apply("min", apply("select", apply("gt", quotient, low), quotient, low), high))
    return Convert(rounded if zero is None else apply("add", rounded, zero), attrs.output_dtype)


def _quotient(node: Node) -> Expr:
    """x / scale in float32, rounded to the precision of the division."""
    scale = node.inputs[1]
    assert scale is not None and isinstance(scale.type, TensorType)
    precision = node.attrs.precision or scale.type.dtype
    if precision.is_integer:
        return Convert(apply("div", Convert(Arg(0), DType.F64), Convert(Arg(1), DType.F64)), DType.F32)
    if not precision.is_small_float:
        return apply("div", Convert(Arg(0), DType.F32), Convert(Arg(1), DType.F32))
    x, s = (Convert(Convert(Arg(k), precision), DType.F32) for k in (0, 1))
    return Convert(Convert(apply("div", x, s), precision), DType.F32)


def _dequantize_expression(node: Node) -> Expr:
    x = node.inputs[0]
    assert x is not None and isinstance(x.type, TensorType)
    shifted = len(node.inputs) > 2 and node.inputs[2] is not None
    if x.type.dtype is DType.I32:
        level: Expr = Convert(apply("sub", Arg(0), Arg(2)) if shifted else Arg(0), DType.F32)
    else:
        level = Convert(Arg(0), DType.F32)
        level = apply("sub", level, Convert(Arg(2), DType.F32)) if shifted else level
    return Convert(apply("mul", level, Convert(Arg(1), DType.F32)), node.attrs.output_dtype)


def _dynamic_quantize_linear(ctx: Infer) -> list[TensorType]:
    if ctx.dtype(0) is not DType.F32:
        ctx.fail(f"input 0 must be float32, got {ctx.type(0)}")
    return [TensorType(DType.U8, ctx.shape(0)), TensorType(DType.F32, ()), TensorType(DType.U8, ())]


def _dynamic_quantize_graph(node: Node) -> Graph:
    """scale = (max - min) / 255, or 1; zero point = -min / scale, rounded; then a quantisation.

    NaN takes no part in the range, and a zero point that would be NaN (of an infinite range) is 255.

    The least and the greatest elements of parts of x, where they are operands, are read in place of x for its range.
    """
    g = Graph(node.op.name)
    formal = [g.input(v.type, name) for v, name in zip(node.inputs, ("x", "lows", "highs"), strict=False) if v]
    x, lows, highs = (formal[0], *formal[1:]) if len(formal) == 3 else (formal[0],) * 3
    zero, one, last = (g.constant(np.asarray(n, np.float32)) for n in (0, 1, 255))

    def number(value: Value, instead: Value) -> Value:
        return g.add("where", g.add("is_nan", value), instead, value)

    low = g.add("min", g.add("reduce_min", number(lows, zero), axes=None, keepdims=False), zero)
    high = g.add("max", g.add("reduce_max", number(highs, zero), axes=None, keepdims=False), zero)
    step = g.add("div", g.add("sub", high, low), last)
    scale = g.add("where", g.add("equal", step, zero), one, step)
    level = number(g.add("div", g.add("neg", low), scale), last)
    level = g.add("round", g.add("clip", level, zero, last))
    zero_point = g.add("cast", level, dtype=DType.U8)
    y = g.add("quantize_linear", x, scale, zero_point, output_dtype=DType.U8)
    g.set_outputs([y, scale, zero_point], ["y", "y_scale", "y_zero_point"])
    return g


OPS.register(
    Op(
        "quantize_linear",
        _quantize_linear,
        _quantize_definition,
        "quantization:quantize_linear",
        QuantizeLinearAttrs,
        inputs=(2, 3),
    )
)
OPS.register(
    Op(
        "dequantize_linear",
        _dequantize_linear,
        _dequantize_definition,
        "quantization:dequantize_linear",
        DequantizeLinearAttrs,
        inputs=(2, 3),
    )
)
OPS.register(
    Op(
        "dynamic_quantize_linear",
        _dynamic_quantize_linear,
        same(Composite(_dynamic_quantize_graph)),
        "quantization:dynamic_quantize_linear",
        inputs=(1, 3),
        outputs=3,
    )
)
