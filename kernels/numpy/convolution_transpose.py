"""ConvTranspose and Col2Im: what a window sees is added back to where it came from, tap by tap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as each
from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.contraction import product
from fusible.kernels.numpy.convolution import COLUMN_BYTES, check_convolution
from fusible.kernels.numpy.halves import delivered, widened, working_type, workspace
from fusible.kernels.numpy.windows import AUTO_PADS, Windows, per_axis, split_pads, window_span, windows

Array = np.ndarray[Any, Any]


def conv_transpose(
    X: Array, W: Array, B: Array | None = None, /, *, strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), group: int = 1, output_padding: Sequence[int] = (),
    output_shape: Sequence[int] = (), auto_pad: str = "NOTSET", out: Array | None = None,
) -> Array:  # fmt: skip
    """Y[n, m, i * stride + k * dilation - pad] += X[n, c, i] * W[c, m, k] over all c, i, k; + B[m].

    X [N, C, *spatial], W [C, M / group, *kernel], B [M]; Y [N, M, *output]. The output has
    (size - 1) * stride + span + output_padding - pads elements along an axis, or `output_shape`, which replaces pads;
    `auto_pad` SAME_UPPER or SAME_LOWER makes it size * stride.
    """
    check_convolution(X, W, B, group, W.shape[0], W.shape[1] * group)
    spatial = transposed_windows(
        X.shape[2:], W.shape[2:], strides, pads, dilations, output_padding, output_shape, auto_pad
    )
    filters = W.shape[1] * group
    result = workspace(out, (X.shape[0], filters, *(w.size for w in spatial)), X.dtype)
    kernel = widened(np.ascontiguousarray(W)).reshape(group, W.shape[0] // group, W.shape[1], -1)
    with np.errstate(all="ignore"):
        for n in range(X.shape[0]):
            image = widened(X[n]).reshape(group, kernel.shape[1], -1)
            _transposed(image, kernel, spatial, result[n].reshape(group, W.shape[1], *result.shape[2:]))
        if B is not None:
            result += widened(B).reshape(-1, *(1,) * len(spatial))
    return delivered(result, X.dtype, out)


def transposed_windows(
    spatial: Sequence[int], kernel: Sequence[int], strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), output_padding: Sequence[int] = (), output_shape: Sequence[int] = (),
    auto_pad: str = "NOTSET",
) -> list[Windows]:  # fmt: skip
    """The windows of the convolution that ConvTranspose turns round: `size` is its output's, `count` its input's."""
    rank = len(spatial)
    strides, dilations = per_axis("strides", strides, rank), per_axis("dilations", dilations, rank)
    extra = tuple(output_padding) or (0,) * rank
    if len(extra) != rank or len(output_shape) not in (0, rank):
        raise ValueError(f"output_padding {extra} and output_shape {tuple(output_shape)} must have {rank} values")
    if auto_pad not in AUTO_PADS:
        raise ValueError(f"auto_pad must be one of {', '.join(AUTO_PADS)}, got {auto_pad!r}")
    before, after = split_pads(pads if auto_pad == "NOTSET" else (), rank)
    found = []
    for a in range(rank):
        full = (spatial[a] - 1) * strides[a] + window_span(kernel[a], dilations[a]) + extra[a]
        if output_shape:
            size = output_shape[a]
        elif auto_pad.startswith("SAME"):
            size = spatial[a] * strides[a]
        else:
            size = full - before[a] - after[a]
        begin = before[a]
        if output_shape or auto_pad.startswith("SAME"):
            total = max(full - size, 0)
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        if size < 0:
            raise ValueError(f"pads {tuple(pads)} cut off more than the whole output of spatial axis {a}")
        found.append(Windows(size, kernel[a], strides[a], dilations[a], begin, full - size - begin, spatial[a]))
    return found


def _transposed(image: Array, kernel: Array, spatial: Sequence[Windows], Y: Array) -> None:
    """Fill Y [G, M, *output] from image [G, C, positions] and kernel [G, C, M, taps]."""
    Y[...] = 0
    group, channels, filters, taps = kernel.shape
    positions = image.shape[-1]
    if Y.size == 0 or positions == 0 or channels == 0:
        return
    counts = [w.count for w in spatial]
    block = max(1, COLUMN_BYTES // (Y.itemsize * group * filters * positions))
    matrix = kernel.transpose(0, 3, 2, 1)  # [G, taps, M, C]
    for begin in range(0, taps, block):
        part = matrix[:, begin : begin + block]
        columns = product(part.reshape(group, -1, channels), image)
        add_taps(columns.reshape(group, part.shape[1], filters, *counts).swapaxes(1, 2), spatial, Y, begin)


def add_taps(columns: Array, spatial: Sequence[Windows], Y: Array, first: int = 0) -> None:
    """Add columns [..., taps, *counts] to Y [..., *size], the windows' positions; the taps start at number `first`."""
    taps = list(each(*(range(w.kernel) for w in spatial)))[first : first + columns.shape[-len(spatial) - 1]]
    lead = (slice(None),) * (Y.ndim - len(spatial))
    for number, tap in enumerate(taps):
        outputs, positions = zip(*(w.tap(t) for w, t in zip(spatial, tap, strict=True)), strict=True)
        Y[(*lead, *positions)] += columns[(*lead, slice(number, number + 1), *outputs)].squeeze(len(lead))


def col2im(
    X: Array, /, *, image_shape: Sequence[int], block_shape: Sequence[int], strides: Sequence[int] = (),
    pads: Sequence[int] = (), dilations: Sequence[int] = (),
) -> Array:  # fmt: skip
    """Add blocks back into images: X [N, C * prod(block_shape), L] gives Y [N, C, *image_shape].

    L counts the places of a window of `block_shape` in the padded image, in row-major order.
    """
    spatial = windows(image_shape, block_shape, strides, pads, dilations)
    counts, taps = [w.count for w in spatial], prod(block_shape)
    if X.ndim != 3 or X.shape[1] % taps or X.shape[2] != prod(counts):
        raise ValueError(
            f"Col2Im of blocks {tuple(block_shape)} at {prod(counts)} places takes [N, C * {taps}, {prod(counts)}], "
            f"got {X.shape}"
        )
    Y = np.zeros((X.shape[0], X.shape[1] // taps, *image_shape), working_type(X.dtype))
    with np.errstate(all="ignore"):
        add_taps(widened(X).reshape(X.shape[0], -1, taps, *counts), spatial, Y)
    return delivered(Y, X.dtype)


def col2im_dynamic(
    X: Array, image_shape: Array, block_shape: Array, /, *, strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
) -> Array:  # fmt: skip
    """`col2im` with shapes known at run time."""
    return col2im(
        X, image_shape=[int(d) for d in image_shape], block_shape=[int(d) for d in block_shape],
        strides=strides, pads=pads, dilations=dilations,
    )  # fmt: skip
