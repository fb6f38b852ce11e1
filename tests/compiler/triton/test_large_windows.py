"""Windows of more points than are written out: loads of a row of one overlap, and threads are many enough to wait."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.printer import print_region
from fusible.compiler.backends.triton.schedule import Form, Schedule, schedule
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Region
from tests.compiler.triton.checked import run_checked
from tests.compiler.triton.in_float64 import run_in_float64
from tests.tolerance import assert_close

H100 = gpu_target("h100")
DEPTHWISE = """
region [i0={c}, i1={h}, i2={h}, i3={k}, i4={k}]
  in x0: {dtype}[1, {h}, {h}, {c}]
  in x1: {dtype}[{k}, {k}, {c}, 1]
  in x2: {dtype}[{k}, {k}]
  out y0: {dtype}[1, {h}, {h}, {c}]
  v0: {dtype} = load x0[0, i1 + i3 - {p}, i2 + i4 - {p}, i0] {bounds} else 0
  v1: {dtype} = load x1[i3, i4, i0, 0]
  v2: f32 = mul(f32(v0), f32(v1))
  v3: {dtype} = load x2[i3, i4]
  v4: f32 = mul(v2, f32(v3))
  v5: f32 = reduce sum over i3, i4 of v4
  v6: {dtype} = {dtype}(v5)
  store y0[0, i1, i2, i0] = v6
"""
WHOLE = """
region [i0=64, i1={n}]
  in x0: f32[{n}, 64]
  in x1: f32[{n}]
  out y0: f32[64]
  v0: f32 = load x0[i1, i0]
  v1: f32 = load x1[i1]
  v2: f32 = mul(v0, v1)
  v3: f32 = reduce max over i1 of v2
  store y0[i0] = v3
"""


FIRST = """
region [i0=16, i1={n}, i2={n}, i3=4, i4=7, i5=7]
  in x0: f16[1, {m}, {m}, 4]
  in x1: f16[7, 7, 4, 16]
  out y0: f16[1, {n}, {n}, 16]
  v0: f16 = load x0[0, 2*i1 + i4 - 3, 2*i2 + i5 - 3, i3] {bounds} else 0
  v1: f16 = load x1[i4, i5, i3, i0]
  v2: f32 = contract over i3, i4, i5 of v0, v1
  v3: f16 = f16(v2)
  store y0[0, i1, i2, i0] = v3
"""


def depthwise(channels: int, side: int, kernel: int, dtype: str = "f16") -> Region:
    p = kernel // 2
    bounds = f"where 0 <= i1 + i3 - {p} < {side} and 0 <= i2 + i4 - {p} < {side}"
    return parse_region(DEPTHWISE.format(c=channels, h=side, k=kernel, p=p, bounds=bounds, dtype=dtype))


@pytest.mark.parametrize(("channels", "side"), [(96, 56), (192, 28), (384, 14), (768, 7)])
def test_threads_hold_fewer_neighbours_where_warps_are_few(channels: int, side: int) -> None:
    made = schedule(depthwise(channels, side, 7), H100)
    held = made.rows // (made.warps * H100.warp)
    warps = channels * side * side // (held * H100.warp)
    assert (made.form, made.columns) == (Form.LOOPED, 1) and 2 <= held <= 8
    assert held == 2 or warps >= 8 * H100.multiprocessors
    assert held == 8 or 2 * held * H100.warp * 8 * H100.multiprocessors > channels * side * side
    assert -(-channels * side * side // made.rows) >= 2 * H100.multiprocessors


def test_threads_of_small_windows_hold_whole_vectors() -> None:
    made = schedule(depthwise(384, 14, 3), H100)
    assert made.rows == 8 * made.warps * H100.warp


def test_a_row_of_a_large_window_is_written_out_and_its_loads_overlap() -> None:
    region = depthwise(96, 56, 7)
    kernel = print_region(region, schedule(region, H100))
    assert "for outer in range(7):\n        for inner in tl.static_range(7):" in kernel.source
    built = build(kernel, H100)
    assert built.report.loads[128] >= 14 and built.report.stores == {128: 1} and built.report.spilled == 0


def test_a_small_window_is_one_loop_that_is_written_out() -> None:
    region = depthwise(96, 56, 3)
    source = print_region(region, schedule(region, H100)).source
    assert re.findall(r"for .*:", source) == ["for start in tl.static_range(0, 9, COLUMNS):"]


@pytest.mark.parametrize(("kernel", "dtype"), [(7, "f16"), (5, "f32"), (5, "bf16")])
def test_large_windows_are_right(kernel: int, dtype: str) -> None:
    region = depthwise(12, 9, kernel, dtype)
    check(region, Schedule(Form.LOOPED, 128, 1, 1, 3, 4), kernel * kernel)


@pytest.mark.parametrize(("points", "loop"), [(49, "range(7)"), (48, "range(3)"), (53, "range(0, 53, COLUMNS)")])
def test_folds_of_one_axis_are_gone_through_in_equal_parts(points: int, loop: str) -> None:
    region = parse_region(WHOLE.format(n=points))
    assert loop in check(region, Schedule(Form.LOOPED, 64, 1, 1, 3, 4), 1)


def test_a_first_convolution_goes_through_its_window_row_by_row() -> None:
    region = parse_region(FIRST.format(n=10, m=20, bounds="where 0 <= 2*i1 + i4 - 3 < 20 and 0 <= 2*i2 + i5 - 3 < 20"))
    kernel = print_kernel(region, H100)
    assert kernel.rule.constants["BLOCK_K"] == 32 and "in_columns = c < 28" in kernel.source
    random = np.random.default_rng(6)
    inputs = [random.uniform(-2, 2, b.shape).astype(b.dtype.numpy) for b in region.inputs]
    (got,) = run_checked(kernel, region.outputs, inputs, {})
    (wanted,) = run_in_float64(region, inputs, {})
    assert_close(got, wanted, accumulation=4 * 196)


def check(region: Region, made: Schedule, terms: int) -> str:
    """Fail unless a kernel computes the region, and touches nothing else; returns its text."""
    random = np.random.default_rng(5)
    inputs = [random.uniform(-2, 2, b.shape).astype(b.dtype.numpy) for b in region.inputs]
    kernel = print_region(region, made)
    (got,) = run_checked(kernel, region.outputs, inputs, {})
    (wanted,) = run_in_float64(region, inputs, {})
    assert_close(got, wanted, accumulation=4 * terms)
    return kernel.source
