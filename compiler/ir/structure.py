"""Nodes as a text that says everything that the compiler may depend on: equal texts, equal kernels."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.types import TensorType

__all__ = ["structure"]


def structure(
    nodes: Sequence[Node], outputs: Sequence[Value], inputs: Sequence[Value] = ()
) -> tuple[str, list[Value]]:
    """Nodes without subgraphs as a text: ops, attributes, types, who reads whom, and what is known of contents.

    Two sets of nodes with equal texts have equal regions. The number of readers of each value is part of it. Also the
    values that they mention, in an order that is the same for equal texts: `inputs` first.
    """
    numbers: dict[Value, int] = {}
    parts: list[str] = []

    def number(value: Value | None) -> str:
        if value is None:
            return "-"
        if value not in numbers:
            numbers[value] = len(numbers)
            parts.append(f"{numbers[value]}:{value.type}:{len(value.users)}{_content(value)}{_origin(value)}")
        return str(numbers[value])

    for value in inputs:
        number(value)
    for node in nodes:
        operands = ",".join(number(v) for v in node.inputs)
        results = ",".join(number(v) for v in node.outputs)
        parts.append(f"{node.op.name}({operands})->{results} {node.attrs!r}")
    text = "\n".join([*parts, ",".join(number(v) for v in outputs)])
    return text, list(numbers)


def _origin(value: Value) -> str:
    """What decides how a value may be stored."""
    return " given" if value.producer is None and value.constant is None else ""


def _content(value: Value) -> str:
    """What definitions may depend on beside a value's type: integers, and numbers that stand in the kernel's text."""
    floats = isinstance(value.type, TensorType) and value.type.dtype.is_float
    if value.content is not None and (not floats or value.content.size == 1):
        return f" {value.content.tolist()}"
    return "" if value.constant is None else " constant"
