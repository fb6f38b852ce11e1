"""Graphs as text: `print_graph` and `parse_graph`; print(parse(t)) == t for every text that was printed.

One node a line, the declarations of symbols and constants first:

    graph main {
      symbol N in [1, 64]
      constant %w: f32[8, 3, 3, 3] = sha256:9f86d0...
      input %x: f32[N, 3, 224, 224]
      defines N
      requires at_most(2, N)  # "max_pool at 'Pool_0'"
      %y: f32[N, 8, 222, 222] = conv(%x, %w, none) {strides=(1, 1), ...}  # Conv_0
      output %y as logits
    }

Names of values are hints: the second value called `x` is `%x#2`, one without a name `%_1`. A constant of more than
16 elements is never written out; its digest stands for it. After `#` stand the ONNX nodes that a node comes from.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import is_dataclass
from typing import Any

from fusible.compiler.ir.analysis import attribute_symbols
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.literals import print_attribute, print_elements, print_value_name, print_word, quote
from fusible.compiler.ir.ops import attribute_values
from fusible.compiler.ir.parse import parse_graph
from fusible.compiler.ir.requirements import Requirement
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.ir.types import type_symbols

__all__ = ["PRINTED_ELEMENTS", "parse_graph", "print_graph", "print_underlined"]

PRINTED_ELEMENTS = 16  # constants of more elements are shown by their digest
_WINDOW = 12  # lines shown on either side of an underlined place


def print_graph(graph: Graph) -> str:
    """The text of a graph, its subgraphs included. Invalid graphs print too, but need not parse."""
    return "\n".join(_Printer(graph).lines) + "\n"


def print_underlined(graph: Graph, *places: Hashable) -> str:
    """The text with the first of the places that it shows underlined; of long texts only the surroundings.

    A place: ("node", node), ("value", value), ("operand", node, index), ("output", graph, index),
    ("attributes", node), ("requirement", requirement), ("graph", graph).
    """
    printer = _Printer(graph)
    found = next((printer.spans[p] for p in places if p in printer.spans), None)
    if found is None:
        return "\n".join(printer.lines[: 2 * _WINDOW])
    line, start, end = found
    first = max(0, line - _WINDOW)
    shown = printer.lines[first : line + _WINDOW + 1]
    shown.insert(line - first + 1, " " * start + "^" * max(1, end - start))
    hidden = len(printer.lines) - first - (len(shown) - 1)
    if first:
        shown.insert(0, f"... {first} lines")
    if hidden > 0:
        shown.append(f"... {hidden} lines")
    return "\n".join(shown)


class _Printer:
    """Writes a graph and remembers where each thing stands: key -> (line, first column, end column)."""

    def __init__(self, graph: Graph) -> None:
        self.lines: list[str] = []
        self.spans: dict[Hashable, tuple[int, int, int]] = {}
        self.names: dict[Value, str] = {}
        self._counts: dict[str, int] = {}
        self._root = graph
        constants = _constants(graph)
        for value in constants:
            self._name(value)
        self._name_all(graph)
        self._graph(graph, 0, constants)

    def _name(self, value: Value) -> str:
        known = self.names.get(value)
        if known is None:
            number = self._counts[value.name] = self._counts.get(value.name, 0) + 1
            known = self.names[value] = print_value_name(value.name, number)
        return known

    def _name_all(self, graph: Graph) -> None:
        for value in graph.inputs:
            self._name(value)
        for node in ordered(graph):
            for value in node.outputs:
                self._name(value)
            for subgraph in node.subgraphs:
                self._name_all(subgraph)

    def _graph(self, graph: Graph, indent: int, constants: list[Value]) -> None:
        line = self._line(indent)
        line.add(f"graph {print_word(graph.name)}", ("graph", graph))
        line.add(" {").close()
        for symbol in _mentioned(graph) if graph is self._root else ():
            self._line(indent + 2).add(_symbol_text(symbol, graph.symbols.display.get(symbol.name))).close()
        for value in constants:
            line = self._line(indent + 2).add("constant ")
            self._definition(line, value)
            assert value.constant is not None
            line.add(f" = {_constant_text(value.constant)}").close()
        for value in graph.inputs:
            line = self._line(indent + 2).add("input ")
            self._definition(line, value)
            line.close()
        if graph.defines:
            self._line(indent + 2).add(f"defines {', '.join(s.name for s in graph.defines)}").close()
        for requirement in graph.requirements:
            self._requirement(requirement, indent + 2)
        for node in ordered(graph):
            self._node(node, indent + 2)
        for index, value in enumerate(graph.outputs):
            line = self._line(indent + 2).add("output ")
            line.add(self._name(value), ("output", graph, index))
            names = graph.output_names
            line.add(f" as {print_word(names[index] if index < len(names) else '')}").close()
        self._line(indent).add("}").close()

    def _requirement(self, requirement: Requirement, indent: int) -> None:
        line = self._line(indent).add(f"requires {requirement}", ("requirement", requirement))
        if requirement.where:
            line.add(f"  # {print_word(requirement.where)}")
        line.close()

    def _definition(self, line: _Line, value: Value) -> None:
        line.add(f"{self._name(value)}: {value.type}", ("value", value))

    def _node(self, node: Node, indent: int) -> None:
        line = self._line(indent)
        for index, value in enumerate(node.outputs):
            line.add(", " if index else "")
            self._definition(line, value)
        line.add(f"{'' if node.outputs else '()'} = ")
        line.add(print_word(node.op.name), ("node", node))
        line.add("(")
        for index, operand in enumerate(node.inputs):
            line.add(", " if index else "")
            line.add("none" if operand is None else self._name(operand), ("operand", node, index))
        line.add(")")
        attributes = ", ".join(f"{k}={print_attribute(v)}" for k, v in _attributes(node).items())
        if attributes:
            line.add(" ").add("{" + attributes + "}", ("attributes", node))
        if node.defines:
            line.add(f" defines {', '.join(s.name for s in node.defines)}")
        if node.subgraphs:
            line.add(f" with {len(node.subgraphs)} graph{'s' if len(node.subgraphs) > 1 else ''}")
        if node.origin:
            line.add(f"  # {', '.join(print_word(o) for o in node.origin)}")
        line.close()
        for subgraph in node.subgraphs:
            self._graph(subgraph, indent + 2, [])

    def _line(self, indent: int) -> _Line:
        return _Line(self, indent)


class _Line:
    """One line under construction."""

    def __init__(self, printer: _Printer, indent: int) -> None:
        self._printer, self._parts, self._length = printer, [" " * indent], indent

    def add(self, text: str, place: Hashable | None = None) -> _Line:
        """Append text that shows `place`."""
        if place is not None:
            span = (len(self._printer.lines), self._length, self._length + len(text))
            self._printer.spans.setdefault(place, span)
        self._parts.append(text)
        self._length += len(text)
        return self

    def close(self) -> None:
        """The line is complete."""
        self._printer.lines.append("".join(self._parts))


def ordered(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph whose links may be broken: each at most once."""
    seen: set[Node] = set()
    node = graph._head
    while node is not None and node not in seen:
        seen.add(node)
        yield node
        node = node._next


def _attributes(node: Node) -> dict[str, Any]:
    return attribute_values(node.attrs) if is_dataclass(node.attrs) else {"attributes": node.attrs}


def _constants(graph: Graph) -> list[Value]:
    found: dict[Value, None] = {}
    for node in ordered(graph):
        found.update((v, None) for v in node.inputs if v is not None and v.constant is not None)
        for subgraph in node.subgraphs:
            found.update((v, None) for v in _constants(subgraph))
    found.update((v, None) for v in graph.outputs if v.constant is not None)
    return list(found)


def _mentioned(graph: Graph) -> dict[Symbol, None]:
    """Every symbol of a graph and its subgraphs, in order of appearance."""
    found: dict[Symbol, None] = {}
    for value in graph.inputs:
        found.update(type_symbols(value.type))
    found.update((s, None) for s in graph.defines)
    for requirement in graph.requirements:
        found.update(requirement.symbols)
    for node in ordered(graph):
        for value in node.outputs:
            found.update(type_symbols(value.type))
        for attribute in _attributes(node).values():
            found.update(attribute_symbols(attribute))
        found.update((s, None) for s in node.defines)
        for subgraph in node.subgraphs:
            found.update(_mentioned(subgraph))
    return found


def _symbol_text(symbol: Symbol, display: str | None) -> str:
    text = f"symbol {symbol.name}"
    if symbol.lower != 0 or symbol.upper is not None:
        text += f" in [{symbol.lower}, {'inf' if symbol.upper is None else symbol.upper}]"
    return text if display in (None, symbol.name) else f"{text} named {quote(str(display))}"


def _constant_text(constant: Constant) -> str:
    if constant.available and constant.size <= PRINTED_ELEMENTS:
        return print_elements(constant.array)
    return f"sha256:{constant.digest}"
