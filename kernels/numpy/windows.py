"""The geometry of sliding windows that convolutions and pools share: pads, output sizes, boxes of bounded size.

`pads` are as in ONNX: the beginnings of all spatial axes, then the ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one spatial axis: output o, tap t reads position o * stride + t * dilation - before."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    count: int

    @property
    def span(self) -> int:
        """The length of a window, holes included."""
        return window_span(self.kernel, self.dilation)

    @property
    def reach(self) -> int:
        """The length of the padded axis that the windows together cover."""
        return (self.count - 1) * self.stride + self.span if self.count else 0

    @property
    def taps(self) -> range:
        """The taps that lie inside the axis for some output."""
        low = self.before - max(self.count - 1, 0) * self.stride
        first, last = -(-low // self.dilation), (self.size - 1 + self.before) // self.dilation
        return range(max(0, first), max(min(self.kernel - 1, last) + 1, 0))

    def tap(self, tap: int) -> tuple[slice, slice]:
        """(outputs, positions): those outputs whose tap lies inside the axis, and what they read there."""
        start = tap * self.dilation - self.before
        first = max(0, -(start // self.stride))
        last = min(self.count - 1, (self.size - 1 - start) // self.stride)
        if last < first:
            return slice(0, 0), slice(0, 0)
        begin = start + first * self.stride
        return slice(first, last + 1), slice(begin, start + last * self.stride + 1, self.stride)


def window_span(kernel: int, dilation: int) -> int:
    """The length of a window of `kernel` taps that stand `dilation` apart."""
    return (kernel - 1) * dilation + 1


def windows(
    spatial: Sequence[int], kernel: Sequence[int], strides: Sequence[int] = (), pads: Sequence[int] = (),
    dilations: Sequence[int] = (), auto_pad: str = "NOTSET", ceil_mode: bool = False,
) -> list[Windows]:  # fmt: skip
    """The windows of every spatial axis; empty strides, pads and dilations mean 1, 0 and 1.

    With `ceil_mode` the last window may reach beyond the end but must start before the padding at the end (ONNX 19 and
    later). Raises ValueError where the lists do not fit the rank or hold impossible values.
    """
    rank = len(spatial)
    if len(kernel) != rank:
        raise ValueError(f"a kernel of rank {len(kernel)} does not fit {rank} spatial axes")
    strides, dilations = per_axis("strides", strides, rank), per_axis("dilations", dilations, rank)
    before, after = split_pads(pads, rank)
    if min((*kernel, *strides, *dilations), default=1) < 1:
        raise ValueError(f"kernel {kernel}, strides {strides} and dilations {dilations} must be positive")
    found = []
    for axis in range(rank):
        shape = (spatial[axis], kernel[axis], strides[axis], dilations[axis])
        pair = (before[axis], after[axis])
        if auto_pad != "NOTSET":
            pair = automatic_pads(auto_pad, *shape)
        found.append(Windows(*shape, *pair, window_count(*shape, sum(pair), ceil_mode, pair[0])))
    return found


def per_axis(name: str, values: Sequence[int], rank: int) -> tuple[int, ...]:
    """One value an axis; none at all means 1 everywhere."""
    if len(values) not in (0, rank):
        raise ValueError(f"{name} must have one value for each of {rank} spatial axes, got {tuple(values)}")
    return tuple(values) or (1,) * rank


def split_pads(pads: Sequence[int], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(beginnings, ends) of an ONNX pads list; none at all means 0."""
    if len(pads) not in (0, 2 * rank):
        raise ValueError(f"pads must have two values for each of {rank} spatial axes, got {tuple(pads)}")
    values = tuple(pads) or (0,) * (2 * rank)
    return values[:rank], values[rank:]


def automatic_pads(auto_pad: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """The pads before and after an axis that `auto_pad` stands for: SAME keeps ceil(size / stride) windows."""
    if auto_pad == "VALID":
        return 0, 0
    if auto_pad not in AUTO_PADS:
        raise ValueError(f"auto_pad must be one of {', '.join(AUTO_PADS)}, got {auto_pad!r}")
    count = -(-size // stride)
    total = max((count - 1) * stride + window_span(kernel, dilation) - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def window_count(
    size: int, kernel: int, stride: int, dilation: int, padding: int, ceil_mode: bool = False, before: int = 0
) -> int:
    """How many windows fit into an axis with `padding` in all, `before` of it at the beginning.

    Raises ValueError for an axis that is shorter than one window by more than a stride.
    """
    room = size + padding - window_span(kernel, dilation)
    count = room // stride + 1
    if ceil_mode:
        count = -(-room // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
    if count < 0:
        raise ValueError(f"a window of {kernel} taps, {dilation} apart, is longer than the axis of {size + padding}")
    return count


def padded(x: Array, spatial: Sequence[Windows], fill: float = 0.0) -> Array:
    """x with the border that its windows read, over its last axes; what no window reaches is cut off."""
    lead = x.ndim - len(spatial)
    if all(w.before == 0 and w.reach <= w.size for w in spatial):
        return x
    result = np.full((*x.shape[:lead], *(max(w.reach, 0) for w in spatial)), fill, x.dtype)
    source, target = [slice(None)] * lead, [slice(None)] * lead
    for w in spatial:
        begin, end = max(0, -w.before), min(w.size, w.reach - w.before)
        source.append(slice(begin, max(begin, end)))
        target.append(slice(begin + w.before, max(begin, end) + w.before))
    result[tuple(target)] = x[tuple(source)]
    return result


def views(x: Array, spatial: Sequence[Windows], outputs: Sequence[slice]) -> Array:
    """A read-only view [..., *kernel, *outputs] of the windows at `outputs` (step 1) of a padded array."""
    lead = x.ndim - len(spatial)
    steps = x.strides[lead:]
    start = [slice(None)] * lead + [slice(o.start * w.stride, None) for o, w in zip(outputs, spatial, strict=True)]
    counts = [o.stop - o.start for o in outputs]
    return np.lib.stride_tricks.as_strided(
        x[tuple(start)],
        (*x.shape[:lead], *(w.kernel for w in spatial), *counts),
        (
            *x.strides[:lead],
            *(s * w.dilation for s, w in zip(steps, spatial, strict=True)),
            *(s * w.stride for s, w in zip(steps, spatial, strict=True)),
        ),
        writeable=False,
    )


def boxes(extents: Sequence[int], limit: int) -> Iterator[tuple[slice, ...]]:
    """Cut an index space into boxes of at most `limit` points (at least one), each contiguous in row-major order."""
    if not extents:
        yield ()
        return
    inner = prod(extents[1:])
    if inner == 0 or extents[0] == 0:
        return
    if inner > limit and len(extents) > 1:
        for i in range(extents[0]):
            for rest in boxes(extents[1:], limit):
                yield (slice(i, i + 1), *rest)
        return
    step = max(1, limit // inner)
    whole = tuple(slice(0, e) for e in extents[1:])
    for begin in range(0, extents[0], step):
        yield (slice(begin, min(begin + step, extents[0])), *whole)


def run_of(box: Sequence[slice], extents: Sequence[int]) -> slice:
    """The range of row-major positions that a box of `boxes` covers."""
    begin, size = 0, 1
    for part, extent in zip(box, extents, strict=True):
        begin = begin * extent + part.start
        size *= part.stop - part.start
    return slice(begin, begin + size)
