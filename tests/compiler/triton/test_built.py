"""Kernels built ahead of time for GPUs that are not here: 128-bit accesses, no spills; bf16 and the device library."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusible.compiler.backends.triton.aot import StaticReport, build, ttir_text
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.overlap import with_wait
from fusible.compiler.backends.triton.printer import PrintedKernel, print_region
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.region.parse import parse_region
from fusible.errors import KernelBuildError, UsageError

BIAS = """
region [i0=1024, i1=4096]
  in x0: {0}[1024, 4096]
  in x1: {0}[4096]
  out y0: {0}[1024, 4096]
  v0: {0} = load x0[i0, i1]
  v1: {0} = load x1[i1]
  v2: {0} = add(v0, v1)
  v3: {0} = max(v2, 0.0)
  store y0[i0, i1] = v3
"""
NORM = """
region [i0=512, i1=1024]
  in x0: {0}[512, 1024]
  in x1: {0}[1024]
  out y0: {0}[512, 1024]
  v0: {0} = load x0[i0, i1]
  v1: f32 = f32(v0)
  v2: f32 = mul(v1, v1)
  v3: f32 = reduce sum over i1 of v2
  v4: f32 = div(v3, 1024.0)
  v5: f32 = sqrt(add(v4, 1e-06))
  v6: f32 = div(v1, v5)
  v7: {0} = load x1[i1]
  v8: f32 = mul(v6, f32(v7))
  v9: {0} = {0}(v8)
  store y0[i0, i1] = v9
"""
TURNED = """
region [i0=1024, i1=4096]
  in x0: f32[4096, 1024]
  out y0: f32[1024, 4096]
  v0: f32 = load x0[i1, i0]
  v1: f32 = abs(v0)
  store y0[i0, i1] = v1
"""
LONG = NORM.replace("1024", "65536")
LIBRARY = ("tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "log1p", "expm1", "round")


def kernel(text: str, gpu: str) -> PrintedKernel:
    region = parse_region(text)
    return print_region(region, schedule(region, gpu_target(gpu)))


def report(text: str, gpu: str) -> StaticReport:
    return build(kernel(text, gpu), gpu_target(gpu)).report


@pytest.mark.parametrize("gpu", ["a100", "h100", "mi300x"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_aligned_points_are_read_and_written_by_128_bits(dtype: str, gpu: str) -> None:
    found = report(BIAS.format(dtype), gpu)
    assert set(found.loads) == set(found.stores) == {128}
    assert found.spilled == 0 and found.registers <= 32


@pytest.mark.parametrize("text", [NORM, LONG])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_rows_are_read_by_128_bits_and_nothing_spills(dtype: str, text: str) -> None:
    found = report(text.format(dtype), "h100")
    assert set(found.loads) == set(found.stores) == {128}
    assert found.spilled == 0


def test_a_transposition_reads_and_writes_adjacent_elements() -> None:
    found = report(TURNED, "h100")
    assert set(found.loads) == set(found.stores) == {128} and found.spilled == 0
    assert found.shared >= 32 * 32 * 4  # turned there


def test_without_alignment_accesses_are_narrow() -> None:
    """The assertions above can fail."""
    made = kernel(BIAS.format("f32"), "h100")
    rule = replace(made.rule, arguments=tuple(replace(a, divisibility=1) for a in made.rule.arguments))
    found = build(PrintedKernel(made.source, rule), gpu_target("h100")).report
    assert set(found.loads) == {32}


def test_a_built_kernel_has_its_binary() -> None:
    cuda, hip = (build(kernel(BIAS.format("f16"), gpu), gpu_target(gpu)) for gpu in ("h100", "mi300x"))
    assert cuda.binary[:4] == hip.binary[:4] == b"\x7fELF"
    assert (cuda.target, hip.target) == ("cuda:sm_90", "hip:gfx942")
    assert ".target sm_90" in cuda.assembly and "gfx942" in hip.assembly


@pytest.mark.parametrize("gpu", ["h100", "mi300x"])
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_functions_of_the_device_library_compile(dtype: str, gpu: str) -> None:
    head = BIAS.format(dtype).partition("  v2")[0]
    lines, last = [], "v0"
    for number, function in enumerate(LIBRARY):
        lines.append(f"  v{2 + number}: {dtype} = {function}({last})")
        last = f"v{2 + number}"
    count = 2 + len(LIBRARY)
    lines += [
        f"  v{count}: {dtype} = add(pow({last}, v1), mod(fmod({last}, v1), 3.0))",
        f"  store y0[i0, i1] = v{count}",
    ]
    text = ttir_text(kernel(head + "\n".join(lines), gpu), gpu_target(gpu))
    symbols = ("__nv_tanhf", "__nv_powf") if gpu == "h100" else ("__ocml_tanh_f32", "__ocml_pow_f32")
    assert all(symbol in text for symbol in symbols)


def test_small_floats_are_rounded_after_each_stage() -> None:
    text = ttir_text(kernel(BIAS.format("bf16").replace("max(v2, 0.0)", "mul(v2, v2)"), "h100"), gpu_target("h100"))
    assert text.count("arith.truncf") >= 2


def test_what_the_compiler_refuses_is_an_error_with_the_source() -> None:
    made = kernel(BIAS.format("f32"), "h100")
    broken = PrintedKernel(made.source.replace("tl.load(x0", "tl.load(ROWS"), made.rule)
    with pytest.raises(KernelBuildError, match="building a kernel failed: triton kernel cuda:sm_90") as refused:
        build(broken, gpu_target("h100"))
    assert refused.value.source == broken.source


def test_the_interpreter_cannot_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UsageError, match="TRITON_INTERPRET is set"):
        build(kernel(BIAS.format("f32"), "h100"), gpu_target("h100"))


@pytest.mark.parametrize(("target", "waits"), [("h100", True), ("l4", False)])
def test_kernels_wait_before_they_load_where_launches_may_overlap(target: str, waits: bool) -> None:
    gpu, region = gpu_target(target), parse_region(BIAS.format("f32"))
    built = build(print_region(region, schedule(region, gpu)), gpu)
    wait, load = built.assembly.find("griddepcontrol.wait"), built.assembly.find("ld.global")
    assert built.overlaps is waits and load > 0
    assert 0 < wait < load if waits else wait < 0


def test_weights_are_fetched_before_the_kernel_waits() -> None:
    gpu, region = gpu_target("h100"), parse_region(BIAS.format("f32"))
    kernel = print_region(region, schedule(region, gpu))
    plain, fetching = (build(replace(kernel, fixed=fixed), gpu).assembly for fixed in ({}, {"x1": 16384, "x0": 100}))
    assert "prefetch.global.L2" not in plain
    assert 0 < fetching.find("prefetch.global.L2") < fetching.find("griddepcontrol.wait")
    assert fetching.count("prefetch.global.L2") == 1  # the other argument is less than a line


def test_only_an_entry_on_a_line_of_its_own_is_made_to_wait() -> None:
    text = "import triton\n\n\ndef other(x):\n    pass\n\n\n@triton.jit\ndef kernel(x, y):\n    x + y\n"
    made = with_wait(text, "kernel").splitlines()
    assert made[made.index("def kernel(x, y):") + 1] == "    gdc_wait()"
    for wrong, entry in ((text, "main"), (text.replace("(x, y)", "(\n    x, y\n)"), "kernel"), (text[14:], "kernel")):
        with pytest.raises(ValueError, match="the kernel's text"):
            with_wait(wrong, entry)
