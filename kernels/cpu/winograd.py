"""Weights of 3x3 convolutions transformed for Winograd's F(2x2, 3x3) and F(4x4, 3x3), the format of `winograd.h`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fusible.kernels.cpu.packing import PANEL_COLUMNS, Floats, pack_panels, packed_size

__all__ = ["pack_winograd", "transform_weights"]

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


def transform_weights(weights: npt.ArrayLike, m: int) -> npt.NDArray[np.float64]:
    """[(m + 2)^2, C, O] float64, G g G' of each ONNX filter g of `weights` [O, C, 3, 3]; m is 2 or 4.

    Raises ValueError for another m or another kernel.
    """
    filters = np.asarray(weights, np.float64)
    if m not in _G:
        raise ValueError(f"Winograd tiles are 2x2 or 4x4, got {m}")
    if filters.ndim != 4 or filters.shape[2:] != (3, 3):
        raise ValueError(f"Winograd weights are [O, C, 3, 3], got shape {filters.shape}")
    transformed: npt.NDArray[np.float64] = np.einsum("iy,ocyx,jx->ijco", _G[m], filters, _G[m], optimize=True)
    return transformed.reshape(-1, filters.shape[1], filters.shape[0])


def pack_winograd(weights: npt.ArrayLike, m: int) -> Floats:
    """For each panel of 32 outputs [(m + 2)^2, C, width] float32, 1-D, of ONNX weights [O, C, 3, 3].

    The transform is computed in float64 and rounded once, panel by panel: all of them in float64 would be eight times
    the weights. The width is that of `panels.h`. Raises what `transform_weights` does.
    """
    filters = np.asarray(weights)
    outputs, channels = filters.shape[:2] if filters.ndim == 4 else (0, 0)
    packed = np.empty((m + 2) ** 2 * packed_size(channels, outputs), np.float32)
    end = 0
    for start in range(0, max(outputs, 1), PANEL_COLUMNS):
        transformed = transform_weights(filters[start : start + PANEL_COLUMNS], m)
        panel = pack_panels(transformed.astype(np.float32)).reshape(-1)
        begin, end = end, end + panel.size
        packed[begin:end] = panel
    return packed
