"""Kernels that ptxas would rather spill than give more registers, and what is said of those that must."""

from __future__ import annotations

from fusible.compiler.backends.triton.aot import _built, build
from fusible.compiler.backends.triton.gpu_targets import MatrixType, gpu_target
from fusible.compiler.backends.triton.kernel_report import Expectation, FindingKind, check, expectation
from fusible.compiler.backends.triton.launch import AccessFact, LaunchRule
from fusible.compiler.backends.triton.launches import LaunchWork
from fusible.compiler.backends.triton.occupancy import occupancy
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.roofline import Product, Tile
from fusible.compiler.backends.triton.static_report import StaticReport, cuda_report
from fusible.compiler.ir.types import DType
from fusible.compiler.region.parse import parse_region

DEPTHWISE = """
region [i0=64, i1=24, i2=160, i3=3, i4=3]
  in x0: f16[1, 24, 160, 64]
  in x1: f16[3, 3, 64, 1]
  in x2: f16[64]
  out y0: f16[1, 24, 160, 64]
  v0: f16 = load x0[0, i1 + i3 - 1, i2 + i4 - 1, i0] where 0 <= i1 + i3 - 1 < 24 and 0 <= i2 + i4 - 1 < 160 else 0
  v1: f16 = load x1[i3, i4, i0, 0]
  v2: f32 = mul(f32(v0), f32(v1))
  v3: f32 = reduce sum over i3, i4 of v2
  v4: f16 = load x2[i0]
  v5: f32 = f32(v4)
  v6: f32 = add(v3, v5)
  v7: f16 = f16(v6)
  v8: f16 = mul(v7, max(min(add(mul(v7, 0.16666666666666666), 0.5), 1.0), 0.0))
  v9: f16 = mul(0.03094482421875, v8)
  v10: f16 = add(v9, -4.649162292480469e-05)
  store y0[0, i1, i2, i0] = v10
"""


def test_a_kernel_that_would_spill_is_given_more_registers() -> None:
    gpu = gpu_target("a100")
    kernel = print_kernel(parse_region(DEPTHWISE), gpu)
    alone, made = _built(kernel, gpu), build(kernel, gpu)
    assert alone.report.spilled and not made.report.spilled
    assert made.report.registers > alone.report.registers and made.threads == alone.threads


WAITS = """
region [i0=128, i1=14, i2=14, i3=544]
  in x0: f32[1, 14, 14, 1024]
  in x1: f32[544, 1, 1]
  in x2: f32[128, 1, 1, 544]
  out y0: f32[1, 14, 14, 128]
  v0: f32 = load x0[0, i1, i2, i3]
  v1: f32 = load x1[i3, 0, 0]
  v2: f32 = mul(v0, v1)
  v3: f32 = load x2[i0, 0, 0, i3]
  v4: f32 = contract over i3 of v2, v3
  store y0[0, i1, i2, i0] = v4
"""


def test_products_that_wait_for_each_other_are_made_with_twice_the_warps() -> None:
    gpu = gpu_target("h100")
    kernel = print_kernel(parse_region(WAITS), gpu, precision="tf32")
    alone, made = _built(kernel, gpu), build(kernel, gpu)
    assert alone.report.serialised and not made.report.serialised and not made.report.spilled
    assert made.threads == made.report.threads == 2 * alone.threads and made.report.matrix.keys() == {"wgmma"}


def test_a_little_is_an_exception_where_a_thread_has_many_sums() -> None:
    gpu = gpu_target("h100")
    resident = occupancy(gpu.sm, 256, 255, 0)
    why = Expectation((1024, 1024, 1024), 128, None, spills="many sums")
    for spilled, reason in ((48, "many sums"), (480, "")):
        (found,) = check(StaticReport(255, spilled, 0, {}, {}), gpu, resident, why)
        assert (found.kind, found.reason) == (FindingKind.SPILLS, reason)


def test_both_parts_of_split_operands_take_registers_too() -> None:
    gpu, rule = gpu_target("h100"), LaunchRule("kernel", (), {}, (), (), 8, 3)
    for kind, side, reason in (
        (MatrixType.TF32X3, 128, "a thread has 64 sums beside both parts of operands"),
        (MatrixType.TF32, 128, ""),
        (MatrixType.TF32, 256, "a thread has 128 sums, "),
    ):
        work = LaunchWork("k", rule, 8, 1.0, 1.0, 1.0, Product(512, 512, 512, kind=kind), Tile(128, side, 32, 3, 8))
        found = work.expected(gpu).spills
        assert found.startswith(reason) and bool(found) == bool(reason)


def test_what_all_rows_share_may_be_read_in_short_vectors() -> None:
    gpu = gpu_target("h100")
    fact = AccessFact("x1", DType.F16, False, 1, False, 96 * 8, repeated=True)
    for columns, reason in ((128, "x1 is the same for all rows, and 64 threads have 128 columns"), (512, "")):
        rule = LaunchRule("kernel", (), {"ROWS": 64, "COLUMNS": columns}, (fact,), (), 2, 1)
        assert expectation(rule, gpu, 10_000).narrow_loads == reason


def test_an_array_of_the_code_is_no_spill() -> None:
    gpu = gpu_target("h100")
    sine = "\nregion [i0=64]\n  in x0: f32[64]\n  out y0: f32[64]\n  v0: f32 = load x0[i0]\n"
    sine += "  v1: f32 = sin(v0)\n  store y0[i0] = v1\n"
    made = _built(print_kernel(parse_region(sine), gpu), gpu)
    assert ".local" in made.assembly and not made.report.spilled
    usage, spilt = "REG:32 STACK:32 LOCAL:0", "32 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads"
    assert cuda_report("", usage, 0, spilt).spilled == cuda_report("", usage, 0).spilled == 32
