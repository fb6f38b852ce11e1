"""Vectorised NumPy meanings of the scalar functions that expressions are made of.

Each takes arrays of one element type (comparisons give bool; `select` takes a bool first) and returns that type.
Generated code calls these names too, so they are part of an artifact's kernel vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.activations import sigmoid as sigmoid
from fusible.kernels.numpy.arithmetic import integer_power, truncated_quotient
from fusible.kernels.numpy.special import erf as erf

Array = np.ndarray[Any, Any]

ARITIES: dict[int, tuple[str, ...]] = {
    1: (
        "neg", "abs", "exp", "log", "sqrt", "reciprocal", "floor", "ceil", "round", "sign",
        "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
        "erf", "sigmoid", "log1p", "expm1", "isnan", "isinf", "logical_not", "bitwise_not", "trunc",
    ),
    2: (
        "add", "sub", "mul", "div", "pow", "mod", "fmod", "max", "min",
        "lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_xor",
        "bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right",
    ),
    3: ("select",),
}  # fmt: skip
COMMUTATIVE = frozenset(
    {"add", "mul", "max", "min", "eq", "ne", "logical_and", "logical_or", "logical_xor"}
    | {"bitwise_and", "bitwise_or", "bitwise_xor"}
)

neg, abs, exp, log, sqrt = np.negative, np.absolute, np.exp, np.log, np.sqrt
floor, ceil, sign, trunc = np.floor, np.ceil, np.sign, np.trunc
round = np.rint
sin, cos, tan, asin, acos, atan = np.sin, np.cos, np.tan, np.arcsin, np.arccos, np.arctan
sinh, cosh, tanh, asinh, acosh, atanh = np.sinh, np.cosh, np.tanh, np.arcsinh, np.arccosh, np.arctanh
log1p, expm1, isnan, isinf = np.log1p, np.expm1, np.isnan, np.isinf
logical_not, bitwise_not = np.logical_not, np.invert
add, sub, mul, max, min = np.add, np.subtract, np.multiply, np.maximum, np.minimum
lt, le, gt, ge, eq, ne = np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal
logical_and, logical_or, logical_xor = np.logical_and, np.logical_or, np.logical_xor
bitwise_and, bitwise_or, bitwise_xor = np.bitwise_and, np.bitwise_or, np.bitwise_xor
shift_left, shift_right = np.left_shift, np.right_shift
select = np.where
fmod = np.fmod


def div(a: Array, b: Array) -> Array:
    """Quotient: IEEE for floats, truncated towards zero for integers (0 for a zero divisor)."""
    if a.dtype.kind in "iu":
        return truncated_quotient(a, b)
    return np.asarray(np.divide(a, b))


def mod(a: Array, b: Array) -> Array:
    """Remainder with the sign of the divisor (Python's, ONNX Mod with fmod=0)."""
    if a.dtype.kind in "iu":
        safe = np.where(b == 0, np.ones_like(b), b)
        return np.asarray(np.where(b == 0, np.zeros_like(a), np.mod(a, safe)))
    return np.asarray(np.mod(a, b))


def pow(a: Array, b: Array) -> Array:
    """Power; a negative integer exponent of an integer base truncates (1 and -1 aside, to 0)."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        return integer_power(a, b)
    return np.asarray(np.power(a, b).astype(a.dtype))


def reciprocal(a: Array) -> Array:
    """1 / a."""
    return np.asarray(np.divide(np.ones((), a.dtype), a))
