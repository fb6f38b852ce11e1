"""Gather, scatter, OneHot, Compress and TensorScatter."""

from __future__ import annotations

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim, product


def _along(c: NodeContext, axis: int, rank: int | None) -> int:
    """A non-negative axis where the rank is known."""
    if rank is None:
        return axis
    if not -rank <= axis < rank:
        c.invalid(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


@onnx_op("Gather")
def gather(c: NodeContext) -> Value:
    """Gather."""
    return c.add("gather", c.required(0), c.required(1), axis=_along(c, c.attr_int("axis", 0), c.rank(0)))


@onnx_op("GatherElements")
def gather_elements(c: NodeContext) -> Value:
    """GatherElements."""
    return c.add("gather_elements", c.required(0), c.required(1), axis=_along(c, c.attr_int("axis", 0), c.rank(0)))


@onnx_op("GatherND")
def gather_nd(c: NodeContext) -> Value:
    """GatherND (batch_dims since opset 12)."""
    return c.add("gather_nd", c.required(0), c.required(1), batch_dims=c.attr_int("batch_dims", 0))


@onnx_op("Scatter", "ScatterElements")
def scatter_elements(c: NodeContext) -> Value:
    """ScatterElements (reductions since opset 16) and its older name."""
    axis = _along(c, c.attr_int("axis", 0), c.rank(0))
    operands = (c.required(0), c.required(1), c.required(2))
    return c.add("scatter_elements", *operands, axis=axis, reduction=c.attr_string("reduction", "none"))


@onnx_op("ScatterND")
def scatter_nd(c: NodeContext) -> Value:
    """ScatterND (reductions since opset 16)."""
    operands = (c.required(0), c.required(1), c.required(2))
    return c.add("scatter_nd", *operands, reduction=c.attr_string("reduction", "none"))


@onnx_op("OneHot")
def one_hot(c: NodeContext) -> Value:
    """OneHot: the depth is an attribute where it is known."""
    indices, depth, values, axis = c.required(0), c.required(1), c.required(2), c.attr_int("axis", -1)
    known = c.dims(1)
    if known is None:
        return c.add("one_hot_dynamic", indices, depth, values, axis=axis)
    if len(known) != 1:
        c.invalid(f"depth must be one number, got {list(known)}")
    return c.add("one_hot", indices, values, depth=known[0], axis=axis)


@onnx_op("Compress")
def compress(c: NodeContext) -> Value:
    """Compress; under a known condition it is a gather."""
    axis = _along(c, c.attr_int("axis"), c.rank(0)) if c.has_attr("axis") else None
    condition, shape = c.static(1), c.shape(0)
    if condition is None or condition.ndim != 1 or shape is None:
        return c.add("compress", c.required(0), c.required(1), axis=axis)
    operand = c.required(0)
    if axis is None:
        elements: Dim = product(shape)
        operand, axis, shape = c.add("reshape", operand, shape=(elements,)), 0, (elements,)
    chosen, size = np.flatnonzero(condition), shape[axis]
    if chosen.size and isinstance(size, int) and chosen[-1] >= size:
        c.invalid(f"the condition selects element {chosen[-1]} of axis {axis}, whose size is {size}")
    return c.add("gather", operand, c.ints_constant(chosen.tolist()), axis=axis)


@onnx_op("TensorScatter")
def tensor_scatter(c: NodeContext) -> Value:
    """TensorScatter."""
    axis, mode = _along(c, c.attr_int("axis", -2), c.rank(0)), c.attr_string("mode", "linear")
    return c.add("tensor_scatter", c.required(0), c.required(1), c.optional(2), axis=axis, mode=mode)
