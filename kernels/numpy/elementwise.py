"""Element-wise functions of one tensor: signs, roundings, roots, exponentials, trigonometry, classification.

All take `x` of any shape and return a tensor of the same shape and type unless said otherwise. float16 and bfloat16
are computed in float32 and rounded once. Values outside a function's domain give NaN or infinity as IEEE 754 has it.
`out`, where taken, is an array of the result's shape and type that receives the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy import special
from fusible.kernels.numpy.halves import HALVES, delivered

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")


@_quiet
def _apply(function: np.ufunc, x: Array, out: Array | None) -> Array:
    if x.dtype in HALVES:
        return delivered(function(x.astype(np.float32)), x.dtype, out)
    return np.asarray(function(x, out=out))


def abs(x: Array, /, *, out: Array | None = None) -> Array:
    """y = |x|, any numeric type; the least signed integer stays itself, as in C."""
    return _apply(np.absolute, x, out)


def neg(x: Array, /, *, out: Array | None = None) -> Array:
    """y = -x, signed integers (wrapping) and floats."""
    return _apply(np.negative, x, out)


def sign(x: Array, /, *, out: Array | None = None) -> Array:
    """y = -1, 0 or 1, any numeric type; NaN stays NaN."""
    return _apply(np.sign, x, out)


def ceil(x: Array, /, *, out: Array | None = None) -> Array:
    """y = the least integer >= x, floats."""
    return _apply(np.ceil, x, out)


def floor(x: Array, /, *, out: Array | None = None) -> Array:
    """y = the greatest integer <= x, floats."""
    return _apply(np.floor, x, out)


def round(x: Array, /, *, out: Array | None = None) -> Array:
    """y = the nearest integer, halves to the even one, floats."""
    return _apply(np.rint, x, out)


def reciprocal(x: Array, /, *, out: Array | None = None) -> Array:
    """y = 1 / x, floats."""
    return _apply(np.reciprocal, x, out)


def sqrt(x: Array, /, *, out: Array | None = None) -> Array:
    """y = x^(1/2), floats; NaN below zero."""
    return _apply(np.sqrt, x, out)


def exp(x: Array, /, *, out: Array | None = None) -> Array:
    """y = e^x, floats."""
    return _apply(np.exp, x, out)


def log(x: Array, /, *, out: Array | None = None) -> Array:
    """y = the natural logarithm, floats; -infinity at zero, NaN below."""
    return _apply(np.log, x, out)


def erf(x: Array, /, *, out: Array | None = None) -> Array:
    """y = 2/sqrt(pi) * integral of exp(-t^2) from 0 to x. Integers are computed in float64 and truncated."""
    if x.dtype.kind in "iu":
        return delivered(special.erf(x.astype(np.float64)), x.dtype, out)
    if x.dtype in HALVES:
        return delivered(special.erf(x.astype(np.float32)), x.dtype, out)
    return special.erf(x, out)


def sin(x: Array, /, *, out: Array | None = None) -> Array:
    """y = sin(x), floats, radians."""
    return _apply(np.sin, x, out)


def cos(x: Array, /, *, out: Array | None = None) -> Array:
    """y = cos(x), floats, radians."""
    return _apply(np.cos, x, out)


def tan(x: Array, /, *, out: Array | None = None) -> Array:
    """y = tan(x), floats, radians."""
    return _apply(np.tan, x, out)


def asin(x: Array, /, *, out: Array | None = None) -> Array:
    """y = arcsin(x) in [-pi/2, pi/2], floats; NaN outside [-1, 1]."""
    return _apply(np.arcsin, x, out)


def acos(x: Array, /, *, out: Array | None = None) -> Array:
    """y = arccos(x) in [0, pi], floats; NaN outside [-1, 1]."""
    return _apply(np.arccos, x, out)


def atan(x: Array, /, *, out: Array | None = None) -> Array:
    """y = arctan(x) in [-pi/2, pi/2], floats."""
    return _apply(np.arctan, x, out)


def sinh(x: Array, /, *, out: Array | None = None) -> Array:
    """y = (e^x - e^-x) / 2, floats."""
    return _apply(np.sinh, x, out)


def cosh(x: Array, /, *, out: Array | None = None) -> Array:
    """y = (e^x + e^-x) / 2, floats."""
    return _apply(np.cosh, x, out)


def tanh(x: Array, /, *, out: Array | None = None) -> Array:
    """y = sinh(x) / cosh(x), floats."""
    return _apply(np.tanh, x, out)


def asinh(x: Array, /, *, out: Array | None = None) -> Array:
    """y = the inverse of sinh, floats."""
    return _apply(np.arcsinh, x, out)


def acosh(x: Array, /, *, out: Array | None = None) -> Array:
    """y = the inverse of cosh on [1, infinity), floats; NaN below 1."""
    return _apply(np.arccosh, x, out)


def atanh(x: Array, /, *, out: Array | None = None) -> Array:
    """y = the inverse of tanh, floats; infinite at -1 and 1, NaN outside."""
    return _apply(np.arctanh, x, out)


def not_(x: Array, /, *, out: Array | None = None) -> Array:
    """y = not x, bool."""
    return np.asarray(np.logical_not(x, out=out))


def bitwise_not(x: Array, /, *, out: Array | None = None) -> Array:
    """y = every bit of x inverted, integers."""
    return np.asarray(np.invert(x, out=out))


def is_nan(x: Array, /, *, out: Array | None = None) -> Array:
    """y (bool) = True where x is NaN, any float type."""
    return np.asarray(np.isnan(x, out=out))


def is_inf(
    x: Array, /, *, detect_negative: bool = True, detect_positive: bool = True, out: Array | None = None
) -> Array:
    """y (bool) = True where x is an infinity of a sign that is asked for, any float type."""
    found = np.asarray(np.isinf(x, out=out))
    if not detect_negative:
        np.logical_and(found, ~np.signbit(x), out=found)
    if not detect_positive:
        np.logical_and(found, np.signbit(x), out=found)
    return found
