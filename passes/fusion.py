"""What the fusion passes share: which graphs they look at, how they copy nodes, what they take for scales, weights."""

from __future__ import annotations

from collections.abc import Mapping

from fusible.compiler.ir.definition import Composite, Elementwise, View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType

__all__ = ["copy_node", "graphs_outside_groups", "is_pointwise", "is_scale", "literal_bytes"]


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


def copy_node(graph: Graph, node: Node, mapped: Mapping[Value, Value]) -> Node:
    """The same node at the graph's cursor over other operands; what `mapped` lacks, as free constants do, stays."""
    attrs = {attribute: getattr(node.attrs, attribute) for attribute in node.op.attribute_names}
    return graph.add_node(
        node.op,
        [None if v is None else mapped.get(v, v) for v in node.inputs],
        attrs,
        outputs=len(node.outputs),
        names=[v.name for v in node.outputs],
        origin=node.origin,
        types=[v.type for v in node.outputs],
    )


def is_pointwise(node: Node) -> bool:
    """True for element-wise ops and views, and for what is a graph of these: rotary embedding, activations.

    An element of the result takes few of the operands', none of which is looked up by data but in tables.
    """
    definition = node.op.definition(node)
    match definition:
        case Elementwise():
            return True
        case View(maps=maps):
            return not any(m.indirect for m in maps)
        case Composite():
            inner = definition.build(node)
            found = all(is_pointwise(part) or part.op.name == "gather" for part in inner)
            inner.release()
            return found
    return False


def is_scale(node: Node) -> bool:
    """True for a product with a constant of one element."""
    numbers = [v for v in node.inputs if v is not None and v.constant is not None and v.constant.size == 1]
    return node.op.name == "mul" and len(numbers) == 1
