"""torch functions for products, convolutions, pools, normalisations, attention, images and signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from fusible.benchmarks.kernels.counterparts.forms import Form, Use, applied, need
from fusible.benchmarks.kernels.counterparts.torch_elementwise import DTYPES

__all__ = ["FORMS"]

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _gemm(use: Use) -> Callable[[], Any]:
    a, b, c, attrs = use.x, use.operands[1], use.operand(2), use.attrs
    left, right = a.T if attrs.transA else a, b.T if attrs.transB else b
    if c is None:
        need(attrs.alpha == 1, "a factor without a bias")
        return partial(torch.mm, left, right)
    return partial(torch.addmm, c, left, right, beta=attrs.beta, alpha=attrs.alpha)


def _padding(use: Use, rank: int, fill: float = 0.0) -> tuple[Any, Sequence[int]]:
    """The operand, padded beforehand where the two ends of an axis differ, and the pads that are left to do."""
    attrs, x = use.attrs, use.x
    need(attrs.auto_pad in ("NOTSET", "VALID"), "automatic padding")
    pads = attrs.pads or (0,) * (2 * rank)
    if pads[:rank] == pads[rank:]:
        return x, pads[:rank]
    both = [p for a in reversed(range(rank)) for p in (pads[a], pads[a + rank])]
    return F.pad(x, both, value=fill), (0,) * rank


def _conv(use: Use) -> Callable[[], Any]:
    w, b, attrs = use.operands[1], use.operand(2), use.attrs
    rank = w.ndim - 2
    need(rank in _CONVOLUTIONS, f"{rank} spatial axes")
    x, pads = _padding(use, rank)
    need(x is use.x, "pads that differ from end to end")
    strides, dilations = attrs.strides or (1,) * rank, attrs.dilations or (1,) * rank
    return partial(_CONVOLUTIONS[rank], x, w, b, strides, pads, dilations, attrs.group)


def _conv_transpose(use: Use) -> Callable[[], Any]:
    w, b, attrs = use.operands[1], use.operand(2), use.attrs
    rank = w.ndim - 2
    x, pads = _padding(use, rank)
    need(x is use.x and not attrs.output_shape, "pads that differ from end to end, a stated size")
    strides, dilations = attrs.strides or (1,) * rank, attrs.dilations or (1,) * rank
    extra = attrs.output_padding or (0,) * rank
    return partial(_TRANSPOSED[rank], x, w, b, strides, pads, extra, attrs.group, dilations)


def _max_pool(use: Use) -> Callable[[], Any]:
    attrs = use.attrs
    rank = len(attrs.kernel_shape)
    x, pads = _padding(use, rank, -torch.inf)
    need(x is use.x, "pads that differ from end to end")
    strides, dilations = attrs.strides or (1,) * rank, attrs.dilations or (1,) * rank
    indices = use.case.op == "max_pool_with_indices"
    need(not indices or x.shape[0] * x.shape[1] == 1, "indices over the whole tensor: those of torch count in a plane")
    return partial(
        _MAX_POOLS[rank], x, attrs.kernel_shape, strides, pads, dilations, attrs.ceil_mode, return_indices=indices
    )


def _average_pool(use: Use) -> Callable[[], Any]:
    attrs = use.attrs
    rank = len(attrs.kernel_shape)
    x, pads = _padding(use, rank)
    need(x is use.x and not any(d != 1 for d in attrs.dilations), "pads that differ from end to end, dilations")
    strides = attrs.strides or (1,) * rank
    return partial(
        _AVERAGE_POOLS[rank], x, attrs.kernel_shape, strides, pads, attrs.ceil_mode, attrs.count_include_pad
    )


def _lp_pool(use: Use) -> Callable[[], Any]:
    attrs = use.attrs
    plain = len(attrs.kernel_shape) == 2 and not any(attrs.pads) and attrs.auto_pad == "NOTSET"
    need(plain and not any(d != 1 for d in attrs.dilations), "pads, dilations")
    return partial(F.lp_pool2d, use.x, float(attrs.p), attrs.kernel_shape, attrs.strides or 1, attrs.ceil_mode)


def _global(function: Callable[..., Any]) -> Form:
    return lambda use: lambda: function(use.x, tuple(range(2, use.x.ndim)), keepdim=True)


def _max_unpool(use: Use) -> Callable[[], Any]:
    need(use.x.shape[0] * use.x.shape[1] == 1, "indices over the whole tensor: those of torch count in a plane")
    attrs = use.attrs
    return partial(F.max_unpool2d, use.x, use.operands[1], attrs.kernel_shape, attrs.strides or None)


# Normalisations and attention


def _batch_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias, mean, variance = use.operands
    return partial(F.batch_norm, x, mean, variance, scale, bias, eps=use.attrs.epsilon)


def _batch_normalization_training(use: Use) -> Callable[[], Any]:
    """The running variance of torch divides by n - 1, that of ONNX by n, which three operations on vectors mend."""
    x, scale, bias, mean, variance = use.operands
    momentum = 1 - use.attrs.momentum

    def call() -> Any:
        new_mean, new_variance = mean.clone(), variance.clone()
        y = F.batch_norm(x, new_mean, new_variance, scale, bias, True, momentum, use.attrs.epsilon)
        n = x.numel() // x.shape[1]
        new_variance = (new_variance - variance * (1 - momentum)) * ((n - 1) / n) + variance * (1 - momentum)
        return y, new_mean, new_variance

    return call


def _instance_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias = use.operands
    return partial(F.instance_norm, x, weight=scale, bias=bias, eps=use.attrs.epsilon)


def _group_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias = use.operands
    return partial(F.group_norm, x, use.attrs.num_groups, scale, bias, use.attrs.epsilon)


def _layer_normalization(use: Use) -> Callable[[], Any]:
    x, scale, bias, attrs = use.x, use.operands[1], use.operand(2), use.attrs
    shape = x.shape[attrs.axis % x.ndim :]
    need(tuple(scale.shape) == tuple(shape) and (bias is None or bias.shape == scale.shape), "a scale that broadcasts")
    return partial(F.layer_norm, x, shape, scale, bias, attrs.epsilon)


def _layer_normalization_statistics(use: Use) -> Callable[[], Any]:
    x, scale, bias, attrs = use.x, use.operands[1], use.operand(2), use.attrs
    return partial(torch.native_layer_norm, x, x.shape[attrs.axis % x.ndim :], scale, bias, attrs.epsilon)


def _rms_normalization(use: Use) -> Callable[[], Any]:
    x, scale, attrs = use.x, use.operands[1], use.attrs
    shape = x.shape[attrs.axis % x.ndim :]
    need(tuple(scale.shape) == tuple(shape), "a scale that broadcasts")
    return partial(F.rms_norm, x, shape, scale, attrs.epsilon)


def _lrn(use: Use) -> Callable[[], Any]:
    a = use.attrs
    need(a.size % 2 == 1, "an even number of channels")
    return partial(F.local_response_norm, use.x, a.size, a.alpha, a.beta, a.bias)


def _along(function: Callable[..., Any]) -> Form:
    return lambda use: partial(function, use.x, use.attrs.axis)


def _attention(use: Use) -> Callable[[], Any]:
    q, k, v, mask, attrs = *use.operands[:3], use.operand(3), use.attrs
    plain = q.ndim == 4 and len(use.operands) <= 4 and not attrs.softcap
    need(plain and attrs.left_window_size < 0 and attrs.right_window_size < 0, "this form of attention")
    need(not (attrs.is_causal and mask is not None), "a mask beside the causal one")
    shared = q.shape[1] != k.shape[1]
    return partial(
        F.scaled_dot_product_attention,
        q, k, v, attn_mask=mask, is_causal=attrs.is_causal, scale=attrs.scale, enable_gqa=shared,
    )  # fmt: skip


# Images, signals, linear algebra


def _resize(use: Use) -> Callable[[], Any]:
    attrs, x = use.attrs, use.x
    need(hasattr(attrs, "sizes") and attrs.axes is None and not attrs.antialias and x.ndim == 4, "this form of resize")
    need(attrs.keep_aspect_ratio_policy == "stretch", "an aspect ratio that is kept")
    size = attrs.sizes[2:] if attrs.sizes is not None else None
    scales = attrs.scales[2:] if attrs.scales is not None else None
    mode = attrs.coordinate_transformation_mode
    if attrs.mode == "nearest":
        need(mode == "asymmetric" and attrs.nearest_mode == "floor", f"nearest pixels of {mode}, {attrs.nearest_mode}")
        return partial(F.interpolate, x, size, scales, "nearest")
    need(mode in ("half_pixel", "pytorch_half_pixel", "align_corners") and not attrs.exclude_outside, f"{mode}")
    need(attrs.mode == "linear" or attrs.cubic_coeff_a == -0.75, "another cubic")
    kind = "bilinear" if attrs.mode == "linear" else "bicubic"
    return partial(F.interpolate, x, size, scales, kind, mode == "align_corners")


def _grid_sample(use: Use) -> Callable[[], Any]:
    attrs, x, grid = use.attrs, *use.operands
    need(x.ndim == 4 or attrs.mode != "cubic", "cubic volumes")
    mode = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}[attrs.mode]
    return partial(F.grid_sample, x, grid, mode, attrs.padding_mode, attrs.align_corners)


def _affine_grid(use: Use) -> Callable[[], Any]:
    size = use.attrs.size if hasattr(use.attrs, "size") else use.operands[1].tolist()
    return partial(F.affine_grid, use.x, list(size), use.attrs.align_corners)


def _fold(use: Use) -> Callable[[], Any]:
    attrs = use.attrs
    image = attrs.image_shape if hasattr(attrs, "image_shape") else use.operands[1].tolist()
    block = attrs.block_shape if hasattr(attrs, "block_shape") else use.operands[2].tolist()
    rank = len(block)
    pads = attrs.pads or (0,) * (2 * rank)
    need(rank == 2 and pads[:rank] == pads[rank:], "pads that differ from end to end")
    return partial(F.fold, use.x, tuple(image), tuple(block), attrs.dilations or 1, pads[:rank], attrs.strides or 1)


def _dft(use: Use) -> Callable[[], Any]:
    x, attrs = use.x, use.attrs
    need(not attrs.inverse and x.shape[-1] == 1 and attrs.onesided and hasattr(attrs, "axis"), "other transforms")
    signal, axis = x[..., 0], attrs.axis % x.ndim
    return lambda: torch.view_as_real(torch.fft.rfft(signal, attrs.dft_length, axis))


def _stft(use: Use) -> Callable[[], Any]:
    x, window, attrs = use.x, use.operand(1), use.attrs
    need(attrs.onesided and window is not None and hasattr(attrs, "frame_step"), "transforms without a window")
    signal, length = x[..., 0], window.numel()

    def call() -> Any:
        spectrum = torch.stft(
            signal, length, attrs.frame_step, length, window, center=False, onesided=True, return_complex=True
        )
        return torch.view_as_real(spectrum).transpose(1, 2)

    return call


def _window(function: Callable[..., Any]) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        attrs = use.attrs
        need(attrs.dtype.is_float and attrs.dtype in DTYPES, "windows of integers")
        size = attrs.size if hasattr(attrs, "size") else int(use.x)
        return partial(function, size, periodic=attrs.periodic, dtype=DTYPES[attrs.dtype])

    return form


def _hamming(size: int, *, periodic: bool, dtype: Any) -> Any:
    """ONNX has 25/46, torch by default 0.54."""
    return torch.hamming_window(size, periodic, 25 / 46, 21 / 46, dtype=dtype)


def _quantize(use: Use) -> Callable[[], Any]:
    x, scale, zero, kind = use.x, use.operands[1], use.operand(2), use.attrs.output_dtype
    need(scale.ndim == 0 and kind in DTYPES and x.dtype is torch.float32, "scales that are no number, other types")
    info, level = torch.iinfo(DTYPES[kind]), 0 if zero is None else zero
    return lambda: torch.clamp(torch.round(x / scale) + level, info.min, info.max).to(DTYPES[kind])


def _dequantize(use: Use) -> Callable[[], Any]:
    x, scale, zero = use.x, use.operands[1], use.operand(2)
    need(scale.ndim == 0 and scale.dtype is torch.float32, "scales that are no number")
    return lambda: (x.to(torch.float32) - (0 if zero is None else zero.to(torch.float32))) * scale


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "matmul": applied(torch.matmul),
        "gemm": _gemm,
        "einsum": lambda use: partial(torch.einsum, use.attrs.equation, *use.present),
        "conv": _conv,
        "conv_transpose": _conv_transpose,
        "col2im": _fold,
        "col2im_dynamic": _fold,
        "max_pool": _max_pool,
        "max_pool_with_indices": _max_pool,
        "average_pool": _average_pool,
        "lp_pool": _lp_pool,
        "global_average_pool": _global(torch.mean),
        "global_max_pool": _global(torch.amax),
        "global_lp_pool": lambda use: lambda: torch.linalg.vector_norm(
            use.x, use.attrs.p, tuple(range(2, use.x.ndim)), keepdim=True
        ),
        "max_unpool": _max_unpool,
        "batch_normalization": _batch_normalization,
        "batch_normalization_training": _batch_normalization_training,
        "instance_normalization": _instance_normalization,
        "group_normalization": _group_normalization,
        "layer_normalization": _layer_normalization,
        "layer_normalization_statistics": _layer_normalization_statistics,
        "rms_normalization": _rms_normalization,
        "lp_normalization": lambda use: partial(F.normalize, use.x, float(use.attrs.p), use.attrs.axis),
        "lrn": _lrn,
        "softmax": _along(torch.softmax),
        "log_softmax": _along(torch.log_softmax),
        "attention": _attention,
        "resize": _resize,
        "grid_sample": _grid_sample,
        "affine_grid": _affine_grid,
        "affine_grid_dynamic": _affine_grid,
        "det": applied(torch.linalg.det),
        "dft": _dft,
        "stft": _stft,
        "hann_window": _window(torch.hann_window),
        "hann_window_dynamic": _window(torch.hann_window),
        "hamming_window": _window(_hamming),
        "hamming_window_dynamic": _window(_hamming),
        "blackman_window": _window(torch.blackman_window),
        "blackman_window_dynamic": _window(torch.blackman_window),
        "quantize_linear": _quantize,
        "dequantize_linear": _dequantize,
    }
)
