"""In which order the dimensions of each value are stored: channels last wherever a convolution is near.

Convolutions read and write channels last; what lies between them computes any order equally well, so the order spreads
from each convolution over the nodes that keep the meaning of dimensions. Inputs and outputs of the model stay
row-major: the kernels at the border read or write them as they are, no copy is made for the sake of the order.
"""

from __future__ import annotations

from collections.abc import Iterator

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.reorder import Order
from fusible.passes.copy_images import is_planned

__all__ = ["channels_last", "stored_orders"]

_CONVOLUTIONS = ("conv", "conv_transpose")
# Ops between which the four dimensions mean the same: images in, images out.
_BREAKS = frozenset({"reshape", "transpose", "matmul", "gemm", "einsum", "attention", "expand", "unsqueeze", "squeeze"})


def channels_last(rank: int) -> Order:
    """(0, 2, 3, ..., 1)."""
    return (0, *range(2, rank), 1)


def stored_orders(graph: Graph) -> dict[Value, Order]:
    """The order of each value of one graph that is not row-major."""
    waiting = [v for node in graph if _convolves(node) for v in _images(node)]
    found: dict[Value, Order] = {}
    outside = {*graph.inputs, *graph.outputs}
    while waiting:
        value = waiting.pop()
        rank = _rank(value)
        if value in found or rank is None or value in outside or value.producer is None:
            continue
        found[value] = channels_last(rank)
        for node in (value.producer, *value.users):
            if _spreads(node):
                waiting += [v for v in _images(node) if _rank(v) == rank]
    return {v: order for v, order in found.items() if is_planned(v)}


def _rank(value: Value) -> int | None:
    """The rank of an image or a sequence of vectors that is no constant."""
    type_ = value.type
    if value.constant is not None or not isinstance(type_, TensorType) or type_.shape is None:
        return None
    return len(type_.shape) if len(type_.shape) == 4 else None


def _images(node: Node) -> list[Value]:
    return [v for v in (*node.inputs, *node.outputs) if v is not None and _rank(v) is not None]


def _ops(node: Node) -> Iterator[str]:
    yield node.op.name
    if node.op.name == "fused":
        for inner in node.subgraphs[0]:
            yield inner.op.name


def _convolves(node: Node) -> bool:
    return any(name in _CONVOLUTIONS for name in _ops(node))


def _spreads(node: Node) -> bool:
    """True for nodes whose results have the dimensions of their operands."""
    if node.op.name in ("if", "loop"):
        return False
    return _convolves(node) or not any(name in _BREAKS for name in _ops(node))
