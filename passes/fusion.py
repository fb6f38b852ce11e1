"""What the fusion passes share: which graphs they look at, and what a value weighs."""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import TensorType

__all__ = ["graphs_outside_groups", "literal_bytes"]


def graphs_outside_groups(graph: Graph) -> list[Graph]:
    """A graph and its subgraphs, inner ones first, but for the insides of `fused` nodes."""
    inside = {id(s) for g in graph.all_graphs() for n in g if n.op.name == "fused" for s in n.subgraphs}
    return [g for g in reversed(list(graph.all_graphs())) if id(g) not in inside]


def literal_bytes(value: Value) -> int:
    """Bytes of a tensor; symbolic dimensions count as 1."""
    assert isinstance(value.type, TensorType)
    size = value.type.dtype.numpy.itemsize
    for dim in value.type.shape or ():
        size *= dim if isinstance(dim, int) else 1
    return size
