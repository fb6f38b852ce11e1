"""Weights transformed for Winograd's algorithms: 3x3 for those of `winograd.h`, 3 and 5 taps for `winograd_line.h`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusible.kernels.aligned import aligned_joined, aligned_zeros
from fusible.kernels.cpu.packing import PANEL_COLUMNS, Floats, pack_panels, packed_size

__all__ = ["pack_winograd", "pack_winograd_line", "transform_weights"]

# G of Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", by the size of an output tile.
_G = {
    2: np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    4: np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
}

# The rows of G for the points of F(4, 5), c * (1, p, p^2, ...): p and c; infinity is the last. F(4, 3) has _G[4].
_POINTS = ((0, 1), (1, -2 / 9), (-1, -2 / 9), (2, 1 / 90), (-2, 1 / 90), (1 / 2, 32 / 45), (-1 / 2, 32 / 45))


def transform_weights(weights: npt.ArrayLike, m: int) -> npt.NDArray[np.float64]:
    """[(m + 2)^2, C, O] float64, G g G' of each ONNX filter g of `weights` [O, C, 3, 3]; m is 2 or 4.

    Raises ValueError for another m or another kernel.
    """
    filters = np.asarray(weights, np.float64)
    if m not in _G:
        raise ValueError(f"Winograd tiles are 2x2 or 4x4, got {m}")
    if filters.ndim != 4 or filters.shape[2:] != (3, 3):
        raise ValueError(f"Winograd weights are [O, C, 3, 3], got shape {filters.shape}")
    outputs, channels = filters.shape[:2]
    by_tap = filters.transpose(2, 3, 1, 0).reshape(9, channels * outputs)
    transformed: npt.NDArray[np.float64] = np.kron(_G[m], _G[m]) @ by_tap
    return transformed.reshape(-1, channels, outputs)


def pack_winograd(weights: npt.ArrayLike, m: int) -> Floats:
    """For each panel of 32 outputs [(m + 2)^2, C, width] float32, 1-D, of ONNX weights [O, C, 3, 3].

    The transform is computed in float64 and rounded once, panel by panel: all of them in float64 would be eight times
    the weights. The width is that of `panels.h`. Raises what `transform_weights` does.
    """
    filters = np.asarray(weights)
    outputs, channels = filters.shape[:2] if filters.ndim == 4 else (0, 0)
    packed: Floats = aligned_zeros(((m + 2) ** 2 * packed_size(channels, outputs),), np.float32)
    end = 0
    for start in range(0, max(outputs, 1), PANEL_COLUMNS):
        transformed = transform_weights(filters[start : start + PANEL_COLUMNS], m)
        panel = pack_panels(transformed.astype(np.float32)).reshape(-1)
        begin, end = end, end + panel.size
        packed[begin:end] = panel
    return packed


def pack_winograd_line(weights: npt.ArrayLike) -> Floats:
    """For each panel of 32 outputs [taps + 3, C, width] float32, 1-D, of weights [O, C, taps] with 3 or 5 taps.

    Raises ValueError for another shape.
    """
    filters = np.asarray(weights, np.float64)
    if filters.ndim != 3 or filters.shape[2] not in (3, 5):
        raise ValueError(f"weights along a line are [O, C, 3] or [O, C, 5], got shape {filters.shape}")
    finite = [[c * p**k for k in range(5)] for p, c in _POINTS]
    g = _G[4] if filters.shape[2] == 3 else np.array([*finite, [0, 0, 0, 0, 1]])
    return _panels(np.einsum("pk,ock->pco", g, filters, optimize=True))


def _panels(transformed: npt.NDArray[np.float64]) -> Floats:
    """[points, C, O], rounded, panel after panel."""
    rounded = transformed.astype(np.float32)
    starts = range(0, rounded.shape[2], PANEL_COLUMNS)
    panels = [pack_panels(rounded[:, :, n : n + PANEL_COLUMNS]).ravel() for n in starts]
    return aligned_joined(panels or [np.zeros(0, np.float32)])
