"""Activations that multiply by a step, x sigmoid(x) and its like, which the headers compute in fewer operations.

An error of the step then counts beside 1, not beside a step that may be as small as one pleases; see `vf_step` in
vector_math.h.
"""

from __future__ import annotations

from fusible.compiler.ir.opset.activation import GELU, GELU_TANH
from fusible.compiler.region.expr import Apply, Expr, Literal, replaced

__all__ = ["step_of"]


def step_of(expr: Expr) -> tuple[str, Expr, Expr] | None:
    """(function, x, argument) if an expression is x times a step, else None.

    function: "silu", "gelu" or "gelu_tanh", of x, which is the argument too; or "sigmoid_step": x times that of the
    argument, a multiple of x.
    """
    if not isinstance(expr, Apply) or expr.function != "mul":
        return None
    for factor, x in (expr.args, expr.args[::-1]):
        match factor:
            case Apply("sigmoid", (argument,)) if argument == x:
                return "silu", x, x
            case Apply("sigmoid", (Apply("mul", (a, b)) as argument,)) if _is_multiple(a, b, x):
                return "sigmoid_step", x, argument
    x = expr.args[1]
    for name, template in (("gelu", GELU), ("gelu_tanh", GELU_TANH)):
        if expr == replaced(template, {0: x}):
            return name, x, x
    return None


def _is_multiple(a: Expr, b: Expr, x: Expr) -> bool:
    return (a == x and isinstance(b, Literal)) or (b == x and isinstance(a, Literal))
