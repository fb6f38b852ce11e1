"""Copies of graphs: the same ops, types, attributes, constants and symbols, in new nodes and values."""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Node, Value

__all__ = ["clone_graph", "copy_nodes"]


def clone_graph(graph: Graph, mapping: dict[Value, Value] | None = None) -> Graph:
    """A deep copy, subgraphs included. The symbol table and the constants' data are shared.

    `mapping` is filled with original value -> copy.
    """
    values: dict[Value, Value] = mapping if mapping is not None else {}
    copy = Graph(graph.name, graph.symbols)
    copy.defines = graph.defines
    for value in graph.inputs:
        values[value] = copy.input_for(value)
    copy_nodes(graph, copy, values)
    copy.requirements.update(graph.requirements)
    copy.set_outputs([_copied(v, values) for v in graph.outputs], graph.output_names)
    return copy


def copy_nodes(source: Graph, target: Graph, values: dict[Value, Value]) -> None:
    """Copy the nodes of `source` to the cursor of `target`, operands read through `values`, which grows with results.

    An operand that `values` does not have is an error (KeyError) unless it is a constant, which is copied once. Types
    are copied, not inferred: a caller that maps operands to values of other types calls `refine.rebuild_types` after.
    """
    for node in source:
        operands = tuple(None if v is None else _copied(v, values) for v in node.inputs)
        subgraphs = tuple(clone_graph(g, values) for g in node.subgraphs)
        twin = Node(node.op, operands, node.attrs, node.origin, subgraphs)
        twin.defines = node.defines
        twin.outputs = tuple(_result(v, twin, values) for v in node.outputs)
        target.attach(twin)


def _result(value: Value, producer: Node, values: dict[Value, Value]) -> Value:
    copy = Value(value.type, value.name, producer, value.index)
    copy._content = value._content
    values[value] = copy
    return copy


def _copied(value: Value, values: dict[Value, Value]) -> Value:
    found = values.get(value)
    if found is None and value.constant is not None:
        found = values[value] = Value(value.type, value.name)
        found.constant = value.constant
    return found if found is not None else values[value]
