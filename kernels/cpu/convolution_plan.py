"""How layers are cut into work items: pure functions of shapes, of the lanes of a vector and of the number of threads.

An item must be large enough to reuse what it loads, small enough that its data stays in L2, and there must be several
for each thread, so that no thread waits long for the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fusible.kernels.cpu.packing import PANEL_COLUMNS

__all__ = [
    "ConvolutionPlan",
    "DepthwisePlan",
    "WinogradPlan",
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
_WIDE_L2, _TILES_L2 = 480 * 1024, 420 * 1024  # what Winograd's tiles may take, with AVX-512 and without
# For the time of Winograd's convolutions, measured on Zen 5 and about right elsewhere, per nanosecond: operations with
# vectors of 16 and 8 lanes; bytes of weights from memory or of many from L3, and from L2; of tiles and sums from L3; of
# tiles that are transformed; of few weights from L3, which all blocks but the first read.
_WIDE_FLOPS, _FLOPS, _STREAMED, _FROM_L2, _FROM_L3, _TRANSFORMED, _KEPT = 270, 100, 45, 200, 150, 35, 90
_FEW_WEIGHTS = 4 * 1024 * 1024  # bytes, which stay in L3
_TILE_START = 512  # what beginning with a register tile is worth, in rows times channels
_IN_THE_WAY = 0.35  # of the time of weights is not hidden behind that of products, and the other way round
_MOST_TILES = 112  # of a block: transformed tiles of larger ones leave L3 as well
_L1 = 24 * 1024


@dataclass(frozen=True)
class ConvolutionPlan:
    """Output pixels and panels of an item: `band` and `panels_per_item` of `struct convolution`."""

    band: int
    panels: int


@dataclass(frozen=True)
class DepthwisePlan:
    """Parts of the output rows, and channels of an item: `bands` and `channels_per_item` of `struct depthwise`."""

    bands: int
    channels: int


@dataclass(frozen=True)
class WinogradPlan:
    """Blocks of an image, tiles of the largest, panels of an item."""

    blocks: int
    tiles: int
    panels: int

    @property
    def fields(self) -> dict[str, Any]:
        """The members of the C structs."""
        return {"blocks": self.blocks, "tiles_per_item": self.tiles, "panels_per_item": self.panels}


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
) -> WinogradPlan:
    """Items of `winograd.h` for `tiles` tiles of m x m pixels of an image."""
    layer = _Winograd((m + 2) ** 2, tiles, channels, outputs, images, threads, lanes)
    return layer.plan()


def plan_winograd_line(
    taps: int, tiles: int, channels: int, outputs: int, *, images: int = 1, threads: int = 1, lanes: int = 8
) -> WinogradPlan:
    """Items of `winograd_line.h` for `tiles` tiles of 4 pixels of an image."""
    layer = _Winograd(taps + 3, tiles, channels, outputs, images, threads, lanes)
    return layer.plan()


@dataclass(frozen=True)
class _Winograd:
    """A layer of `matrices` products of [tiles, channels] and [channels, outputs]."""

    matrices: int
    tiles: int
    channels: int
    outputs: int
    images: int
    threads: int
    lanes: int

    def plan(self) -> WinogradPlan:
        """The number of blocks that takes the least time by the model; panels divided for the threads."""
        least, most = (-(-self.tiles // n) for n in (_MOST_TILES, _tile_rows(self.lanes) // 2))
        known = range(least, min(most + self.threads, self.tiles + 1))
        blocks = min([n for n in known if self._is_even(n)] or known, key=self._nanoseconds)
        wanted = _ITEMS_PER_THREAD * self.threads if self.threads > 1 else 1
        panels = -(-self.outputs // PANEL_COLUMNS)
        parts = min(panels, -(-wanted // (self.images * blocks)))
        return WinogradPlan(blocks, -(-self.tiles // blocks), -(-panels // parts))

    def _is_even(self, blocks: int) -> bool:
        """Threads get as many blocks, or share one, or there are so many that it does not matter."""
        count = self.images * blocks
        return self.threads % count == 0 or count % self.threads == 0 or count > _ITEMS_PER_THREAD * self.threads

    def _nanoseconds(self, blocks: int) -> float:
        """What a thread takes: the tiles' transforms, which all threads compute that share a block; register tiles that
        are not full; weights once for each block; tiles that leave L2.
        """
        count, rows, tile = self.images * blocks, -(-self.tiles // blocks), _tile_rows(self.lanes)
        columns = -(-self.outputs // PANEL_COLUMNS)
        sharing = max(min(self.threads / count, columns), 1.0)  # threads that work on a block
        computed = self._rows_computed(rows)
        elements = self.matrices * self.channels * self.outputs / sharing
        products = 2 * elements * computed / (_WIDE_FLOPS if self.lanes == 16 else _FLOPS)
        passes = max(count / self.threads, 1.0)
        kept = _FROM_L2 if 4 * elements <= _L2 else _KEPT if 4 * elements <= _FEW_WEIGHTS else _STREAMED
        weights = 4 * elements * (1 / _STREAMED + (passes - 1) / kept) / passes
        values, sums = (4 * self.matrices * n for n in (rows * self.channels, (rows + tile) * PANEL_COLUMNS))
        stays = values + sums <= (_WIDE_L2 if self.lanes == 16 else _TILES_L2)
        panels = columns / sharing
        spilled = 0.0 if stays else (values + panels * (values + 2 * sums)) / _FROM_L3
        hidden = (1 - _IN_THE_WAY) * min(products, weights)
        return passes * (values / _TRANSFORMED + products + weights - hidden + spilled)

    def _rows_computed(self, rows: int) -> float:
        """The rows of the register tiles that compute `rows`, and what beginning with each of them is worth."""
        tiles = -(-rows // _tile_rows(self.lanes))
        fewer, more = divmod(rows, tiles)
        up = [next((n for n in self._tile_sizes() if n >= rows), rows) for rows in (fewer, fewer + 1)]
        return (tiles - more) * up[0] + more * up[1] + tiles * _TILE_START / self.channels

    def _tile_sizes(self) -> range | tuple[int, ...]:
        """Rows of the register tiles that there are (`TILE_SHAPES`): fewer for a panel that is not whole."""
        if self.lanes != 16:
            return range(1, _tile_rows(self.lanes) + 1)
        return (4, 6, 8, 10, 12, 14) if self.outputs > 24 else (4, 8, 14) if self.outputs > 16 else (8, 14)


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
