"""Sliding windows over symbolic dimensions: pads, output extents and index maps of convolutions and pools.

The arithmetic is that of `fusible.kernels.numpy.windows`, on `Dim`s. `pads` are beginnings, then ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.ir.ops import Infer
from fusible.compiler.ir.symbols import Dim, ceildiv, floordiv, maximum, minimum, modulo
from fusible.compiler.region.index import Bound, axis
from fusible.kernels.numpy.windows import AUTO_PADS, per_axis, window_span

__all__ = [
    "WindowAxis",
    "automatic_pads",
    "check_windows",
    "inverse_window_index",
    "padded_axes",
    "window_axes",
    "window_extents",
    "window_index",
]

# Sizes of windows come from the model; beyond this a shape computed from them is no longer an ordinary integer.
LARGEST = 2**31


@dataclass(frozen=True, slots=True)
class WindowAxis:
    """The windows of one spatial axis: output o, tap t reads position o * stride + t * dilation - before."""

    size: Dim
    kernel: Dim
    stride: int
    dilation: int
    before: Dim
    after: Dim

    @property
    def span(self) -> Dim:
        """The length of a window, holes included."""
        return (self.kernel - 1) * self.dilation + 1

    def count(self, ceil_mode: bool = False) -> Dim:
        """How many windows there are; in `ceil_mode` the last may reach beyond the end but not start there."""
        room = self.size + self.before + self.after - self.span
        if not ceil_mode:
            return floordiv(room, self.stride) + 1
        count = ceildiv(room, self.stride) + 1
        slack = self.after + self.stride - self.span
        if isinstance(slack, int) and slack <= 0:
            return count
        return minimum(count, ceildiv(self.size + self.before, self.stride))


def window_axes(
    spatial: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], pads: Sequence[Dim], dilations: Sequence[int]
) -> list[WindowAxis]:
    """One `WindowAxis` for each spatial axis; empty strides, pads and dilations mean 1, 0 and 1."""
    rank = len(spatial)
    strides, dilations = per_axis("strides", strides, rank), per_axis("dilations", dilations, rank)
    border = tuple(pads) or (0,) * (2 * rank)
    return [
        WindowAxis(spatial[a], kernel[a], strides[a], dilations[a], border[a], border[a + rank]) for a in range(rank)
    ]


def window_extents(
    spatial: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], pads: Sequence[Dim],
    dilations: Sequence[int], auto_pad: str = "NOTSET", ceil_mode: bool = False,
) -> tuple[Dim, ...]:  # fmt: skip
    """The number of windows along each spatial axis; an `auto_pad` other than NOTSET replaces the pads."""
    if auto_pad.startswith("SAME"):
        # What the pads amount to, said directly.
        return tuple(ceildiv(w.size, w.stride) for w in window_axes(spatial, kernel, strides, (), dilations))
    border = () if auto_pad == "VALID" else pads
    return tuple(w.count(ceil_mode) for w in window_axes(spatial, kernel, strides, border, dilations))


def padded_axes(
    spatial: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], pads: Sequence[Dim],
    dilations: Sequence[int], auto_pad: str = "NOTSET",
) -> list[WindowAxis]:  # fmt: skip
    """`window_axes`, with the pads that `auto_pad` stands for if it is not NOTSET."""
    border = pads if auto_pad == "NOTSET" else automatic_pads(auto_pad, spatial, kernel, strides, dilations)
    return window_axes(spatial, kernel, strides, border, dilations)


def automatic_pads(
    auto_pad: str, spatial: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[Dim, ...]:
    """The pads that `auto_pad` stands for. SAME keeps ceil(size / stride) windows, the odd element where it says."""
    if auto_pad == "VALID":
        return (0,) * (2 * len(spatial))
    totals: list[Dim] = []
    for w in window_axes(spatial, kernel, strides, (), dilations):
        count = ceildiv(w.size, w.stride)
        totals.append(maximum(0, (count - 1) * w.stride + w.span - w.size))
    small = [floordiv(total, 2) for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    return (*small, *large) if auto_pad == "SAME_UPPER" else (*large, *small)


def check_windows(
    ctx: Infer, rank: int, kernel: Sequence[Dim], strides: Sequence[int], pads: Sequence[Dim],
    dilations: Sequence[int], auto_pad: str = "NOTSET",
) -> None:  # fmt: skip
    """Fail unless the attributes of windows have one value (pads two) for each of `rank` axes, all of them sensible."""
    if rank < 1:
        ctx.fail("needs at least one spatial axis")
    if auto_pad not in AUTO_PADS:
        ctx.fail(f"auto_pad must be one of {', '.join(AUTO_PADS)}, got {auto_pad!r}")
    for name, values, length in (
        ("kernel_shape", kernel, rank),
        ("strides", strides, rank),
        ("pads", pads, 2 * rank),
        ("dilations", dilations, rank),
    ):
        if len(values) not in ((length,) if name == "kernel_shape" else (0, length)):
            ctx.fail(f"{name} must have {length} values, got {list(values)}")
        least = 0 if name in ("pads", "kernel_shape") else 1
        if any(isinstance(v, int) and not least <= v < LARGEST for v in values):
            ctx.fail(f"{name} must lie in [{least}, {LARGEST}), got {list(values)}")
    for size, dilation in zip(kernel, dilations, strict=False):
        if isinstance(size, int) and window_span(size, dilation) >= LARGEST:
            ctx.fail(f"a window of {size} taps, {dilation} apart, is too long")


def window_index(w: WindowAxis, output: int, tap: int) -> tuple[Dim, Bound]:
    """The position that iteration axes `output` and `tap` read, and the condition that it lies inside."""
    position = axis(output) * w.stride + axis(tap) * w.dilation - w.before
    return position, Bound(position, 0, w.size)


def inverse_window_index(w: WindowAxis, output: int, tap: int, count: Dim) -> tuple[Dim, tuple[Bound, ...]]:
    """Which window has its tap at position `output` of the axis, and the conditions that there is one."""
    start = axis(output) + w.before - axis(tap) * w.dilation
    window = floordiv(start, w.stride)
    inside = Bound(window, 0, count)
    return window, (inside,) if w.stride == 1 else (inside, Bound(modulo(start, w.stride), 0, 1))
