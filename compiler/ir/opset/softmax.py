"""Softmax, LogSoftmax and Hardmax along one axis."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.composition import converted, tensor_of, widened
from fusible.compiler.ir.definition import Composite, Definition, Opaque, same
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.types import TensorType

__all__ = ["SoftmaxAttrs"]


@dataclass(frozen=True, slots=True)
class SoftmaxAttrs:
    """axis: along which the results add up to 1."""

    axis: int = -1


def _infer(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is not None:
        ctx.axis(ctx.attrs.axis, len(shape))
    return ctx.type(0)


def _definition(node: Node) -> Definition:
    if tensor_of(node.inputs[0]).shape is None:
        return Opaque("the rank of its operand is not known")
    return Composite(_log_softmax if node.op.name == "log_softmax" else _softmax)


def _shifted(graph: Graph, node: Node) -> Value:
    """The operand less its maximum along the axis."""
    x = widened(graph, graph.input(tensor_of(node.inputs[0]), "x"))
    return graph.add("sub", x, graph.add("reduce_max", x, axes=(node.attrs.axis,), keepdims=True))


def _softmax(node: Node) -> Graph:
    graph = Graph("softmax")
    exponentials = graph.add("exp", _shifted(graph, node))
    total = graph.add("reduce_sum", exponentials, axes=(node.attrs.axis,), keepdims=True)
    return _finished(graph, graph.add("div", exponentials, total), node)


def _log_softmax(node: Node) -> Graph:
    graph = Graph("log_softmax")
    shifted = _shifted(graph, node)
    total = graph.add("reduce_sum", graph.add("exp", shifted), axes=(node.attrs.axis,), keepdims=True)
    return _finished(graph, graph.add("sub", shifted, graph.add("log", total)), node)


def _finished(graph: Graph, result: Value, node: Node) -> Graph:
    graph.set_outputs([converted(graph, result, tensor_of(node.outputs[0]).dtype)], ["y"])
    return graph


for _name in ("softmax", "log_softmax"):
    OPS.register(Op(_name, _infer, _definition, f"softmax:{_name}", SoftmaxAttrs, accepts_out=True))
OPS.register(
    Op(
        "hardmax",
        _infer,
        same(Opaque("it marks the position of a maximum")),
        "softmax:hardmax",
        SoftmaxAttrs,
        accepts_out=True,
    )
)
