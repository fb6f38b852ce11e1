"""Weights of convolutions in the layouts that the C kernels read; all packing happens at compile time."""

from __future__ import annotations

import numpy as np

from fusible.kernels.aligned import aligned_array, aligned_joined
from fusible.kernels.cpu.packing import Bfloats, Floats, pack_panels, pack_panels_bf16, pack_panels_bytes

__all__ = [
    "merge_groups",
    "pack_convolution",
    "pack_convolution_bf16",
    "pack_convolution_bytes",
    "pack_depthwise",
    "pack_planar_bf16",
    "pack_transposed",
]


def pack_convolution(weights: Floats, groups: int = 1) -> Floats:
    """Panels for `convolution.h` of ONNX Conv weights [O, C / groups, KH, KW], group after group; float32, 1-D.

    K runs over (ky, kx, c). Raises ValueError where `groups` does not divide O.
    """
    _check_groups(weights.shape[0], groups)
    parts = np.split(weights.transpose(2, 3, 1, 0), groups, axis=3)
    return aligned_joined([pack_panels(part.reshape(-1, part.shape[3])) for part in parts])


def pack_convolution_bf16(weights: Floats, groups: int = 1) -> Bfloats:
    """Panels for `convolution_bf16.h` of ONNX Conv weights [O, C / groups, KH, KW], group after group; bfloat16, 1-D.

    K runs over (ky, kx, c), with one more channel of zeros if they are odd. Raises ValueError where `groups` does not
    divide O.
    """
    _check_groups(weights.shape[0], groups)
    even = np.pad(weights, ((0, 0), (0, weights.shape[1] % 2), (0, 0), (0, 0)))
    parts = np.split(even.transpose(2, 3, 1, 0), groups, axis=3)
    return aligned_joined([pack_panels_bf16(part.reshape(-1, part.shape[3])) for part in parts])


def pack_convolution_bytes(weights: np.ndarray, groups: int = 1) -> Floats:
    """Panels for `convolution_bytes.h` of ONNX Conv weights [O, C / groups, KH, KW], int8; words typed as float32, 1-D.

    K runs over (ky, kx, c), with channels of zeros up to a multiple of 4. Raises ValueError where `groups` does not
    divide O, TypeError for another dtype.
    """
    _check_groups(weights.shape[0], groups)
    whole = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 4), (0, 0), (0, 0)))
    parts = np.split(whole.transpose(2, 3, 1, 0), groups, axis=3)
    return aligned_joined([pack_panels_bytes(part.reshape(-1, part.shape[3])) for part in parts])


def pack_planar_bf16(weights: Floats) -> Bfloats:
    """Panels for `planar.h` in bf16 of ONNX Conv weights [O, C, KH, KW]; bfloat16, 1-D.

    K runs over (c, pair of kernel rows, kx, row of the pair), with one more row of zeros if they are odd.
    """
    outputs, channels, height, width = weights.shape
    even = np.pad(weights, ((0, 0), (0, 0), (0, height % 2), (0, 0)))
    pairs = even.reshape(outputs, channels, -1, 2, width).transpose(1, 2, 4, 3, 0)
    return pack_panels_bf16(pairs.reshape(-1, outputs)).reshape(-1)


def pack_depthwise(weights: Floats) -> Floats:
    """[KH, KW, C] of depthwise weights [C, 1, KH, KW], float32. Raises ValueError where the second axis is not 1."""
    if weights.shape[1] != 1:
        raise ValueError(f"depthwise weights have one channel a group, got {weights.shape[1]}")
    return aligned_array(weights[:, 0].transpose(1, 2, 0).astype(np.float32, copy=False))


def pack_transposed(
    weights: Floats, strides: tuple[int, int], dilations: tuple[int, int] = (1, 1), groups: int = 1
) -> Floats:
    """Panels for `transposed.h` of ONNX ConvTranspose weights [C, O / groups, KH, KW]; float32, 1-D.

    The output pixels fall into sy * sx phases, each of which sees only the taps with ky * dy = phase_y (mod sy) and
    kx * dx = phase_x (mod sx): for each phase (y outermost) and each group, panels with K over those taps and the
    group's channels (ky, kx, c), ky and kx descending. Raises ValueError where `groups` does not divide C.
    """
    _check_groups(weights.shape[0], groups)
    pieces = []
    for phase_y in range(strides[0]):
        rows = _phase_taps(weights.shape[2], strides[0], dilations[0], phase_y)
        for phase_x in range(strides[1]):
            columns = _phase_taps(weights.shape[3], strides[1], dilations[1], phase_x)
            taps = weights[:, :, rows][..., columns].transpose(2, 3, 0, 1)
            pieces += [pack_panels(part.reshape(-1, part.shape[3])) for part in np.split(taps, groups, axis=2)]
    return aligned_joined(pieces)


def _phase_taps(kernel: int, stride: int, dilation: int, phase: int) -> list[int]:
    return [k for k in reversed(range(kernel)) if k * dilation % stride == phase]


def merge_groups(weights: Floats, groups: int, factor: int) -> Floats:
    """Weights [O, factor * C / groups, KH, KW] of the same convolution in groups / factor groups, zeros added.

    `factor` adjacent groups become one whose weights are block diagonal: more arithmetic, but groups of a few channels
    leave vectors and tiles empty. Raises ValueError where `factor` does not divide `groups`.
    """
    _check_groups(weights.shape[0], groups)
    if groups % factor:
        raise ValueError(f"{factor} does not divide {groups} groups")
    outputs, channels, *kernel = weights.shape
    merged = np.zeros((groups, outputs // groups, factor, channels, *kernel), weights.dtype)
    for group in range(groups):
        merged[group, :, group % factor] = weights.reshape(groups, outputs // groups, channels, *kernel)[group]
    return merged.reshape(outputs, factor * channels, *kernel)


def _check_groups(channels: int, groups: int) -> None:
    if channels % groups:
        raise ValueError(f"{groups} groups do not divide {channels} channels")
