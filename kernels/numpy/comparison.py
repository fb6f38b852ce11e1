"""Comparisons, logic, bits and selection with NumPy broadcasting.

`out` is an array of the result's shape and type that receives the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")


@_quiet
def _compare(function: np.ufunc, a: Array, b: Array, out: Array | None) -> Array:
    if a.dtype == object:  # strings: the ufunc's bool is the truth of each Python comparison
        result = np.asarray(function(a, b)).astype(np.bool_)
        if out is None:
            return result
        out[...] = result
        return out
    return np.asarray(function(a, b, out=out))


def equal(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c (bool) = a == b, any type, strings too."""
    return _compare(np.equal, a, b, out)


def greater(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c (bool) = a > b, any real type."""
    return _compare(np.greater, a, b, out)


def greater_or_equal(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c (bool) = a >= b, any real type."""
    return _compare(np.greater_equal, a, b, out)


def less(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c (bool) = a < b, any real type."""
    return _compare(np.less, a, b, out)


def less_or_equal(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c (bool) = a <= b, any real type."""
    return _compare(np.less_equal, a, b, out)


def and_(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a and b, bool."""
    return np.asarray(np.logical_and(a, b, out=out))


def or_(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a or b, bool."""
    return np.asarray(np.logical_or(a, b, out=out))


def xor(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = a != b, bool."""
    return np.asarray(np.logical_xor(a, b, out=out))


def bitwise_and(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = the bits set in both, integers."""
    return np.asarray(np.bitwise_and(a, b, out=out))


def bitwise_or(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = the bits set in either, integers."""
    return np.asarray(np.bitwise_or(a, b, out=out))


def bitwise_xor(a: Array, b: Array, /, *, out: Array | None = None) -> Array:
    """c = the bits set in one of the two, integers."""
    return np.asarray(np.bitwise_xor(a, b, out=out))


def bit_shift(x: Array, y: Array, /, *, direction: str, out: Array | None = None) -> Array:
    """z = x shifted by y bits to the "LEFT" or "RIGHT", integers; signed x keeps its sign to the right.

    A shift by a negative number or by the width or more leaves only the sign: -1 for a negative x shifted right,
    else 0. Raises ValueError for another direction.
    """
    # NumPy defines shifts beyond the width in exactly this way, a negative amount counting as a huge one.
    if direction == "LEFT":
        return np.asarray(np.left_shift(x, y, out=out))
    if direction == "RIGHT":
        return np.asarray(np.right_shift(x, y, out=out))
    raise ValueError(f"bit_shift: direction must be 'LEFT' or 'RIGHT', got {direction!r}")


def where(condition: Array, x: Array, y: Array, /, *, out: Array | None = None) -> Array:
    """z = x where the condition (bool) holds, else y; any element type."""
    if out is None:
        return np.asarray(np.where(condition, x, y), dtype=x.dtype)
    np.copyto(out, y)
    np.copyto(out, x, where=condition)
    return out
