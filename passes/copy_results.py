"""Compute outputs that are views of something else where the caller wants them:  output = view(x)  ->  copy(view(x)).

The caller owns the outputs, so each of them is copied in any case. As a kernel the copy follows the view's index map in
the same run of native steps; a view that NumPy makes and a copy after it would be two steps outside.

And images that convolutions make or read:  output = conv(x)  ->  copy(conv(x)).  Outputs are row-major; a convolution
would write its channels one by one into planes, whose cache lines are gone before their next pixel, and further
convolutions would read them so. The copy reads and writes whole lines.
"""

from __future__ import annotations

from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import product
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.copy_images import (
    CONVOLUTIONS,
    convolutions_in,
    copy_before,
    copy_graph,
    erase_views,
    is_image,
    is_planned,
    views_to,
)
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import graphs_outside_groups

__all__ = ["CopyResults"]

_LEAST_CHANNELS, _LEAST_PIXELS = 8, 16  # of an image that is copied


class CopyResults(GraphPass):
    """The pass `copy-results`."""

    name = "copy-results"
    exactness = Exactness.EXACT

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Copy each such output once; what else reads it reads the copy."""
        target = str(context.target.get("name", ""))
        changed = 0
        for value in dict.fromkeys(graph.outputs):
            if not _is_copied_view(value, target) or not context.take():
                continue
            before = value.producer
            assert before is not None
            copy = copy_before(graph, before, value)
            copy.name = value.name
            graph.redirect(value, copy)
            erase_views(graph, value)
            changed += 1
        return changed + _copy_images(graph, context)


def _is_copied_view(value: Value, target: str) -> bool:
    """True for what views of a tensor lead to, none of which was given a kernel from outside."""
    type_ = value.type
    if not isinstance(type_, TensorType) or type_.dtype is DType.STRING or type_.shape is None:
        return False
    views = views_to(value)
    return bool(views) and all(replacement_kernel(view, target) is None for view in views)


def _copy_images(graph: Graph, context: PassContext) -> int:
    """Copies of the images that convolutions make or read as outputs of the graph."""
    changed = 0
    for value in dict.fromkeys(graph.outputs):
        if (_is_made_apart(value) or _is_read_apart(value)) and context.take():
            node = value.producer
            assert node is not None
            copy = _copy_after(graph, node, value)
            copy.name, value.name = value.name, ""
            graph.set_outputs([copy if v is value else v for v in graph.outputs])
            changed += 1
    return changed


def _is_made_apart(value: Value) -> bool:
    """True for an image of many channels and pixels that a kernel with a convolution makes."""
    node, type_ = value.producer, value.type
    if node is None or not is_image(value) or not isinstance(type_, TensorType) or type_.shape is None:
        return False
    inside = node.subgraphs[0] if node.op.name == "fused" else [node]
    channels, pixels = type_.shape[1], product(type_.shape[2:])
    many = isinstance(channels, int) and channels >= _LEAST_CHANNELS
    many &= not isinstance(pixels, int) or pixels >= _LEAST_PIXELS
    return many and is_planned(value) and any(part.op.name in (*CONVOLUTIONS, "conv_transpose") for part in inside)


def _is_read_apart(value: Value) -> bool:
    """True for an image that a convolution reads, which would find its channels far apart in an output."""
    if not is_image(value) or not is_planned(value):
        return False
    reads = ((user, convolutions_in(user)) for user in dict.fromkeys(value.users))
    return any(user.inputs[n] is value and not planes for user, found in reads for n, planes in found.items())


def _copy_after(graph: Graph, node: Node, value: Value) -> Value:
    """A copy of a result of a node, made behind it."""
    nodes = list(graph)
    after = nodes[nodes.index(node) + 1 :]
    with graph.inserting_before(after[0] if after else None, node.origin):
        return graph.add_node("fused", [value], {}, outputs=1, subgraphs=[copy_graph(graph, value, [])]).outputs[0]
