"""Dimensions as values: `dims` (its elements are shape expressions) and, for unknown ranks, `shape` and `size`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Content, Infer, Op
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType, TensorType

__all__ = ["DimsAttrs", "ShapeAttrs"]


@dataclass(frozen=True, slots=True)
class DimsAttrs:
    """values: the elements in C order; shape: of the tensor; dtype: of the tensor."""

    values: tuple[Dim, ...]
    shape: tuple[int, ...]
    dtype: DType = DType.I64


@dataclass(frozen=True, slots=True)
class ShapeAttrs:
    """The axes start (inclusive) to end (exclusive; None: all)."""

    start: int = 0
    end: int | None = None


def _dims(ctx: Infer) -> TensorType:
    attrs: DimsAttrs = ctx.attrs
    if int(np.prod(attrs.shape, dtype=object)) != len(attrs.values):
        ctx.fail(f"{len(attrs.values)} values do not fill shape {attrs.shape}")
    return TensorType(attrs.dtype, attrs.shape)


def _dims_content(ctx: Infer) -> Content | None:
    content = np.empty(len(ctx.attrs.values), dtype=object)
    content[:] = ctx.attrs.values
    return content.reshape(ctx.attrs.shape)


def _shape(ctx: Infer) -> TensorType:
    type_ = ctx.type(0)
    if type_.shape is None:
        return TensorType(DType.I64, (ctx.fresh("rank"),))
    return TensorType(DType.I64, (len(type_.shape[ctx.attrs.start : ctx.attrs.end]),))


def _shape_content(ctx: Infer) -> Content | None:
    shape = ctx.shape(0)
    if shape is None:
        return None
    selected = shape[ctx.attrs.start : ctx.attrs.end]
    content = np.empty(len(selected), dtype=object)
    content[:] = selected
    return content


def _size_content(ctx: Infer) -> Content | None:
    shape = ctx.shape(0)
    if shape is None:
        return None
    content = np.empty((), dtype=object)
    content[()] = product(shape)
    return content


_METADATA = same(Opaque("it reads the shape of its operand, no element"))
OPS.register(
    Op(
        "dims",
        _dims,
        same(Opaque("its elements are shape expressions")),
        "symbolic:dims",
        DimsAttrs,
        inputs=(0, 0),
        propagate=_dims_content,
    )
)
OPS.register(Op("shape", _shape, _METADATA, "symbolic:shape", ShapeAttrs, propagate=_shape_content))
OPS.register(
    Op("size", lambda ctx: TensorType(DType.I64, ()), _METADATA, "symbolic:size", propagate=_size_content)
)
