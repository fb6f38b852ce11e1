"""Folds whose columns several programs share: numbers in checking mode, who comes last, refusals, schedules, builds."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.aot import build, ttir_text
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.kernel import build_kernel
from fusible.compiler.backends.triton.lower import lower_ttir
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import Form, Schedule, schedule
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Region
from fusible.errors import ExecutionError
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import find_compiler
from fusible.runtime.native.pool import Pool, load_pool_library
from tests.compiler.triton.checked import run_checked
from tests.compiler.triton.contractions import ran
from tests.compiler.triton.in_float64 import run_in_float64
from tests.tolerance import assert_close

H100 = gpu_target("h100")
POOL = """
region [i0={batch}, i1={channels}, i2={side}, i3={side}]
  in x0: {dtype}[{batch}, {side}, {side}, {channels}]
  in x1: {dtype}[{channels}]
  out y0: {dtype}[{batch}, {channels}]
  out y1: {dtype}[{batch}, {channels}]
  v0: {dtype} = load x0[i0, i2, i3, i1]
  v1: f32 = f32(v0)
  v2: f32 = reduce sum over i2, i3 of v1
  v3: f32 = reduce max over i2, i3 of v1
  v4: {dtype} = load x1[i1]
  v5: {dtype} = div(v2, {points}.0)
  v6: {dtype} = mul(v5, v4)
  v7: {dtype} = sub({dtype}(v3), v6)
  store y0[i0, i1] = v6
  store y1[i0, i1] = v7
"""
NORM = """
region [i0=4, i1=100000]
  in x0: f32[4, 100000]
  out y0: f32[4, 100000]
  v0: f32 = load x0[i0, i1]
  v1: f32 = reduce max over i1 of v0
  v2: f32 = sub(v0, v1)
  store y0[i0, i1] = v2
"""
SQUARES = """
region [i0=3, i1=50000]
  in x0: f32[3, 50000]
  out y0: f32[3, 50000]
  out y1: f32[3]
  v0: f32 = load x0[i0, i1]
  v1: f32 = mul(v0, v0)
  v2: f32 = reduce sum over i1 of v1
  v3: f32 = sqrt(v2)
  store y0[i0, i1] = v1
  store y1[i0] = v3
"""


def pool(side: int, channels: int, dtype: str = "f16", batch: int = 1) -> Region:
    text = POOL.format(side=side, channels=channels, dtype=dtype, batch=batch, points=side * side)
    return parse_region(text)


def operands(region: Region) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.uniform(-2, 2, b.shape).astype(b.dtype.numpy) for b in region.inputs]


def check(region: Region, made: Schedule, terms: int) -> PrintedKernel:
    kernel, inputs = print_region(region, made), operands(region)
    got = run_checked(kernel, region.outputs, inputs)
    for array, reference in zip(got, run_in_float64(region, inputs, {}), strict=True):
        assert_close(array, reference, accumulation=4 * terms)
    return kernel


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_two_folds_with_masks_on_both_sides(dtype: str) -> None:
    """37 rows in blocks of 16, 81 columns in 3 blocks of 8 for each of 4 programs, of which the last has less."""
    region = pool(9, 37, dtype, batch=3)
    kernel = check(region, Schedule(Form.LOOPED, 16, 8, 1, 1, 2, split=4), 81)
    assert kernel.rule.programs({}) == 7 * 4 and kernel.rule.workspace == 2 * 16 * 4


def test_programs_without_a_column_leave_what_a_fold_starts_from() -> None:
    check(pool(3, 32), Schedule(Form.LOOPED, 32, 2, 1, 1, 2, split=16), 9)


def test_stores_of_columns_are_each_programs_own() -> None:
    region = parse_region(SQUARES)
    made = schedule(region, H100)
    assert made.split > 1 and made.rows == 1
    check(region, made, 50000)


def test_whoever_comes_last_gives_the_same_bits() -> None:
    region = pool(28, 40, "f32")
    kernel = print_region(region, Schedule(Form.LOOPED, 16, 32, 1, 1, 2, split=8))
    built = build_kernel(lower_ttir(ttir_text(kernel, H100), checked=True))
    library = load_pool_library(find_compiler(os.environ), cache_dir=default_cache_dir(os.environ))
    with Pool(4, library=library) as threads:
        first, *others = [ran(kernel, region, operands(region), {}, built=built, pool=threads) for _ in range(20)]
    assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_what_needs_another_pass_is_not_shared() -> None:
    region = parse_region(NORM)
    assert schedule(region, H100).split == 1
    with pytest.raises(NotPrintable, match="cannot be shared by several programs"):
        print_region(region, replace(schedule(region, H100), split=4))
    with pytest.raises(NotPrintable, match="3 programs for a fold are no power of two"):
        print_region(pool(9, 32), Schedule(Form.LOOPED, 16, 8, 1, 1, 2, split=3))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("p2 = gathered(parts + 0", "p2 = gathered(parts + 1", r"checking mode found|exceeds|out of place"),
        ("comes_last(counters + program, SPLIT)", "True", r"several programs write|checking mode found"),
    ],
)
def test_wrong_kernels_are_noticed(old: str, new: str, what: str) -> None:
    region = pool(9, 37)
    kernel = print_region(region, Schedule(Form.LOOPED, 16, 8, 1, 1, 2, split=4))
    wrong, inputs = replace(kernel, source=kernel.source.replace(old, new)), operands(region)
    assert wrong.source != kernel.source
    with pytest.raises((AssertionError, ExecutionError), match=what):
        for array, reference in zip(
            run_checked(wrong, region.outputs, inputs), run_in_float64(region, inputs, {}), strict=True
        ):
            assert_close(array, reference, accumulation=4 * 81)


def test_pools_have_programs_for_every_multiprocessor_or_one_step() -> None:
    for side, channels in ((112, 32), (56, 96), (56, 144)):
        made = schedule(pool(side, channels), H100)
        programs = -(-channels // made.rows) * made.split
        assert programs >= H100.multiprocessors // 3
        assert made.rows * 2 >= 32  # whole sectors of memory
    for side, channels in ((14, 480), (7, 1280)):
        made = schedule(pool(side, channels), H100)
        assert made.split == 1 and made.columns >= side * side
    assert schedule(pool(56, 2048, batch=64), H100).split == 1  # programs enough


def test_pools_read_128_bits_and_spill_nothing() -> None:
    for gpu in ("h100", "mi300x"):
        target = gpu_target(gpu)
        region = pool(56, 96)
        made = schedule(region, target)
        report = build(print_region(region, made), target).report
        points = made.rows * made.columns * 2  # of two steps
        assert report.loads[128] == points * 2 // 16 // (made.warps * target.warp)  # others are of values a row
        assert report.spilled == 0 and report.atomics == 1
