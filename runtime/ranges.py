"""Between which numbers the dimensions of a plan lie, for symbols that lie in ranges (interval arithmetic)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

from fusible.errors import ArtifactError, ExecutionError
from fusible.runtime.dims import MAX_LENGTH, DimText

__all__ = ["Range", "Ranges", "range_of"]

Range: TypeAlias = "tuple[int, int]"
"""The smallest and the largest of some numbers."""

Ranges: TypeAlias = "Mapping[str, Range]"
"""By symbol."""


def range_of(text: DimText, ranges: Ranges) -> Range:
    """Bounds of a dimension: it never lies outside, and need not reach them (a symbol that occurs twice counts as two).

    Raises ArtifactError for what is no dimension expression, ExecutionError for a symbol without a range and for a
    divisor that may be 0 or negative.
    """
    if isinstance(text, int):
        return text, text
    try:
        return _range(_parsed(text), ranges)
    except KeyError as error:
        raise ExecutionError(f"dimension {text!r}", f"symbol {error} has no bounds") from error


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ArtifactError("a dimension expression is too long")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError) as error:
        raise ArtifactError(f"not a dimension expression: {text[:80]!r}") from error


def _range(node: ast.expr, ranges: Ranges) -> Range:
    match node:
        case ast.Constant(value=int() as literal):
            return literal, literal
        case ast.Name(id=name):
            return ranges[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            low, high = _range(operand, ranges)
            return -high, -low
        case ast.BinOp(left=left, op=op, right=right):
            return _of_operator(op, _range(left, ranges), _range(right, ranges))
        case ast.Call(func=ast.Name(id=name), args=[a, b], keywords=[]):
            return _of_function(name, _range(a, ranges), _range(b, ranges))
    raise ArtifactError(f"not a dimension expression: {ast.unparse(node)[:80]!r}")


def _of_operator(op: ast.operator, a: Range, b: Range) -> Range:
    match op:
        case ast.Add():
            return a[0] + b[0], a[1] + b[1]
        case ast.Sub():
            return a[0] - b[1], a[1] - b[0]
        case ast.Mult():
            products = [x * y for x in a for y in b]
            return min(products), max(products)
    raise ArtifactError("a dimension expression knows only + - *")


def _of_function(name: str, a: Range, b: Range) -> Range:
    match name:
        case "max":
            return max(a[0], b[0]), max(a[1], b[1])
        case "min":
            return min(a[0], b[0]), min(a[1], b[1])
        case "bcast":  # the other one if one of them is 1
            return min(a[0], b[0]), max(a[1], b[1])
        case "floordiv" | "mod" if b[0] <= 0:
            raise ExecutionError(f"a dimension with {name}", f"its divisor may be {b[0]}")
        case "floordiv":
            quotients = [x // y for x in a for y in b]
            return min(quotients), max(quotients)
        case "mod" if b[0] == b[1] and a[0] // b[0] == a[1] // b[0]:
            return a[0] % b[0], a[1] % b[0]
        case "mod":
            return 0, b[1] - 1
    raise ArtifactError(f"a dimension expression knows no {name[:40]}")
