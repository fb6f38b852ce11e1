"""Activation functions: element-wise, of float tensors, the result shaped and typed like `x`.

float16 and bfloat16 are computed in float32 and rounded once. None overflows on the way to a finite result.
`out` is an array of the result's shape and type that receives the result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fusible.kernels.numpy import special
from fusible.kernels.numpy.halves import delivered, widened, workspace

Array = np.ndarray[Any, Any]

_quiet = np.errstate(all="ignore")

# The float32 values that the standard gives as defaults.
SELU_ALPHA = 1.67326319217681884765625
SELU_GAMMA = 1.05070102214813232421875

_SQRT_HALF = math.sqrt(0.5)
_SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)


def _number(value: float, x: Array) -> Array:
    return np.asarray(value, x.dtype)


@_quiet
def relu(x: Array, /, *, out: Array | None = None) -> Array:
    """y = max(x, 0), any signed numeric type."""
    return np.asarray(np.maximum(x, _number(0, x), out=out))


@_quiet
def leaky_relu(x: Array, /, *, alpha: float = 0.01, out: Array | None = None) -> Array:
    """y = x where x >= 0, else alpha * x."""
    wide = widened(x)
    buffer = np.minimum(wide, _number(0, wide), out=workspace(out, x.shape, x.dtype))
    buffer *= _number(alpha, wide)
    return delivered(_plus_positive_part(buffer, wide), x.dtype, out)


@_quiet
def prelu(x: Array, slope: Array, /, *, out: Array | None = None) -> Array:
    """y = x where x >= 0, else slope * x; any numeric type. slope broadcasts to the shape of x.

    Raises ValueError if slope does not broadcast to x.
    """
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise ValueError(f"prelu: slope of shape {slope.shape} must broadcast to x of shape {x.shape}")
    wide = widened(x)
    buffer = np.multiply(wide, widened(slope), out=workspace(out, x.shape, x.dtype))
    np.copyto(buffer, wide, where=wide >= 0)
    return delivered(buffer, x.dtype, out)


@_quiet
def thresholded_relu(x: Array, /, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """y = x where x > alpha, else 0."""
    wide = widened(x)
    return delivered(np.where(wide > _number(alpha, wide), wide, _number(0, wide)), x.dtype, out)


@_quiet
def elu(x: Array, /, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """y = x where x >= 0, else alpha * (e^x - 1)."""
    wide = widened(x)
    buffer = _decay(wide, workspace(out, x.shape, x.dtype))
    buffer *= _number(alpha, wide)
    return delivered(_plus_positive_part(buffer, wide), x.dtype, out)


@_quiet
def selu(x: Array, /, *, alpha: float = SELU_ALPHA, gamma: float = SELU_GAMMA, out: Array | None = None) -> Array:
    """y = gamma * x where x > 0, else gamma * alpha * (e^x - 1)."""
    wide = widened(x)
    buffer = _decay(wide, workspace(out, x.shape, x.dtype))
    buffer *= _number(alpha, wide)
    _plus_positive_part(buffer, wide)
    buffer *= _number(gamma, wide)
    return delivered(buffer, x.dtype, out)


@_quiet
def celu(x: Array, /, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """y = max(0, x) + min(0, alpha * (e^(x / alpha) - 1))."""
    wide = widened(x)
    factor = _number(alpha, wide)
    return delivered(np.maximum(wide, 0) + np.minimum(factor * np.expm1(wide / factor), 0), x.dtype, out)


def _decay(x: Array, buffer: Array) -> Array:
    """e^m - 1 with m = min(x, 0), into the buffer, as 2 t / (1 - t) with t = tanh(m / 2).

    Like expm1 it keeps its relative accuracy near zero, and NumPy has a vectorised tanh but no vectorised expm1.
    """
    np.minimum(x, _number(0, x), out=buffer)
    buffer *= _number(0.5, x)
    np.tanh(buffer, out=buffer)
    divisor = _number(1, x) - buffer
    buffer *= _number(2, x)
    return np.asarray(np.divide(buffer, divisor, out=buffer))


def _plus_positive_part(buffer: Array, x: Array) -> Array:
    """buffer + max(x, 0), in the buffer."""
    buffer += np.maximum(x, _number(0, x))
    return buffer


@_quiet
def hard_sigmoid(x: Array, /, *, alpha: float = 0.2, beta: float = 0.5, out: Array | None = None) -> Array:
    """y = max(0, min(1, alpha * x + beta))."""
    return delivered(_hard_sigmoid(widened(x), alpha, beta, workspace(out, x.shape, x.dtype)), x.dtype, out)


def _hard_sigmoid(x: Array, alpha: float, beta: float, buffer: Array) -> Array:
    np.multiply(x, _number(alpha, x), out=buffer)
    buffer += _number(beta, x)
    return np.clip(buffer, _number(0, x), _number(1, x), out=buffer)


@_quiet
def hard_swish(x: Array, /, *, out: Array | None = None) -> Array:
    """y = x * max(0, min(1, x / 6 + 1/2))."""
    wide = widened(x)
    gate = _hard_sigmoid(wide, 1 / 6, 0.5, workspace(out, x.shape, x.dtype))
    gate *= wide
    return delivered(gate, x.dtype, out)


@_quiet
def sigmoid(x: Array, /, *, out: Array | None = None) -> Array:
    """y = 1 / (1 + e^-x)."""
    wide = widened(x)
    return delivered(_sigmoid(wide, workspace(out, x.shape, x.dtype)), x.dtype, out)


def _sigmoid(x: Array, buffer: Array) -> Array:
    """1 / (1 + e^-x) in the buffer, which may be x. Where e^-x overflows, 1 / infinity is the right 0."""
    np.negative(x, out=buffer)
    np.exp(buffer, out=buffer)
    buffer += _number(1, buffer)
    return np.asarray(np.reciprocal(buffer, out=buffer))


@_quiet
def softplus(x: Array, /, *, out: Array | None = None) -> Array:
    """y = ln(1 + e^x), computed as max(x, 0) + ln(1 + e^-|x|)."""
    wide = widened(x)
    return delivered(np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide))), x.dtype, out)


@_quiet
def softsign(x: Array, /, *, out: Array | None = None) -> Array:
    """y = x / (1 + |x|); the infinities give NaN."""
    wide = widened(x)
    buffer = np.abs(wide, out=workspace(out, x.shape, x.dtype))
    buffer += _number(1, wide)
    return delivered(np.divide(wide, buffer, out=buffer), x.dtype, out)


@_quiet
def mish(x: Array, /, *, out: Array | None = None) -> Array:
    """y = x * tanh(ln(1 + e^x)).

    tanh(ln(u)) = (u^2 - 1) / (u^2 + 1), so with e = e^x the factor is n / (n + 2), n = e (e + 2); from x = 20 on it is
    1 in float64 too, which bounds e.
    """
    wide = widened(x)
    e = np.exp(np.minimum(wide, _number(20, wide)))
    n = e * (e + _number(2, wide))
    return delivered(wide * (n / (n + _number(2, wide))), x.dtype, out)


@_quiet
def gelu(x: Array, /, *, approximate: str = "none", out: Array | None = None) -> Array:
    """y = x/2 * (1 + erf(x / sqrt(2))), or with "tanh" x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016). Raises ValueError for another approximation.
    """
    wide = widened(x)
    buffer = workspace(out, x.shape, x.dtype)
    if approximate == "none":
        np.multiply(wide, _number(_SQRT_HALF, wide), out=buffer)
        special.erf(buffer, buffer)
    elif approximate == "tanh":
        np.multiply(wide, wide, out=buffer)
        buffer *= _number(0.044715 * _SQRT_TWO_OVER_PI, wide)
        buffer += _number(_SQRT_TWO_OVER_PI, wide)
        buffer *= wide
        np.tanh(buffer, out=buffer)
    else:
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    buffer += _number(1, wide)
    buffer *= _number(0.5, wide)
    buffer *= wide
    return delivered(buffer, x.dtype, out)


@_quiet
def swish(x: Array, /, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """y = x * sigmoid(alpha * x), also called SiLU."""
    wide = widened(x)
    return delivered(_swish(wide, alpha, workspace(out, x.shape, x.dtype)), x.dtype, out)


def _swish(x: Array, alpha: float, buffer: Array) -> Array:
    _sigmoid(np.multiply(x, _number(alpha, x), out=buffer), buffer)
    buffer *= x
    return buffer


@_quiet
def swiglu(a: Array, b: Array, /, *, alpha: float = 1.0, out: Array | None = None) -> Array:
    """y = swish(a) * b with the gate a and the value b of one shape. Halves round once, at the end."""
    if a.shape != b.shape:
        raise ValueError(f"swiglu: gate and value must have one shape, got {a.shape} and {b.shape}")
    gate = _swish(widened(a), alpha, workspace(out, a.shape, a.dtype))
    gate *= widened(b)
    return delivered(gate, a.dtype, out)


@_quiet
def shrink(x: Array, /, *, bias: float = 0.0, lambd: float = 0.5, out: Array | None = None) -> Array:
    """y = x + bias where x < -lambd, x - bias where x > lambd, else 0; any numeric type.

    Integers are compared and shifted as float32 (float64 from 32 bits on) and truncated.
    """
    wide = widened(x)
    if x.dtype.kind in "iu":
        wide = x.astype(np.float32 if x.dtype.itemsize < 4 else np.float64)
    shift, bound = _number(bias, wide), _number(lambd, wide)
    kept = np.where(wide < -bound, wide + shift, np.where(wide > bound, wide - shift, _number(0, wide)))
    return delivered(kept, x.dtype, out)
