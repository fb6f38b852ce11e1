"""In which order the dimensions of each value are stored: channels last wherever a convolution is near.

Convolutions read and write channels last; what lies between them computes any order equally well, so the order spreads
from each convolution over the nodes that keep the meaning of dimensions. Inputs and outputs of the model stay
row-major: the kernels at the border read or write them as they are, no copy is made for the sake of the order.
"""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.reorder import Order
from fusible.passes.copy_images import CONVOLUTIONS, is_planned

__all__ = ["channels_last", "stored_orders"]

_CONVOLUTIONS = (*CONVOLUTIONS, "conv_transpose")
# Ops between which the four dimensions mean the same: images in, images out.
_BREAKS = frozenset({"reshape", "transpose", "matmul", "gemm", "einsum", "attention", "expand", "unsqueeze", "squeeze"})


def channels_last(rank: int) -> Order:
    """(0, 2, 3, ..., 1)."""
    return (0, *range(2, rank), 1)


def stored_orders(graph: Graph) -> dict[Value, Order]:
    """The order of each value of one graph that is not row-major."""
    waiting = [v for node in graph for v in _convolved(node)]
    found: dict[Value, Order] = {}
    outside = {*graph.inputs, *graph.outputs}
    while waiting:
        value = waiting.pop()
        rank = _rank(value)
        if value in found or rank is None or value in outside or value.producer is None:
            continue
        found[value] = channels_last(rank)
        for node in (value.producer, *value.users):
            waiting += [v for v in _linked(node, value) if _rank(v) == rank]
    return {v: order for v, order in found.items() if is_planned(v)}


def _rank(value: Value) -> int | None:
    """The rank of an image or a sequence of vectors that is no constant."""
    type_ = value.type
    if value.constant is not None or not isinstance(type_, TensorType) or type_.shape is None:
        return None
    return len(type_.shape) if len(type_.shape) == 4 else None


def _images(node: Node) -> list[Value]:
    return [v for v in (*node.inputs, *node.outputs) if v is not None and _rank(v) is not None]


def _convolved(node: Node) -> list[Value]:
    """The images that a node's convolutions read and write, and what has the same dimensions inside it."""
    if node.op.name in _CONVOLUTIONS:
        return _images(node)
    if node.op.name != "fused":
        return []
    seeds = [v for inner in node.subgraphs[0] if inner.op.name in _CONVOLUTIONS for v in _images(inner)]
    return _outer(node, _reached(node, seeds))


def _linked(node: Node, value: Value) -> list[Value]:
    """The operands and results of a node that have the dimensions of one of them, in the same places."""
    if node.op.name in ("if", "loop", *_BREAKS):
        return []
    if node.op.name != "fused":
        return _images(node)
    graph = node.subgraphs[0]
    pairs = (*zip(graph.inputs, node.inputs, strict=True), *zip(graph.outputs, node.outputs, strict=True))
    return _outer(node, _reached(node, [inner for inner, actual in pairs if actual is value]))


def _reached(group: Node, seeds: list[Value]) -> set[Value]:
    """The values inside a group that lead to each other without a change of dimensions."""
    found: set[Value] = set()
    waiting = list(seeds)
    while waiting:
        value = waiting.pop()
        if value in found or _rank(value) is None:
            continue
        found.add(value)
        for node in (value.producer, *value.users):
            if node is not None and node.op.name not in _BREAKS:
                waiting += _images(node)
    return found


def _outer(group: Node, inside: set[Value]) -> list[Value]:
    graph = group.subgraphs[0]
    pairs = (*zip(graph.inputs, group.inputs, strict=True), *zip(graph.outputs, group.outputs, strict=True))
    return [v for inner, v in pairs if inner in inside and v is not None]
