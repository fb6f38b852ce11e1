"""Known contents through arithmetic: what an element-wise op makes of dimensions that are symbols.

The functions take ints and SymInts and raise TypeError where the bounds of the symbols do not decide.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from fusible.compiler.ir.ops import Content, Infer, PropagateFunction
from fusible.compiler.ir.symbols import (
    Dim,
    SymInt,
    bounds_of,
    dim_text,
    exact_div,
    floordiv,
    maximum,
    minimum,
    modulo,
)
from fusible.compiler.ir.types import DType

__all__ = [
    "absolute",
    "cast_content",
    "clip_content",
    "compare",
    "divide",
    "fold_content",
    "integral",
    "is_symbolic",
    "remainder",
    "symbolic_content",
    "truncates",
    "where_content",
]

# Narrower integers might wrap, which a SymInt never does.
_WIDE_INTEGERS = (DType.I64, DType.I32, DType.U64, DType.U32)

_LONGEST_DIVIDEND = 4096  # characters: seven layers of strided convolutions, as speech models have them, take as many


def is_symbolic(content: Content) -> bool:
    """True if an element is a SymInt."""
    return any(isinstance(x, SymInt) for x in content.flat)


def integral(element: Any) -> Dim:
    """An element as an int or SymInt. Raises TypeError for a number that is not whole."""
    if isinstance(element, SymInt):
        return element
    if isinstance(element, float) and not element.is_integer():
        raise TypeError(f"{element} is not whole")
    return int(element)


def _contents(ctx: Infer) -> list[Content] | None:
    """The contents of all inputs; None if one is unknown, or none symbolic (the op's kernel computes those)."""
    contents = [ctx.content(i) for i in range(len(ctx.inputs))]
    known = [c for c in contents if c is not None]
    if len(known) != len(contents) or not any(is_symbolic(c) for c in known):
        return None
    return known


def symbolic_content(function: Callable[..., object], *, needs_dtype: bool = False) -> PropagateFunction:
    """Propagation for an element-wise op by a function of ints and SymInts.

    With `needs_dtype` the function takes the element type of input 0 first.
    """

    def propagate(ctx: Infer) -> Content | None:
        contents = _contents(ctx)
        if contents is None:
            return None
        first = (ctx.dtype(0),) if needs_dtype else ()

        def compute(*elements: Any) -> object:
            return function(*first, *(integral(e) for e in elements))

        try:
            result = np.frompyfunc(compute, len(contents), 1)(*contents)
        except (TypeError, ZeroDivisionError, ValueError, OverflowError):
            return None
        return np.asarray(result, dtype=object)

    return propagate


def _is_known(condition: bool | None) -> bool:
    if condition is None:
        raise TypeError("the bounds do not decide")
    return condition


def compare(relation: str, a: Dim, b: Dim) -> bool:
    """a == b, a < b or a <= b ("eq", "lt", "le"). Raises TypeError where the bounds do not decide."""
    low, high = bounds_of(a - b)
    above = low is not None and low > 0
    below = high is not None and high < 0
    match relation:
        case "eq":
            return _is_known(True if a == b else False if above or below else None)
        case "lt":
            return _is_known(True if below else False if low is not None and low >= 0 else None)
    return _is_known(True if high is not None and high <= 0 else False if above else None)


def _non_negative(value: Dim) -> bool:
    low, _ = bounds_of(value)
    return low is not None and low >= 0


def divide(dtype: DType, a: Dim, b: Dim) -> Dim:
    """The quotient of Div: truncated for integers, else only one without remainder."""
    exact = exact_div(a, b)
    if exact is not None:
        return exact
    if dtype.is_float:
        raise TypeError("the quotient is not whole")
    if not compare("lt", 0, b):
        raise TypeError("the divisor may be 0, or its sign is not known")
    if len(dim_text(a)) + len(dim_text(b)) > _LONGEST_DIVIDEND:
        raise TypeError("the dividend is an expression as long as no exporter writes")
    if _non_negative(a):
        return floordiv(a, b)
    if dtype in (DType.U32, DType.U64):
        raise TypeError("a dividend without sign may have wrapped")
    return _truncated(a, b)


def truncates(dim: Dim) -> bool:
    """True if a quotient whose dividend may be negative is part of an expression."""
    return "min(1, max(" in dim_text(dim)


def _truncated(a: Dim, b: Dim) -> Dim:
    """a / b towards zero for b > 0. Quotients of quotients double their text each time."""
    return floordiv(a + (b - 1) * minimum(1, maximum(0, -a)), b)


def remainder(dtype: DType, a: Dim, b: Dim) -> Dim:
    """The remainder of operands that are not negative, where floored and truncated quotients agree."""
    if not (_non_negative(a) and compare("lt", 0, b)):
        raise TypeError("the signs are not known")
    return modulo(a, b)


def absolute(a: Dim) -> Dim:
    """|a|."""
    return maximum(a, -a)


def where_content(ctx: Infer) -> Content | None:
    """Where: the elements that a known condition selects."""
    contents = _contents(ctx)
    if contents is None or is_symbolic(contents[0]):
        return None
    return np.asarray(np.where(contents[0].astype(bool), contents[1], contents[2]), dtype=object)


def clip_content(ctx: Infer) -> Content | None:
    """Clip with either bound present or absent."""
    content = ctx.content(0)
    if content is None or not is_symbolic(content):
        return None
    try:
        for index, bound in ((1, maximum), (2, minimum)):
            if ctx.has(index):
                limit = ctx.content(index)
                if limit is None:
                    return None
                content = np.frompyfunc(_bounded(bound), 2, 1)(content, limit.reshape(()))
    except TypeError:
        return None
    return np.asarray(content, dtype=object)


def _bounded(bound: Callable[[Dim, Dim], Dim]) -> Callable[[Any, Any], Dim]:
    return lambda element, limit: bound(integral(element), integral(limit))


def cast_content(ctx: Infer) -> Content | None:
    """Cast between wide integers and floats keeps a symbolic element; to bool it must be known not to be 0."""
    content, target = ctx.content(0), ctx.attrs.dtype
    if content is None or not is_symbolic(content):
        return None
    if target in _WIDE_INTEGERS or target in (DType.F32, DType.F64):
        convert: Callable[[Any], object] = integral
    elif target is DType.BOOL:
        convert = _truth
    else:
        return None
    try:
        return np.asarray(np.frompyfunc(convert, 1, 1)(content), dtype=object)
    except TypeError:
        return None


def _truth(element: Any) -> bool:
    return not compare("eq", integral(element), 0)


def fold_content(function: Callable[[Any, Any], Dim], neutral: int | None) -> PropagateFunction:
    """Propagation for a reduction of whole numbers by `function`; without neutral element only of some elements."""

    def fold(lane: Content) -> Dim:
        elements: list[Dim] = [integral(x) for x in lane]
        return reduce(function, elements if neutral is None else [neutral, *elements])

    def propagate(ctx: Infer) -> Content | None:
        content = ctx.content(0)
        if content is None or not is_symbolic(content):
            return None
        axes = range(content.ndim) if ctx.attrs.axes is None else [ctx.axis(a, content.ndim) for a in ctx.attrs.axes]
        kept = [d for d in range(content.ndim) if d not in axes]
        shape = [content.shape[d] for d in kept]
        lanes = content.transpose([*kept, *axes]).reshape(*shape, -1)
        result = np.empty(shape, dtype=object)
        try:
            for place in np.ndindex(*shape):
                result[place] = fold(lanes[place])
        except (TypeError, OverflowError):  # not whole, too large, or no elements
            return None
        if ctx.attrs.keepdims:
            result = result.reshape([1 if d in axes else n for d, n in enumerate(content.shape)])
        return result

    return propagate
