"""Arithmetic of two or more tensors with NumPy broadcasting, and Clip.

Operands share one element type, which is the result's. Integers wrap as in C; float16 and bfloat16 are computed in
float32 and rounded once. `out` is an array of the result's shape and type that receives the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import HALVES, delivered, widened

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")


@_quiet
def _apply(function: np.ufunc, a: Array, b: Array, out: Array | None) -> Array:
    if a.dtype in HALVES:
        return delivered(function(a.astype(np.float32), b.astype(np.float32)), a.dtype, out)
    return np.asarray(function(a, b, out=out))


def add(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a + b, any numeric type."""
    return _apply(np.add, a, b, out)


def sub(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a - b, any numeric type."""
    return _apply(np.subtract, a, b, out)


def mul(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a * b, any numeric type."""
    return _apply(np.multiply, a, b, out)


def div(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a / b, any numeric type; integers truncate towards zero, and a zero divisor gives 0 there."""
    if a.dtype.kind in "iu":
        return delivered(truncated_quotient(a, b), a.dtype, out)
    return _apply(np.divide, a, b, out)


@_quiet
def truncated_quotient(a: Array, b: Array) -> Array:
    """C's integer division; where C leaves a division by zero undefined the quotient is 0."""
    quotient = np.floor_divide(a, b)  # NumPy gives 0 for a zero divisor
    if a.dtype.kind == "u":
        return np.asarray(quotient)
    # Flooring differs from truncation where the signs differ and the division leaves a remainder.
    inexact = (quotient * b != a) & (b != 0) & ((a < 0) != (b < 0))
    return np.asarray(quotient + inexact.astype(quotient.dtype))


@_quiet
def mod(a: Array, b: Array, /, *, fmod: bool = False, out: Array | None = None) -> Array:
    """c = a - floor(a / b) * b, with the sign of b; with `fmod` a - trunc(a / b) * b, with the sign of a.

    Any real type. An integer divided by zero leaves 0. Floats follow IEEE 754's and C's rules for signed zeros and
    infinities.
    """
    return _apply(np.fmod if fmod else np.mod, a, b, out)


@_quiet
def pow(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a ^ b, in the type of a; b may have another numeric type.

    Integers of both kinds are exact modulo the width; a negative exponent gives the truncated reciprocal (0 for a
    zero base). Where one operand is a float the power is computed in the wider of the types, then converted.
    """
    if b.size == 1 and b.ndim <= a.ndim:
        shortcut = _small_power(a, b)
        if shortcut is not None:
            return delivered(shortcut, a.dtype, out)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        return delivered(integer_power(a, b), a.dtype, out)
    wide = np.promote_types(widened(a).dtype, widened(b).dtype if b.dtype.kind not in "iu" else np.float32)
    return delivered(np.power(a.astype(wide, copy=False), b.astype(wide, copy=False)), a.dtype, out)


def _small_power(a: Array, b: Array) -> Array | None:
    """The powers 1 to 3 as products (np.power takes tens of times as long), else None."""
    exponent = b.reshape(()).astype(np.float64)
    if exponent not in (1, 2, 3):
        return None
    base = widened(a)
    if exponent == 1:
        return base
    square = base * base
    return np.asarray(square if exponent == 2 else square * base)


def integer_power(a: Array, b: Array) -> Array:
    """a ^ b of integers, with the type of a and the rules of `pow`."""
    if b.dtype.kind == "u":
        return np.asarray(_power_by_squaring(a, b.astype(np.uint64)))
    positive = _power_by_squaring(a, np.maximum(b, 0).astype(np.uint64))
    odd = (b & 1).astype(bool)
    reciprocal = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0)) if a.dtype.kind == "i" else a == 1
    return np.where(b < 0, reciprocal.astype(a.dtype), positive)


def _power_by_squaring(a: Array, b: Array) -> Array:
    """a ^ b modulo the width of a, for uint64 exponents: one turn for each bit of the largest."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    result, base = np.ones(shape, a.dtype), a.copy()
    while b.any():
        result = np.where(b & np.uint64(1), result * base, result)
        base = base * base
        b = b >> np.uint64(1)
    return result


@_quiet
def clip(x: Array, low: Array | None = None, high: Array | None = None, /, *, out: Array | None = None) -> Array:
    """y = min(max(x, low), high), any real type; a missing bound does not bind. NaN stays NaN.

    low, high: one element each, of the type of x. Where low > high the result is high.
    """
    if low is None and high is None:
        return delivered(x, x.dtype, out)
    if low is not None and high is not None and x.dtype not in HALVES:
        return np.asarray(np.clip(x, low.reshape(()), high.reshape(()), out=out))
    bounded = x
    if low is not None:
        bounded = np.maximum(bounded, low.reshape(()), out=out)
    if high is not None:
        bounded = np.minimum(bounded, high.reshape(()), out=out)
    return delivered(bounded, x.dtype, out)


@_quiet
def max(*inputs: Array, out: Array | None = None) -> Array:
    """y = the largest of the inputs, any real type; NaN where one of them is NaN."""
    return _fold(np.maximum, inputs, out)


@_quiet
def min(*inputs: Array, out: Array | None = None) -> Array:
    """y = the smallest of the inputs, any real type; NaN where one of them is NaN."""
    return _fold(np.minimum, inputs, out)


@_quiet
def sum(*inputs: Array, out: Array | None = None) -> Array:
    """y = the sum of the inputs, floats (halves round once, at the end)."""
    return delivered(_fold(np.add, [widened(x) for x in inputs], None), inputs[0].dtype, out)


@_quiet
def mean(*inputs: Array, out: Array | None = None) -> Array:
    """y = the sum of the inputs / their number, floats (halves round once, at the end)."""
    total = _fold(np.add, [widened(x) for x in inputs], None)
    return delivered(total / np.asarray(len(inputs), total.dtype), inputs[0].dtype, out)


def _fold(function: np.ufunc, inputs: Any, out: Array | None) -> Array:
    if not inputs:
        raise ValueError("an op over a list of tensors needs at least one, got none")
    if len(inputs) == 1:
        return delivered(inputs[0], inputs[0].dtype, out)
    result = inputs[0]
    for operand in inputs[1:-1]:
        result = function(result, operand)
    return np.asarray(function(result, inputs[-1], out=out))
