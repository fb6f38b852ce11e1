"""Kernels of regions around one contraction, in checking mode, against the region interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import fusible
from fusible.compiler.backends.triton.aot import ttir_text
from fusible.compiler.backends.triton.contraction import contraction_of
from fusible.compiler.backends.triton.contraction_printer import print_product, sizes_of
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.kernel import build_kernel
from fusible.compiler.backends.triton.lower import lower_ttir
from fusible.compiler.backends.triton.schedule_contraction import ContractionSchedule, schedule_contraction
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.parse import parse_region
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.native.compiler import find_compiler
from fusible.runtime.native.pool import Pool, load_pool_library
from tests.compiler.triton.contraction_cases import CASES, CHOSEN, DYNAMIC, SUMS, TYPED
from tests.compiler.triton.contractions import Case, Model, check, ran
from tests.compiler.triton.harness import BF16

MATRICES: dict[str, Callable[[Model], Case]] = {
    "product": lambda m: m.case(m("relu", m("add", m("matmul", m.x(200, 136), m.w(136, 264)), m.w(264)))),
    "transposed": lambda m: m.case(
        m("gemm", m.x(136, 72), m.x(104, 136), m.x(104), transA=True, transB=True),
    ),
    "batch": lambda m: m.case(m("matmul", m.x(3, 70, 136), m.w(136, 72))),
    "convolution": lambda m: m.case(m("relu", m.conv(m.x(2, 136, 9, 11), m.w(72, 136, 1, 1), m.w(72))), last=True),
}
ROWS = """
region [i0=b, i1=11, i2=40, i3=72]
  in x0: f16[b, 11, 72]
  in x1: f16[72, 40]
  out y0: f16[b, 11, 40]
  v0: f16 = load x0[i0, i1, i3]
  v1: f16 = load x1[i3, i2]
  v2: f32 = contract over i3 of v0, v1
  v3: f16 = f16(v2)
  store y0[i0, i1, i2] = v3
"""
OTHERS: dict[str, tuple[str, Callable[[Model], Case]]] = {
    "rows": ("its rows are 270 bytes apart", lambda m: m.case(m("matmul", m.x(64, 135), m.w(135, 64)))),
    "windows": (
        "a window of it may end outside",
        lambda m: m.case(m.conv(m.x(1, 64, 9, 9), m.w(64, 64, 3, 3), m.w(64), pads=1), last=True),
    ),
    "strided": (
        "its elements do not lie as those of a matrix",
        lambda m: m.case(m.conv(m.x(1, 64, 9, 9), m.w(64, 64, 1, 1), m.w(64), strides=2), last=True),
    ),
    "batch": ("there is one for each index of a batch", lambda m: m.case(m("matmul", m.x(3, 64, 64), m.x(3, 64, 64)))),
    "computed": ("it is computed", lambda m: m.case(m("matmul", m("exp", m.x(64, 64)), m.x(64, 64)))),
}

DTYPES = [np.dtype(np.float32), np.dtype(np.float16), BF16]


@pytest.mark.parametrize(("name", "number"), [(name, n) for n, name in enumerate(CHOSEN)])
def test_a_contraction_is_what_its_region_says(name: str, number: int) -> None:
    terms, make = CASES[name]
    made = make(Model(DTYPES[0 if name in TYPED else number % 3]))
    kernel = check(made.region, terms=terms, constants=made.constants, inputs=made.inputs)
    assert ("contraction(" in kernel.source) == (name not in SUMS)


def test_a_long_sum_of_few_tiles_is_sliced() -> None:
    m = Model()
    made = m.case(m("relu", m.conv(m.x(1, 64, 4, 4), m.w(24, 64, 3, 3), m.w(24), pads=1)), last=True)
    kernel = check(made.region, terms=576, constants=made.constants, inputs=made.inputs)
    assert kernel.rule.constants["SLICES"] == 4 and kernel.rule.warps == 4


@pytest.mark.parametrize("form", list(MATRICES))
def test_matrices_are_fetched_by_descriptors(form: str) -> None:
    """In checking mode, so behind their edges too; blocks of the depth end behind it."""
    m = Model(np.float16)
    made = MATRICES[form](m)
    contraction = contraction_of(made.region, made.constants)
    sizes = sizes_of(contraction)
    tile = replace(schedule_contraction(sizes, contraction.kind, "ieee", gpu_target("h100")), slices=1, bulk=True)
    kernel = check(made.region, terms=136, constants=made.constants, inputs=made.inputs, tile=tile)
    assert set(kernel.rule.operands.values()) == {"by descriptor"}
    assert kernel.source.count("make_tensor_descriptor") == 2 and kernel.source.count("tl.load(") == (form != "batch")


def test_matrices_may_have_rows_that_a_run_decides() -> None:
    region = parse_region(ROWS, {"b": Symbol("b", 1, 64)})
    tile = ContractionSchedule(32, 32, 32, 1, 8, 4, 2, bulk=True)
    kernel = check(region, terms=72, env={"b": 3}, tile=tile)
    left, right = kernel.rule.tensors
    assert (left.shape, right.shape) == ((0, 72), (72, 40)) and "[(s0 * 11), 72], [72, 1]" in kernel.source
    assert left.sizes(3 * 11 * 72 * 2, 2) == (33, 72) == left.sizes(3 * 11 * 72 * 2 - 40, 2)  # the last row ends early
    assert right.sizes(72 * 40 * 2, 2) == (72, 40)
    unbounded = parse_region(ROWS, {"b": Symbol("b", 1)})
    rule = print_product(contraction_of(unbounded), tile, "ieee").rule
    assert rule.operands["left"] == "by pointers: its sizes may exceed 32 bits"


@pytest.mark.parametrize(("form", "reason"), [(form, reason) for form, (reason, _) in OTHERS.items()])
def test_what_no_descriptor_takes_has_a_reason(form: str, reason: str) -> None:
    made = OTHERS[form][1](Model(np.float16))
    contraction = contraction_of(made.region, made.constants)
    tile = ContractionSchedule(32, 32, 32, 1, 8, 4, 2, bulk=True)
    rule = print_product(contraction, tile, "ieee").rule
    assert rule.tensors == ()
    assert any(how.startswith(f"by pointers: {reason}") for how in rule.operands.values())


def test_parts_of_a_sum_are_added_in_one_order_whoever_comes_last() -> None:
    """Odd sizes, and parts of which the last has fewer steps; many runs by several threads give the same bits."""
    m = Model()
    y = m.conv(m.x(1, 24, 9, 7), m.w(40, 24, 3, 3), m.w(40), pads=1)
    made = m.case(m("relu", y), last=True)
    tile = ContractionSchedule(16, 32, 16, 1, 2, 1, 2, split=4)
    kernel = check(made.region, terms=216, constants=made.constants, inputs=made.inputs, tile=tile)
    assert kernel.rule.programs({}) == 4 * 2 * 4 and kernel.rule.workspace == 16 * 32 * 4
    built = build_kernel(lower_ttir(ttir_text(kernel, gpu_target("h100")), checked=True))
    library = load_pool_library(find_compiler(os.environ), cache_dir=default_cache_dir(os.environ))
    with Pool(4, library=library) as pool:
        first, *others = [ran(kernel, made.region, made.inputs, {}, built=built, pool=pool) for _ in range(20)]
    assert all(np.array_equal(first[0], other[0]) for other in others)


@pytest.mark.parametrize(("wave", "alone"), [(8, 16), (10, 20), (7, None), (32, 0)])
def test_tiles_in_whole_waves_are_not_shared(wave: int, alone: int | None) -> None:
    """Where all tiles lie in whole waves, or none does, too; 21 tiles of odd sizes."""
    m = Model()
    made = m.case(m("relu", m("add", m("matmul", m.x(37, 90), m.w(90, 100)), m.x(37, 100))))
    tile = ContractionSchedule(16, 16, 16, 1, 2, 1, 2, split=3, wave=wave)
    kernel = check(made.region, terms=90, constants=made.constants, inputs=made.inputs, tile=tile)
    shares = alone is not None
    assert kernel.rule.alone == (alone or 0) and bool(kernel.rule.workspace) == shares
    assert kernel.rule.programs({}) == ((alone or 0) + 3 * (21 - (alone or 0)) if shares else 21)


def test_a_schedule_splits_a_long_sum_of_few_tiles() -> None:
    m = Model(np.float16)
    made = m.case(m("matmul", m.x(9, 2048), m.w(2048, 257)))
    kernel = check(made.region, terms=2048, constants=made.constants, inputs=made.inputs)
    assert kernel.rule.constants["SPLIT"] > 1


def test_a_part_beside_its_place_is_found() -> None:
    m = Model()
    made = m.case(m("matmul", m.x(16, 64), m.w(64, 16)))
    tile = ContractionSchedule(16, 16, 16, 1, 2, 1, 2, split=4)
    kernel = print_product(contraction_of(made.region, made.constants), tile, "ieee")
    wrong = replace(kernel, source=kernel.source.replace("WHOLE, workspace", "WHOLE, workspace + 1"))
    assert wrong.source != kernel.source
    with pytest.raises(fusible.ExecutionError, match="writes element 1024 of 'workspace', which has 1024"):
        ran(wrong, made.region, made.inputs, {})


def test_sizes_may_be_known_in_a_run_only() -> None:
    """Two results, one of them transposed; every dimension of the operands is a symbol but one."""
    region = parse_region(DYNAMIC, {n: Symbol(n, 1, 64) for n in "bnk"})
    kernel = check(region, terms=37, env={"b": 3, "n": 11, "k": 37})
    assert [a.type for a in kernel.rule.arguments[-3:]] == ["i32"] * 3
    assert kernel.rule.programs({"b": 3, "n": 0, "k": 37}) == 0
