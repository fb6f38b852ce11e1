"""Contractions built ahead of time: matrix units are used, nothing spills, operands are copied in whole vectors."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fusible.compiler.backends.triton.aot import BuiltKernel, build
from fusible.compiler.backends.triton.contraction import contraction_of
from fusible.compiler.backends.triton.contraction_printer import print_product, sizes_of
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.print_kernel import print_kernel
from fusible.compiler.backends.triton.schedule_contraction import schedule_contraction, shared_bytes
from fusible.compiler.backends.triton.tensor_maps import wrong_parameters
from tests.compiler.triton.contractions import Case, Model

INSTRUCTIONS = {"h100": "wgmma.mma_async", "a100": "mma.sync", "mi300x": "v_mfma"}


def product(dtype: str) -> Case:
    m = Model(dtype)
    return m.case(m("relu", m("add", m("matmul", m.x(256, 192), m.w(192, 512)), m.w(512))))


def convolution(dtype: str) -> Case:
    m = Model(dtype)
    return m.case(m("relu", m.conv(m.x(1, 64, 28, 28), m.w(128, 64, 3, 3), m.w(128), pads=1, strides=2)), last=True)


def depthwise(dtype: str) -> Case:
    m = Model(dtype)
    return m.case(m.conv(m.x(1, 64, 56, 56), m.w(64, 1, 3, 3), m.w(64), pads=1, group=64), last=True)


def built(case: Case, gpu: str, precision: str = "ieee") -> BuiltKernel:
    target = gpu_target(gpu)
    return build(print_kernel(case.region, target, case.constants, precision=precision), target)


@pytest.mark.parametrize(
    ("make", "dtype", "gpu", "precision"),
    [
        (product, "float16", "h100", "ieee"),
        (product, "float32", "h100", "tf32"),
        (product, "float32", "h100", "tf32x3"),
        (convolution, "float32", "a100", "tf32x3"),
        (convolution, "float16", "h100", "ieee"),
        (convolution, "float16", "a100", "ieee"),
        (product, "float16", "mi300x", "ieee"),
    ],
)
def test_matrix_units_multiply_and_nothing_spills(make, dtype, gpu, precision) -> None:  # type: ignore[no-untyped-def]
    found = built(make(np.dtype(dtype)), gpu, precision)
    assert INSTRUCTIONS[gpu] in found.assembly
    assert found.report.spilled == 0
    copies = set(re.findall(r"cp\.async\.\w+\.shared\.global \[[^]]*\], \[[^]]*\], (0x\w+|\d+)", found.assembly))
    assert {int(c, 0) for c in copies} == (set() if gpu == "mi300x" else {16})
    counters = {32} if "atom." in found.assembly else set()  # of programs that share a tile
    assert set(found.report.stores) == {128} | counters


def test_products_are_not_made_to_wait_for_each_other() -> None:
    """Roundings, a bias and a maximum behind a long sum are what ptxas would move into the loop."""
    m = Model(np.float16)
    made = m.case(m("relu", m("add", m("matmul", m.x(4096, 2048), m.w(2048, 4096)), m.w(4096))))
    found = built(made, "h100")
    assert found.report.matrix and not found.report.serialised
    assert "wgmma.wait_group.sync.aligned 1" in found.assembly  # one step is multiplied while the next arrives
    first = re.search(r"ld\.global\.b16|\$L__BB0_1:", found.assembly)
    assert first and first[0] == "ld.global.b16"  # the bias, before the loop


def test_hopper_is_given_descriptors_by_the_host() -> None:
    m = Model(np.float16)
    made = m.case(m("relu", m("add", m("matmul", m.x(1200, 2048), m.w(2048, 1024)), m.w(1024))))
    kernel = print_kernel(made.region, gpu_target("h100"), made.constants)
    assert dict(kernel.rule.operands) == {"left": "by descriptor", "right": "by descriptor"}
    hopper, ampere = (build(kernel, gpu_target(gpu)) for gpu in ("h100", "a100"))
    assert hopper.report.bulk_loads and hopper.scratch == (0, 0) and not hopper.report.serialised
    assert [(m.tensor.argument, m.tensor.shape, m.kind, m.itemsize) for m in hopper.maps] == [
        ("x0", (1200, 2048), 6, 2), ("x1", (2048, 1024), 6, 2),
    ]  # fmt: skip
    assert all(m.swizzle == 3 and m.box[-1] * m.itemsize == 128 for m in hopper.maps)  # as wgmma reads them
    assert ampere.maps == () and not ampere.report.bulk_loads and 128 in ampere.report.loads
    assert wrong_parameters(hopper.assembly, kernel.rule) == ""
    assert "expected u64, u64, u64, u64, b8, u32" in wrong_parameters(ampere.assembly, kernel.rule)


@pytest.mark.parametrize("gpu", ["h100", "a100"])
def test_shared_memory_is_what_the_schedule_reckons_with(gpu: str) -> None:
    target, made = gpu_target(gpu), product(np.dtype("float16"))
    contraction = contraction_of(made.region, made.constants)
    chosen = schedule_contraction(sizes_of(contraction), contraction.kind, "ieee", target)
    report = build(print_product(contraction, chosen, "ieee"), target).report
    assert report.shared == shared_bytes(chosen, contraction.kind, target)


def test_products_of_single_precision_that_stay_exact_use_no_matrix_unit() -> None:
    found = built(product(np.dtype(np.float32)), "h100")
    assert INSTRUCTIONS["h100"] not in found.assembly and "mma.sync" not in found.assembly
    assert "fma.rn.f32" in found.assembly and found.report.spilled == 0


def test_a_depthwise_convolution_reads_vectors_of_channels() -> None:
    found = built(depthwise(np.dtype(np.float16)), "h100")
    assert set(found.report.loads) == set(found.report.stores) == {128}
    assert found.report.spilled == 0
