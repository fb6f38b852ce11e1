"""The passes of a nest over its folded axes, and what it costs to compute something again in each of them."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.region.expr import Apply, Convert, Expr

__all__ = ["Phase", "is_dear"]

_DEAR = frozenset({"exp", "log", "tanh", "erf", "sigmoid", "log1p", "expm1", "pow", "sin", "cos", "div"})


@dataclass(frozen=True, slots=True)
class Phase:
    """One pass over the folded axes: the stages it computes, the reductions it feeds, the stores it makes."""

    stages: tuple[int, ...]
    reductions: tuple[int, ...]
    stores: tuple[int, ...]


def is_dear(expr: Expr) -> bool:
    """True for expressions that take longer than to store and load their value."""
    match expr:
        case Apply(function, args):
            return function in _DEAR or any(is_dear(a) for a in args)
        case Convert(arg, _):
            return is_dear(arg)
    return False
