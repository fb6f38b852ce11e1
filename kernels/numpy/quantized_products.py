"""Products of quantised operands: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv.

Integer operands are multiplied exactly (see `integer_matmul`) and accumulate modulo 2**32; only the final scaling of
the QLinear forms is in float32: y = saturate(round_half_even(sum * (a_scale * b_scale / y_scale)) + y_zero_point).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.convolution import conv
from fusible.kernels.numpy.integer_matmul import centred, integer_matmul, longest_exact_sum, magnitude
from fusible.kernels.numpy.quantization import saturated

Array = np.ndarray[Any, Any]


def matmul_integer(
    A: Array, B: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None, /
) -> Array:
    """(A - a_zero_point) @ (B - b_zero_point) as int32, modulo 2**32.

    A [..., M, K], B [..., K, N]: int8 or uint8, with the batches and vectors of `np.matmul`. Zero points have one
    element, or one a row of A ([M] or [..., M, 1]) and one a column of B ([N] or [..., 1, N]).
    """
    return integer_matmul(centred(A, _row_wise(a_zero_point, A)), centred(B, _column_wise(b_zero_point)))


def qlinear_matmul(
    a: Array, a_scale: Array, a_zero_point: Array, b: Array, b_scale: Array, b_zero_point: Array, y_scale: Array,
    y_zero_point: Array, /,
) -> Array:  # fmt: skip
    """The quantised product of quantised matrices, in the type of y_zero_point (8-bit integers or float8).

    Scales (float32, float16, bfloat16) have the shapes that zero points have in `matmul_integer`. float8 operands are
    multiplied in float32.
    """
    left, right = centred(a, _row_wise(a_zero_point, a)), centred(b, _column_wise(b_zero_point))
    total = integer_matmul(left, right) if _is_integer(a) and _is_integer(b) else np.asarray(np.matmul(left, right))
    multiplier = _factor(_row_wise(a_scale, a), _column_wise(b_scale), _row_wise(y_scale, a))
    return _requantised(total, multiplier, _row_wise(y_zero_point, a))


def conv_integer(
    x: Array, w: Array, x_zero_point: Array | None = None, w_zero_point: Array | None = None, /, *,
    strides: Sequence[int] = (), pads: Sequence[int] = (), dilations: Sequence[int] = (), group: int = 1,
    auto_pad: str = "NOTSET",
) -> Array:  # fmt: skip
    """The convolution of x - x_zero_point with w - w_zero_point as int32, modulo 2**32.

    x [N, C, *spatial], w [M, C/group, *kernel]: int8 or uint8; x_zero_point has one element, w_zero_point one or M;
    attributes as for `conv`, the padding stands for the zero point of x. Returns [N, M, *output].
    """
    image = centred(x, None if x_zero_point is None else _single(x_zero_point, "x_zero_point"))
    kernel = centred(w, _per_filter(w_zero_point, w))
    convolve = partial(conv, strides=strides, pads=pads, dilations=dilations, group=group, auto_pad=auto_pad)
    terms = longest_exact_sum(magnitude(image), magnitude(kernel))
    depth, taps = w.shape[1], prod(w.shape[2:])
    if depth * taps <= terms:
        return convolve(image, kernel).astype(np.int32)
    if group > 1 or taps > terms:
        # A float64 sum of products below 2**16 is exact up to 2**37 of them.
        total = convolve(image.astype(np.float64), kernel.astype(np.float64))
        return total.astype(np.int64).astype(np.int32)
    step = terms // taps
    parts = (slice(start, start + step) for start in range(0, depth, step))
    sums = [convolve(image[:, part], kernel[:, part]).astype(np.int32) for part in parts]
    return np.asarray(np.add.reduce(sums, dtype=np.int32))


def conv_bytes(
    x: Array, w: Array, bias: Array, /, *, strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), group: int = 1, auto_pad: str = "NOTSET", fill: int = 0,
) -> Array:  # fmt: skip
    """The convolution of x, `fill` around it, with w, and bias [M] added, as int32, modulo 2**32.

    x [N, C, *spatial]: uint8, w [M, C/group, *kernel]: int8; attributes as for `conv`. Returns [N, M, *output].
    """
    zero = np.asarray(fill, x.dtype)
    attributes: dict[str, Any] = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    total = conv_integer(x, w, zero, None, **attributes, auto_pad=auto_pad)
    start = bias + np.int32(fill) * w.astype(np.int32).sum(axis=tuple(range(1, w.ndim)), dtype=np.int32)
    return np.asarray(total + start.reshape(-1, *(1,) * (w.ndim - 2)))


def qlinear_conv(
    x: Array, x_scale: Array, x_zero_point: Array, w: Array, w_scale: Array, w_zero_point: Array, y_scale: Array,
    y_zero_point: Array, B: Array | None = None, /, *, strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), group: int = 1, auto_pad: str = "NOTSET",
) -> Array:  # fmt: skip
    """The quantised convolution, in the type of y_zero_point.

    As `conv_integer`; B is int32 [M] at scale x_scale * w_scale, w_scale has one element or M, the other scales
    and zero points one.
    """
    total = conv_integer(
        x, w, x_zero_point, w_zero_point, strides=strides, pads=pads, dilations=dilations, group=group,
        auto_pad=auto_pad,
    )  # fmt: skip
    channels = (-1, *(1,) * (w.ndim - 2))
    if B is not None:
        total += B.reshape(channels)
    multiplier = _factor(_single(x_scale, "x_scale"), w_scale.reshape(channels), _single(y_scale, "y_scale"))
    return _requantised(total, multiplier, _single(y_zero_point, "y_zero_point"))


def _is_integer(x: Array) -> bool:
    return x.dtype.kind in "iu"


def _row_wise(parameter: Array | None, a: Array) -> Array | None:
    """A parameter of A [..., M, K] in a shape that broadcasts against its rows."""
    if parameter is None or parameter.size == 1:
        return None if parameter is None else parameter.reshape(())
    return parameter.reshape(-1, 1) if parameter.ndim == 1 and a.ndim > 1 else parameter


def _column_wise(parameter: Array | None) -> Array | None:
    """A parameter of B [..., K, N]: [N] and [..., 1, N] broadcast as they are."""
    return parameter if parameter is None or parameter.size > 1 else parameter.reshape(())


def _single(parameter: Array, name: str) -> Array:
    if parameter.size != 1:
        raise ValueError(f"{name} must have one element, got shape {parameter.shape}")
    return parameter.reshape(())


def _per_filter(parameter: Array | None, w: Array) -> Array | None:
    if parameter is None or parameter.size == 1:
        return None if parameter is None else parameter.reshape(())
    if parameter.shape != w.shape[:1]:
        raise ValueError(f"w_zero_point must have one element or {w.shape[0]}, got shape {parameter.shape}")
    return parameter.reshape(-1, *(1,) * (w.ndim - 1))


def _factor(a_scale: Array | None, b_scale: Array | None, y_scale: Array | None) -> Array:
    """a_scale * b_scale / y_scale in float32."""
    assert a_scale is not None and b_scale is not None and y_scale is not None
    with np.errstate(all="ignore"):
        return np.asarray(a_scale.astype(np.float32) * b_scale.astype(np.float32) / y_scale.astype(np.float32))


def _requantised(total: Array, multiplier: Array, zero_point: Array | None) -> Array:
    assert zero_point is not None
    with np.errstate(all="ignore"):
        levels = np.asarray(total.astype(np.float32) * multiplier)
    return saturated(levels, zero_point, zero_point.dtype)
