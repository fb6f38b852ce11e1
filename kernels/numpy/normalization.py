"""Normalisation of float tensors: batch, instance, group, layer, RMS, Lp, local response.

Variances are of the population and computed in a second pass over the centred values. float16 and bfloat16 are
computed in float32 and rounded once. `out` is an array of the shape and type of the first result that receives it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened, workspace
from fusible.kernels.numpy.movement import normalise_axis

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]

_FLOAT32 = np.dtype(np.float32)

_quiet = np.errstate(all="ignore")


def _per_channel(parameter: Array, x: Array) -> Array:
    """A (C,) parameter shaped to broadcast along axis 1 of x; x of rank 1 has one channel."""
    channels = x.shape[1] if x.ndim > 1 else 1
    if parameter.shape != (channels,):
        raise ValueError(f"expected one parameter for each of {channels} channels, got shape {parameter.shape}")
    return widened(parameter).reshape((channels,) + (1,) * (x.ndim - 2) if x.ndim > 1 else ())


@_quiet
def batch_normalization(
    x: Array, scale: Array, bias: Array, mean: Array, variance: Array, /, *, epsilon: float = 1e-5,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, channel by channel.

    x: (N, C, ...) or (N,); the parameters: (C,), of any float types; y has the type of x. Computed as x * a + b with
    a and b folded beforehand. Raises ValueError for parameters of another length.
    """
    wide = widened(x)
    spread = _per_channel(variance, x)
    factor = _per_channel(scale, x) / np.sqrt(spread + np.asarray(epsilon, spread.dtype))
    offset = _per_channel(bias, x) - _per_channel(mean, x) * factor
    buffer = workspace(out, x.shape, x.dtype)
    np.multiply(wide, factor.astype(wide.dtype, copy=False), out=buffer)
    buffer += offset.astype(wide.dtype, copy=False)
    return delivered(buffer, x.dtype, out)


@_quiet
def batch_normalization_training(
    x: Array, scale: Array, bias: Array, mean: Array, variance: Array, /, *, epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Batch normalisation by the statistics of x itself, and the running statistics after it.

    Returns y, mean * momentum + m * (1 - momentum), variance * momentum + v * (1 - momentum), where m and v are taken
    over all axes but the channel's. Shapes as in batch_normalization; the running statistics keep the types given.
    """
    axes = tuple(a for a in range(x.ndim) if a != 1)
    wide = widened(x)
    count = np.asarray(x.size // max(x.shape[1], 1) if x.ndim > 1 else x.size, wide.dtype)
    centre = np.sum(wide, axis=axes) / count
    deviation = wide - _per_channel(np.atleast_1d(centre), x)
    spread = np.sum(deviation * deviation, axis=axes) / count
    y = batch_normalization(x, scale, bias, np.atleast_1d(centre), np.atleast_1d(spread), epsilon=epsilon)
    return y, _running(mean, centre, momentum), _running(variance, spread, momentum)


def _running(old: Array, new: Array, momentum: float) -> Array:
    before = widened(old)
    keep = np.asarray(momentum, before.dtype)
    return delivered(before * keep + new * (np.asarray(1, keep.dtype) - keep), old.dtype)


def _standardise(rows: Array, epsilon: float, buffer: Array) -> tuple[Array, Array]:
    """(x - mean) / sqrt(variance + epsilon) of each row, into the buffer; rows, buffer: (R, L).

    Returns mean and 1 / sqrt(variance + epsilon), (R, 1) each.
    """
    count = np.asarray(rows.shape[1], rows.dtype)
    mean = np.sum(rows, axis=1, keepdims=True) / count
    np.subtract(rows, mean, out=buffer)
    variance = np.einsum("rl,rl->r", buffer, buffer)[:, None] / count
    inverse = 1 / np.sqrt(variance + np.asarray(epsilon, rows.dtype))
    buffer *= inverse
    return mean, inverse


def instance_normalization(
    x: Array, scale: Array, bias: Array, /, *, epsilon: float = 1e-5, out: Array | None = None
) -> Array:
    """y = scale * (x - mean) / sqrt(variance + epsilon) + bias, statistics for each instance and channel.

    x: (N, C, ...); scale, bias: (C,). Ulyanov et al., "Instance Normalization" (2016).
    """
    channels = x.shape[1] if x.ndim > 1 else 0
    return group_normalization(x, scale, bias, num_groups=channels, epsilon=epsilon, out=out)


@_quiet
def group_normalization(
    x: Array, scale: Array, bias: Array, /, *, num_groups: int, epsilon: float = 1e-5, out: Array | None = None
) -> Array:
    """y = scale * (x - mean) / sqrt(variance + epsilon) + bias, statistics for each instance and group of channels.

    x: (N, C, ...); scale, bias: (C,). Wu and He, "Group Normalization" (2018). Raises ValueError unless num_groups
    divides C.
    """
    if x.ndim < 2 or (num_groups == 0 and x.shape[1]) or (num_groups and x.shape[1] % num_groups):
        raise ValueError(f"the number of groups must divide axis 1 of x, got {num_groups} for shape {x.shape}")
    wide = np.ascontiguousarray(widened(x))
    buffer = workspace(out, x.shape, x.dtype)
    if x.size:
        rows = x.shape[0] * num_groups
        _standardise(wide.reshape(rows, -1), epsilon, buffer.reshape(rows, -1))
    buffer *= _per_channel(scale, x)
    buffer += _per_channel(bias, x)
    return delivered(buffer, x.dtype, out)


@_quiet
def layer_normalization(
    x: Array, scale: Array, bias: Array | None = None, /, *, axis: int = -1, epsilon: float = 1e-5,
    stash_dtype: DType = _FLOAT32, out: Array | None = None,
) -> Array:  # fmt: skip
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, statistics over the axes from `axis` to the last.

    scale, bias broadcast to x. Computed in the wider of the types of x and stash_dtype, at least float32, and rounded
    once. Ba et al., "Layer Normalization" (2016).
    """
    return layer_normalization_statistics(x, scale, bias, axis=axis, epsilon=epsilon, stash_dtype=stash_dtype, out=out)[
        0
    ]


@_quiet
def layer_normalization_statistics(
    x: Array, scale: Array, bias: Array | None = None, /, *, axis: int = -1, epsilon: float = 1e-5,
    stash_dtype: DType = _FLOAT32, out: Array | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """layer_normalization, and the mean and 1 / sqrt(variance + epsilon) it used, as stash_dtype.

    The statistics have the shape of x with the extents of the normalised axes 1.
    """
    axis = normalise_axis(axis, x.ndim)
    wide = np.ascontiguousarray(x, _working(x.dtype, stash_dtype))
    buffer = out if out is not None and out.dtype == wide.dtype else np.empty(x.shape, wide.dtype)
    outer = x.shape[:axis]
    rows = int(np.prod(outer, dtype=np.int64))
    length = int(np.prod(x.shape[axis:], dtype=np.int64))
    mean, inverse = _standardise(wide.reshape(rows, length), epsilon, buffer.reshape(rows, length))
    buffer *= scale.astype(wide.dtype, copy=False)
    if bias is not None:
        buffer += bias.astype(wide.dtype, copy=False)
    shape = outer + (1,) * (x.ndim - axis)
    statistics = [delivered(s.reshape(shape), stash_dtype) for s in (mean, inverse)]
    return delivered(buffer, x.dtype, out), statistics[0], statistics[1]


def _working(*dtypes: DType) -> DType:
    return np.dtype(np.float64 if np.dtype(np.float64) in dtypes else np.float32)


@_quiet
def rms_normalization(
    x: Array, scale: Array, /, *, axis: int = -1, epsilon: float = 1e-5, stash_dtype: DType = _FLOAT32,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """y = x / sqrt(mean of x^2 + epsilon) * scale, the mean over the axes from `axis` to the last.

    scale broadcasts to x and gives y its type. Precision as in layer_normalization. Zhang and Sennrich, "Root Mean
    Square Layer Normalization" (2019).
    """
    axis = normalise_axis(axis, x.ndim)
    wide = np.ascontiguousarray(x, _working(x.dtype, scale.dtype, stash_dtype))
    buffer = out if out is not None and out.dtype == wide.dtype else np.empty(x.shape, wide.dtype)
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    length = int(np.prod(x.shape[axis:], dtype=np.int64))
    flat = wide.reshape(rows, length)
    mean_square = np.einsum("rl,rl->r", flat, flat)[:, None] / np.asarray(length, wide.dtype)
    inverse = 1 / np.sqrt(mean_square + np.asarray(epsilon, wide.dtype))
    np.multiply(flat, inverse, out=buffer.reshape(rows, length))
    buffer *= scale.astype(wide.dtype, copy=False)
    return delivered(buffer, scale.dtype, out)


@_quiet
def lp_normalization(x: Array, /, *, axis: int = -1, p: int = 2, out: Array | None = None) -> Array:
    """y = x / (sum of |x|^p along the axis)^(1/p), 0 where the norm is 0; p is 1 or 2 (else ValueError)."""
    axis = normalise_axis(axis, x.ndim)
    wide = widened(x)
    if p == 1:
        norm = np.sum(np.abs(wide), axis=axis, keepdims=True)
    elif p == 2:
        norm = np.sqrt(np.sum(wide * wide, axis=axis, keepdims=True))
    else:
        raise ValueError(f"lp_normalization: p must be 1 or 2, got {p}")
    buffer = workspace(out, x.shape, x.dtype)
    np.divide(wide, np.where(norm == 0, np.ones((), wide.dtype), norm), out=buffer)
    return delivered(buffer, x.dtype, out)


@_quiet
def lrn(
    x: Array, /, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, out: Array | None = None
) -> Array:
    """y = x / (bias + alpha / size * s)^beta, where s sums x^2 over `size` channels around each one.

    x: (N, C, ...). The window reaches from floor((size - 1) / 2) channels before to ceil((size - 1) / 2) after.
    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks" (2012).
    """
    if size < 1 or x.ndim < 2:
        raise ValueError(f"lrn: needs a size of at least 1 and a channel axis, got size {size} for shape {x.shape}")
    wide = widened(x)
    square, total = wide * wide, np.zeros(x.shape, wide.dtype)
    channels, before = x.shape[1], (size - 1) // 2
    for offset in range(max(-before, 1 - channels), min(size - before, channels)):
        low, high = max(0, -offset), min(channels, channels - offset)
        if low < high:
            total[:, low:high] += square[:, low + offset : high + offset]
    total *= np.asarray(alpha / size, wide.dtype)
    total += np.asarray(bias, wide.dtype)
    return delivered(wide / np.power(total, np.asarray(beta, wide.dtype)), x.dtype, out)
