"""Sequences and optionals: lists and None at run time.

The element type of a sequence holds for every element: where elements differ in shape, it has no shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Content, Infer, InferFunction, NoAttrs, Op
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, Type

__all__ = ["ConcatFromSequenceAttrs", "SequenceEmptyAttrs", "SplitToSequenceAttrs", "SplitToSequenceDynamicAttrs"]


@dataclass(frozen=True, slots=True)
class SequenceEmptyAttrs:
    """dtype: of the tensors to come."""

    dtype: DType = DType.F32


@dataclass(frozen=True, slots=True)
class SplitToSequenceAttrs:
    """split: lengths, one length for all, or None for slices of length 1 (that lose the axis unless keepdims)."""

    axis: int = 0
    split: int | tuple[int, ...] | None = None
    keepdims: int = 1


@dataclass(frozen=True, slots=True)
class SplitToSequenceDynamicAttrs:
    """axis: the one that is split."""

    axis: int = 0


@dataclass(frozen=True, slots=True)
class ConcatFromSequenceAttrs:
    """axis: where to join; new_axis: whether it is a new one."""

    axis: int
    new_axis: int = 0


def _sequence_empty(ctx: Infer) -> Type:
    return SequenceType(TensorType(ctx.attrs.dtype, None))


def _sequence_construct(ctx: Infer) -> Type:
    element: Type = ctx.any_type(0)
    for index in range(1, len(ctx.inputs)):
        element = _common(ctx, element, ctx.any_type(index))
    return SequenceType(element)


def _sequence_insert(ctx: Infer) -> Type:
    inserted = ctx.any_type(1)
    _position(ctx, 2)
    element = _element(ctx)
    sequence = ctx.inputs[0]
    assert sequence is not None
    if sequence.producer is not None and sequence.producer.op.name == "sequence_empty":
        _common(ctx, inserted, element)
        return SequenceType(inserted)
    return SequenceType(inserted if element is None else _common(ctx, element, inserted))


def _sequence_erase(ctx: Infer) -> Type:
    _position(ctx, 1)
    return SequenceType(_element(ctx))


def _sequence_at(ctx: Infer) -> Type:
    _position(ctx, 1)
    element = _element(ctx)
    if element is None:
        ctx.fail("the sequence is always empty")
    return element


def _sequence_length(ctx: Infer) -> Type:
    _element(ctx)
    return TensorType(DType.I64, ())


def _sequence_length_content(ctx: Infer) -> Content | None:
    sequence = ctx.inputs[0]
    producer = None if sequence is None else sequence.producer
    if producer is None or producer.op.name not in ("sequence_construct", "sequence_empty"):
        return None
    return np.asarray(len(producer.inputs), object)


def _split_to_sequence(ctx: Infer) -> Type:
    x, attrs = ctx.type(0), ctx.attrs
    if x.shape is None:
        return SequenceType(x)
    if not x.shape:
        ctx.fail("a tensor of rank 0 cannot be split")
    axis = ctx.axis(attrs.axis, len(x.shape))
    if attrs.split is None and not attrs.keepdims:
        return SequenceType(TensorType(x.dtype, x.shape[:axis] + x.shape[axis + 1 :]))
    length = _piece(ctx, x.shape[axis])
    if length is None:
        return SequenceType(TensorType(x.dtype, None))
    return SequenceType(TensorType(x.dtype, (*x.shape[:axis], length, *x.shape[axis + 1 :])))


def _piece(ctx: Infer, extent: Dim) -> Dim | None:
    """The length of every piece; None if they differ or are not known."""
    split = ctx.attrs.split
    if isinstance(split, tuple):
        if min(split, default=0) < 0 or (isinstance(extent, int) and sum(split) != extent):
            ctx.fail(f"lengths {list(split)} do not add up to {extent}")
        return split[0] if len(set(split)) == 1 else None
    step = 1 if split is None else split
    if step < 1:
        ctx.fail(f"the length of the pieces must be positive, got {step}")
    whole = step == 1 or (isinstance(extent, int) and extent % step == 0)
    return step if whole else None


def _split_to_sequence_dynamic(ctx: Infer) -> Type:
    x, lengths = ctx.type(0), ctx.type(1)
    if x.rank is not None:
        ctx.axis(ctx.attrs.axis, x.rank)
    if lengths.dtype not in (DType.I32, DType.I64) or (lengths.rank or 0) > 1:
        ctx.fail(f"lengths must be integers in a scalar or vector, got {lengths}")
    return SequenceType(TensorType(x.dtype, None))


def _concat_from_sequence(ctx: Infer) -> Type:
    element = _element(ctx)
    if not isinstance(element, TensorType):
        ctx.fail(f"takes a sequence of tensors, got {ctx.any_type(0)}")
    if element.shape is None:
        return TensorType(element.dtype, None)
    rank = len(element.shape)
    total = ctx.fresh("concat")
    if ctx.attrs.new_axis:
        axis = ctx.axis(ctx.attrs.axis, rank, extra=1)
        return TensorType(element.dtype, (*element.shape[:axis], total, *element.shape[axis:]))
    if rank == 0:
        ctx.fail("tensors of rank 0 can only be joined on a new axis")
    axis = ctx.axis(ctx.attrs.axis, rank)
    return TensorType(element.dtype, (*element.shape[:axis], total, *element.shape[axis + 1 :]))


def _optional(ctx: Infer) -> Type:
    return OptionalType(ctx.any_type(0) if ctx.has(0) else None)


def _optional_has_element(ctx: Infer) -> Type:
    return TensorType(DType.BOOL, ())


def _optional_get_element(ctx: Infer) -> Type:
    type_ = ctx.any_type(0)
    if not isinstance(type_, OptionalType):
        return type_
    if type_.element is None:
        ctx.fail("the optional is always empty")
    return type_.element


def _optional_has_element_content(ctx: Infer) -> Content | None:
    value = ctx.inputs[0]
    if value is None or not isinstance(value.type, OptionalType):
        return np.asarray(value is not None, object)
    producer = value.producer
    if producer is None or producer.op.name != "optional":
        return None
    return np.asarray(bool(producer.inputs) and producer.inputs[0] is not None, object)


def _element(ctx: Infer) -> Type | None:
    """The element type of the sequence that is input 0."""
    type_ = ctx.any_type(0)
    if not isinstance(type_, SequenceType):
        ctx.fail(f"input 0 must be a sequence, got {type_}")
    return type_.element


def _position(ctx: Infer, index: int) -> None:
    if ctx.has(index):
        type_ = ctx.type(index)
        if type_.dtype not in (DType.I32, DType.I64) or type_.shape not in ((), (1,), None):
            ctx.fail(f"a position must be one integer, got {type_}")


def _common(ctx: Infer, a: Type, b: Type | None) -> Type:
    """The type that values of both types have."""
    if b is None or a == b:
        return a
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a.dtype is b.dtype:
        return TensorType(a.dtype, None)
    ctx.fail(f"a sequence cannot hold both {a} and {b}")


_HOLDER = same(Opaque("it makes or takes a sequence or an optional"))


def _register(name: str, infer: InferFunction, inputs: tuple[int, int | None], attrs: type = NoAttrs) -> None:
    OPS.register(Op(name, infer, _HOLDER, f"sequence:{name}", attrs, inputs=inputs, dynamic=True))


_register("sequence_empty", _sequence_empty, (0, 0), SequenceEmptyAttrs)
_register("sequence_construct", _sequence_construct, (1, None))
_register("sequence_insert", _sequence_insert, (2, 3))
_register("sequence_erase", _sequence_erase, (1, 2))
_register("sequence_at", _sequence_at, (2, 2))
_register("split_to_sequence", _split_to_sequence, (1, 1), SplitToSequenceAttrs)
_register("split_to_sequence_dynamic", _split_to_sequence_dynamic, (2, 2), SplitToSequenceDynamicAttrs)
_register("concat_from_sequence", _concat_from_sequence, (1, 1), ConcatFromSequenceAttrs)
_register("optional", _optional, (0, 1))
_register("optional_get_element", _optional_get_element, (1, 1))
OPS.register(
    Op(
        "sequence_length",
        _sequence_length,
        _HOLDER,
        "sequence:sequence_length",
        propagate=_sequence_length_content,
    )
)
OPS.register(
    Op(
        "optional_has_element",
        _optional_has_element,
        _HOLDER,
        "sequence:optional_has_element",
        inputs=(0, 1),
        propagate=_optional_has_element_content,
    )
)
