"""The cutting of layers into items: pure functions, no C."""

from __future__ import annotations

import pytest

from fusible.kernels.cpu.convolution_plan import (
    ConvolutionPlan,
    DepthwisePlan,
    WinogradPlan,
    plan_bands,
    plan_convolution,
    plan_depthwise,
    plan_winograd,
)


@pytest.mark.parametrize(
    ("pixels", "depth", "outputs", "threads", "plan"),
    [
        (56 * 56, 576, 64, 1, ConvolutionPlan(96, 2)),
        (56 * 56, 576, 64, 2, ConvolutionPlan(96, 2)),
        (112 * 112, 16, 96, 2, ConvolutionPlan(384, 3)),
        (14 * 14, 2304, 256, 1, ConvolutionPlan(102, 8)),
        (14 * 14, 2304, 256, 2, ConvolutionPlan(102, 2)),
        (7 * 7, 4608, 512, 2, ConvolutionPlan(49, 2)),
        (7 * 7, 960, 160, 2, ConvolutionPlan(30, 1)),
        (7 * 7, 64, 32, 2, ConvolutionPlan(18, 1)),
        (1, 10, 10, 8, ConvolutionPlan(1, 1)),
    ],
)
def test_convolution(pixels: int, depth: int, outputs: int, threads: int, plan: ConvolutionPlan) -> None:
    assert plan_convolution(pixels, depth, outputs, threads=threads) == plan


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize(("pixels", "outputs"), [(49, 512), (49, 96), (196, 256), (3136, 64), (12544, 16)])
def test_no_thread_is_idle(pixels: int, outputs: int, threads: int) -> None:
    plan = plan_convolution(pixels, 48, outputs, threads=threads)
    panels = -(-outputs // 32)
    items = -(-pixels // plan.band) * -(-panels // plan.panels)
    assert items >= min(threads, pixels // 16 * panels)


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


def test_depthwise() -> None:
    assert plan_depthwise(56, 112, 96, 3) == DepthwisePlan(4, 96)
    assert plan_depthwise(14, 14, 576, 3) == DepthwisePlan(1, 64)
    assert plan_depthwise(7, 7, 960, 5, threads=2) == DepthwisePlan(2, 64)  # 15 parts of the channels are odd
    assert plan_depthwise(7, 7, 64, 3, threads=2) == DepthwisePlan(7, 64)


def test_bands() -> None:
    assert plan_bands(112) == 8
    assert plan_bands(112, most=8) == 14
    assert plan_bands(28, threads=2) == plan_bands(14, threads=2) == 8  # 3.5 and 1.75 rows: as many for each thread
    assert plan_bands(7, images=8, threads=2) == 1
    assert plan_bands(7, images=9, threads=2) == 2
    assert plan_bands(1, threads=64) == 1


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1, 2, 7])
def test_threads_have_as_many_bands_where_there_are_rows(images: int, threads: int) -> None:
    for height in range(1, 120):
        bands = plan_bands(height, images=images, threads=threads)
        assert 1 <= bands <= height <= 14 * bands
        assert images * bands % threads == 0 or bands + threads > height
