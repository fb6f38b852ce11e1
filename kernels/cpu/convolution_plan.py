"""How layers are cut into work items: pure functions of shapes, of the lanes of a vector and of the number of threads.

An item must be large enough to reuse what it loads, small enough that its data stays in L2, and there must be several
for each thread, so that no thread waits long for the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusible.kernels.cpu.packing import PANEL_COLUMNS

__all__ = [
    "ConvolutionPlan",
    "DepthwisePlan",
    "plan_convolution",
    "plan_depthwise",
    "plan_bands",
    "plan_winograd",
    "plan_winograd_line",
]

_ITEMS_PER_THREAD = 4
_PIXELS = 96  # of a band: enough to read a panel from L3 without waiting ...
_PIXELS_SHORT = 384  # ... and more where K is so short that setting up an item counts
_SHORT_DEPTH = 64
_L2 = 256 * 1024  # bytes that an item may count on
_L1 = 24 * 1024


@dataclass(frozen=True)
class ConvolutionPlan:
    """Output pixels (or Winograd tiles) and panels of an item: `band` and `panels_per_item` of the C structs."""

    band: int
    panels: int


@dataclass(frozen=True)
class DepthwisePlan:
    """Parts of the output rows, and channels of an item: `bands` and `channels_per_item` of `struct depthwise`."""

    bands: int
    channels: int


def plan_convolution(
    pixels: int, depth: int, outputs: int, *, images: int = 1, threads: int = 1, lanes: int = 8
) -> ConvolutionPlan:
    """Items of `convolution.h` for `pixels` output pixels of an image and `outputs` channels of a group.

    `depth` is K, the taps times the channels of a group.
    `images` is the number of images times groups (times phases, of a transposed convolution). Small images have a
    single band: its panels are shared out among the threads.
    """
    bands = max(1, round(pixels / (_PIXELS_SHORT if depth <= _SHORT_DEPTH else _PIXELS)))
    return _plan(pixels, _tile_rows(lanes), bands, outputs, images, threads)


def plan_winograd(
    m: int, tiles: int, channels: int, outputs: int, *, images: int = 1, threads: int = 1, lanes: int = 8
) -> ConvolutionPlan:
    """Items of `winograd.h` for `tiles` tiles of an image: their transforms together fill L2, but are 12 to 48."""
    most = min(max(_L2 // ((m + 2) ** 2 * 4 * max(channels, 1)), 12), 48)
    return _plan(tiles, _tile_rows(lanes), -(-tiles // most), outputs, images, threads)


def plan_winograd_line(
    taps: int, tiles: int, channels: int, outputs: int, *, images: int = 1, threads: int = 1, lanes: int = 8
) -> ConvolutionPlan:
    """Items of `winograd_line.h` for `tiles` tiles of an image, as `plan_winograd`'s."""
    most = min(max(_L2 // ((taps + 3) * 4 * max(channels, 1)), 12), 48)
    return _plan(tiles, _tile_rows(lanes), -(-tiles // most), outputs, images, threads)


def plan_depthwise(
    out_height: int, width: int, channels: int, kernel_height: int, *, images: int = 1, threads: int = 1
) -> DepthwisePlan:
    """Items of `depthwise.h` for images `width` wide: 64 channels where all of them would leave L1 but these do not."""
    row = kernel_height * width * 4
    part = 64 if row * channels > _L1 and row * 64 <= _L1 else channels
    return DepthwisePlan(plan_bands(out_height, images=images * -(-channels // part), threads=threads), part)


def plan_bands(out_height: int, *, most: int = 14, images: int = 1, threads: int = 1) -> int:
    """Parts of the output rows of a layer that is cut by rows: of at most `most` rows, as many for each thread."""
    wanted = _ITEMS_PER_THREAD * threads if threads > 1 else 1
    bands = max(-(-out_height // most), min(-(-wanted // images), out_height))
    return next((n for n in range(bands, min(bands + threads, out_height + 1)) if images * n % threads == 0), bands)


def _tile_rows(lanes: int) -> int:
    return 14 if lanes == 16 else 6


def _plan(pixels: int, tile: int, bands: int, outputs: int, images: int, threads: int) -> ConvolutionPlan:
    """About `bands` bands of whole tiles; panels and then bands are divided until there are items for all threads."""
    panels = -(-outputs // PANEL_COLUMNS)
    wanted = _ITEMS_PER_THREAD * threads if threads > 1 else 1
    parts = min(panels, -(-wanted // (images * bands)))
    if images * bands * parts < wanted:
        bands = max(bands, min(-(-wanted // (images * parts)), pixels // (2 * tile)))
    whole_tiles = -(-pixels // (bands * tile)) * tile
    return ConvolutionPlan(min(whole_tiles, pixels), -(-panels // parts))
