"""Topological order of the nodes of an ONNX graph; cycles are errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx import GraphProto, NodeProto

from fusible.compiler.frontend.scope import Scope
from fusible.errors import InvalidModel

__all__ = ["sorted_nodes"]


def sorted_nodes(proto: GraphProto, scope: Scope) -> Sequence[NodeProto]:
    """The nodes in an order where definitions precede uses: the file's own order where that is one.

    Raises InvalidModel for a cycle, naming its nodes, and for a name that two nodes define.
    """
    nodes = list(proto.node)
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and name in producer:
                raise InvalidModel(
                    f"the name {name!r} is defined twice, by {_label(nodes[producer[name]])} and {_label(node)}"
                )
            if name:
                producer[name] = index
    needs = [_needs(node, index, producer) for index, node in enumerate(nodes)]
    if all(all(p < i for p in n) for i, n in enumerate(needs)):
        return nodes
    return [nodes[i] for i in _depth_first(needs, nodes)]


def _needs(node: NodeProto, index: int, producer: dict[str, int]) -> list[int]:
    found = {producer[name] for name in used_names(node) if name in producer}
    if index in found and not any(producer.get(n) == index for n in node.input):
        found.discard(index)  # a subgraph may define a name of its own that equals an output's
    return sorted(found)


def used_names(node: NodeProto) -> Iterator[str]:
    """The names that a node reads, those its subgraphs may capture included."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield from current.input
        for attribute in current.attribute:
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                stack.extend(graph.node)
                yield from (o.name for o in graph.output)


def _depth_first(needs: list[list[int]], nodes: list[NodeProto]) -> Iterator[int]:
    state = [0] * len(needs)  # 0 new, 1 open, 2 done
    for root in range(len(needs)):
        stack = [(root, 0)]
        while stack:
            index, child = stack.pop()
            if state[index] == 2:
                continue
            state[index] = 1
            if child < len(needs[index]):
                stack.append((index, child + 1))
                following = needs[index][child]
                if state[following] == 1:
                    names = " -> ".join(_label(nodes[i]) for i, _ in stack if state[i] == 1)
                    raise InvalidModel(f"the graph has a cycle: {names}")
                if state[following] == 0:
                    stack.append((following, 0))
                continue
            state[index] = 2
            yield index


def _label(node: NodeProto) -> str:
    return f"node {node.name or next(iter(node.output), node.op_type)!r}"
