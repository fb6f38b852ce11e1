"""Static reports: what is read off code, what is expected of kernels, and what of candidates is worth timing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from onnx.parser import parse_model

import fusible
from fusible.cli.gpu_report import print_gpu_section
from fusible.compiler.backends.triton.aot import BuiltKernel, build
from fusible.compiler.backends.triton.candidates import Candidate, prune
from fusible.compiler.backends.triton.gpu_targets import GPUS, MatrixType, gpu_target
from fusible.compiler.backends.triton.kernel_report import (
    Expectation,
    Finding,
    FindingKind,
    KernelReport,
    expectation,
    gpu_section,
    kernel_report,
)
from fusible.compiler.backends.triton.launch import AccessFact, Argument, LaunchRule
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.roofline import Bound
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.backends.triton.static_report import StaticReport, cuda_report, hip_report
from fusible.compiler.ir.types import DType
from fusible.compiler.options import Options
from fusible.compiler.region.parse import parse_region
from fusible.errors import KernelBuildError

A100, H100 = gpu_target("a100"), gpu_target("h100")
USAGE = "Resource usage:\n Function kernel:\n  REG:40 STACK:16 SHARED:1024 LOCAL:8 CONSTANT[0]:568\n"
PTX = """
    ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
    @%p1 ld.global.L1::evict_last.b16 { %rs1 }, [ %rd2 + 0 ];
    st.global.v2.b64 [ %rd3 + 0 ], { %rd4, %rd5 };
    cp.async.cg.shared.global [ %r11 + 0 ], [ %rd5 + 0 ], 0x10, %r12;
    cp.async.ca.shared.global [ %r11 + 0 ], [ %rd5 + 0 ], 4;
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [%r4];
    cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd1, {%r2, %r3}], [%r4];
    cp.async.bulk.commit_group;
    cp.async.wait_group 0x1;
    atom.global.gpu.acq_rel.add.f32 %f1, [ %rd1 + 0 ], %f2;
    red.relaxed.gpu.global.add.f32 [ %rd1 + 0 ], %f2;
    mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1}, {%r2}, {%r3}, {%r4};
    wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%r1}, %rd1, %rd2, %p1, 1, 1, 0, 1;
    wgmma.fence.sync.aligned;
    tcgen05.mma.cta_group::1.kind::f16 [ %r1 + 0 ], %rd1, %rd2, %r2, %p1;
    tcgen05.ld.sync.aligned.32x32b.x64.b32 {%r1}, [%r2];
"""
ASSEMBLY = """
    global_load_dwordx4 v[6:9], v[26:27], off
    buffer_load_dwordx2 v[6:7], v1, s[0:3], 0 offen
    buffer_load_lds_dwordx4 v1, s[0:3], 0 offen
    global_store_short v[0:1], v2, off
    global_atomic_add_f32 v[0:1], v2, off
    v_mfma_f32_32x32x8_f16 v[18:33], v[88:89], v[52:53], v[18:33]
    .private_segment_fixed_size: 12
    .sgpr_spill_count: 1
    .vgpr_count:     114
    .vgpr_spill_count: 2
"""
PLAIN = Expectation()
GOOD = StaticReport(32, 0, 0, {128: 2}, {128: 1})
PRODUCT = """
import triton
import triton.language as tl


@triton.jit
def kernel(x0, x1, y0, ROWS: tl.constexpr, COLUMNS: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows = tl.program_id(0) // (N // COLUMNS) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0) % (N // COLUMNS) * COLUMNS + tl.arange(0, COLUMNS)
    steps = tl.arange(0, 64)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, K, 64):
        left = tl.load(x0 + rows[:, None] * K + start + steps[None, :])
        right = tl.load(x1 + (start + steps[:, None]) * N + columns[None, :])
        total = tl.dot(left, right, total)
    tl.store(y0 + rows[:, None] * N + columns[None, :], total.to(tl.float16))
"""
BIAS = """
region [i0=1024, i1=4096]
  in x0: f16[1024, 4096]
  in x1: f16[4096]
  out y0: f16[1024, 4096]
  v0: f16 = load x0[i0, i1]
  v1: f16 = load x1[i1]
  v2: f16 = add(v0, v1)
  store y0[i0, i1] = v2
"""


MODEL = parse_model("""
    <ir_version: 10, opset_import: ["": 18]>
    model (float16[n, 256] x, float16[256, 512] w) => (float16[n, 512] y)
    {
        product = MatMul(x, w)
        positive = Relu(product)
        y = Softmax(positive)
    }
""")


def product(gpu: str, rows: int = 128) -> BuiltKernel:
    arguments = tuple(Argument(name, "*fp16", None, 16) for name in ("x0", "x1", "y0"))
    constants = {"ROWS": rows, "COLUMNS": 128, "N": 1024, "K": 1024}
    rule = LaunchRule("kernel", arguments, constants, (), ((1024, rows), (1024, 128)), 4, 3)
    return build(PrintedKernel(PRODUCT, rule), gpu_target(gpu))


def made(report: StaticReport, expected: Expectation = PLAIN, gpu: str = "h100") -> KernelReport:
    return kernel_report(
        "k", report, gpu_target(gpu), threads=128, programs=4096, operations=1e6, nbytes=1e8, expected=expected
    )


def test_ptx_is_read() -> None:
    found = cuda_report(PTX, USAGE, 4096)
    assert found == StaticReport(
        40, 24, 4096, {16: 1, 32: 1, 128: 2}, {128: 1}, {"mma": 1, "tcgen05": 1, "wgmma": 1}, 1, 1, 2
    )
    with pytest.raises(KernelBuildError, match="expected REG:NUMBER"):
        cuda_report(PTX, "no such function", 0)


def test_amd_assembly_is_read() -> None:
    assert hip_report(ASSEMBLY, 64) == StaticReport(114, 3, 64, {64: 1, 128: 2}, {16: 1}, {"mfma": 1}, atomics=1)
    in_lanes = ASSEMBLY.replace("_size: 12", "_size: 0")
    assert hip_report(in_lanes, 64).spilled == 2
    with pytest.raises(KernelBuildError, match="does not say its vgpr_spill_count"):
        hip_report(ASSEMBLY.replace(".vgpr_spill_count: 2", ""), 64)


def test_a_built_product_uses_the_matrix_units() -> None:
    built = product("a100")
    assert built.report.matrix.keys() == {"mma"} and built.report.spilled == 0
    assert built.report.loads.keys() == {128}
    expected = Expectation((1024, 1024, 1024), 128, MatrixType.FP16)
    found = kernel_report(
        "k", built.report, A100, threads=128, programs=64, operations=2.0 * 1024**3, nbytes=6 * 1024.0**2,
        expected=expected,
    )  # fmt: skip
    assert found.findings == () and found.bound is Bound.MATRIX
    assert found.roofline == pytest.approx(2.0 * 1024**3 / A100.fp16)
    assert found.roofline < found.seconds < 20 * found.roofline


def test_a_compiled_model_has_the_report(tmp_path: Path) -> None:
    """The whole way, with no GPU: wgmma, nothing spills; what the plan launches is what is reported."""
    options = Options(cache_dir=tmp_path)
    section = fusible.compile(MODEL.SerializeToString(), "cuda:sm_90", shapes={"n": 256}, options=options).report.gpu
    first, second = section["kernels"]
    assert first["matrix"].keys() == {"wgmma"} and not second["matrix"]
    assert first["operations"] == 256 * 512 * (2 * 256 + 1) and first["programs"] >= 8
    assert second["bytes"] == pytest.approx(256 * 512 * 4)
    assert section["findings"] == [] and section["target"] == "cuda:sm_90"
    assert section["predicted_us"]["roofline"] < section["predicted_us"]["graph"] < section["predicted_us"]["launches"]


def test_a_built_sum_has_no_findings() -> None:
    region = parse_region(BIAS)
    kernel = print_region(region, schedule(region, H100))
    report = build(kernel, H100).report
    found = made(report, expectation(kernel.rule, H100, 4096))
    assert found.findings == () and found.occupancy.share == 1.0 and found.bound is Bound.MEMORY


def test_spills_are_defects() -> None:
    assert made(replace(GOOD, spilled=12)).findings == (Finding(FindingKind.SPILLS, "12 bytes of a thread"),)
    found = made(replace(GOOD, spilled=3), gpu="mi300x").findings
    assert found == (Finding(FindingKind.SPILLS, "3 registers of a thread"),)


def test_products_that_wait_for_each_other_are_defects() -> None:
    log = "ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ..."
    serialised = cuda_report(PTX, USAGE, 4096, log).serialised
    assert serialised and not cuda_report(PTX, USAGE, 4096, "ptxas info    : Used 40 registers").serialised
    (found,) = made(replace(GOOD, serialised=serialised)).findings
    assert found.kind is FindingKind.SERIALISED and not found.reason


def test_large_products_without_matrix_units_are_defects() -> None:
    large, small = (Expectation((64, 1000, size), 128, MatrixType.FP16) for size in (64, 63))
    found = made(replace(GOOD, stores={16: 3}), large).findings  # widths count for kernels without contractions
    assert found == (Finding(FindingKind.NO_MATRIX_UNITS, "a product of 64 x 1000 x 64 on fp16"),)
    assert made(GOOD, small).findings == ()
    assert made(GOOD, replace(large, kind=None)).findings == ()
    fp8 = replace(large, kind=MatrixType.FP8)
    assert made(GOOD, fp8).findings != () and made(GOOD, fp8, "a100").findings == ()  # it has none for fp8


def test_the_architecture_decides_which_instruction_is_meant() -> None:
    old = replace(GOOD, matrix={"mma": 8})
    wide, short = (Expectation((256, 256, 256), rows, MatrixType.BF16) for rows in (64, 32))
    assert made(old, wide, "a100").findings == made(old, wide, "rtx5090").findings == ()
    (found,) = made(old, wide).findings
    assert found.what == "a product of 256 x 256 x 256 uses mma where cuda:sm_90 has wgmma" and found.reason == ""
    (found,) = made(old, short).findings
    assert found.reason == "its tiles have 32 rows, wgmma takes 64"


def test_narrow_accesses_are_defects_unless_a_reason_is_known() -> None:
    narrow = replace(GOOD, loads={16: 1, 128: 1}, stores={32: 2})
    loads, stores = (Finding(FindingKind.NARROW, text) for text in ("loads: 1 of 16 bits", "stores: 2 of 32 bits"))
    assert made(narrow).findings == (loads, stores)
    facts = (
        AccessFact("x0", DType.F16, False, 1, False),
        AccessFact("x1", DType.F16, False, 0, False),
        AccessFact("x2", DType.F16, False, 3, False),
        AccessFact("x3", DType.F16, False, None, False),
        AccessFact("y0", DType.F16, True, 1, True),
    )
    rule = LaunchRule("kernel", (), {"ROWS": 1024}, facts, ((4096, 1024),), 4, 1)
    reason = (
        "x1 is read at one place by all neighbours; x2 is read with 3 elements between neighbours; x3 is read where "
        "data or a division say"
    )
    mask = "y0 is written under a mask, whose edge need not lie at 128 bits"
    expected = expectation(rule, H100, 4096)
    assert made(narrow, expected).findings == (replace(loads, reason=reason), replace(stores, reason=mask))
    alone = replace(rule, accesses=facts[:1])
    assert expectation(alone, H100, 4096).narrow_loads == ""
    whole, odd = replace(facts[4], run=224), replace(facts[4], run=3)
    assert expectation(replace(rule, accesses=(whole,)), H100, 4096).narrow_stores == ""
    runs = "y0 is written in runs of 3 elements, which are not whole 128 bits"
    assert expectation(replace(rule, accesses=(odd,)), H100, 4096).narrow_stores == runs
    folds = replace(rule, accesses=(replace(whole, folded=True),), constants={"ROWS": 16, "COLUMNS": 512})
    assert expectation(folds, H100, 4096).narrow_stores == "y0 is written once a row, of which 128 threads have 16"
    assert expectation(replace(folds, constants={"ROWS": 1024}), H100, 4096).narrow_stores == ""
    mixed = replace(rule, accesses=(facts[0], AccessFact("y0", DType.F32, True, 1, False)))
    assert "elements of different sizes" in expectation(mixed, H100, 4096).narrow_loads


def test_tiles_may_be_small_only_to_make_enough_programs() -> None:
    facts = (AccessFact("x0", DType.F16, False, 1, False), AccessFact("y0", DType.F16, True, 1, False))
    rule = LaunchRule("kernel", (), {"ROWS": 64, "COLUMNS": 4}, facts, ((4096, 64),), 4, 1)
    few = expectation(rule, H100, 200)
    assert few.narrow_loads == few.narrow_stores == "a thread has 2 points, so that there are 200 programs"
    assert expectation(rule, H100, 2000).narrow_loads == ""
    assert expectation(replace(rule, constants={"ROWS": 1024}), H100, 200).narrow_loads == ""


def test_what_does_not_fit_is_said() -> None:
    (found,) = made(replace(GOOD, shared=300_000)).findings
    assert found == Finding(FindingKind.NOT_RESIDENT, "one program alone needs more shared memory than H100 SXM5 has")


def test_the_section_of_a_model_is_json_and_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    launches = [
        made(GOOD),
        made(replace(GOOD, spilled=8)),
        made(replace(GOOD, loads={16: 1}), Expectation(narrow_loads="n")),
    ]
    section = gpu_section(H100, launches, ["nonzero: no kernel"])
    assert json.loads(json.dumps(section)) == section
    assert section["findings"] == [
        {"kind": "narrow accesses", "verdict": "exception", "count": 1},
        {"kind": "spills", "verdict": "defect", "count": 1},
    ]
    times = section["predicted_us"]
    assert times["roofline"] < times["kernels"] < times["graph"] < times["launches"] + 6
    assert "predictions" in section["note"]
    print_gpu_section(section, most=2)
    shown = capsys.readouterr().out
    assert "kernels by predicted time: 3, the first 2" in shown and "predicted us" in shown
    assert "8 bytes of a thread" in shown and "memory bandwidth" in shown and "128 (2)" in shown


def test_nothing_launched_is_a_section_too(capsys: pytest.CaptureFixture[str]) -> None:
    section = gpu_section(A100, [])
    assert section["launches"] == section["predicted_us"]["kernels"] == 0
    print_gpu_section(section)
    assert "findings: none" in capsys.readouterr().out


def test_candidates_that_cannot_win_are_dropped() -> None:
    rows = [
        Candidate("slow", 128, 2.5e-6, GOOD),
        Candidate("spills", 128, 0.5e-6, replace(GOOD, spilled=4)),
        Candidate("shared", 128, 0.5e-6, replace(GOOD, shared=300_000)),
        Candidate("registers", 1024, 0.5e-6, replace(GOOD, registers=128)),
        Candidate("second", 128, 1.9e-6, GOOD),
        Candidate("best", 128, 1e-6, None),
    ]
    kept, dropped = prune(rows, H100)
    assert [c.schedule for c in kept] == ["best", "second"]
    assert {d.candidate.schedule: d.reason for d in dropped} == {
        "slow": "it is predicted to take 2.5 times as long as the fastest",
        "spills": "it spills 4, the least is 0",
        "shared": "it needs 300000 bytes of shared memory, a program has 232448 on H100 SXM5",
        "registers": "a program does not fit on H100 SXM5: registers",
    }
    kept, dropped = prune(rows, H100, factor=3, most=1)
    assert [c.schedule for c in kept] == ["best"] and dropped[-1].reason == "1 are predicted to be faster"


def test_something_is_always_left_to_run() -> None:
    rows = [Candidate(n, 128, 1e-6, replace(GOOD, spilled=n)) for n in (16, 8, 24)]
    assert [c.schedule for c in prune(rows, A100)[0]] == [8]
    empty: list[Candidate[int]] = []
    assert prune(empty, A100) == ([], [])
    with pytest.raises(ValueError, match="a factor of at least 1"):
        prune(rows, A100, factor=0.5)


def test_every_gpu_has_an_instruction_to_expect() -> None:
    report = replace(GOOD, matrix={"none": 1})
    found = {name: made(report, Expectation((64, 64, 64), 64, MatrixType.FP16), name).findings[0].what for name in GPUS}
    assert found["b200"].endswith("has tcgen05") and found["mi300x"].endswith("has mfma")
    assert found["l4"].endswith("has mma")
