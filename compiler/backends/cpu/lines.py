"""Convolutions along lines: kernels of one row or one column of taps, for winograd_line.h."""

from __future__ import annotations

from fusible.compiler.backends.cpu.windows import Geometry
from fusible.compiler.ir.assumed import assumed_size
from fusible.compiler.ir.symbols import Dim

__all__ = ["line_fields", "line_taps"]

_TAPS = (3, 5)
_LEAST_CHANNELS = 32  # below, the transforms cost more than the products that they save
_LEAST_LENGTH = 16
_LEAST_PIXELS = 100


def line_taps(g: Geometry) -> int:
    """The taps of a convolution that winograd_line.h computes best, else 0."""
    along, across = _sides(g)
    if g.kernel[across] != 1 or g.kernel[along] not in _TAPS or g.pads[across] or g.groups != 1:
        return 0
    if g.strides != (1, 1) or g.dilations != (1, 1) or min(g.channels, g.outputs) < _LEAST_CHANNELS:
        return 0
    out = (g.out_height, g.out_width)
    length, lines = out[along], out[across]
    if (g.height, g.width)[across] != lines:
        return 0
    likely = assumed_size(length)
    return g.kernel[along] if likely >= _LEAST_LENGTH and likely * assumed_size(lines) >= _LEAST_PIXELS else 0


def line_fields(g: Geometry) -> dict[str, Dim]:
    """The members of `struct winograd_line` that are sizes."""
    along, across = _sides(g)
    strides: tuple[Dim, Dim] = (g.width * g.pixel, g.pixel)
    rows: tuple[Dim, Dim] = (g.out_width, 1)
    return {
        "images": g.images,
        "lines": (g.out_height, g.out_width)[across],
        "length": (g.height, g.width)[along],
        "channels": g.channels,
        "outputs": g.outputs,
        "pad": g.pads[along],
        "out_length": (g.out_height, g.out_width)[along],
        "image_stride": g.height * g.width * g.pixel,
        "line_stride": strides[across],
        "step": strides[along],
        "row_line": rows[across],
        "row_step": rows[along],
    }


def _sides(g: Geometry) -> tuple[int, int]:
    """(the axis of the taps, the other): 0 is down, 1 is across."""
    return (0, 1) if g.kernel[1] == 1 else (1, 0)
