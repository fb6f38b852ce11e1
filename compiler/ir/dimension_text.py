"""The text of a dimension back to a dimension."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from fusible.compiler.ir.symbol_values import FOLD
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt

__all__ = ["parse_dim"]


def parse_dim(text: str, symbols: Mapping[str, Symbol]) -> Dim:
    """Parse the text of a dimension; unknown names or other syntax raise ValueError."""
    if len(text) > 20_000:
        raise ValueError("dimension text is too long")
    try:
        return _parse_node(ast.parse(text.strip(), mode="eval").body, symbols)
    except (SyntaxError, RecursionError, MemoryError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"not a dimension: {text[:80]!r}") from error


def _parse_node(node: ast.expr, symbols: Mapping[str, Symbol]) -> Dim:
    match node:
        case ast.Constant(value=int() as literal) if not isinstance(literal, bool):
            return literal
        case ast.Name(id=name) if name in symbols:
            return SymInt.of(symbols[name])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_parse_node(operand, symbols)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _parse_node(left, symbols) + _parse_node(right, symbols)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _parse_node(left, symbols) - _parse_node(right, symbols)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _parse_node(left, symbols) * _parse_node(right, symbols)
        case ast.Call(func=ast.Name(id=name), args=[a, b], keywords=[]) if name in FOLD:
            return FOLD[name](_parse_node(a, symbols), _parse_node(b, symbols))
    raise ValueError(f"not a dimension: {ast.unparse(node)!r}")
