"""Facts about a graph: which symbols it defines, which nodes are needed, its constants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import kernel_arguments
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import OptionalType, SequenceType, TensorType, type_symbols

__all__ = ["attribute_symbols", "constants", "defined_symbols", "node_symbols", "values"]


def defined_symbols(graph: Graph) -> set[str]:
    """The names of the symbols that get their value inside a graph or below it."""
    found: set[str] = set()
    for inner in graph.all_graphs():
        found.update(s.name for s in inner.defines)
        for node in inner:
            found.update(s.name for s in node.defines)
    return found


def attribute_symbols(attribute: Any) -> dict[Symbol, None]:
    """The symbols that an attribute mentions."""
    if isinstance(attribute, SymInt):
        return symbols_of(attribute)
    if isinstance(attribute, (TensorType, SequenceType, OptionalType)):
        return type_symbols(attribute)
    found: dict[Symbol, None] = {}
    if isinstance(attribute, tuple):
        for item in attribute:
            found.update(attribute_symbols(item))
    return found


def node_symbols(node: Node) -> dict[Symbol, None]:
    """The symbols that a node needs before it can run: of its attributes and of its outputs' shapes."""
    found: dict[Symbol, None] = {}
    for attribute in kernel_arguments(node.attrs).values():
        found.update(attribute_symbols(attribute))
    for value in node.outputs:
        found.update(type_symbols(value.type))
    own = set(node.defines)
    return {s: None for s in found if s not in own}


def values(graph: Graph) -> Iterator[Value]:
    """The inputs and the nodes' outputs of one graph, in order."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def constants(graph: Graph) -> Iterator[Value]:
    """Every constant used in a graph and its subgraphs, once, in order of first use."""
    seen: set[int] = set()
    for inner in graph.all_graphs():
        for node in inner:
            for value in node.inputs:
                if value is not None and value.constant is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield value
        for value in inner.outputs:
            if value.constant is not None and id(value) not in seen:
                seen.add(id(value))
                yield value
