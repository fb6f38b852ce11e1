"""A case: one op on operands of fixed types, as one line of text, and as a graph of one node.

    conv(f32[1, 3, 224, 224], const f32[64, 3, 7, 7], none) {strides=(2, 2), pads=(3, 3, 3, 3)}
    clip(f32[1, 8], const f32[] = [0.0], const f32[] = [6.0])
    split(f32[4, 9]) {axis=1, split=(3, 3, 3)} -> 3

`const`: an operand that a model holds as a constant, so that a runtime may prepare it. `= [...]`: an operand whose
very elements are part of the case (bounds, axes, zero points). Attributes that have their default are left out, `-> n`
is the number of results where the op does not fix it. The text is the identity of a case; `origin` names its models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusible.compiler.ir.attributes import attribute_problem
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.literals import Cursor, parse_elements, print_attribute, print_elements, print_word
from fusible.compiler.ir.ops import OPS, attribute_values
from fusible.compiler.ir.types import TensorType, Type
from fusible.errors import FusibleError, UsageError

__all__ = ["BUILT_IN", "Case", "Operand", "load_cases", "merge_cases", "parse_case", "save_cases"]

SCHEMA = 1
BUILT_IN = Path(__file__).with_name("shapes.json")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand: its type, whether models hold it as a constant, and its elements as text if they are fixed."""

    type: Type
    constant: bool = False
    elements: str = ""

    @property
    def text(self) -> str:
        """As it stands in the text of a case."""
        return f"{'const ' if self.constant else ''}{self.type}{f' = {self.elements}' if self.elements else ''}"

    @property
    def array(self) -> np.ndarray | None:
        """The elements that are fixed, None if they are not."""
        if not self.elements:
            return None
        assert isinstance(self.type, TensorType) and self.type.static_shape is not None
        return parse_elements(Cursor(self.elements, 1).elements(), self.type.dtype, self.type.static_shape)

    @staticmethod
    def of(array: np.ndarray, type_: Type, *, constant: bool = False) -> Operand:
        """An operand with these elements."""
        return Operand(type_, constant, print_elements(array))


@dataclass(frozen=True, slots=True)
class Case:
    """One op on operands of fixed types (None: absent). outputs: the number of results."""

    op: str
    operands: tuple[Operand | None, ...]
    attrs: Any
    outputs: int = 1
    origin: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The line that `parse_case` reads; equal lines are equal cases."""
        operands = ", ".join("none" if o is None else o.text for o in self.operands)
        attributes = self.attribute_text
        count = f" -> {self.outputs}" if self.outputs != _outputs_of(self.op) else ""
        return f"{print_word(self.op)}({operands})" + (f" {{{attributes}}}" if attributes else "") + count

    @property
    def attribute_text(self) -> str:
        """The attributes that differ from their defaults."""
        default = _defaults(self.op)
        items = attribute_values(self.attrs).items()
        return ", ".join(f"{k}={print_attribute(v)}" for k, v in items if k not in default or default[k] != v)

    @property
    def signature(self) -> str:
        """The types of the operands."""
        return ", ".join("none" if o is None else str(o.type) for o in self.operands)

    @property
    def choice(self) -> str:
        """What else makes the case: attributes, constant operands, fixed elements, the number of results."""
        parts = [self.attribute_text] if self.attribute_text else []
        for index, operand in enumerate(self.operands):
            if operand is not None and (operand.constant or operand.elements):
                fixed = f" = {operand.elements}" if operand.elements else ""
                parts.append(f"x{index}{' const' if operand.constant else ''}{fixed}")
        if self.outputs != _outputs_of(self.op):
            parts.append(f"{self.outputs} results")
        return ", ".join(parts)

    def graph(self, values: Sequence[Any]) -> Graph:
        """A graph of this one node: run-time operands are inputs x0, x1, ..., results y0, y1, ...

        values: for each operand its array (None if absent). Constants keep theirs; of operands with fixed elements the
        compiler knows the content. Raises InvalidModel if the operands do not fit the op.
        """
        graph = Graph(re.sub(r"\W", "_", self.op))
        operands: list[Value | None] = []
        for index, (operand, value) in enumerate(zip(self.operands, values, strict=True)):
            if operand is None:
                operands.append(None)
            elif operand.constant:
                operands.append(graph.constant(np.asarray(value), f"c{index}"))
            else:
                formal = graph.input(operand.type, f"x{index}")
                if operand.elements:
                    formal._content = np.asarray(value).astype(object)
                operands.append(formal)
        node = graph.add_node(self.op, operands, attribute_values(self.attrs), outputs=self.outputs)
        graph.set_outputs(node.outputs, [f"y{i}" for i in range(len(node.outputs))])
        return graph

    def node(self, values: Sequence[Any]) -> Node:
        """The node of `graph`."""
        return next(iter(self.graph(values)))


def _outputs_of(op: str) -> int:
    return OPS[op].outputs or 1


def _defaults(op: str) -> dict[str, Any]:
    fields = OPS[op].attrs.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: f.default for name, f in fields.items() if f.default is not MISSING}


def parse_case(text: str, origin: Iterable[str] = ()) -> Case:
    """The case of a line. Raises UsageError for an unknown op or attribute, InvalidModel for malformed text."""
    cursor = Cursor(text, 1)
    op = OPS[cursor.word("an op")]
    cursor.expect("(")
    operands: list[Operand | None] = []
    while not cursor.take(")"):
        if operands:
            cursor.expect(",")
        operands.append(None if cursor.take("none") else _operand(cursor))
    given: dict[str, Any] = {}
    if cursor.take("{"):
        while not cursor.take("}"):
            if given:
                cursor.expect(",")
            name = cursor.match(_IDENTIFIER, "an attribute's name")
            cursor.expect("=")
            given[name] = cursor.attribute({})
    outputs = cursor.number("a number of results") if cursor.take("->") else op.outputs or 1
    cursor.end()
    try:
        attrs = op.attrs(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"case {text!r}: attributes of {op.name}: {error}") from error
    problem = attribute_problem(op.attrs, attrs)
    if problem is not None:
        raise UsageError(f"case {text!r}: {problem}")
    return Case(op.name, tuple(operands), attrs, outputs, tuple(origin))


def _operand(cursor: Cursor) -> Operand:
    constant = cursor.take("const ")
    operand = Operand(cursor.type({}), constant)
    if not cursor.take("="):
        return operand
    type_ = operand.type
    if not isinstance(type_, TensorType) or type_.static_shape is None:
        raise cursor.fail("only a tensor of literal shape has elements")
    texts = cursor.elements()
    if len(texts) != type_.elements:
        raise cursor.fail(f"{type_} needs {type_.elements} elements, got {len(texts)}")
    try:
        array = parse_elements(texts, type_.dtype, type_.static_shape)
    except (ValueError, OverflowError) as error:
        raise cursor.fail(str(error)) from error
    return Operand.of(array, type_, constant=constant)


def merge_cases(cases: Iterable[Case]) -> list[Case]:
    """Each case once, its origins joined, sorted by op and text."""
    found: dict[str, Case] = {}
    for case in cases:
        known = found.get(case.text)
        origin = case.origin if known is None else (*known.origin, *case.origin)
        found[case.text] = replace(case, origin=tuple(sorted(set(origin))))
    return sorted(found.values(), key=lambda case: (case.op, case.text))


def save_cases(cases: Iterable[Case], path: Path) -> None:
    """Write a file of shapes: one case a line, sorted. Raises UsageError if it cannot be written."""
    lines = [json.dumps({"case": case.text, "origin": list(case.origin)}) for case in merge_cases(cases)]
    body = ",\n".join(lines)
    try:
        path.write_text(f'{{"schema": {SCHEMA}, "cases": [\n{body}\n]}}\n', encoding="utf-8")
    except OSError as error:
        raise UsageError(f"shapes cannot be written to {path}: {error}") from error


def load_cases(path: Path) -> list[Case]:
    """Read what `save_cases` wrote. Raises UsageError if it is no such file, or a case in it is malformed."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a file of shapes: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or not isinstance(data.get("cases"), list):
        raise UsageError(f'{path} is no file of shapes: {{"schema": {SCHEMA}, "cases": [...]}} was expected')
    return [_loaded(entry, path, number) for number, entry in enumerate(data["cases"], 1)]


def _loaded(entry: object, path: Path, number: int) -> Case:
    match entry:
        case {"case": str(text), "origin": list(origin)} if all(isinstance(o, str) for o in origin):
            try:
                return parse_case(text, origin)
            except FusibleError as error:
                raise UsageError(f"{path}: case {number} is malformed: {error}") from error
    raise UsageError(f'{path}: case {number} must be {{"case": text, "origin": [names]}}')
