"""Evaluate the dimension expressions of a plan: integers, symbols, + - *, floordiv, mod, max, min, bcast."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

from fusible.errors import ArtifactError, ExecutionError

__all__ = ["DimText", "dim_function", "evaluate_dim", "single_symbol", "symbols_of"]

DimText: TypeAlias = "int | str"
_Evaluator: TypeAlias = Callable[[Mapping[str, int]], int]
MAX_LENGTH = 20_000


def _bcast(a: int, b: int) -> int:
    if a not in (1, b) and b != 1:
        raise ExecutionError("a broadcast", f"dimensions {a} and {b} do not broadcast")
    return b if a == 1 else a


_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": lambda a, b: a if a >= b else b,
    "min": lambda a, b: a if a <= b else b,
    "bcast": _bcast,
}


@lru_cache(maxsize=65536)
def dim_function(text: DimText) -> _Evaluator:
    """Compile a dimension's text to a function of the symbols. Raises ArtifactError for anything else."""
    if isinstance(text, int):
        value = text
        return lambda env: value
    if len(text) > MAX_LENGTH:
        raise ArtifactError("a dimension expression is too long")
    try:
        return _compile(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError) as error:
        raise ArtifactError(f"not a dimension expression: {text[:80]!r}") from error


def evaluate_dim(text: DimText, env: Mapping[str, int]) -> int:
    """The value of a dimension. Raises ExecutionError if a symbol has no value or a divisor is zero."""
    if isinstance(text, int):
        return text
    try:
        return dim_function(text)(env)
    except KeyError as error:
        raise ExecutionError(f"dimension {text!r}", f"symbol {error} has no value yet") from error
    except ZeroDivisionError as error:
        raise ExecutionError(f"dimension {text!r}", "division by a dimension that is 0") from error


def single_symbol(text: DimText) -> str | None:
    """The symbol if the dimension is nothing but a symbol."""
    return text if isinstance(text, str) and text.isidentifier() else None


@lru_cache(maxsize=65536)
def symbols_of(text: DimText) -> frozenset[str]:
    """The symbols in a dimension. Raises ArtifactError for anything else."""
    if isinstance(text, int):
        return frozenset()
    try:
        parsed = ast.parse(text, mode="eval")
    except (SyntaxError, RecursionError) as error:
        raise ArtifactError(f"not a dimension expression: {text[:80]!r}") from error
    return frozenset(node.id for node in ast.walk(parsed) if isinstance(node, ast.Name)) - _FUNCTIONS.keys()


def _compile(node: ast.expr) -> _Evaluator:
    match node:
        case ast.Constant(value=int() as literal):
            return lambda env: literal
        case ast.Name(id=name):
            return lambda env: env[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _compile(operand)
            return lambda env: -inner(env)
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _compile(left), _compile(right))
        case ast.Call(func=ast.Name(id=name), args=[a, b], keywords=[]) if name in _FUNCTIONS:
            function, first, second = _FUNCTIONS[name], _compile(a), _compile(b)
            return lambda env: function(first(env), second(env))
    raise ArtifactError(f"not a dimension expression: {ast.unparse(node)[:80]!r}")


def _binary(op: ast.operator, left: _Evaluator, right: _Evaluator) -> _Evaluator:
    match op:
        case ast.Add():
            return lambda env: left(env) + right(env)
        case ast.Sub():
            return lambda env: left(env) - right(env)
        case ast.Mult():
            return lambda env: left(env) * right(env)
    raise ArtifactError("a dimension expression knows only + - *")
