"""Products of quantised matrices; the convolutions are in `quantized_convolution`."""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.definition import Composite, Definition, Opaque
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.inference import broadcast_shapes
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.opset.quantization import QUANTISED_INTEGERS
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, Shape, TensorType

_BYTES = (DType.I8, DType.U8)
_FLOATS8 = (DType.F8E4M3FN, DType.F8E4M3FNUZ, DType.F8E5M2, DType.F8E5M2FNUZ)


def _matmul_integer(ctx: Infer) -> TensorType:
    for operand, zero_point in ((0, 2), (1, 3)):
        check_byte(ctx, operand, zero_point)
    shape = _product_shape(ctx, 0, 1)
    _check_rows(ctx, 0, 2)
    _check_columns(ctx, 1, 3)
    return TensorType(DType.I32, shape)


def _qlinear_matmul(ctx: Infer) -> TensorType:
    for operand, zero_point in ((0, 2), (3, 5)):
        if ctx.dtype(operand) not in (*_BYTES, *_FLOATS8) or ctx.dtype(operand) is not ctx.dtype(zero_point):
            ctx.fail(f"input {operand} must be a byte or float8 like its zero point, got {ctx.type(operand)}")
    if ctx.dtype(7) not in (*_BYTES, *_FLOATS8):
        ctx.fail(f"the zero point of the result must be a byte or float8, got {ctx.type(7)}")
    for index in (1, 4, 6):
        check_scale(ctx, index)
    shape = _product_shape(ctx, 0, 3)
    for index in (1, 2, 6, 7):
        _check_rows(ctx, 0, index)
    for index in (4, 5):
        _check_columns(ctx, 3, index)
    return TensorType(ctx.dtype(7), shape)


def check_byte(ctx: Infer, operand: int, zero_point: int) -> None:
    """The operand is int8 or uint8 and its zero point, if there is one, is too."""
    if ctx.dtype(operand) not in _BYTES:
        ctx.fail(f"input {operand} must be int8 or uint8, got {ctx.type(operand)}")
    if ctx.has(zero_point) and ctx.dtype(zero_point) is not ctx.dtype(operand):
        ctx.fail(f"input {zero_point} must be {ctx.dtype(operand).value}, got {ctx.type(zero_point)}")


def check_scale(ctx: Infer, index: int) -> None:
    """A scale is a float of at least 16 bits."""
    if ctx.dtype(index) not in (DType.F32, DType.F16, DType.BF16):
        ctx.fail(f"the scale, input {index}, must be float32, float16 or bfloat16, got {ctx.type(index)}")


def _product_shape(ctx: Infer, left: int, right: int) -> Shape | None:
    a, b = ctx.shape(left), ctx.shape(right)
    if a is None or b is None:
        return None
    if not a or not b:
        ctx.fail(f"takes matrices or vectors, got {ctx.type(left)} and {ctx.type(right)}")
    inner: tuple[Dim, Dim] = (a[-1], b[-2] if len(b) > 1 else b[0])
    if not ctx.equal(*inner):
        ctx.fail(f"the inner dimensions {inner[0]} and {inner[1]} differ")
    batch = broadcast_shapes(ctx, [a[:-2], b[:-2]])
    assert batch is not None
    return (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def _check_rows(ctx: Infer, operand: int, parameter: int) -> None:
    """One element, one a row, or a shape that broadcasts against the rows."""
    shape, own = (ctx.shape(parameter) if ctx.has(parameter) else None), ctx.shape(operand)
    if shape is None or own is None or all(d == 1 for d in shape):
        return
    rows: Shape = (own[-2],) if len(shape) == 1 and len(own) > 1 else (*own[:-1], 1)
    _check_parameter(ctx, parameter, shape, rows)


def _check_columns(ctx: Infer, operand: int, parameter: int) -> None:
    """One element, one a column, or a shape that broadcasts against the columns."""
    shape, own = (ctx.shape(parameter) if ctx.has(parameter) else None), ctx.shape(operand)
    if shape is None or own is None or all(d == 1 for d in shape):
        return
    columns: Shape = (own[-1],) if len(shape) == 1 else (*own[:-2], 1, own[-1])
    _check_parameter(ctx, parameter, shape, columns)


def _check_parameter(ctx: Infer, index: int, shape: Shape, expected: Shape) -> None:
    pairs = zip(shape, expected, strict=False)
    if len(shape) > len(expected) or not all(ctx.fits(a, b) for a, b in pairs):
        ctx.fail(f"input {index} must have one element or shape {list(expected)}, got {ctx.type(index)}")


def _matmul_integer_definition(node: Node) -> Definition:
    ranks = [v.type.rank for v in node.inputs if v is not None and isinstance(v.type, TensorType)]
    return Opaque("the rank of an operand is not known") if None in ranks else Composite(_matmul_integer_graph)


def _matmul_integer_graph(node: Node) -> Graph:
    """The product of the operands as int32, less their zero points."""
    g, operands = formal_graph(node, "ABab")
    a, b, a_zero, b_zero = (*operands, None, None)[:4]
    assert a is not None and b is not None
    left = centred(g, a, None if a_zero is None else _by_rows(g, a_zero, a))
    right = centred(g, b, b_zero)
    g.set_outputs([g.add("matmul", left, right)], ["Y"])
    return g


def _qlinear_matmul_definition(node: Node) -> Definition:
    types = [v.type for v in node.inputs if v is not None and isinstance(v.type, TensorType)]
    if any(t.rank is None for t in types):
        return Opaque("the rank of an operand is not known")
    if types[6].elements != 1 or types[7].elements != 1:
        return Opaque("the result has a scale for each row")
    whole = [t.dtype in QUANTISED_INTEGERS for t in (types[0], types[3])]
    return Composite(_qlinear_matmul_graph if all(whole) else _qlinear_float8_graph)


def _qlinear_matmul_graph(node: Node) -> Graph:
    g, (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero) = formal_graph(node, "aszbtzyz")
    assert a is not None and b is not None and a_scale is not None and b_scale is not None
    assert a_zero is not None and b_zero is not None and y_scale is not None and y_zero is not None
    total = g.add("matmul_integer", a, b, a_zero, b_zero)
    g.set_outputs([requantised(g, total, _by_rows(g, a_scale, a), b_scale, y_scale, y_zero)], ["y"])
    return g


def _qlinear_float8_graph(node: Node) -> Graph:
    """The product in float32 of matrices of which one at least holds 8-bit floats."""
    g, (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero) = formal_graph(node, "aszbtzyz")
    assert a is not None and b is not None and a_scale is not None and b_scale is not None
    assert a_zero is not None and b_zero is not None and y_scale is not None and y_zero is not None
    left, right = (
        g.add("sub", *(g.add("cast", v, dtype=DType.F32) for v in (x, _scalar(g, zero))))
        for x, zero in ((a, _by_rows(g, a_zero, a)), (b, b_zero))
    )
    total = g.add("matmul", left, right)
    g.set_outputs([requantised(g, total, _by_rows(g, a_scale, a), b_scale, y_scale, y_zero)], ["y"])
    return g


def formal_graph(node: Node, names: str) -> tuple[Graph, list[Value | None]]:
    """A graph with the inputs of the node."""
    g = Graph(node.op.name)
    pairs = enumerate(zip(node.inputs, names, strict=False))
    return g, [None if v is None else g.input(v.type, f"{name}{k}") for k, (v, name) in pairs]


def centred(g: Graph, x: Value, zero_point: Value | None) -> Value:
    """x - zero_point as int32."""
    wide = g.add("cast", x, dtype=DType.I32)
    return wide if zero_point is None else g.add("sub", wide, g.add("cast", _scalar(g, zero_point), dtype=DType.I32))


def requantised(g: Graph, total: Value, a_scale: Value, b_scale: Value, y_scale: Value, y_zero: Value) -> Value:
    """An int32 sum as a quantised tensor: total * (a_scale * b_scale / y_scale), rounded, shifted and bounded."""
    a, b, y = (g.add("cast", _scalar(g, s), dtype=DType.F32) for s in (a_scale, b_scale, y_scale))
    factor = g.add("div", g.add("mul", a, b), y)
    levels = g.add("mul", g.add("cast", total, dtype=DType.F32), factor)
    one = g.constant(np.asarray(1, np.float32))
    assert isinstance(y_zero.type, TensorType)
    return g.add("quantize_linear", levels, one, _scalar(g, y_zero), output_dtype=y_zero.type.dtype)


def _scalar(g: Graph, parameter: Value) -> Value:
    """A parameter of one element as a 0-d tensor, which broadcasts against everything."""
    type_ = parameter.type
    assert isinstance(type_, TensorType)
    return g.add("reshape", parameter, shape=()) if type_.elements == 1 and type_.shape != () else parameter


def _by_rows(g: Graph, parameter: Value, operand: Value) -> Value:
    """A parameter [M] of the rows of a matrix [..., M, K] as [M, 1]."""
    assert isinstance(parameter.type, TensorType) and isinstance(operand.type, TensorType)
    shape = parameter.type.shape
    if shape is not None and len(shape) == 1 and shape[0] != 1 and (operand.type.rank or 0) > 1:
        return g.add("reshape", parameter, shape=(shape[0], 1))
    return parameter


OPS.register(
    Op(
        "matmul_integer",
        _matmul_integer,
        _matmul_integer_definition,
        "quantized_products:matmul_integer",
        inputs=(2, 4),
    )
)
OPS.register(
    Op(
        "qlinear_matmul",
        _qlinear_matmul,
        _qlinear_matmul_definition,
        "quantized_products:qlinear_matmul",
        inputs=(8, 8),
    )
)
