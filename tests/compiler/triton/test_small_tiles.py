"""Products of few steps, of which a multiprocessor is to have several tiles: exponentials follow, or memory limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.contraction import contraction_of
from fusible.compiler.backends.triton.contraction_printer import sizes_of
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.occupancy import occupancy
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, Sizes, schedule_contraction
from fusible.compiler.ir.types import DType
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Region

H100 = gpu_target("h100")
LARGE = Sizes(1, 6304, 3072, (768,), True)
PRODUCT = """
region [i0=6304, i1=3072, i2=768]
  in x0: f16[6304, 768]
  in x1: f16[768, 3072]
  in x2: f16[3072]
  out y0: f16[6304, 3072]
  v0: f16 = load x2[i1]
  v1: f16 = load x0[i0, i2]
  v2: f16 = {before}
  v3: f16 = load x1[i2, i1]
  v4: f32 = contract over i2 of v2, v3
  v5: f16 = f16(v4)
  v6: f16 = add(v0, v5)
  v7: f16 = {after}
  store y0[i0, i1] = v7
"""
PASSING = """
region [i0=100352, i1=256, i2=64]
  in x0: f16[100352, 64]
  in x1: f16[64, 256]
  in x2: f16[100352, 256]
  out y0: f16[100352, 256]
  v0: f16 = load x0[i0, i2]
  v1: f16 = load x1[i2, i1]
  v2: f32 = contract over i2 of v0, v1
  v3: f16 = f16(v2)
  v4: f16 = load x2[i0, i1]
  v5: f16 = add(v3, v4)
  v6: f16 = max(v5, 0.0)
  store y0[i0, i1] = v6
"""
GELU = "mul(mul(add(erf(mul(v6, 0.7071067811865476)), 1.0), 0.5), v6)"


def region(before: str = "abs(v1)", after: str = GELU) -> Region:
    return parse_region(PRODUCT.format(before=before, after=after))


@pytest.mark.parametrize(
    ("before", "after", "heavy"),
    [("abs(v1)", GELU, True), ("abs(v1)", "mul(v6, sigmoid(v6))", True), ("abs(v1)", "max(v6, 0.0)", False),
     ("tanh(v1)", "max(v6, 0.0)", False)],
)  # fmt: skip
def test_what_follows_the_sums_is_heavy_and_not_what_is_before(before: str, after: str, heavy: bool) -> None:
    assert sizes_of(contraction_of(region(before, after), ())).heavy is heavy


def made(sizes: Sizes, gpu: str = "h100") -> ContractionSchedule:
    return schedule_contraction(sizes, DType.F16, "ieee", gpu_target(gpu))


def test_two_tiles_stand_beside_each_other_where_steps_are_few_and_tiles_many() -> None:
    found = made(LARGE)
    assert (found.block_m, found.block_n, found.warps, found.split) == (128, 128, 4, 1)
    assert made(replace(LARGE, heavy=False)).block_n == 256
    assert made(Sizes(1, 1500, 1536, (384,), True)).block_n == 128  # 144 programs; of 128 by 256 there would be 72
    for other in (replace(LARGE, depths=(4096,)), replace(LARGE, rows=512, columns=512)):
        assert made(other) == made(replace(other, heavy=False))
    assert made(LARGE, "a100") == made(replace(LARGE, heavy=False), "a100")


@pytest.mark.parametrize(
    ("rows", "columns", "depth", "passes"),
    [
        (100352, 256, 64, True),  # memory takes three times as long as multiplying
        (25088, 512, 128, True),
        (100352, 256, 256, False),  # four steps
        (100352, 32, 64, False),
        (3136, 256, 64, False),  # few tiles
    ],
)
def test_products_that_memory_limits_have_small_tiles(rows: int, columns: int, depth: int, passes: bool) -> None:
    found = made(Sizes(1, rows, columns, (depth,)))
    assert ((found.block_m, found.block_n, found.warps) == (128, 64, 4) and found.stages == depth // 64 + 1) is passes


def test_four_programs_of_a_product_that_passes_by_fit_as_they_are_built() -> None:
    region = parse_region(PASSING)
    kernel = print_kernel(region, H100)
    report = build(kernel, H100).report
    assert occupancy(H100.sm, 32 * kernel.rule.warps, report.registers, report.shared).blocks >= 4
    assert report.spilled == 0 and set(report.stores) == {128}


def test_two_programs_fit_as_they_are_built() -> None:
    kernel = print_kernel(region("max(v1, v1)"), H100)
    report = build(kernel, H100).report
    assert occupancy(H100.sm, 32 * kernel.rule.warps, report.registers, report.shared).blocks == 2
    assert report.spilled == 0 and not report.serialised and set(report.stores) == {128}
