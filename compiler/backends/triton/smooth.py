"""Expressions whose results are rounded to 16 bits, with functions that are only as accurate as that needs.

Where a result depends on its operands smoothly, an error of a millionth vanishes in the rounding, so quotients need not
be rounded, and 1 + erf and 1 + tanh, as GELUs have them, are functions of their own (`kernels/triton/smooth.py`).
"""

from __future__ import annotations

from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Convert, Expr, Literal

__all__ = ["QUOTIENT", "SMOOTH_TEMPLATE", "smooth_calls", "smoothed"]

SMOOTH_TEMPLATE = "smooth"
"""The module of kernels/triton that has the functions."""
QUOTIENT = "quotient"
"""A division whose result is not rounded to the last bit."""

_ONE_PLUS = {"erf": "one_plus_erf", "tanh": "one_plus_tanh"}
_CALLS = (*_ONE_PLUS.values(), "logistic")
_SMOOTH = frozenset({"add", "sub", "mul", "div", "neg", "abs", "max", "min", "exp", "erf", "tanh", "sigmoid", "sqrt"})
"""Functions of which no small error of an operand makes a large one."""


def smoothed(expr: Expr, dtype: DType) -> Expr:
    """The expression as it may be computed where the result is of an element type: other than itself for 16 bits."""
    return _rewritten(expr) if dtype in (DType.F16, DType.BF16) and _is_smooth(expr) else expr


def smooth_calls(text: str) -> list[str]:
    """The functions of `SMOOTH_TEMPLATE` that a text calls."""
    return [name for name in _CALLS if f"{name}(" in text]


def _is_smooth(expr: Expr) -> bool:
    match expr:
        case Apply(function, args):
            return function in _SMOOTH and all(map(_is_smooth, args))
        case Convert(arg, dtype):
            return dtype in (DType.F16, DType.BF16, DType.F32) and _is_smooth(arg)
    return True


def _rewritten(expr: Expr) -> Expr:
    match expr:
        case Apply("add", (Apply("erf" | "tanh" as function, (x,)), Literal(1))):
            return Apply(_ONE_PLUS[function], (_rewritten(x),))
        case Apply("add", (Literal(1), Apply("erf" | "tanh" as function, (x,)))):
            return Apply(_ONE_PLUS[function], (_rewritten(x),))
        case Apply("sigmoid", (x,)):
            return Apply("logistic", (_rewritten(x),))
        case Apply(function, args):
            return Apply(QUOTIENT if function == "div" else function, tuple(map(_rewritten, args)))
        case Convert(arg, dtype):
            return Convert(_rewritten(arg), dtype)
    return expr
