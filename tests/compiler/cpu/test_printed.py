"""Regions printed as C against the region interpreter: every fusion that can be printed, between guard pages."""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from fusible.compiler.backends.cpu.c_convolution import Convolution
from fusible.compiler.backends.cpu.c_gemm import Product
from fusible.compiler.backends.cpu.kernel import PLACEHOLDER, NativeKernel, NotPrintable, print_region
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Contract, Load, Region, operands_of
from fusible.compiler.region.reorder import reordered
from tests.compiler.cpu.calls import call
from tests.kernels.cpu.harness import INSTRUCTION_SETS, compile_c
from tests.region.fusion_cases import CASES
from tests.region.test_fusions import arrays_of, built
from tests.tolerance import assert_close, poisoned

ORDER = (0, 2, 3, 1)
# What the printer does not take yet, in whatever order images are stored, and what it says last.
REFUSED = {
    "sibling_gemms": "it has several contractions",
    "gemm_transposed_cast_operands": "an operand of its product is bf16",
    "gated_mlp": "what its products have between them is no softmax",
    "arg_max_of_logits": "its reductions run over different axes",
    "cumulative_positions": "it has a running fold",
    "dequantise_gemm_prologue": "an operand of its product is computed in the region",
    "lstm_cell": "it has several contractions",
    "pixel_shuffle_epilogue": "its output channels are several axes",
    "transposed_convolution": "its windows do not slide in even steps",
}


@dataclass(frozen=True)
class Step:
    """A region of a fusion with operands, all of them known at compile time."""

    region: Region
    inputs: list[np.ndarray]

    def kernel(self) -> NativeKernel:
        return print_region(self.region, range(len(self.inputs)))

    def operands(self, kernel: NativeKernel) -> list[np.ndarray]:
        arrays = [np.ascontiguousarray(a) for a in self.inputs]
        for buffer, packing in kernel.packings.items():
            arrays[buffer] = packing.packed(arrays[buffer])
        return arrays


@functools.cache
def steps() -> dict[str, Step]:
    """Every region of every fusion."""
    found: dict[str, Step] = {}
    for name, make in CASES.items():
        case = make()
        group = built(case)
        arrays = [*arrays_of(group, case)]
        arrays += [np.zeros(tuple(map(int, b.shape)), b.dtype.numpy) for b in group.group.buffers[group.group.inputs :]]
        for number, step in enumerate(group.group.steps):
            inputs = [arrays[n] for n in step.inputs]
            found[f"{name} {number}"] = Step(step.region, inputs)
            run_region(step.region, inputs, into=[arrays[n] for n in step.outputs])
    return found


def channels_last(step: Step) -> Step:
    """The step over images stored channels last: every operand of four dimensions but a contraction's right one."""
    weights: set[int] = set()
    for contraction in step.region.contractions:
        right = step.region.first_values.index(operands_of(step.region.stages[contraction])[1])
        stage = step.region.stages[right]
        weights |= {stage.buffer} if isinstance(stage, Load) else set()
    inputs = {n: ORDER for n, b in enumerate(step.region.inputs) if len(b.shape) == 4 and n not in weights}
    outputs = {n: ORDER for n, b in enumerate(step.region.outputs) if len(b.shape) == 4}
    arrays = [a.transpose(ORDER).copy() if n in inputs else a for n, a in enumerate(step.inputs)]
    return Step(reordered(step.region, inputs, outputs), arrays)


@functools.cache
def printed() -> dict[str, tuple[Step, NativeKernel]]:
    """Every step that can be printed, row-major or with channels last; regions with images in both ways."""
    found: dict[str, tuple[Step, NativeKernel]] = {}
    for name, step in steps().items():
        said = ""
        for how, variant in (("", step), (" last", channels_last(step))):
            try:
                if how == "" or variant.region != step.region:
                    found[name + how] = variant, variant.kernel()
            except NotPrintable as refusal:
                said = str(refusal)
        fusion = name.split(" ")[0]
        assert (fusion in REFUSED) == (not {name, f"{name} last"} & set(found)), (name, said)
        assert REFUSED.get(fusion, "") in said, (name, said)
    return found


@functools.cache
def library(instruction_set: str) -> ctypes.CDLL:
    """All of them in one library."""
    texts = [kernel.text.replace(PLACEHOLDER, f"k{n}") for n, (_, kernel) in enumerate(printed().values())]
    return compile_c('#include "printed.h"\n' + "\n".join(texts), instruction_set)


def terms(region: Region) -> int:
    """How many numbers an element is the sum of, about."""
    found = 64
    for position in region.contractions:
        contract = region.stages[position]
        assert isinstance(contract, Contract)
        found = max(found, math.prod(int(region.extents[a]) for a in contract.axes))  # type: ignore[arg-type]
    return found


def test_most_is_printed() -> None:
    assert len(printed()) >= 30
    anchors = [kernel.anchor for _, kernel in printed().values()]
    assert sum(isinstance(anchor, Product) for anchor in anchors) >= 6
    kinds = {anchor.kind for anchor in anchors if isinstance(anchor, Convolution)}
    assert kinds == {"convolution", "planar", "winograd", "depthwise"}


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", printed())
def test_printed_regions_are_right(name: str, instruction_set: str) -> None:
    step, kernel = printed()[name]
    function = getattr(library(instruction_set), f"k{list(printed()).index(name)}")
    before = [poisoned(tuple(map(int, b.shape)), b.dtype.numpy) for b in step.region.outputs]
    expected = run_region(step.region, step.inputs, into=[a.copy() for a in before])
    got = [a.copy() for a in before]
    numbers = tuple(n for n in kernel.dims if isinstance(n, int))
    assert call(function, step.operands(kernel), got, numbers) == 0
    for one, other, start in zip(got, expected, before, strict=True):
        written = ~np.equal(other, start) if other.dtype.kind != "f" else ~np.isnan(other)
        assert written.any() or other.size == 0
        assert np.array_equal(np.isnan(one), ~written) if one.dtype.kind == "f" else True
        assert_close(one[written], other[written], accumulation=terms(step.region))


SOFTMAX = """
region [i0=n, i1=m]
  in x0: f32[n, m]
  out y0: f32[n, m]
  v0: f32 = load x0[i0, i1]
  v1: f32 = reduce max over i1 of v0
  v2: f32 = sub(v0, v1)
  v3: f32 = exp(v2)
  v4: f32 = reduce sum over i1 of v3
  v5: f32 = div(v3, v4)
  store y0[i0, i1] = v5
"""


def test_sizes_may_be_known_only_at_the_call() -> None:
    region = parse_region(SOFTMAX, {"n": Symbol("n"), "m": Symbol("m")})
    kernel = print_region(region, ())
    function = compile_c('#include "printed.h"\n' + kernel.text)[PLACEHOLDER]
    random = np.random.default_rng(1)
    for n, m in ((1, 1), (3, 7), (5, 8), (2, 33), (0, 4), (4, 100)):
        x = random.standard_normal((n, m)).astype(np.float32)
        y = poisoned((n, m), np.float32)
        sizes = {"n": n, "m": m}
        assert call(function, [x], [y], tuple(sizes[s] for s in kernel.dims if isinstance(s, str))) == 0
        wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True, initial=-np.inf))
        assert_close(y, wide / wide.sum(1, keepdims=True), accumulation=max(m, 1))


GATHER = """
region [i0=5, i1=3]
  in x0: f32[4, 3]
  in x1: i64[5]
  out y0: f32[5, 3]
  v0: i64 = load x1[i0]
  v1: f32 = load x0[v0, i1]
  store y0[i0, i1] = v1
"""


@pytest.mark.parametrize("bad", [4, -1, 2**40])
def test_an_index_out_of_range_is_noted_and_nothing_is_read_there(bad: int) -> None:
    kernel = print_region(parse_region(GATHER), ())
    function = compile_c('#include "printed.h"\n' + kernel.text)[PLACEHOLDER]
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    y = poisoned((5, 3), np.float32)
    assert call(function, [x, np.asarray([0, 3, 1, 1, 2])], [y]) == 0
    assert np.array_equal(y, x[[0, 3, 1, 1, 2]])
    assert call(function, [x, np.asarray([0, 3, bad, 1, 2])], [y]) == 1


SHIFTED = """
region [i0=5, i1=19]
  in x0: f32[5, 7]
  in x1: i64[5]
  out y0: f32[5, 19]
  v0: i64 = load x1[i0]
  v1: f32 = load x0[i0, i1 - v0] where v0 <= i1 < v0 + 7 else -1.0
  store y0[i0, i1] = v1
"""


def test_bounds_may_mention_what_data_gave() -> None:
    region = parse_region(SHIFTED)
    kernel = print_region(region, ())
    function = compile_c('#include "printed.h"\n' + kernel.text)[PLACEHOLDER]
    inputs = [np.random.default_rng(5).random((5, 7)).astype(np.float32), np.asarray([0, 3, 12, 18, 25])]
    y = poisoned((5, 19), np.float32)
    assert call(function, inputs, [y]) == 0
    assert np.array_equal(y, run_region(region, inputs)[0])


def test_texts_do_not_depend_on_the_run() -> None:
    assert all(step.kernel().text == kernel.text for step, kernel in printed().values())
