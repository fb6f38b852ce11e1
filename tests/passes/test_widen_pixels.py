"""widen-pixels: images of three channels in half precision get a fourth; others stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType
from fusible.compiler.region.build import build_region
from fusible.compiler.region.reorder import reordered
from fusible.passes.widen_pixels import widen_pixels
from tests.passes.checking import ops, random, reasons, run, tensor

HALF = DType.F16


def convolution(channels: int = 3, side: int = 5, stride: int = 2, group: int = 1, dtype: DType = HALF) -> Graph:
    graph = Graph("g")
    image = graph.add("cast", tensor(graph, [2, channels, 17, 15]), dtype=dtype)
    weights = random((6, channels // group, side, side), dtype)
    y = graph.add("conv", image, graph.constant(weights), strides=(stride, stride), pads=(2, 1, 2, 1), group=group)
    graph.set_outputs([y], ["y"])
    return graph


@pytest.mark.parametrize("dtype", [HALF, DType.BF16])
def test_three_channels_become_four(dtype: DType) -> None:
    graph = convolution(dtype=dtype)
    run(widen_pixels, graph, [random((2, 3, 17, 15))], 1)
    assert ops(graph) == ["pad", "cast", "conv"]
    weights = list(graph)[-1].inputs[1]
    assert weights is not None and weights.constant is not None and weights.constant.shape == (6, 4, 5, 5)
    assert not weights.constant.array[:, 3].astype(np.float32).any()


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (convolution(4), "not three channels"),
        (convolution(group=3), "not three channels in one group"),
        (convolution(side=4), "few terms"),
        (convolution(side=5, stride=5), "do not overlap"),
        (convolution(dtype=DType.F32), "not in half precision"),
    ],
)
def test_others_stay(graph: Graph, why: str) -> None:
    channels = graph.inputs[0].type.shape[1]  # type: ignore[union-attr,index]
    used = run(widen_pixels, graph, [random((2, int(channels), 17, 15))], 0)
    assert why in reasons(used)


def test_a_pixel_is_then_fetched_by_one_copy() -> None:
    graph = Graph("g")
    image = tensor(graph, [1, 3, 64, 64], dtype=DType.F32)
    rounded = graph.add("cast", image, dtype=HALF)
    y = graph.add("conv", rounded, graph.constant(random((64, 3, 7, 7), HALF)), strides=(2, 2), pads=(3, 3, 3, 3))
    graph.set_outputs([y], ["y"])

    def widths() -> set[int]:
        conv = list(graph)[-1]
        made = build_region([conv], list(conv.outputs), inline_scalars=True)
        region = reordered(made.region, {0: (0, 2, 3, 1)}, {0: (0, 2, 3, 1)})
        h100 = gpu_target("h100")
        return set(build(print_kernel(region, h100, [1]), h100).report.loads)

    assert 16 in widths()
    run(widen_pixels, graph, [random((1, 3, 64, 64))], 1)
    assert 16 not in widths()
