"""The cutting of layers into items by plan.h, for vectors of 8 and 16 lanes."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

import pytest

from tests.kernels.cpu import harness
from tests.kernels.cpu.layers import NO_VECTORS

SOURCE = """
#include "plan.h"
void plan_layer(const long *s, long *cut) {
    struct convolution c = {.planes = 1, .kernel_height = 1, .kernel_width = 1, .channels = s[1], .outputs = s[2],
                            .images = s[3], .groups = 1, .out_height = 1, .out_width = s[0]};
    convolution_cut(&c, s[4]);
    cut[0] = c.band, cut[1] = c.panels_per_item, cut[2] = convolution_items(&c);
}
void plan_winograd(const long *s, long *cut) {
    struct winograd w = {.out_height = s[1] ? s[0] : 0, .out_width = s[0] * s[1], .channels = s[2], .outputs = s[3],
                         .images = s[4]};
    if (s[0] == 2) winograd_cut(2, &w, s[5]);
    else winograd_cut(4, &w, s[5]);
    cut[0] = w.blocks, cut[1] = w.tiles_per_item, cut[2] = w.panels_per_item;
}
void plan_depthwise(const long *s, long *cut) {
    struct depthwise d = {.out_height = s[0], .width = s[1], .channels = s[2], .kernel_height = s[3], .images = s[4]};
    depthwise_cut(&d, s[5]);
    cut[0] = d.bands, cut[1] = d.channels_per_item, cut[2] = depthwise_items(&d);
}
void plan_rows(const long *s, long *cut) {
    cut[0] = plan_bands(s[0], s[1], s[2], s[3]);
}
void plan_planar(const long *s, long *cut) {
    struct planar p = {.out_height = s[0], .out_width = 16, .images = s[1], .kernel_height = 3, .kernel_width = 3,
                       .stride_x = 1, .stride_y = 1, .planes = 3};
    planar_cut(&p, s[2]);
    cut[0] = p.bands, cut[1] = planar_items(&p);
}
"""


@functools.cache
def library(lanes: int) -> ctypes.CDLL:
    return harness.compile_c(SOURCE, "plain", (f"-DVL={lanes}", *NO_VECTORS))


def cut(function: str, *sizes: int, lanes: int = 8) -> list[int]:
    found = (ctypes.c_long * 3)()
    library(lanes)[f"plan_{function}"]((ctypes.c_long * len(sizes))(*sizes), found)
    return list(found)


@dataclass(frozen=True)
class WinogradPlan:
    blocks: int
    tiles: int
    panels: int


def plan_winograd(
    m: int, tiles: int, channels: int, outputs: int, *, images: int = 1, threads: int = 1, lanes: int = 8
) -> WinogradPlan:
    return WinogradPlan(*cut("winograd", m, tiles, channels, outputs, images, threads, lanes=lanes))


def plan_bands(height: int, *, most: int = 14, images: int = 1, threads: int = 1) -> int:
    return cut("rows", height, most, images, threads)[0]


@pytest.mark.parametrize(
    ("pixels", "depth", "outputs", "threads", "plan"),
    [
        (56 * 56, 576, 64, 1, (96, 2)),
        (56 * 56, 576, 64, 2, (96, 2)),
        (112 * 112, 16, 96, 2, (384, 3)),
        (14 * 14, 2304, 256, 1, (102, 8)),
        (14 * 14, 2304, 256, 2, (102, 2)),
        (7 * 7, 4608, 512, 2, (49, 2)),
        (7 * 7, 960, 160, 2, (30, 1)),
        (7 * 7, 64, 32, 2, (18, 1)),
        (1, 10, 10, 8, (1, 1)),
        (0, 10, 10, 8, (1, 1)),
    ],
)
def test_convolution(pixels: int, depth: int, outputs: int, threads: int, plan: tuple[int, int]) -> None:
    assert tuple(cut("layer", pixels, depth, outputs, 1, threads)[:2]) == plan


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize(("pixels", "outputs"), [(49, 512), (49, 96), (196, 256), (3136, 64), (12544, 16)])
def test_no_thread_is_idle(pixels: int, outputs: int, threads: int) -> None:
    _, _, items = cut("layer", pixels, 48, outputs, 1, threads)
    assert items >= min(threads, pixels // 16 * -(-outputs // 32))


def test_winograd_reads_its_weights_once_where_they_are_many() -> None:
    """9.4 and 16.8 MB of weights, 0.6 and 0.5 of tiles: two blocks would read the weights twice."""
    assert plan_winograd(4, 16, 256, 256, lanes=16) == WinogradPlan(1, 16, 8)
    assert plan_winograd(2, 16, 512, 512, lanes=16) == WinogradPlan(1, 16, 16)
    assert plan_winograd(4, 16, 256, 256, threads=2, lanes=16) == WinogradPlan(1, 16, 1)


def test_winograd_tiles_stay_in_the_cache_where_weights_are_few() -> None:
    for lanes, tile, most in ((8, 6, 420), (16, 14, 480)):
        plan = plan_winograd(4, 784, 64, 64, lanes=lanes)
        assert plan.blocks > 8 and 36 * 4 * (plan.tiles * (64 + 32) + tile * 32) <= most * 1024
    assert plan_winograd(4, 1, 3, 8, threads=4) == WinogradPlan(1, 1, 1)
    for lanes in (8, 16):  # there is one panel, which threads cannot share
        assert plan_winograd(4, 49, 128, 32, threads=2, lanes=lanes).blocks >= 2


def test_winograd_fills_its_register_tiles() -> None:
    """Measured on Zen 5: 28 tiles a block are 6 % faster than 49, 2 % than 25."""
    assert plan_winograd(4, 196, 64, 64, lanes=16) == WinogradPlan(7, 28, 2)
    assert plan_winograd(4, 1024, 64, 64, lanes=16).tiles == 28
    assert plan_winograd(4, 196, 64, 64, threads=2, lanes=16).blocks % 2 == 0


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 10, 17, 22, 32, 129])
@pytest.mark.parametrize("images", [1, 3])
def test_winograd_keeps_all_threads_at_work(images: int, threads: int) -> None:
    for tiles in (1, 5, 16, 49, 100, 196):
        plan = plan_winograd(4, tiles, 64, 256, images=images, threads=threads, lanes=16)
        items = images * plan.blocks * -(-8 // plan.panels)
        assert items >= (1 if threads == 1 else min(2 * threads, 8))
        assert tiles <= plan.tiles * plan.blocks < tiles + plan.blocks and 1 <= plan.blocks <= tiles


@pytest.mark.parametrize("threads", [1, 3])
def test_layers_without_pixels_or_images_have_no_items(threads: int) -> None:
    for tiles, images in ((0, 1), (0, 0), (4, 0)):
        plan = plan_winograd(4, tiles, 64, 64, images=images, threads=threads)
        assert plan.blocks * images == 0 and plan.tiles == 1 and plan.panels >= 1
    for height, images in ((0, 1), (4, 0), (0, 0)):
        assert cut("depthwise", height, 8, 64, 3, images, threads)[2] == 0
        assert cut("planar", height, images, threads)[1] == 0
        assert cut("layer", height * 4, 8, 64, images, threads)[2] == 0


def test_depthwise() -> None:
    assert cut("depthwise", 56, 112, 96, 3, 1, 1)[:2] == [4, 96]
    assert cut("depthwise", 14, 14, 576, 3, 1, 1)[:2] == [1, 64]
    assert cut("depthwise", 7, 7, 960, 5, 1, 2)[:2] == [2, 64]  # 15 parts of the channels are odd
    assert cut("depthwise", 7, 7, 64, 3, 1, 2)[:2] == [7, 64]


def test_bands() -> None:
    assert plan_bands(112) == 8
    assert plan_bands(112, most=8) == 14
    assert plan_bands(28, threads=2) == plan_bands(14, threads=2) == 8  # 3.5 and 1.75 rows: as many for each thread
    assert plan_bands(7, images=8, threads=2) == 1
    assert plan_bands(7, images=9, threads=2) == 2
    assert plan_bands(1, threads=64) == 1
    assert plan_bands(0, threads=2) == 0


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1, 2, 7])
def test_threads_have_as_many_bands_where_there_are_rows(images: int, threads: int) -> None:
    for height in range(1, 120):
        bands = plan_bands(height, images=images, threads=threads)
        assert 1 <= bands <= height <= 14 * bands
        assert images * bands % threads == 0 or bands + threads > height
