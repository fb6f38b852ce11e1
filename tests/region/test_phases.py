"""Axes taken apart, and transposed convolutions by their phases: the same results, fewer terms."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.build import build_region
from fusible.compiler.region.digits import divisors_of, with_digits
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.phases import with_phases
from fusible.compiler.region.region import Region
from fusible.compiler.region.verify import verify_region
from tests.region.fusion_cases import CASES
from tests.region.test_fusions import built


def transposed(taps: int, stride: int, pads: int, extra: int, dilation: int = 1) -> Region:
    graph = Graph("transposed")
    x, w = (
        graph.input(TensorType(DType.F32, shape), name)
        for name, shape in (("x", (2, 3, 5, 6)), ("w", (3, 4, taps, taps)))
    )
    y = graph.add(
        "conv_transpose", x, w, strides=(stride,) * 2, pads=(pads,) * 4, dilations=(dilation,) * 2,
        output_padding=(extra,) * 2,
    )  # fmt: skip
    return build_region(list(graph), [y]).region


def same(before: Region, after: Region) -> None:
    verify_region(after)
    random = np.random.default_rng(0)
    inputs = [random.integers(-4, 5, b.shape).astype(b.dtype.numpy) for b in before.inputs]
    for got, wanted in zip(run_region(after, inputs), run_region(before, inputs), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("taps", "stride", "pads", "extra", "dilation", "left"),
    [
        (2, 2, 0, 0, 1, 1),
        (4, 2, 1, 0, 1, 2),
        (3, 2, 1, 1, 1, 2),
        (6, 3, 0, 0, 1, 2),
        (5, 2, 2, 1, 1, 3),
        (2, 3, 0, 0, 2, 1),
    ],
)
def test_a_phase_sums_its_own_taps(taps: int, stride: int, pads: int, extra: int, dilation: int, left: int) -> None:
    before = transposed(taps, stride, pads, extra, dilation)
    after = with_phases(before, before.contractions[0])
    same(before, after)
    assert "mod(i1 " not in str(after) and len(after.extents) == len(before.extents) + 2
    assert [after.extents[a] for a in after.stages[after.contractions[0]].axes][1:] == [left, left]  # type: ignore[union-attr]


def test_sizes_that_a_stride_does_not_divide_stay_as_they_are() -> None:
    before = transposed(3, 2, 1, 0)
    assert with_phases(before, before.contractions[0]) is before


def test_an_axis_is_its_quotient_and_remainder() -> None:
    region = built(CASES["grouped_conv_relu6"]()).group.steps[0].region
    assert divisors_of(region, 1) == (2,) and divisors_of(region, 2) == ()
    after = with_digits(region, 1, 2)
    same(region, after)
    assert (after.extents[1], after.extents[-1]) == (2, 2)
    same(region, with_digits(region, 4, 3))  # an axis that is summed over
    with pytest.raises(ValueError, match="axis i1 of extent 4 does not fall into parts of 3"):
        with_digits(region, 1, 3)
