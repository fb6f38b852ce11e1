"""NumPy expressions for products, convolutions, pools, normalisations, attention, quantisation and signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fusible.benchmarks.kernels.counterparts.forms import Form, Use, applied, need

__all__ = ["FORMS"]

Array = np.ndarray[Any, Any]


def _gemm(use: Use) -> Callable[[], Any]:
    a, b, c, attrs = use.x, use.operands[1], use.operand(2), use.attrs
    left, right = a.T if attrs.transA else a, b.T if attrs.transB else b

    def call() -> Any:
        product = left @ right
        if attrs.alpha != 1:
            product *= attrs.alpha
        return product if c is None else product + (c if attrs.beta == 1 else attrs.beta * c)

    return call


def _matmul_integer(use: Use) -> Callable[[], Any]:
    a, b, a_zero, b_zero = use.x, use.operands[1], use.operand(2), use.operand(3)

    def call() -> Any:
        left, right = a.astype(np.int32), b.astype(np.int32)
        if a_zero is not None:
            left -= a_zero if a_zero.ndim == 0 else a_zero[..., None]
        if b_zero is not None:
            right -= b_zero
        return left @ right

    return call


def _einsum(use: Use) -> Callable[[], Any]:
    return partial(np.einsum, use.attrs.equation, *use.present, optimize=True)


# Windows


def _windows(x: Array, kernel: tuple[int, ...], attrs: Any, fill: float, dilations: tuple[int, ...] = ()) -> Array:
    """[N, C, *positions, *kernel] as a view of the padded operand."""
    rank = len(kernel)
    strides, pads, steps = attrs.strides or (1,) * rank, attrs.pads or (0,) * (2 * rank), dilations or (1,) * rank
    if any(pads):
        border = [(0, 0), (0, 0), *((pads[a], pads[a + rank]) for a in range(rank))]
        x = np.pad(x, border, constant_values=fill)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, steps, strict=True)]
    found = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    places = tuple(slice(None, None, s) for s in strides)
    taps = tuple(slice(None, None, d) for d in steps)
    picked: Array = found[(slice(None), slice(None), *places, *taps)]
    return picked


def _conv(use: Use) -> Callable[[], Any]:
    x, w, b, attrs = use.x, use.operands[1], use.operand(2), use.attrs
    rank = w.ndim - 2
    need(attrs.auto_pad in ("NOTSET", "VALID"), "automatic padding")
    depthwise = attrs.group == x.shape[1] == w.shape[0] and w.shape[1] == 1
    need(attrs.group == 1 or depthwise, "grouped convolutions but depthwise ones")
    letters, taps = "hwd"[:rank], "ijk"[:rank]

    def call() -> Any:
        windows = _windows(x, w.shape[2:], attrs, 0, attrs.dilations)
        if depthwise:
            y = np.einsum(f"nc{letters}{taps},c{taps}->nc{letters}", windows, w[:, 0], optimize=True)
        else:
            summed = [1, *range(2 + rank, 2 + 2 * rank)]
            y = np.moveaxis(np.tensordot(windows, w, (summed, list(range(1, w.ndim)))), -1, 1)
        return y if b is None else y + b.reshape(-1, *(1,) * rank)

    return call


def _pool(reduced: Callable[[Array, tuple[int, ...]], Array], fill: float) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        x, attrs = use.x, use.attrs
        rank = len(attrs.kernel_shape)
        need(attrs.auto_pad in ("NOTSET", "VALID") and not attrs.ceil_mode, "automatic padding or a rounded-up size")
        padded = any(attrs.pads)
        need(not padded or getattr(attrs, "count_include_pad", True), "means that leave padding out")
        need(x.dtype.kind == "f" or not padded, "padded integers")
        axes = tuple(range(2 + rank, 2 + 2 * rank))
        return lambda: reduced(_windows(x, attrs.kernel_shape, attrs, fill, attrs.dilations), axes)

    return form


def _global(reduced: Callable[[Array, tuple[int, ...]], Array]) -> Form:
    return lambda use: lambda: reduced(use.x, tuple(range(2, use.x.ndim)))


# Normalisations


def _channels(parameter: Array, rank: int) -> Array:
    return parameter.reshape(-1, *(1,) * (rank - 2))


def _batch_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias, mean, variance = use.operands

    def call() -> Any:
        factor = scale / np.sqrt(variance + x.dtype.type(use.attrs.epsilon))
        return x * _channels(factor, x.ndim) + _channels(bias - mean * factor, x.ndim)

    return call


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = x - x.mean(axis=axes, keepdims=True)
    result: Array = centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon)
    return result


def _layer_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias, attrs = use.x, use.operands[1], use.operand(2), use.attrs
    axes = tuple(range(attrs.axis % x.ndim, x.ndim))

    def call() -> Any:
        y = _standardised(x, axes, attrs.epsilon) * scale
        return y if bias is None else y + bias

    return call


def _instance_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias = use.operands
    axes = tuple(range(2, x.ndim))
    return lambda: _standardised(x, axes, use.attrs.epsilon) * _channels(scale, x.ndim) + _channels(bias, x.ndim)


def _group_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias = use.operands
    grouped = x.reshape(x.shape[0], use.attrs.num_groups, -1)

    def call() -> Any:
        y = _standardised(grouped, (2,), use.attrs.epsilon).reshape(x.shape)
        return y * _channels(scale, x.ndim) + _channels(bias, x.ndim)

    return call


def _rms_normalization(use: Use) -> Callable[[], Any]:
    x, scale, attrs = use.x, use.operands[1], use.attrs
    axes = tuple(range(attrs.axis % x.ndim, x.ndim))
    return lambda: x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + attrs.epsilon) * scale


def _lp_normalization(use: Use) -> Callable[[], Any]:
    x, attrs = use.x, use.attrs
    return lambda: x / np.linalg.norm(x, ord=attrs.p, axis=attrs.axis, keepdims=True)


def _softmax(use: Use) -> Callable[[], Any]:
    x, axis = use.x, use.attrs.axis

    def call() -> Any:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)

    return call


def _log_softmax(use: Use) -> Callable[[], Any]:
    x, axis = use.x, use.attrs.axis

    def call() -> Any:
        shifted = x - x.max(axis=axis, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))

    return call


def _attention(use: Use) -> Callable[[], Any]:
    q, k, v, attrs = *use.operands[:3], use.attrs
    plain = len(use.present) == 3 and q.ndim == 4 and q.shape[1] == k.shape[1] and not attrs.softcap
    need(plain and attrs.left_window_size < 0 and attrs.right_window_size < 0, "this form of attention")
    scale = attrs.scale if attrs.scale is not None else q.shape[-1] ** -0.5
    ahead = np.triu(np.full((q.shape[2], k.shape[2]), -np.inf, q.dtype), 1) if attrs.is_causal else None

    def call() -> Any:
        scores = (q * q.dtype.type(scale)) @ k.swapaxes(2, 3)
        if ahead is not None:
            scores += ahead
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return (e / e.sum(axis=-1, keepdims=True)) @ v

    return call


def _rotary(use: Use) -> Callable[[], Any]:
    x, cosines, sines, places = use.x, use.operands[1], use.operands[2], use.operand(3)
    attrs = use.attrs
    need(x.ndim == 4 and not attrs.interleaved and attrs.rotary_embedding_dim == 0, "this form of rotation")

    def call() -> Any:
        cos, sin = (cosines, sines) if places is None else (cosines[places], sines[places])
        cos, sin = cos[:, None], sin[:, None]
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    return call


# Quantisation, signals, linear algebra


def _quantize(use: Use) -> Callable[[], Any]:
    x, scale, zero, attrs = use.x, use.operands[1], use.operand(2), use.attrs
    dtype = attrs.output_dtype.numpy
    need(dtype.kind in "iu" and scale.ndim == 0 and x.dtype == np.float32, "scales that are no number, other types")
    info = np.iinfo(dtype)
    return lambda: np.clip(np.rint(x / scale) + (0 if zero is None else zero), info.min, info.max).astype(dtype)


def _dequantize(use: Use) -> Callable[[], Any]:
    x, scale, zero = use.x, use.operands[1], use.operand(2)
    need(scale.ndim == 0 and scale.dtype == np.float32 and x.dtype.kind in "iu", "scales that are no number")
    return lambda: (x.astype(np.float32) - (0 if zero is None else zero.astype(np.float32))) * scale


def _dynamic_quantize(use: Use) -> Callable[[], Any]:
    x = use.x

    def call() -> Any:
        low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
        scale = (high - low) / np.float32(255)
        zero = np.rint(np.clip(-low / scale, 0, 255)).astype(np.uint8)
        return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8), scale, zero

    return call


def _dft(use: Use) -> Callable[[], Any]:
    x, attrs = use.x, use.attrs
    need(not attrs.inverse and x.shape[-1] == 1 and attrs.onesided, "transforms but one-sided ones of real signals")
    axis, signal = attrs.axis % x.ndim, x[..., 0]

    def call() -> Any:
        spectrum = np.fft.rfft(signal, attrs.dft_length, axis)
        return np.stack([spectrum.real, spectrum.imag], -1).astype(x.dtype)

    return call


def _stft(use: Use) -> Callable[[], Any]:
    x, window, attrs = use.x, use.operand(1), use.attrs
    need(attrs.onesided and window is not None, "transforms without a window")

    def call() -> Any:
        frames = sliding_window_view(x[..., 0], len(window), 1)[:, :: attrs.frame_step]
        spectrum = np.fft.rfft(frames * window)
        return np.stack([spectrum.real, spectrum.imag], -1).astype(x.dtype)

    return call


def _cosine_window(*factors: float) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        attrs = use.attrs
        need(attrs.dtype.is_float, "windows of integers")
        size = attrs.size if hasattr(attrs, "size") else int(use.x)
        period = size if attrs.periodic else size - 1

        def call() -> Any:
            angle = 2 * np.pi * np.arange(size) / period
            return sum(f * np.cos(n * angle) for n, f in enumerate(factors)).astype(attrs.dtype.numpy)

        return call

    return form


_HANN, _HAMMING = _cosine_window(0.5, -0.5), _cosine_window(25 / 46, -21 / 46)
_BLACKMAN = _cosine_window(0.42, -0.5, 0.08)

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "matmul": applied(np.matmul),
        "gemm": _gemm,
        "matmul_integer": _matmul_integer,
        "einsum": _einsum,
        "conv": _conv,
        "max_pool": _pool(lambda windows, axes: windows.max(axis=axes), -np.inf),
        "average_pool": _pool(lambda windows, axes: windows.mean(axis=axes), 0),
        "global_average_pool": _global(lambda x, axes: x.mean(axis=axes, keepdims=True)),
        "global_max_pool": _global(lambda x, axes: x.max(axis=axes, keepdims=True)),
        "batch_normalization": _batch_normalization,
        "layer_normalization": _layer_normalization,
        "instance_normalization": _instance_normalization,
        "group_normalization": _group_normalization,
        "rms_normalization": _rms_normalization,
        "lp_normalization": _lp_normalization,
        "softmax": _softmax,
        "log_softmax": _log_softmax,
        "attention": _attention,
        "rotary_embedding": _rotary,
        "quantize_linear": _quantize,
        "dequantize_linear": _dequantize,
        "dynamic_quantize_linear": _dynamic_quantize,
        "det": applied(np.linalg.det),
        "dft": _dft,
        "stft": _stft,
        "hann_window": _HANN,
        "hann_window_dynamic": _HANN,
        "hamming_window": _HAMMING,
        "hamming_window_dynamic": _HAMMING,
        "blackman_window": _BLACKMAN,
        "blackman_window_dynamic": _BLACKMAN,
    }
)
