"""Combiners of reductions and scans as functions in Triton's language.

The compiler folds lanes in any order, so what it is given must not depend on it: of equal values arg-max takes the one
of the smaller index (the larger: the last), where the region's combiner says the left one.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.backends.triton.print_expr import Code, carried, print_expr, rounded
from fusible.compiler.ir.types import DType
from fusible.compiler.region.combiners import COMBINERS
from fusible.compiler.region.expr import Arg, Expr, apply

__all__ = ["combine_function", "combine_name"]

_PLACES = {"argmax": ("gt", "lt"), "argmin": ("lt", "lt"), "argmax_last": ("gt", "gt"), "argmin_last": ("lt", "gt")}


def combine_name(combiner: str, dtypes: Sequence[DType]) -> str:
    """The name of the function that merges two states of carried types."""
    return f"combine_{combiner}_{'_'.join(carried(d).value for d in dtypes)}"


def combine_function(combiner: str, dtypes: Sequence[DType]) -> str:
    """Its text: accumulators a0, a1, ... and b0, b1, ... to one or a tuple. Raises NotPrintable."""
    width = COMBINERS[combiner].width
    names = [f"{side}{n}" for side in "ab" for n in range(width)]
    values = {n: Code(name, carried(dtypes[n % width])) for n, name in enumerate(names)}
    head = f"@triton.jit\ndef {combine_name(combiner, dtypes)}({', '.join(names)}):"
    lines = [head, f'    """Merge two states of {combiner}."""']
    merges = COMBINERS[combiner].merge
    if combiner in _PLACES:
        lines.append(f"    take = {print_expr(_takes(*_PLACES[combiner]), values, DType.BOOL).text}")
        values[2 * width] = Code("take", DType.BOOL)
        merges = tuple(apply("select", Arg(2 * width), Arg(width + n), Arg(n)) for n in range(width))
    merged = [
        rounded(print_expr(merge, values, carried(dtype)), carried(dtype)).text
        for merge, dtype in zip(merges, dtypes, strict=True)
    ]
    return "\n".join([*lines, f"    return {', '.join(merged)}", ""])


def _takes(better: str, nearer: str) -> Expr:
    """When the right (value, index) replaces the left one; NaN wins, as in NumPy."""
    left_value, left_index, right_value, right_index = (Arg(n) for n in range(4))
    left_nan, right_nan = apply("isnan", left_value), apply("isnan", right_value)
    both_nan = apply("logical_and", left_nan, right_nan)
    tied = apply("logical_or", apply("eq", right_value, left_value), both_nan)
    wins = apply("logical_and", tied, apply(nearer, right_index, left_index))
    ahead = apply("logical_and", apply(better, right_value, left_value), apply("logical_not", left_nan))
    alone = apply("logical_and", right_nan, apply("logical_not", left_nan))
    return apply("logical_or", apply("logical_or", ahead, alone), wins)
