"""Blocks for the graphs of Composite definitions: operands, scalars, and the widening of small floats."""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType

__all__ = ["converted", "inputs_like", "scalar", "tensor_of", "widened"]


def tensor_of(value: Value | None) -> TensorType:
    """The type of an operand that is known to be a tensor."""
    assert value is not None and isinstance(value.type, TensorType)
    return value.type


def inputs_like(graph: Graph, node: Node) -> list[Value]:
    """Inputs of `graph` typed like the node's operands, none of which is absent."""
    return [graph.input(tensor_of(value), f"x{number}") for number, value in enumerate(node.inputs)]


def scalar(graph: Graph, like: Value, number: float) -> Value:
    """A 0-d constant of the element type of `like`."""
    return graph.constant(np.asarray(number).astype(tensor_of(like).dtype.numpy))


def converted(graph: Graph, value: Value, dtype: DType) -> Value:
    """The value as `dtype`: itself if it is."""
    return value if tensor_of(value).dtype is dtype else graph.add("cast", value, dtype=dtype)


def widened(graph: Graph, value: Value) -> Value:
    """The value in the type that its own computes in: float32 for the small floats."""
    own = tensor_of(value).dtype
    return converted(graph, value, DType.F32 if own.is_small_float else own)
