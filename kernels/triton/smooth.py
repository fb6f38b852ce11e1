"""Functions for results of 16 bits, computed in float32 without branches and without rounded quotients.

Their errors are far below half a step of float16 (2^-12 of the result); results of 32 bits are computed by others.

`1 + erf(x)` is erfc(-x), so for x < 0 it is the small number erfc(|x|) itself, and else 2 - erfc(|x|):

    erfc(t) = 2^p(t),  p(t) = log2(erfc(t)), about -t^2 / ln 2: a polynomial without a constant term

The form is that of Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 7.1.23 to 7.1.28, with a power
of two in the place of a quotient, as GPUs compute one in one instruction. The coefficients are a minimax fit of
degree 7 to p on [0, 5] (least squares, weights raised where the error is large, in float64;
`tests/compiler/triton/test_smooth.py` measures what is left): erfc is wrong by at most 1.5e-5 of itself there, which
ends at 1.5e-12; p falls ever faster behind it, and so does erfc.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["logistic", "one_plus_erf", "one_plus_tanh"]

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def one_plus_erf(x):
    """1 + erf(x), float32, to 1.5e-5 of the result for x >= -5 and to 1e-12 below; NaN stays NaN."""
    t = tl.abs(x)
    p = t * -1.7809212e-05 + 0.00044695483
    p = p * t - 0.0049846484
    p = p * t + 0.03319023
    p = p * t - 0.151325
    p = p * t - 0.9178736
    p = p * t - 1.6278669
    small = tl.exp2(p * t)
    return tl.where(x < 0, small, 2.0 - small)


@triton.jit
def one_plus_tanh(x):
    """1 + tanh(x), float32, to 2^-19 of the result for |x| < 5, to 2^-16 for |x| < 40: 2 / (1 + exp(-2 x))."""
    return 2.0 / (1.0 + tl.exp2(x * (-2.0 * LOG2_E)))


@triton.jit
def logistic(x):
    """1 / (1 + exp(-x)), float32, to 2^-19 of the result for |x| < 10, to 2^-16 for |x| < 80."""
    return 1.0 / (1.0 + tl.exp2(x * -LOG2_E))
