"""Shape, Size, Constant: values that the importer mostly knows."""

from __future__ import annotations

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.frontend.sparse import sparse_constant
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim, SymInt, product


def dims_value(context: NodeContext, dims: tuple[Dim, ...], shape: tuple[int, ...]) -> Value:
    """An int64 tensor of dimensions: a constant if all are literals, else a `dims` node."""
    if any(isinstance(d, SymInt) for d in dims):
        return context.add("dims", values=dims, shape=shape)
    return context.constant(np.asarray(dims, dtype=np.int64).reshape(shape))


@onnx_op("Shape")
def shape(context: NodeContext) -> Value:
    """Shape (start and end since opset 15)."""
    type_shape = context.shape(0)
    start = context.attr_int("start", 0)
    end = context.attr_int("end") if context.has_attr("end") else None
    if type_shape is None:
        return context.add("shape", context.required(0), start=start, end=end)
    selected = type_shape[
        _clamp(start, len(type_shape)) : len(type_shape) if end is None else _clamp(end, len(type_shape))
    ]
    return dims_value(context, tuple(selected), (len(selected),))


def _clamp(axis: int, rank: int) -> int:
    return max(0, min(rank, axis + rank if axis < 0 else axis))


@onnx_op("Size")
def size(context: NodeContext) -> Value:
    """Size: the number of elements."""
    type_shape = context.shape(0)
    if type_shape is None:
        return context.add("size", context.required(0))
    return dims_value(context, (product(type_shape),), ())


@onnx_op("Constant")
def constant(context: NodeContext) -> Value:
    """Constant in each of its spellings."""
    given = [name for name in context.attributes if name.startswith(("value", "sparse_value"))]
    if len(given) != 1:
        context.invalid(f"needs exactly one value attribute, got {given or 'none'}")
    tensor = context.attr_tensor("value") if context.has_attr("value") else None
    if tensor is not None:
        return context.constant(tensor)
    if context.has_attr("sparse_value"):
        sparse = context.attributes["sparse_value"].sparse_tensor
        importer = context.importer
        where = f"constant {context.label!r}"
        return context.constant(sparse_constant(sparse, importer.model.folder, importer.limits, where))
    return context.constant(_plain(context, given[0]))


def _plain(context: NodeContext, name: str) -> np.ndarray:
    match name:
        case "value_float":
            return np.asarray(context.attr_float(name), dtype=np.float32)
        case "value_floats":
            return np.asarray(context.attr_floats(name), dtype=np.float32)
        case "value_int":
            return np.asarray(context.attr_int(name), dtype=np.int64)
        case "value_ints":
            return np.asarray(context.attr_ints(name), dtype=np.int64)
        case "value_string":
            return np.asarray(context.attr_string(name), dtype=object)
        case "value_strings":
            return np.asarray(context.attr_strings(name), dtype=object)
    context.invalid(f"attribute {name!r} is unknown")
