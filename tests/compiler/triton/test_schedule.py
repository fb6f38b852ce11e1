"""Schedules are functions of shapes, element types and a description: no device takes part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusible.compiler.backends.triton.gpu_targets import GPUS, gpu_target
from fusible.compiler.backends.triton.schedule import Form, Schedule, schedule
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.parse import parse_region

H100 = gpu_target("h100")
POINTS = """
region [i0={0}, i1={1}]
  in x0: {2}[{0}, {1}]
  out y0: {2}[{0}, {1}]
  v0: {2} = load x0[i0, i1]
  v1: {2} = abs(v0)
  store y0[i0, i1] = v1
"""
SOFTMAX = """
region [i0={0}, i1={1}]
  in x0: {2}[{0}, {1}]
  out y0: {2}[{0}, {1}]
  v0: {2} = load x0[i0, i1]
  v1: {2} = reduce max over {3} of v0
  v2: {2} = sub(v0, v1)
  v3: {2} = exp(v2)
  v4: {2} = reduce sum over {3} of v3
  v5: {2} = div(v3, v4)
  store y0[i0, i1] = v5
"""
VECTOR = """
region [i0={0}, i1={1}]
  in x0: f16[{0}, {1}]
  in x1: f16[{1}]
  out y0: f16[{0}]
  v0: f16 = load x0[i0, i1]
  v1: f16 = load x1[i1]
  v2: f32 = mul(f32(v0), f32(v1))
  v3: f32 = reduce sum over i1 of v2
  v4: f16 = f16(v3)
  store y0[i0] = v4
"""
POOL = """
region [i0=64, i1=56, i2=56, i3=3, i4=3]
  in x0: f32[64, 113, 113]
  out y0: f32[64, 56, 56]
  v0: f32 = load x0[i0, 2*i1 + i3, 2*i2 + i4]
  v1: f32 = reduce max over i3, i4 of v0
  store y0[i0, i1, i2] = v1
"""


def points(rows: int, columns: int, dtype: str = "f32", gpu: str = "h100") -> Schedule:
    return schedule(parse_region(POINTS.format(rows, columns, dtype)), gpu_target(gpu))


def softmax(rows: object, columns: object, dtype: str = "f32", gpu: str = "h100", axis: str = "i1") -> Schedule:
    symbols = {str(n): Symbol(str(n)) for n in (rows, columns) if isinstance(n, str)}
    return schedule(parse_region(SOFTMAX.format(rows, columns, dtype, axis), symbols), gpu_target(gpu))


def test_points_fill_the_widest_access_of_each_thread() -> None:
    assert points(4096, 4096) == Schedule(Form.POINTS, 512, 1, 4, 1, 4)
    assert points(4096, 4096, "f16") == Schedule(Form.POINTS, 1024, 1, 4, 1, 8)
    assert points(4096, 4096, "i64") == Schedule(Form.POINTS, 256, 1, 4, 1, 2)
    assert points(4096, 4096, gpu="mi300x").rows == 64 * 4 * 4  # lanes of a wavefront


def test_few_points_are_spread_over_many_programs() -> None:
    small = points(8, 512)
    assert (small.rows, small.warps) == (128, 1)


def test_a_row_that_fits_the_registers_is_kept_there() -> None:
    assert softmax(8192, 1000) == Schedule(Form.PERSISTENT, 1, 1024, 4, 1, 4)
    assert softmax(8192, 60).rows == 16  # a tile of 1024 points
    assert softmax(64, 60).rows == 1  # or fewer, so that no multiprocessor idles


def test_a_longer_row_is_looped_over_and_registers_decide() -> None:
    assert softmax(64, 16384).form is Form.PERSISTENT
    assert softmax(64, 16385) == Schedule(Form.LOOPED, 1, 1024, 8, 3, 4)
    region = parse_region(SOFTMAX.format(64, 16384, "f32", "i1"))
    assert schedule(region, replace(H100, sm=replace(H100.sm, registers=16384))).form is Form.LOOPED


def test_rows_that_read_the_same_vector_share_a_program() -> None:
    product = VECTOR.format(4096, 4096)
    assert schedule(parse_region(product), H100) == Schedule(Form.PERSISTENT, 4, 4096, 16, 1, 8)
    assert schedule(parse_region(VECTOR.format(768, 3072)), H100).rows == 2  # or fewer, so that none idles
    assert schedule(parse_region(VECTOR.format(100, 64)), H100).columns == 64
    alone = product.replace("load x1[i1]", "load x1[i0]")
    assert schedule(parse_region(alone), H100).rows == 1
    by_columns = product.replace("load x0[i0, i1]", "load x0[i1, i0]")
    assert schedule(parse_region(by_columns), H100).rows >= 32  # neighbours are those of the matrix


def test_an_unknown_row_is_looped_over() -> None:
    assert softmax("n", "m") == Schedule(Form.LOOPED, 1, 1024, 8, 3, 4)
    assert softmax("n", 1000).form is Form.PERSISTENT


def test_neighbours_along_the_rows_make_tiles_of_many_rows() -> None:
    across = softmax(20, 65536, axis="i0")
    assert across.form is Form.PERSISTENT and across.rows >= 32 and across.columns == 32
    long = softmax(5000, 65536, axis="i0")
    assert (long.form, long.rows, long.columns) == (Form.LOOPED, 128, 16)
    pool = schedule(parse_region(POOL), H100)
    assert (pool.form, pool.rows, pool.columns, pool.warps) == (Form.LOOPED, 128, 1, 4)  # a row a thread


def test_what_is_read_across_is_turned_in_tiles_of_two_dimensions() -> None:
    turned = POINTS.replace("in x0: {2}[{0}, {1}]", "in x0: {2}[{1}, {0}]").replace("x0[i0, i1]", "x0[i1, i0]")
    made = schedule(parse_region(turned.format(1024, 4096, "f32")), H100)
    assert made == Schedule(Form.TRANSPOSED, 32, 32, 4, 1, 4, 0)
    assert schedule(parse_region(turned.format(1024, 8, "f32")), H100).form is Form.POINTS


def test_empty_extents_have_a_schedule() -> None:
    assert softmax(0, 7).columns == 8
    assert softmax(7, 0).columns == 1
    assert points(0, 5).rows >= 1


@pytest.mark.parametrize("gpu", GPUS)
def test_blocks_are_powers_of_two_and_shared_memory_is_not_needed(gpu: str) -> None:
    for shape in ((1, 1), (3, 7), (1000, 1000), (12, 100000), (100000, 12)):
        for made in (points(*shape, gpu=gpu), softmax(*shape, gpu=gpu), softmax(*shape, gpu=gpu, axis="i0")):
            for number in (made.rows, made.columns, made.warps):
                assert number > 0 and number & (number - 1) == 0
            assert made.warps <= 16


def test_descriptions_are_plausible() -> None:
    for gpu in GPUS.values():
        assert gpu.shared_per_block <= gpu.shared_per_sm and gpu.threads_per_sm % gpu.warp == 0
        assert gpu.fp32 <= gpu.tf32 < gpu.fp16 and gpu.bandwidth < 10**13
        assert gpu.backend in ("cuda", "hip")
