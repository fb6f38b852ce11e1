"""Scalar expressions: what an element-wise op computes for one element.

An expression is immutable; its text is its key. `Arg(i)` is the i-th operand's element, `Literal` takes the
type of its surroundings, `Apply` calls a function of the table below, `Convert` changes the element type.
`interpret` computes one over NumPy arrays: the oracle of every printer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fusible.compiler.ir.types import DType
from fusible.kernels.numpy import scalar

__all__ = [
    "FUNCTIONS",
    "Apply",
    "Arg",
    "Convert",
    "Expr",
    "Function",
    "Literal",
    "apply",
    "arguments",
    "interpret",
    "functions_in", "renumbered",
    "replaced",
]


@dataclass(frozen=True, slots=True)
class Function:
    """A scalar function: its arity and its NumPy meaning (a vectorised callable)."""

    arity: int
    numpy: Callable[..., np.ndarray]
    commutative: bool = False


FUNCTIONS: dict[str, Function] = {
    name: Function(arity, getattr(scalar, name), name in scalar.COMMUTATIVE)
    for arity, names in scalar.ARITIES.items()
    for name in names
}


@dataclass(frozen=True, slots=True)
class Arg:
    """The element of operand `index`."""

    index: int

    def __str__(self) -> str:
        return f"x{self.index}"


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; it is rounded to the type of the function it is an operand of."""

    value: float | int | bool

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Apply:
    """A call of a function of `FUNCTIONS`."""

    function: str
    args: tuple[Expr, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(str(a) for a in self.args)})"


@dataclass(frozen=True, slots=True)
class Convert:
    """A cast to another element type, by C rules (ONNX Cast without saturation questions)."""

    arg: Expr
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype.value}({self.arg})"


Expr: TypeAlias = "Arg | Literal | Apply | Convert"


def apply(function: str, *args: Expr | float | int | bool) -> Apply:
    """Build a call; plain numbers become literals. Raises ValueError for an unknown function or arity."""
    known = FUNCTIONS.get(function)
    if known is None or known.arity != len(args):
        raise ValueError(f"no scalar function {function!r} of {len(args)} arguments")
    return Apply(function, tuple(Literal(a) if isinstance(a, (bool, int, float)) else a for a in args))


def arguments(expr: Expr) -> set[int]:
    """The operand numbers that an expression reads."""
    match expr:
        case Arg(index):
            return {index}
        case Apply(_, args):
            return set().union(*(arguments(a) for a in args))
        case Convert(arg, _):
            return arguments(arg)
    return set()


def functions_in(expr: Expr) -> set[str]:
    """The functions that an expression calls."""
    match expr:
        case Apply(function, args):
            return {function}.union(*(functions_in(a) for a in args))
        case Convert(arg, _):
            return functions_in(arg)
    return set()


def renumbered(expr: Expr, numbers: Mapping[int, int]) -> Expr:
    """The expression with `Arg(n)` replaced by `Arg(numbers[n])`; the same object if none changes."""
    changed = {old: numbers[old] for old in arguments(expr)}
    if all(old == new for old, new in changed.items()):
        return expr
    return replaced(expr, {old: Arg(new) for old, new in changed.items()})


def replaced(expr: Expr, operands: Mapping[int, Expr]) -> Expr:
    """The expression with `Arg(n)` replaced by `operands[n]`."""
    match expr:
        case Arg(index):
            return operands[index]
        case Apply(function, args):
            return Apply(function, tuple(replaced(a, operands) for a in args))
        case Convert(arg, dtype):
            return Convert(replaced(arg, operands), dtype)
    return expr


def interpret(expr: Expr, operands: Sequence[np.ndarray], *, widen: bool = True) -> np.ndarray:
    """Compute an expression over broadcast arrays.

    Small floats (fp16, bf16) are widened to fp32 first; the caller rounds the result once (the numerics
    policy: one rounding after each op).
    """
    if widen:
        operands = [o.astype(np.float32) if _is_small(o.dtype) else o for o in operands]
    with np.errstate(all="ignore"):
        return np.asarray(_interpret(expr, operands, _literal_dtype(operands)))


def _is_small(dtype: np.dtype) -> bool:
    return dtype != object and DType.of(dtype).is_small_float


def _literal_dtype(operands: Sequence[np.ndarray]) -> np.dtype:
    floats = [o.dtype for o in operands if o.dtype.kind in "fc"]
    return floats[0] if floats else (operands[0].dtype if operands else np.dtype(np.float32))


def _interpret(expr: Expr, operands: Sequence[np.ndarray], default: np.dtype) -> np.ndarray:
    match expr:
        case Arg(index):
            return operands[index]
        case Literal(value):
            return np.asarray(value, dtype=default)
        case Convert(arg, dtype):
            return _interpret(arg, operands, default).astype(dtype.numpy)
    parts = [None if isinstance(a, Literal) else _interpret(a, operands, default) for a in expr.args]
    dtypes = [p.dtype for p in parts if p is not None and p.dtype != np.bool_]
    own = dtypes[0] if dtypes else default
    full = [
        _literal(a, own) if isinstance(a, Literal) else p
        for a, p in zip(expr.args, parts, strict=True)
    ]
    return np.asarray(FUNCTIONS[expr.function].numpy(*full))


def _literal(literal: Literal, dtype: np.dtype) -> np.ndarray:
    if isinstance(literal.value, bool):
        return np.asarray(literal.value)
    return np.asarray(literal.value, dtype=dtype)
