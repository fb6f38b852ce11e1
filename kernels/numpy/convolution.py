"""Conv in one, two, three or more dimensions. Halves are computed in float32 and rounded once.

Three methods: a 1x1 kernel is a matrix product without copies; a depthwise one adds up shifted planes, tap by tap;
all others copy their windows into columns (Chellapilla et al. 2006, section 3.1), a bounded number at a time, and
leave the sums to BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product as each
from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.contraction import product
from fusible.kernels.numpy.halves import delivered, widened, workspace
from fusible.kernels.numpy.windows import Windows, boxes, padded, run_of, views, windows

Array = np.ndarray[Any, Any]

COLUMN_BYTES = 16 << 20  # the size of a block of columns: large enough for BLAS, small enough for the caches above L2
_PLANE_BYTES = 192 << 10  # what a block of depthwise planes may take, so that its taps are read from L2


def conv(
    X: Array, W: Array, B: Array | None = None, /, *, strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), group: int = 1, auto_pad: str = "NOTSET", out: Array | None = None,
) -> Array:  # fmt: skip
    """Y[n, m, o] = sum over c, k of X[n, c, o * stride + k * dilation - pad] * W[m, c, k], + B[m].

    X [N, C, *spatial], W [M, C / group, *kernel], B [M]; Y [N, M, *output]. Channels and filters are cut into `group`
    equal parts that do not see each other. Empty strides, pads, dilations mean 1, 0, 1; `auto_pad` other than NOTSET
    replaces `pads`.
    """
    check_convolution(X, W, B, group, W.shape[1] * group, W.shape[0])
    spatial = windows(X.shape[2:], W.shape[2:], strides, pads, dilations, auto_pad)
    shape = (X.shape[0], W.shape[0], *(w.count for w in spatial))
    result = workspace(out, shape, X.dtype)
    if result.size:
        weight = widened(np.ascontiguousarray(W))
        with np.errstate(all="ignore"):
            _convolve(X, weight, spatial, group, result)
            if B is not None:
                result += widened(B).reshape(-1, *(1,) * len(spatial))
    return delivered(result, X.dtype, out)


def check_convolution(X: Array, W: Array, B: Array | None, group: int, channels: int, filters: int) -> None:
    """Raise ValueError unless image, kernel, bias and groups fit each other."""
    if X.ndim < 3 or W.ndim != X.ndim:
        raise ValueError(f"a convolution takes X [N, C, *spatial] and a kernel of its rank, got {X.shape}, {W.shape}")
    if group < 1 or X.shape[1] != channels or channels % group or filters % group:
        raise ValueError(f"X {X.shape} and W {W.shape} do not fit a convolution in {group} groups")
    if B is not None and B.shape != (filters,):
        raise ValueError(f"the bias must have shape ({filters},), got {B.shape}")


def _convolve(X: Array, W: Array, spatial: Sequence[Windows], group: int, Y: Array) -> None:
    """Fill Y [N, M, *output]."""
    if W[:1].size == 0:
        Y[...] = 0
    elif all(w.kernel == 1 and w.before == 0 and w.reach <= w.size for w in spatial):
        _pointwise(X, W, spatial, group, Y)
    elif W.shape[1] == 1 and group > 1:
        for n in range(X.shape[0]):
            _depthwise(widened(X[n]), W, spatial, Y[n])
    else:
        for n in range(X.shape[0]):
            _by_columns(padded(widened(X[n]), spatial), W, spatial, group, Y[n])


def _pointwise(X: Array, W: Array, spatial: Sequence[Windows], group: int, Y: Array) -> None:
    """A kernel of one tap: Y[n, g] = W[g] @ X[n, g]."""
    steps = tuple(slice(0, w.reach, w.stride) for w in spatial)
    filters, positions = W.shape[0] // group, prod(Y.shape[2:])
    kernel = W.reshape(group, filters, -1)
    for n in range(X.shape[0]):
        image = widened(X[n][(slice(None), *steps)]).reshape(group, -1, positions)
        _product_into(kernel, image, Y[n].reshape(group, filters, positions))


def _by_columns(image: Array, W: Array, spatial: Sequence[Windows], group: int, Y: Array) -> None:
    """Y = W @ columns for one padded image [C, *padded]; the columns of a box of outputs at a time."""
    filters, depth = W.shape[0] // group, prod(W.shape[1:])
    kernel = W.reshape(group, filters, depth)
    extents = [w.count for w in spatial]
    target = Y.reshape(group, filters, prod(extents))
    room = COLUMN_BYTES // (image.itemsize * depth * group)
    buffer = np.empty(group * depth * min(max(room, 1), prod(extents)), image.dtype)
    for box in boxes(extents, room):
        window = views(image, spatial, box)
        columns = buffer[: window.size].reshape(window.shape)
        np.copyto(columns, window)
        run = run_of(box, extents)
        _product_into(kernel, columns.reshape(group, depth, run.stop - run.start), target[:, :, run])


def _product_into(a: Array, b: Array, out: Array) -> None:
    """out [G, M, P] = a [G, M, K] @ b [G, K, P]; a single group as plain matrices."""
    if a.shape[0] == 1:
        product(a[0], b[0], out[0])
    else:
        product(a, b, out)


def _depthwise(image: Array, W: Array, spatial: Sequence[Windows], Y: Array) -> None:
    """Each channel with kernels of its own: the sum over taps of weight times shifted plane.

    The planes are laid out so that every tap of every stride reads a contiguous run: the padded plane is split into
    its phases modulo the stride, and rows follow each other without gaps, so that a tap is a shift within the flat
    plane. The junk between the rows of the sum is dropped at the end.
    """
    channels, multiplier = image.shape[0], W.shape[0] // image.shape[0]
    weight = W.reshape(channels, multiplier, -1)
    target = Y.reshape(channels, multiplier, *Y.shape[1:])
    plane = _Phases(spatial)
    block = max(1, _PLANE_BYTES // (image.itemsize * max(1, plane.size)))
    for begin in range(0, channels, block):
        part = slice(begin, begin + block)
        phases = plane.split(image[part])
        for m in range(multiplier):
            target[part, m] = plane.rows(_sum_of_taps(phases, weight[part, m], plane))


def _sum_of_taps(phases: Array, weight: Array, plane: _Phases) -> Array:
    """The weighted sum of all taps of planes [C, phases, flat]; weight [C, taps]."""
    total: Array | None = None
    scratch: Array | None = None
    for tap, (phase, shift) in enumerate(plane.taps()):
        source = phases[:, phase, shift : shift + plane.run]
        factor = weight[:, tap, None]
        if total is None or scratch is None:
            total, scratch = source * factor, np.empty((phases.shape[0], plane.run), phases.dtype)
        else:
            np.multiply(source, factor, out=scratch)
            total += scratch
    assert total is not None
    return total


class _Phases:
    """The layout of one padded plane for depthwise taps; see `_depthwise`."""

    def __init__(self, spatial: Sequence[Windows]) -> None:
        self.spatial = tuple(spatial)
        self.counts = tuple(w.count for w in spatial)
        # Positions of one phase along each axis, as many as the last tap of the last output needs.
        self.extents = tuple(w.count + (w.span - 1) // w.stride for w in spatial)
        self.steps = tuple(prod(self.extents[a + 1 :]) for a in range(len(spatial)))
        self.number = prod(w.stride for w in spatial)
        self.size = self.number * prod(self.extents)
        # From the first output to the last, in flat positions.
        self.run = 1 + sum((c - 1) * s for c, s in zip(self.counts, self.steps, strict=True))

    def split(self, image: Array) -> Array:
        """The planes [C, *spatial] padded, as [C, phases, flat]."""
        result = np.zeros((image.shape[0], self.number, *self.extents), image.dtype)
        for number, phase in enumerate(each(*(range(w.stride) for w in self.spatial))):
            source: list[Any] = [slice(None)]
            target: list[Any] = [slice(None), number]
            for p, w, extent in zip(phase, self.spatial, self.extents, strict=True):
                # Phase position q is padded position q * stride + p, image position less `before`.
                first = max(0, -((p - w.before) // w.stride))
                last = min(extent - 1, (w.size - 1 + w.before - p) // w.stride)
                begin = first * w.stride + p - w.before
                source.append(slice(begin, max(begin, last * w.stride + p - w.before + 1), w.stride))
                target.append(slice(first, max(first, last + 1)))
            result[tuple(target)] = image[tuple(source)]
        return result.reshape(image.shape[0], self.number, -1)

    def taps(self) -> Iterator[tuple[int, int]]:
        """(phase number, shift) of every tap, in row-major order."""
        for taps in each(*(range(w.kernel) for w in self.spatial)):
            phase = shift = 0
            for tap, w, step in zip(taps, self.spatial, self.steps, strict=True):
                quotient, remainder = divmod(tap * w.dilation, w.stride)
                phase = phase * w.stride + remainder
                shift += quotient * step
            yield phase, shift

    def rows(self, flat: Array) -> Array:
        """A view [C, *output] of sums [C, run] without the junk between the rows."""
        strides = tuple(s * flat.itemsize for s in self.steps)
        return np.lib.stride_tricks.as_strided(
            flat, (flat.shape[0], *self.counts), (flat.strides[0], *strides), writeable=False
        )
