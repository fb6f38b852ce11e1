"""Take a node out of a group:  fused(f(g(x)))  ->  fused(f)(g(x)).

What is left of the group stays one `fused` node, or becomes the one node that it holds.
"""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.passes.fusion import copy_node

__all__ = ["take_out"]


def take_out(graph: Graph, group: Node, node: Node) -> Node:
    """Put a node of a group, all of whose operands are the group's, in front of it; gives the node there."""
    inner = group.subgraphs[0]
    outside: dict[Value, Value] = {f: v for f, v in zip(inner.inputs, group.inputs, strict=True) if v is not None}
    rest = [n for n in inner if n is not node]
    with graph.inserting_before(group, node.origin):
        made = copy_node(graph, node, outside)
        outside.update(zip(node.outputs, made.outputs, strict=True))
    with graph.inserting_before(group, tuple(dict.fromkeys(o for n in rest for o in n.origin))):
        left = copy_node(graph, rest[0], outside) if len(rest) == 1 else _group(graph, rest, inner.outputs[0], outside)
    graph.replace(group, left.outputs[0])
    return made


def _group(graph: Graph, nodes: list[Node], result: Value, outside: dict[Value, Value]) -> Node:
    inner = Graph("fused", graph.symbols)
    mapped: dict[Value, Value] = {}
    operands: list[Value] = []
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in mapped and value in outside:
                mapped[value] = inner.input_for(value)
                operands.append(outside[value])
        mapped.update(zip(node.outputs, copy_node(inner, node, mapped).outputs, strict=True))
    inner.set_outputs([mapped[result]])
    return graph.add_node("fused", operands, {}, outputs=1, subgraphs=[inner])
