"""Printed graphs back to graphs; the grammar is described in `compiler/ir/text.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.compiler.ir.attributes import attribute_problem
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.literals import Cursor, parse_elements
from fusible.compiler.ir.ops import OPS, Op
from fusible.compiler.ir.reinfer import capture_start, infer_stated, match_types
from fusible.compiler.ir.requirements import Relation, Requirement
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.ir.types import TensorType, Type
from fusible.errors import InvalidModel, LimitExceeded, UsageError

__all__ = ["Placeholder", "parse_graph"]

MAX_NESTING = 64  # subgraphs within subgraphs
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Placeholder(Constant):
    """A constant of which a text holds the digest only. It prints as before; its elements raise UsageError."""

    def __init__(self, digest: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        super().__init__(np.empty(0, dtype))
        self.shape = shape
        self.digest = digest

    @property
    def available(self) -> bool:
        """False."""
        return False

    @property
    def array(self) -> np.ndarray:
        """Raises UsageError."""
        raise UsageError(f"the text holds no elements of constant sha256:{self.digest}; give parse_graph the constants")


def parse_graph(text: str, constants: Mapping[str, Constant] | None = None) -> Graph:
    """The graph that `text` describes. `constants`: by digest, those that the text does not hold in full.

    Raises InvalidModel naming the line if the text is malformed, a name undefined, or a type other than what inference
    gives; UsageError naming the line for an op or attribute that does not exist.
    """
    return _Parser(text, constants or {}).root()


@dataclass(slots=True)
class _Result:
    """The left side of a node: one value."""

    key: str
    hint: str
    type: Type


class _Parser:
    def __init__(self, text: str, constants: Mapping[str, Constant]) -> None:
        self._lines = text.split("\n")
        self._at = 0
        self._constants = constants
        self._symbols: dict[str, Symbol] = {}
        self._shared: dict[str, Value] = {}  # constants, visible in every subgraph

    def root(self) -> Graph:
        """The outermost graph."""
        graph = Graph(self._header(self._next()))
        self._declarations(graph)
        self._body(graph, None, 0)
        while self._at < len(self._lines):
            if self._lines[self._at].strip():
                raise Cursor(self._lines[self._at], self._at + 1).fail("the graph has ended")
            self._at += 1
        return graph

    def _next(self) -> Cursor:
        while self._at < len(self._lines):
            self._at += 1
            line = self._lines[self._at - 1]
            if line.strip():
                return Cursor(line, self._at)
        raise Cursor("", len(self._lines)).fail("the text ends within a graph")

    def _header(self, line: Cursor) -> str:
        line.expect("graph ")
        name = line.word("a graph's name")
        line.expect("{")
        line.end()
        return name

    def _declarations(self, graph: Graph) -> None:
        while True:
            line = self._next()
            if line.take("symbol "):
                self._symbol(graph, line)
            elif line.take("constant "):
                self._constant(graph, line)
            else:
                self._at -= 1
                return

    def _symbol(self, graph: Graph, line: Cursor) -> None:
        name = line.match(_IDENTIFIER, "a symbol's name")
        lower, upper = 0, None
        if line.take("in ["):
            lower = line.number("a lower bound")
            line.expect(",")
            upper = None if line.take("inf") else line.number("an upper bound")
            line.expect("]")
        if name in self._symbols:
            raise line.fail(f"symbol {name} is declared twice")
        if line.take("named "):
            graph.symbols.display[name] = line.string()
        line.end()
        try:
            symbol = Symbol(name, lower, upper)
        except ValueError as error:
            raise line.fail(str(error)) from error
        graph.symbols.add(symbol)
        self._symbols[name] = symbol

    def _constant(self, graph: Graph, line: Cursor) -> None:
        key, hint = line.value_name()
        line.expect(":")
        type_ = line.type(self._symbols)
        shape = type_.static_shape if isinstance(type_, TensorType) else None
        if not isinstance(type_, TensorType) or shape is None:
            raise line.fail("the type of a constant must be a tensor with a literal shape")
        line.expect("=")
        if line.take("sha256:"):
            constant = self._known(line.match(_DIGEST, "a digest"), type_, shape, line)
        else:
            constant = self._elements(type_, shape, line)
        line.end()
        self._define(self._shared, key, graph.constant(constant, hint), line)

    def _known(self, digest: str, type_: TensorType, shape: tuple[int, ...], line: Cursor) -> Constant:
        found = self._constants.get(digest)
        if found is None:
            return Placeholder(digest, type_.dtype.numpy, shape)
        if found.dtype != type_.dtype.numpy or tuple(found.shape) != shape:
            raise line.fail(f"the constant given for this digest is {found!r}, not {type_}")
        return found

    def _elements(self, type_: TensorType, shape: tuple[int, ...], line: Cursor) -> Constant:
        texts = line.elements()
        if len(texts) != type_.elements:
            raise line.fail(f"{type_} needs {type_.elements} elements, got {len(texts)}")
        try:
            return Constant(parse_elements(texts, type_.dtype, shape))
        except (ValueError, OverflowError) as error:
            raise line.fail(str(error)) from error

    @staticmethod
    def _define(names: dict[str, Value], key: str, value: Value, line: Cursor) -> None:
        if key in names:
            raise line.fail(f"%{key} is defined twice")
        names[key] = value

    def _body(self, graph: Graph, captured: Sequence[Value | None] | None, nesting: int) -> None:
        """Inputs, nodes and outputs up to the closing brace; `captured[i]`: the outer value that input i is."""
        names: dict[str, Value] = {}
        outputs: list[Value] = []
        output_names: list[str] = []
        while True:
            line = self._next()
            if line.take("}"):
                line.end()
                graph.set_outputs(outputs, output_names)
                return
            if line.take("output "):
                outputs.append(self._operand(line, names))
                line.expect("as ")
                output_names.append(line.word("an output's name"))
                line.end()
            elif line.take("input "):
                self._input(graph, captured, names, line)
            elif line.take("defines "):
                graph.defines = self._symbol_list(line)
                line.end()
            elif line.take("requires "):
                graph.requirements[self._requirement(line)] = None
            else:
                self._node(graph, names, line, nesting)

    def _requirement(self, line: Cursor) -> Requirement:
        name = line.match(_IDENTIFIER, "a relation")
        relation = next((r for r in Relation if r == name), None)
        if relation is None:
            raise line.fail(f"{name!r} is no relation: {', '.join(Relation)}")
        line.expect("(")
        left = line.dimension(",", self._symbols)
        line.expect(",")
        right = line.dimension(")", self._symbols)
        line.expect(")")
        where = line.word("where it comes from") if line.take("#") else ""
        line.end()
        return Requirement(relation, left, right, where)

    def _input(
        self, graph: Graph, captured: Sequence[Value | None] | None, names: dict[str, Value], line: Cursor
    ) -> None:
        key, hint = line.value_name()
        line.expect(":")
        value = graph.input(line.type(self._symbols), hint)
        line.end()
        self._define(names, key, value, line)
        index = len(graph.inputs) - 1
        outer = captured[index] if captured is not None and index < len(captured) else None
        if outer is not None:
            value._content = outer.content

    def _operand(self, line: Cursor, names: Mapping[str, Value]) -> Value:
        key, _ = line.value_name()
        found = names.get(key) or self._shared.get(key)
        if found is None:
            raise line.fail(f"%{key} is not defined before in this graph")
        return found

    def _symbol_list(self, line: Cursor) -> tuple[Symbol, ...]:
        found: list[Symbol] = []
        while not found or line.take(","):
            name = line.match(_IDENTIFIER, "a symbol's name")
            if name not in self._symbols:
                raise line.fail(f"symbol {name} is not declared")
            found.append(self._symbols[name])
        return tuple(found)

    def _node(self, graph: Graph, names: dict[str, Value], line: Cursor, nesting: int) -> None:
        results = self._results(line)
        name = line.word("an op")
        try:
            op = OPS[name]
        except UsageError as error:
            raise UsageError(f"graph text, line {line.line}: {error}") from error
        operands = self._operands(line, names)
        attrs = self._attributes(line)
        made = _make_attributes(op, attrs, line)
        defines = self._symbol_list(line) if line.take("defines ") else ()
        count = line.number("a number") if line.take("with ") else 0
        if count:
            line.expect("graphs" if count > 1 else "graph")
        origin = self._origins(line)
        line.end()
        captured = _captured(op, made, operands) if count else None
        subgraphs = [self._subgraph(graph, captured, nesting + 1, line) for _ in range(count)]
        types = [r.type for r in results]
        _check_types(op, operands, made, graph, subgraphs, types, line)
        try:
            node = graph.add_node(
                op,
                operands,
                attrs,
                outputs=len(results),
                names=[r.hint for r in results],
                origin=origin,
                subgraphs=subgraphs,
                types=types,
            )
        except (InvalidModel, LimitExceeded) as error:
            raise line.fail(str(error)) from error
        node.defines = defines
        for result, value in zip(results, node.outputs, strict=True):
            self._define(names, result.key, value, line)

    def _results(self, line: Cursor) -> list[_Result]:
        found: list[_Result] = []
        if line.take("()"):
            line.expect("=")
            return found
        while not found or line.take(","):
            key, hint = line.value_name()
            line.expect(":")
            found.append(_Result(key, hint, line.type(self._symbols)))
        line.expect("=")
        return found

    def _operands(self, line: Cursor, names: Mapping[str, Value]) -> list[Value | None]:
        line.expect("(")
        found: list[Value | None] = []
        while not line.take(")"):
            if found:
                line.expect(",")
            found.append(None if line.take("none") else self._operand(line, names))
        return found

    def _attributes(self, line: Cursor) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not line.take("{"):
            return found
        while not line.take("}"):
            if found:
                line.expect(",")
            name = line.match(_IDENTIFIER, "an attribute's name")
            line.expect("=")
            found[name] = line.attribute(self._symbols)
        return found

    @staticmethod
    def _origins(line: Cursor) -> tuple[str, ...]:
        found: list[str] = []
        if line.take("#"):
            while not found or line.take(","):
                found.append(line.word("the name of an ONNX node"))
        return tuple(found)

    def _subgraph(self, outer: Graph, captured: Sequence[Value | None] | None, nesting: int, line: Cursor) -> Graph:
        if nesting > MAX_NESTING:
            raise line.fail(f"more than {MAX_NESTING} nested graphs")
        graph = Graph(self._header(self._next()), outer.symbols)
        self._body(graph, captured, nesting)
        return graph


def _make_attributes(op: Op, attrs: dict[str, Any], line: Cursor) -> Any:
    try:
        made = op.attrs(**attrs)
    except (TypeError, ValueError) as error:
        raise UsageError(f"graph text, line {line.line}: attributes of {op.name}: {error}") from error
    problem = attribute_problem(op.attrs, made)
    if problem is not None:
        raise UsageError(f"graph text, line {line.line}: {op.name}: {problem}")
    return made


def _captured(op: Op, attrs: Any, operands: Sequence[Value | None]) -> list[Value | None] | None:
    start = capture_start(op, attrs)
    return None if start is None else [*[None] * start[1], *operands[start[0] :]]


def _check_types(
    op: Op,
    operands: Sequence[Value | None],
    attrs: Any,
    graph: Graph,
    subgraphs: Sequence[Graph],
    stated: Sequence[Type],
    line: Cursor,
) -> None:
    if any(v is not None and v.constant is not None and not v.constant.available for v in operands):
        return  # inference may need the elements
    try:
        inferred, infer = infer_stated(op, operands, attrs, graph.symbols, subgraphs, len(stated), "this line")
    except (InvalidModel, LimitExceeded) as error:
        raise line.fail(str(error)) from error
    if match_types(inferred, stated, infer.defines) is None:
        raise line.fail(f"types are {', '.join(map(str, stated))}; inference gives {', '.join(map(str, inferred))}")


