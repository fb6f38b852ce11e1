"""Convolutions and pooling in float64 NumPy, channels-last: the oracle of the C kernels."""

from __future__ import annotations

import numpy as np

__all__ = ["convolve", "taps", "transpose_convolve"]


def taps(
    x: np.ndarray, kernel: tuple[int, int], out: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    pad: tuple[int, int], fill: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """[KH, KW, N, OH, OW, C] float64: the input that each output pixel sees at each tap, `fill` in the padding."""
    n, height, width, channels = x.shape
    needed = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, dilation, strict=True)]
    padded = np.full((n, max(needed[0], height + pad[0]), max(needed[1], width + pad[1]), channels), fill)
    padded[:, pad[0] : pad[0] + height, pad[1] : pad[1] + width] = x
    result = np.empty((*kernel, n, *out, channels))
    for ky, kx in np.ndindex(*kernel):
        rows = slice(ky * dilation[0], ky * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
        columns = slice(kx * dilation[1], kx * dilation[1] + (out[1] - 1) * stride[1] + 1, stride[1])
        result[ky, kx] = padded[:, rows, columns]
    return result


def convolve(
    x: np.ndarray, weights: np.ndarray, out: tuple[int, int], stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1), pad: tuple[int, int] = (0, 0), groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """[N, OH, OW, O] float64 of x [N, H, W, C] and ONNX weights [O, C / groups, KH, KW]."""
    seen = taps(x, (weights.shape[2], weights.shape[3]), out, stride, dilation, pad)
    parts = zip(np.split(seen, groups, axis=-1), np.split(weights.astype(np.float64), groups), strict=True)
    return np.concatenate([np.einsum("yxnhwc,ocyx->nhwo", part, w, optimize=True) for part, w in parts], axis=-1)


def transpose_convolve(
    x: np.ndarray, weights: np.ndarray, out: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
    pad: tuple[int, int], groups: int = 1,
) -> np.ndarray:  # fmt: skip
    """[N, OH, OW, O] float64 of x [N, H, W, C] and ONNX ConvTranspose weights [C, O / groups, KH, KW], scattered."""
    n, height, width, channels = x.shape
    outputs, kernel = weights.shape[1], weights.shape[2:]
    y = np.zeros((n, *out, outputs * groups))
    for iy, ix, ky, kx in np.ndindex(height, width, *kernel):
        oy, ox = iy * stride[0] - pad[0] + ky * dilation[0], ix * stride[1] - pad[1] + kx * dilation[1]
        if 0 <= oy < out[0] and 0 <= ox < out[1]:
            for g in range(groups):
                part = slice(g * channels // groups, (g + 1) * channels // groups)
                seen = x[:, iy, ix, part].astype(np.float64)
                y[:, oy, ox, g * outputs : (g + 1) * outputs] += seen @ weights[part, :, ky, kx]
    return y
