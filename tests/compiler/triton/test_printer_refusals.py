"""What the printer does not take is refused with a reason, never half printed."""

from __future__ import annotations

import pytest

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.gpu_targets import GPUS, gpu_target
from fusible.compiler.backends.triton.printer import print_region
from fusible.compiler.backends.triton.schedule import Form, Schedule, schedule
from fusible.compiler.region.parse import parse_region
from fusible.errors import UsageError

HEAD = "region [i0=4, i1=300, i2=6]\n  in x0: {0}[4, 300, 6]\n  out y0: {1}\n  v0: {0} = load x0[i0, i1, i2]\n"
REFUSED = {
    "it has a contraction": HEAD.format("f32", "f32[4, 300]")
    + "  v1: f32 = contract over i2 of v0, v0\n  store y0[i0, i1] = v1",
    "its reductions run over different axes": HEAD.format("f32", "f32[4]")
    + "  v1: f32 = reduce sum over i2 of v0\n  v2: f32 = reduce max over i1 of v1\n  store y0[i0] = v2",
    "a buffer holds f8e5m2fnuz": HEAD.format("f8e5m2fnuz", "f8e5m2fnuz[4, 300, 6]") + "  store y0[i0, i1, i2] = v0",
    "pow of integers is not printed": HEAD.format("i32", "i32[4, 300, 6]")
    + "  v1: i32 = pow(v0, 2)\n  store y0[i0, i1, i2] = v1",
    "lt of truth values is not printed": HEAD.format("bool", "bool[4, 300, 6]")
    + "  v1: bool = lt(v0, v0)\n  store y0[i0, i1, i2] = v1",
    "argmax keeps something else than the place of what it finds": HEAD.format("f32", "f32[4, 300]")
    + "  v1: i64 = index -i2\n  v2, v3: f32, i64 = reduce argmax over i2 of v0, v1\n  store y0[i0, i1] = v2",
    "it stores where data say": HEAD.format("i64", "i64[4, 300, 6]") + "  store y0[i0, i1, v0] = v0",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_region_is_refused_with_its_reason(reason: str) -> None:
    region = parse_region(REFUSED[reason])
    with pytest.raises(NotPrintable) as refused:
        print_region(region, schedule(region, gpu_target("h100")))
    assert str(refused.value) == reason


def test_scans_of_long_rows_in_both_directions_are_refused() -> None:
    region = parse_region(
        HEAD.format("f32", "f32[4, 300, 6]")
        + "  v1: f32 = scan sum over i1 of v0\n  v2: f32 = scan reverse sum over i1 of v0\n  v3: f32 = add(v1, v2)\n"
        "  store y0[i0, i1, i2] = v3"
    )
    with pytest.raises(NotPrintable, match="it scans long rows in both directions"):
        print_region(region, Schedule(Form.LOOPED, 1, 16, 1, 1, 4))
    print_region(region, Schedule(Form.PERSISTENT, 1, 512, 1, 1, 4))


def test_a_schedule_that_does_not_fit_is_refused() -> None:
    region = parse_region(
        HEAD.format("f32", "f32[4, 6]") + "  v1: f32 = reduce sum over i1 of v0\n  store y0[i0, i2] = v1"
    )
    with pytest.raises(NotPrintable, match="a row of 300 does not fit 256 columns"):
        print_region(region, Schedule(Form.PERSISTENT, 1, 256, 1, 1, 4))
    with pytest.raises(NotPrintable, match="the schedule is for points, the region folds"):
        print_region(region, Schedule(Form.POINTS, 128, 1, 1, 1, 4))


def test_columns_that_are_no_axis_are_refused() -> None:
    region = parse_region(HEAD.format("f32", "f32[4, 300, 6]") + "  store y0[i0, i1, i2] = v0")
    with pytest.raises(NotPrintable, match="i0 cannot be the columns of its tile"):  # collapsed into i2
        print_region(region, Schedule(Form.TRANSPOSED, 32, 32, 4, 1, 4, 0))


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown GPU 'cuda:sm_70'; known are the targets cuda:sm_80, cuda:sm_89"):
        gpu_target("cuda:sm_70")
    assert gpu_target("cuda:sm_90") is GPUS["h100"] and gpu_target("h200").architecture == 90
    assert (gpu_target("hip:gfx942").architecture, gpu_target("mi300x").backend) == ("gfx942", "hip")
