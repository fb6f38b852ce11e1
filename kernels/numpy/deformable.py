"""DeformConv: convolution whose taps each look elsewhere (Dai et al. 2017; modulated: Zhu et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.contraction import product
from fusible.kernels.numpy.convolution import COLUMN_BYTES, check_convolution
from fusible.kernels.numpy.halves import delivered, widened, workspace
from fusible.kernels.numpy.sampling import outside_is_zero, sample
from fusible.kernels.numpy.windows import Windows, boxes, run_of, windows

Array = np.ndarray[Any, Any]


def deform_conv(
    X: Array, W: Array, offset: Array, B: Array | None = None, mask: Array | None = None, /, *,
    strides: Sequence[int] = (), pads: Sequence[int] = (), dilations: Sequence[int] = (), group: int = 1,
    offset_group: int = 1, out: Array | None = None,
) -> Array:  # fmt: skip
    """Conv whose tap k at output o reads X, interpolated linearly, at o * stride + k * dilation - pad + offset.

    X [N, C, *spatial], W [M, C / group, *kernel], offset [N, offset_group * taps * r, *output] (the r coordinates of a
    tap together, outermost first), mask [N, offset_group * taps, *output] multiplies what a tap reads. Channels share
    offsets in `offset_group` equal parts. Outside the image is 0.
    """
    check_convolution(X, W, B, group, W.shape[1] * group, W.shape[0])
    spatial = windows(X.shape[2:], W.shape[2:], strides, pads, dilations)
    rank, taps, counts = len(spatial), prod(W.shape[2:]), tuple(w.count for w in spatial)
    batch, channels = X.shape[:2]
    if offset_group < 1 or channels % offset_group:
        raise ValueError(f"{channels} channels cannot be cut into {offset_group} offset groups")
    _check_field("offset", offset, (batch, offset_group * taps * rank, *counts))
    if mask is not None:
        _check_field("mask", mask, (batch, offset_group * taps, *counts))
    result = workspace(out, (batch, W.shape[0], *counts), X.dtype)
    weight = widened(np.ascontiguousarray(W)).reshape(group, W.shape[0] // group, -1)
    with np.errstate(all="ignore"):
        for n in range(batch):
            shifts = widened(offset[n]).reshape(offset_group, taps, rank, *counts)
            scale = None if mask is None else widened(mask[n]).reshape(offset_group, taps, *counts)
            _one_image(widened(X[n]), weight, shifts, scale, spatial, result[n].reshape(group, weight.shape[1], -1))
        if B is not None:
            result += widened(B).reshape(-1, *(1,) * rank)
    return delivered(result, X.dtype, out)


def _check_field(name: str, field: Array, shape: tuple[int, ...]) -> None:
    if field.shape != shape:
        raise ValueError(f"DeformConv needs {name} of shape {shape}, got {field.shape}")


def _one_image(
    image: Array, weight: Array, shifts: Array, scale: Array | None, spatial: Sequence[Windows], Y: Array
) -> None:
    """Fill Y [G, M, positions]; the sampled columns are made for a box of outputs at a time."""
    channels, (groups, taps) = image.shape[0], shifts.shape[:2]
    extents = [w.count for w in spatial]
    # Sampling holds a few temporaries of the size of the columns.
    limit = COLUMN_BYTES // (4 * image.itemsize * max(1, channels * taps))
    for box in boxes(extents, max(1, limit)):
        run = run_of(box, extents)
        columns = np.empty((channels, taps, run.stop - run.start), image.dtype)
        base = _positions(spatial, box, image.dtype)
        for g, planes in enumerate(np.split(image, groups)):
            part = shifts[g][(slice(None), slice(None), *box)]
            points = [(base[a] + part[:, a]).reshape(-1) for a in range(len(spatial))]
            found = sample(planes, points, "linear", outside_is_zero).reshape(planes.shape[0], *columns.shape[1:])
            if scale is not None:
                found *= scale[g][(slice(None), *box)].reshape(columns.shape[1:])
            columns[g * planes.shape[0] : (g + 1) * planes.shape[0]] = found
        Y[:, :, run] = product(weight, columns.reshape(weight.shape[0], -1, columns.shape[2]))


def _positions(spatial: Sequence[Windows], box: Sequence[slice], dtype: np.dtype[Any]) -> list[Array]:
    """For each axis, where every tap of the outputs of a box stands without offsets: [taps, *box]."""
    rank = len(spatial)
    taps = np.meshgrid(*(np.arange(w.kernel) * w.dilation for w in spatial), indexing="ij")
    found = []
    for a, (w, part) in enumerate(zip(spatial, box, strict=True)):
        outputs = np.arange(part.start, part.stop) * w.stride - w.before
        shape = [1] * rank
        shape[a] = len(outputs)
        found.append((taps[a].reshape(-1, *(1,) * rank) + outputs.reshape(1, *shape)).astype(dtype))
    return found
