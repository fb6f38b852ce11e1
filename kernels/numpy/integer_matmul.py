"""Exact matrix products of small integers through float32 BLAS: what the quantised kernels stand on.

Why it is exact. Let |a| <= p and |b| <= q, all integers. Every partial sum of at most K products is an integer of
magnitude at most K*p*q. While K*p*q <= 2**24 each of them is a float32, so no addition rounds, whatever the order of
summation and whether or not a product is fused with its addition. Longer sums are cut into pieces of that length,
which are added as int32 and wrap like C. For 8-bit operands less their zero points p, q <= 255: a piece has 258 terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_EXACT = 2**24


def centred(x: Array, zero_point: Array | None) -> Array:
    """x - zero_point as float32, exact for operands of at most 16 bits; the zero point broadcasts against x."""
    shifted = x.astype(np.float32)
    if zero_point is not None:
        shifted -= zero_point.astype(np.float32)
    return shifted


def magnitude(x: Array) -> int:
    """The largest |element| of a float array of integers, at least 1."""
    return int(max(x.max(initial=1), -x.min(initial=-1)))


def longest_exact_sum(a_magnitude: int, b_magnitude: int) -> int:
    """How many products of integers of these magnitudes may be summed in float32 without rounding."""
    return _EXACT // (a_magnitude * b_magnitude)


def integer_matmul(a: Array, b: Array, *, b_magnitude: int | None = None, a_magnitude: int | None = None) -> Array:
    """A @ B modulo 2**32, as int32.

    a, b: float32 arrays that hold integers, shaped as for `np.matmul`; `a_magnitude` and `b_magnitude` bound |a| and
    |b| (measured when absent).
    """
    a_bound = magnitude(a) if a_magnitude is None else a_magnitude
    b_bound = magnitude(b) if b_magnitude is None else b_magnitude
    piece = longest_exact_sum(a_bound, b_bound)
    if piece < 1:
        raise ValueError(f"integer_matmul takes products of at most 2**24, got operands up to {a_bound} and {b_bound}")
    depth = a.shape[-1]
    if depth <= piece:
        return np.asarray(np.matmul(a, b)).astype(np.int32)
    total: Array | None = None
    for start in range(0, depth, piece):
        rows = slice(start, start + piece)
        part = np.asarray(np.matmul(a[..., rows], b[rows] if b.ndim == 1 else b[..., rows, :])).astype(np.int32)
        total = part if total is None else total + part
    assert total is not None
    return total
