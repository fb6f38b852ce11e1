"""How many nodes a model has once its functions are inlined, computed before anything is inlined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import FunctionProto, GraphProto, NodeProto

from fusible.errors import InvalidModel

__all__ = ["expanded_nodes"]

FunctionKey = tuple[str, str, str]  # domain, name, overload


def expanded_nodes(graph: GraphProto, functions: Mapping[FunctionKey, FunctionProto]) -> int:
    """Nodes of `graph` with model-local functions inlined to the end, subgraphs included.

    Linear in the size of the file, however often functions call each other. Raises InvalidModel for a function that
    calls itself, directly or through others.
    """
    sizes: dict[FunctionKey, int] = {}
    for key in functions:
        _size_functions(key, functions, sizes)
    return sum(1 + sizes.get(_key(node), 0) for node in _all_nodes(graph.node))


def _size_functions(
    root: FunctionKey, functions: Mapping[FunctionKey, FunctionProto], sizes: dict[FunctionKey, int]
) -> None:
    """Fill in the sizes of `root` and of what it calls, by an explicit depth-first walk."""
    stack: list[tuple[FunctionKey, bool]] = [(root, False)]
    open_calls: dict[FunctionKey, None] = {}
    while stack:
        key, called = stack.pop()
        if key in sizes:
            continue
        inner = list(_all_nodes(functions[key].node))
        if called:
            sizes[key] = sum(1 + sizes.get(_key(node), 0) for node in inner)
            del open_calls[key]
            continue
        if key in open_calls:
            continue
        open_calls[key] = None
        stack.append((key, True))
        for callee in dict.fromkeys(_key(node) for node in inner):
            if callee in open_calls:
                names = " -> ".join(f"{d}::{n}" for d, n, _ in [*open_calls, callee])
                raise InvalidModel(f"a function calls itself: {names}")
            if callee in functions and callee not in sizes:
                stack.append((callee, False))


def _key(node: NodeProto) -> FunctionKey:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type, node.overload)


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                stack.extend(attribute.g.node)
            for graph in attribute.graphs:
                stack.extend(graph.node)
