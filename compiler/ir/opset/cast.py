"""Conversions of the element type: cast and bit_cast."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Definition, Elementwise, Opaque, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.propagation import cast_content
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.expr import Arg, Convert, Expr, apply

__all__ = ["BitCastAttrs", "CastAttrs"]

# Between these the conversion is that of C; the others have rules of their own about what is out of range.
_PLAIN = frozenset(
    {DType.F64, DType.F32, DType.F16, DType.BF16, DType.BOOL}
    | {DType.I64, DType.I32, DType.I16, DType.I8, DType.U64, DType.U32, DType.U16, DType.U8}
)
_FLOATS8 = {DType.F8E4M3FN: 448.0, DType.F8E5M2: 57344.0}  # and the largest number of each
_WIDTHS = {DType.BOOL: 8, DType.I4: 4, DType.U4: 4, DType.F4E2M1: 4, DType.I2: 2, DType.U2: 2}
_ROUND_MODES = ("up", "down", "nearest")


@dataclass(frozen=True, slots=True)
class CastAttrs:
    """dtype: of the result; saturate: 8-bit floats clamp what is out of range; round_mode: for f8e8m0 alone."""

    dtype: DType
    saturate: bool = True
    round_mode: str = "up"


@dataclass(frozen=True, slots=True)
class BitCastAttrs:
    """dtype: of the result, as wide as the operand's."""

    dtype: DType


def _cast(ctx: Infer) -> TensorType:
    if ctx.attrs.round_mode not in _ROUND_MODES:
        ctx.fail(f"round_mode must be one of {', '.join(_ROUND_MODES)}, got {ctx.attrs.round_mode!r}")
    if ctx.attrs.dtype.is_complex or ctx.dtype(0).is_complex:
        ctx.fail("complex numbers cannot be cast")
    return TensorType(ctx.attrs.dtype, ctx.shape(0))


def _cast_definition(node: Node) -> Definition:
    value = node.inputs[0]
    assert value is not None and isinstance(value.type, TensorType)
    source, target = value.type.dtype, node.attrs.dtype
    if source not in (*_PLAIN, *_FLOATS8, DType.I4, DType.U4) or target not in (*_PLAIN, *_FLOATS8):
        return Opaque(f"the conversion of {source.value} to {target.value} is none of C's")
    if source is target or target not in _FLOATS8:
        wide = source in _FLOATS8 and source is not target
        return Elementwise(Convert(Convert(Arg(0), DType.F32) if wide else Arg(0), target))
    number: Expr = Convert(Arg(0), DType.F32)
    if node.attrs.saturate:
        number = apply("min", apply("max", number, -_FLOATS8[target]), _FLOATS8[target])
    return Elementwise(Convert(number, target))


def _bit_cast(ctx: Infer) -> TensorType:
    source, target = ctx.dtype(0), ctx.attrs.dtype
    if DType.STRING in (source, target):
        ctx.fail("strings have no bits to cast")
    if _width(source) != _width(target):
        ctx.fail(f"{source.value} and {target.value} differ in width")
    return TensorType(target, ctx.shape(0))


def _width(dtype: DType) -> int:
    return _WIDTHS.get(dtype, 8 * dtype.numpy.itemsize)


OPS.register(Op("cast", _cast, _cast_definition, "cast:cast", CastAttrs, accepts_out=True, propagate=cast_content))
OPS.register(Op("bit_cast", _bit_cast, same(Opaque("it reinterprets bits")), "cast:bit_cast", BitCastAttrs, view=True))
