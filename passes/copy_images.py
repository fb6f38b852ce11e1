"""Give each convolution an image that can be stored channels last:  conv(x)  ->  conv(copy(x)).

Inputs of the model, and results whose memory a kernel does not choose, are row-major; the copy is where the order of
dimensions changes. Images of few channels stay as they are: kernels read their planes. It runs only for targets that
store images channels last.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.definition import View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import copy_node, graphs_outside_groups

__all__ = [
    "CONVOLUTIONS",
    "MOST_PLANES",
    "CopyImages",
    "convolutions_in",
    "copy_before",
    "copy_graph",
    "erase_views",
    "is_image",
    "is_planned",
    "reads_planes",
    "views_to",
]

CONVOLUTIONS = ("conv", "conv_bytes")
"""The ops whose images kernels read channels last."""

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
            for position, planes in convolutions_in(node).items():
                value = node.inputs[position]
                if value is None or value.constant is not None or is_planned(value):
                    continue
                if planes and value.producer is None:  # a view's elements may lie anyhow
                    continue
                if value not in copies and context.take():
                    copies[value] = copy_before(graph, node, value)
                if value in copies:
                    graph.set_input(node, position, copies[value])
        for value in copies:
            erase_views(graph, value)
        return len(copies)


def erase_views(graph: Graph, value: Value | None) -> None:
    """Erase views that nothing reads any more, backwards from a value."""
    while value is not None and not value.uses and value not in graph.outputs:
        node = value.producer
        if node is None or len(node.outputs) != 1 or not node.op.view:
            return
        value = node.inputs[0]
        graph.erase(node)


def convolutions_in(node: Node) -> dict[int, bool]:
    """The positions of a node's operands that are images of convolutions; True if these can read planes."""
    if node.op.name in CONVOLUTIONS:
        return {0: reads_planes(node)} if is_image(node.inputs[0]) else {}
    if node.op.name != "fused":
        return {}
    inner = node.subgraphs[0]
    found: dict[int, bool] = {}
    for part in inner:
        if part.op.name in CONVOLUTIONS and is_image(part.inputs[0]) and part.inputs[0] in inner.inputs:
            position = inner.inputs.index(part.inputs[0])
            found[position] = found.get(position, True) and reads_planes(part)
    return found


def is_planned(value: Value) -> bool:
    """True for results of kernels whose buffer has a size that is known beforehand."""
    node = value.producer
    if node is None or node.op.name in ("if", "loop"):
        return False
    return not (node.op.dynamic or node.op.view or node.defines)


def is_image(value: Value | None) -> bool:
    """True for tensors of four dimensions."""
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
    """A copy of a value, made in front of a node: a result of its own, stored as the backend wishes.

    Views that lead to the value are part of it: the copy reads what they are views of.
    """
    views = views_to(value)
    base = views[0].inputs[0] if views else value
    assert base is not None
    inner = copy_graph(graph, base, views)
    origin = tuple(dict.fromkeys([*(o for view in views for o in view.origin), *before.origin]))
    with graph.inserting_before(before, origin):
        return graph.add_node("fused", [base], {}, outputs=1, subgraphs=[inner]).outputs[0]


def copy_graph(graph: Graph, base: Value, views: Sequence[Node]) -> Graph:
    """What a copy computes: some views of a value, one after the other."""
    inner = Graph("copy", graph.symbols)
    result = inner.input(base.type, base.name)
    for view in views:
        operand = view.inputs[0]
        assert operand is not None
        result = copy_node(inner, view, {operand: result}).output
    inner.set_outputs([inner.add("identity", result)])
    return inner


def views_to(value: Value) -> list[Node]:
    """The views of one operand each, first to last, that a value is of something else."""
    found: list[Node] = []
    while value.producer is not None and len(value.producer.outputs) == 1:
        node, operand = value.producer, value.producer.inputs[0] if value.producer.inputs else None
        definition = node.op.definition(node) if node.op.view else None
        if operand is None or operand.constant is not None or len(node.inputs) != 1:
            break
        if not isinstance(definition, View) or len(definition.maps) != 1 or definition.maps[0].indirect:
            break
        found.append(node)
        value = operand
    return found[::-1]
