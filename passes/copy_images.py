"""Give each convolution an image that can be stored channels last:  conv(x)  ->  conv(copy(x)).

Inputs of the model, and results whose memory a kernel does not choose, are row-major; the copy is where the order of
dimensions changes. Images of few channels stay as they are: kernels read their planes. It runs only for targets that
store images channels last.
"""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import graphs_outside_groups

__all__ = ["MOST_PLANES", "CopyImages", "convolutions_in", "copy_before", "is_planned", "reads_planes"]

MOST_PLANES = 4
"""Channels of an image that a convolution reads as it is, channels first."""


class CopyImages(GraphPass):
    """The pass `copy-images`."""

    name = "copy-images"
    exactness = Exactness.EXACT

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Copy each such image once."""
        copies: dict[Value, Value] = {}
        for node in list(graph):
            for position in convolutions_in(node):
                value = node.inputs[position]
                if value is None or value.constant is not None or is_planned(value):
                    continue
                if value not in copies and context.take():
                    copies[value] = copy_before(graph, node, value)
                if value in copies:
                    graph.set_input(node, position, copies[value])
        return len(copies)


def convolutions_in(node: Node) -> list[int]:
    """The positions of a node's operands that convolutions of images want channels last."""
    if node.op.name == "conv":
        return [0] if _is_image(node.inputs[0]) and not reads_planes(node) else []
    if node.op.name != "fused":
        return []
    inner = node.subgraphs[0]
    images = {n.inputs[0] for n in inner if n.op.name == "conv" and _is_image(n.inputs[0]) and not reads_planes(n)}
    return [position for position, formal in enumerate(inner.inputs) if formal in images]


def is_planned(value: Value) -> bool:
    """True for results of kernels whose buffer has a size that is known beforehand."""
    node = value.producer
    if node is None or node.op.name in ("if", "loop"):
        return False
    return not (node.op.dynamic or node.op.view or node.defines)


def _is_image(value: Value | None) -> bool:
    type_ = None if value is None else value.type
    return isinstance(type_, TensorType) and type_.shape is not None and len(type_.shape) == 4


def reads_planes(node: Node) -> bool:
    """True for a convolution of few channels whose windows are rows of several elements: these lie side by side."""
    image, weights = (None if v is None else v.type for v in node.inputs[:2])
    if not isinstance(image, TensorType) or not isinstance(weights, TensorType):
        return False
    if image.shape is None or weights.static_shape is None or image.dtype is not DType.F32:
        return False
    _, channels, *kernel = weights.static_shape
    plain = node.attrs.group == 1 and set(node.attrs.dilations) <= {1}
    return plain and 1 < channels <= MOST_PLANES and channels == image.shape[1] and min(kernel) > 1


def copy_before(graph: Graph, before: Node, value: Value) -> Value:
    """A copy of a value, made in front of a node: a result of its own, stored as the backend wishes."""
    inner = Graph("copy", graph.symbols)
    formal = inner.input(value.type, value.name)
    inner.set_outputs([inner.add("identity", formal)])
    with graph.inserting_before(before, before.origin):
        return graph.add_node("fused", [value], {}, outputs=1, subgraphs=[inner]).outputs[0]
