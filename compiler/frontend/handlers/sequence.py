"""Sequences and optionals. What is known of a list at import is resolved there: exporters write many that are."""

from __future__ import annotations

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType


@onnx_op("SequenceEmpty")
def sequence_empty(c: NodeContext) -> Value:
    """SequenceEmpty."""
    return c.add("sequence_empty", dtype=c.attr_dtype("dtype", DType.F32))


@onnx_op("SequenceConstruct")
def sequence_construct(c: NodeContext) -> Value:
    """SequenceConstruct."""
    return c.add("sequence_construct", *c.all_inputs())


@onnx_op("SequenceInsert")
def sequence_insert(c: NodeContext) -> Value:
    """SequenceInsert."""
    return c.add("sequence_insert", c.required(0), c.required(1), c.optional(2))


@onnx_op("SequenceErase")
def sequence_erase(c: NodeContext) -> Value:
    """SequenceErase."""
    return c.add("sequence_erase", c.required(0), c.optional(1))


@onnx_op("SequenceAt")
def sequence_at(c: NodeContext) -> Value:
    """SequenceAt: the tensor itself where SequenceConstruct made the list, a slice where SplitToSequence did."""
    sequence, position = c.required(0), c.static(1)
    maker = sequence.producer
    if position is not None and position.size == 1 and maker is not None:
        at = int(position.ravel()[0])
        if maker.op.name == "sequence_construct":
            return _constructed(c, maker, at)
        if maker.op.name == "split_to_sequence":
            piece = _piece(c, maker, at)
            if piece is not None:
                return piece
    return c.add("sequence_at", sequence, c.required(1))


def _constructed(c: NodeContext, maker: Node, at: int) -> Value:
    if not -len(maker.inputs) <= at < len(maker.inputs):
        c.invalid(f"position {at} is outside a sequence of {len(maker.inputs)} tensors")
    value = maker.inputs[at]
    assert value is not None
    return value


def _piece(c: NodeContext, maker: Node, at: int) -> Value | None:
    """Piece `at` of a split whose lengths are known."""
    x, attrs = maker.inputs[0], maker.attrs
    assert x is not None
    if not isinstance(x.type, TensorType) or x.type.shape is None:
        return None
    axis = attrs.axis % len(x.type.shape)
    extent = x.type.shape[axis]
    if isinstance(attrs.split, tuple):
        lengths = list(attrs.split)
    elif isinstance(extent, int):
        step = attrs.split or 1
        lengths = [min(step, extent - start) for start in range(0, extent, step)]
    else:
        return None
    if not -len(lengths) <= at < len(lengths):
        c.invalid(f"position {at} is outside a sequence of {len(lengths)} tensors")
    start = sum(lengths[: at % len(lengths)])
    end = start + lengths[at]
    piece = c.add("slice", x, starts=(start,), ends=(end,), axes=(axis,), steps=(1,))
    if attrs.split is None and not attrs.keepdims:
        return c.add("reshape", piece, shape=x.type.shape[:axis] + x.type.shape[axis + 1 :])
    return piece


@onnx_op("SequenceLength")
def sequence_length(c: NodeContext) -> Value:
    """SequenceLength."""
    return c.add("sequence_length", c.required(0))


@onnx_op("SplitToSequence")
def split_to_sequence(c: NodeContext) -> Value:
    """SplitToSequence: lengths known at import become an attribute."""
    axis, keepdims = c.attr_int("axis", 0), int(c.attr_int("keepdims", 1) != 0)
    if c.optional(1) is None:
        return c.add("split_to_sequence", c.required(0), axis=axis, keepdims=keepdims)
    lengths = c.static(1)
    if lengths is None:
        return c.add("split_to_sequence_dynamic", c.required(0), c.required(1), axis=axis)
    split = int(lengths) if lengths.ndim == 0 else tuple(int(n) for n in lengths.ravel())
    return c.add("split_to_sequence", c.required(0), axis=axis, split=split)


@onnx_op("ConcatFromSequence")
def concat_from_sequence(c: NodeContext) -> Value:
    """ConcatFromSequence: a concat where SequenceConstruct made the list."""
    axis, new_axis = c.attr_int("axis"), c.attr_int("new_axis", 0)
    if new_axis not in (0, 1):
        c.invalid(f"new_axis must be 0 or 1, got {new_axis}")
    maker = c.required(0).producer
    if maker is not None and maker.op.name == "sequence_construct" and not new_axis:
        return c.add("concat", *maker.inputs, axis=axis)
    return c.add("concat_from_sequence", c.required(0), axis=axis, new_axis=new_axis)


@onnx_op("Optional")
def optional(c: NodeContext) -> Value:
    """Optional."""
    if c.optional(0) is None and not c.has_attr("type"):
        c.invalid("needs an input or the attribute type")
    return c.add("optional", c.optional(0))


@onnx_op("OptionalHasElement")
def optional_has_element(c: NodeContext) -> Value:
    """OptionalHasElement: what is no optional is there."""
    value = c.optional(0)
    if value is None or isinstance(value.type, (TensorType, SequenceType)):
        return c.constant(np.asarray(value is not None))
    return c.add("optional_has_element", value)


@onnx_op("OptionalGetElement")
def optional_get_element(c: NodeContext) -> Value:
    """OptionalGetElement: what is no optional is itself the element."""
    value = c.required(0)
    return c.add("optional_get_element", value) if isinstance(value.type, OptionalType) else value
