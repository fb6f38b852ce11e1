"""Names of values while a graph is imported: nested scopes, captures, function bodies."""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.symbols import Dim
from fusible.errors import InvalidModel

__all__ = ["Scope"]


class Scope:
    """The names visible to the nodes of one GraphProto or function body.

    A subgraph that becomes a `Graph` of its own (`graph is not parent.graph`) captures outer values through explicit
    inputs; one that is inlined shares its parent's graph and captures nothing. A function body has no parent.
    """

    def __init__(self, graph: Graph, parent: Scope | None = None, depth: int = 0) -> None:
        self.graph, self.parent, self.depth = graph, parent, depth
        self.values: dict[str, Value] = {}
        self.captures: dict[Value, Value] = {}  # outer value -> input of this graph
        # What required equalities say of calls (floordiv...), by text: sizes computed twice are written in one way.
        self.solved: dict[str, Dim] = {} if parent is None else dict(parent.solved)
        self.sizes: set[Dim] = set() if parent is None else set(parent.sizes)  # quotients that are sizes of values

    def define(self, name: str, value: Value, where: str) -> None:
        """Bind a name. Raises InvalidModel if this scope has it already."""
        if name in self.values and self.values[name] not in self.captures.values():
            raise InvalidModel(f"{where}: the name {name!r} is defined twice")
        self.values[name] = value

    def find(self, name: str) -> Value | None:
        """The value of a name, captured from an outer graph if need be; None if it is unknown."""
        found = self.values.get(name)
        if found is not None or self.parent is None:
            return found
        outer = self.parent.find(name)
        if outer is None or outer.constant is not None or self.parent.graph is self.graph:
            return outer
        inner = self.captures.get(outer)
        if inner is None:
            inner = self.captures[outer] = self.graph.input_for(outer, name)
        self.values[name] = inner
        return inner
