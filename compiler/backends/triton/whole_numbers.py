"""Products of integers on matrix units, exactly: by what operands can be at most, in which type they are multiplied.

Operands of int8 are multiplied as they are. What a zero point moved lies within nine bits: fp16 holds that, products
and the sum of one step are whole numbers below 2^24, which fp32 holds, and steps are added up in int32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.ir.opset.quantization import QUANTISED_INTEGERS
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal
from fusible.compiler.region.region import Load, Map, Region

__all__ = ["exact_kind"]

_F16_WHOLE, _F32_WHOLE = 2**11, 2**24  # whole numbers up to these are exact
_TERMS = 128  # of one step, at most
_Interval = tuple[int, int]


def exact_kind(region: Region, operands: Sequence[int]) -> DType | None:
    """The type in which products of these integer values are exact on matrix units; None if there is none."""
    ranges = [_range_of(region, value) for value in operands]
    if any(found is None for found in ranges):
        return None
    known = [found for found in ranges if found is not None]
    if all(low >= -128 and high <= 127 for low, high in known):
        return DType.I8
    largest = [max(-low, high) for low, high in known]
    if max(largest) <= _F16_WHOLE and int(np.prod(largest)) * _TERMS <= _F32_WHOLE:
        return DType.F16
    return None


def _range_of(region: Region, value: int) -> _Interval | None:
    """What an integer value may be; None if its type alone says it, and that has more than 16 bits."""
    dtype = region.dtypes[value]
    if not dtype.is_integer:
        return None
    stage = region.stages[region.first_values.index(value)]
    found = None
    match stage:
        case Map(expr):
            found = _of_expr(region, expr)
        case Load(_, map_) if map_.bounds:
            found = _of_type(dtype)
    least, greatest = _limits(dtype)
    if found is not None and least <= found[0] and found[1] <= greatest:
        return found
    return _of_type(dtype)


def _of_type(dtype: DType) -> _Interval | None:
    return None if dtype.numpy.itemsize > 2 else _limits(dtype)


def _limits(dtype: DType) -> _Interval:
    if dtype in QUANTISED_INTEGERS:  # NumPy does not know those of 4 bits
        return QUANTISED_INTEGERS[dtype]
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)


def _of_expr(region: Region, expr: Expr) -> _Interval | None:
    match expr:
        case Arg(index):
            return _range_of(region, index)
        case Literal(value) if isinstance(value, int):
            return int(value), int(value)
        case Convert(arg, dtype) if dtype.is_integer:
            found, (least, greatest) = _of_expr(region, arg), _limits(dtype)
            return found if found is not None and least <= found[0] and found[1] <= greatest else None
        case Apply("select", (_, a, b)):
            first, second = _of_expr(region, a), _of_expr(region, b)
            if first is None or second is None:
                return None
            return min(first[0], second[0]), max(first[1], second[1])
        case Apply("add" | "sub" as function, (a, b)):
            first, second = _of_expr(region, a), _of_expr(region, b)
            if first is None or second is None:
                return None
            if function == "sub":
                second = -second[1], -second[0]
            return first[0] + second[0], first[1] + second[1]
    return None
