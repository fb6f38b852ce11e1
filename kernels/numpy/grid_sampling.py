"""GridSample and AffineGrid: spatial transformer networks (Jaderberg et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.contraction import product
from fusible.kernels.numpy.halves import delivered, widened
from fusible.kernels.numpy.sampling import outside_is_edge, outside_is_zero, reflected, sample

Array = np.ndarray[Any, Any]

MODES = ("linear", "nearest", "cubic")
PADDING_MODES = ("zeros", "border", "reflection")
_MARGIN = 8  # pixels beyond an image from which no tap reaches into it
_MOST_PIXELS = 2.0**63


def grid_sample(
    X: Array, grid: Array, /, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: bool = False
) -> Array:
    """X [N, C, *spatial] read at the positions of grid [N, *output, r]: Y [N, C, *output].

    A position lists its r coordinates innermost axis first, -1 and 1 being the image's edges, or with `align_corners`
    the centres of its outermost pixels. `nearest` takes any type and rounds half to even; integers are interpolated in
    float64 and truncated. A coordinate that is NaN counts as -1, as in ONNX Runtime; so does, with reflection, one that
    is infinite or 2^63 pixels away. Otherwise infinities lie beyond the image: 0 with zeros, the edge with border.
    """
    rank = X.ndim - 2
    if rank < 1 or grid.ndim != X.ndim or grid.shape[-1] != rank or grid.shape[0] != X.shape[0]:
        raise ValueError(f"GridSample takes X [N, C, *spatial], grid [N, *output, r], got {X.shape}, {grid.shape}")
    if mode not in MODES or padding_mode not in PADDING_MODES:
        raise ValueError(f"mode must be one of {MODES} and padding_mode of {PADDING_MODES}, got {mode}, {padding_mode}")
    output, spatial = grid.shape[1:-1], X.shape[2:]
    Y = np.zeros((X.shape[0], X.shape[1], *output), X.dtype)
    if Y.size == 0 or (prod(spatial) == 0 and padding_mode == "zeros"):
        return Y
    if prod(spatial) == 0:
        raise ValueError(f"padding_mode {padding_mode} needs an image with pixels, got {X.shape}")
    edges = [(0.0, size - 1.0) if align_corners else (-0.5, size - 0.5) for size in spatial]
    coordinates = widened(grid)
    with np.errstate(all="ignore"):
        for n in range(X.shape[0]):
            points = coordinates[n].reshape(-1, rank)
            positions = [
                _position(points[:, rank - 1 - a], spatial[a], edges[a], mode, padding_mode, align_corners)
                for a in range(rank)
            ]
            planes = X[n] if mode == "nearest" else _floating(X[n])
            found = _sample(planes, positions, mode, padding_mode, edges)
            Y[n] = found.reshape(Y.shape[1:]).astype(X.dtype)
    return Y


def _floating(planes: Array) -> Array:
    return widened(planes) if planes.dtype.kind not in "iub" else planes.astype(np.float64)


def _position(
    normalised: Array, size: int, edge: tuple[float, float], mode: str, padding_mode: str, align_corners: bool
) -> Array:
    """The pixel coordinates of normalised ones, pulled into the image as the padding mode says."""
    x = (normalised + 1) / 2 * (size - 1) if align_corners else ((normalised + 1) * size - 1) / 2
    known = np.abs(x) < _MOST_PIXELS if padding_mode == "reflection" else ~np.isnan(x)
    x = np.where(known, x, x.dtype.type(edge[0]))
    if mode == "nearest":
        x = np.rint(x)
    if padding_mode == "reflection":
        return reflected(x, *edge)
    # As in PyTorch and ONNX Runtime, the border acts on each of the four taps of a cubic, not on the position; which is
    # pulled to where all its taps are outside, for what is infinite has no fraction.
    is_pulled = padding_mode == "border" and mode != "cubic"
    return np.clip(x, 0, size - 1) if is_pulled else np.clip(x, -_MARGIN, size + _MARGIN)


def _sample(
    planes: Array, positions: Sequence[Array], mode: str, padding_mode: str, edges: Sequence[tuple[float, float]]
) -> Array:
    if padding_mode != "reflection":
        return sample(planes, positions, mode, outside_is_zero if padding_mode == "zeros" else outside_is_edge)
    # The edges of all axes depend on their sizes in the same way.
    margin = -edges[0][0]
    return sample(planes, positions, mode, partial(_mirrored, margin))


def _mirrored(margin: float, numbers: Array, size: int) -> tuple[Array, Array | None]:
    mirrored = reflected(numbers.astype(np.float64), -margin, size - 1 + margin)
    return np.clip(mirrored.astype(np.int64), 0, size - 1), None


def affine_grid(theta: Array, /, *, size: Sequence[int], align_corners: bool = False) -> Array:
    """The positions theta @ (x, y, ..., 1) of the pixels of an image: [N, *spatial, r], innermost coordinate first.

    theta [N, r, r + 1]; size is (N, C, *spatial) with r = 2 or 3 spatial axes, on which pixels lie evenly between -1
    and 1, which are the outermost centres with `align_corners`, else the edges.
    """
    spatial = tuple(size[2:])
    rank = len(spatial)
    if rank not in (2, 3) or theta.shape != (size[0], rank, rank + 1):
        raise ValueError(f"AffineGrid for size {tuple(size)} takes theta [N, r, r + 1], r = 2 or 3, got {theta.shape}")
    matrix = widened(theta)
    axes = [_centres(s, align_corners, matrix.dtype) for s in spatial]
    mesh = np.meshgrid(*axes, indexing="ij")
    points = np.stack([*reversed(mesh), np.ones_like(mesh[0])], axis=-1).reshape(-1, rank + 1)
    found = product(points, matrix.swapaxes(1, 2))
    return delivered(found.reshape(size[0], *spatial, rank), theta.dtype)


def affine_grid_dynamic(theta: Array, size: Array, /, *, align_corners: bool = False) -> Array:
    """`affine_grid` with a size known at run time."""
    return affine_grid(theta, size=[int(d) for d in size], align_corners=align_corners)


def _centres(size: int, align_corners: bool, dtype: np.dtype[Any]) -> Array:
    """The coordinates of the centres of `size` pixels; a single one lies in the middle, or at -1 with align_corners."""
    if align_corners:
        return np.linspace(-1, 1, size, dtype=dtype)
    return ((2 * np.arange(size) + 1) / max(size, 1) - 1).astype(dtype)
