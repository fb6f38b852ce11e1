"""Functions for results of 16 bits: how wrong they are, where they are printed, and that no slow path is left."""

from __future__ import annotations

import math
import re
from functools import cache

import numpy as np
import pytest
import triton
import triton.language as tl

from fusible.compiler.backends.triton.aot import build
from fusible.compiler.backends.triton.gpu_targets import gpu_target
from fusible.compiler.backends.triton.printer import print_region
from fusible.compiler.backends.triton.schedule import schedule
from fusible.compiler.backends.triton.smooth import smoothed
from fusible.compiler.ir.types import DType
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.region import Map, Region
from fusible.kernels.triton.smooth import logistic, one_plus_erf, one_plus_tanh
from tests.compiler.triton.checked import run_checked
from tests.compiler.triton.harness import run

H100 = gpu_target("h100")
POINTS = """
region [i0={n}]
  in x0: {dtype}[{n}]
  out y0: {dtype}[{n}]
  v0: {dtype} = load x0[i0]
  v1: {dtype} = {expr}
  store y0[i0] = v1
"""
GELU = "mul(mul(add(erf(mul(v0, 0.7071067811865476)), 1.0), 0.5), v0)"
TANH = "mul(mul(add(1.0, tanh(mul(v0, 0.7978845608))), 0.5), v0)"
SILU = "mul(v0, sigmoid(v0))"
FORMULAS = {
    GELU: lambda v: 0.5 * v * math.erfc(-v / math.sqrt(2)),
    TANH: lambda v: v / (1 + math.exp(-2 * 0.7978845608 * v)),
    SILU: lambda v: v / (1 + math.exp(-v)),
    "div(v0, 3.0)": lambda v: v / 3,
}


@triton.jit
def all_three(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    v = tl.load(x + at, mask=inside, other=0.0)
    tl.store(out + at, one_plus_erf(v), mask=inside)
    tl.store(out + n + at, one_plus_tanh(v), mask=inside)
    tl.store(out + 2 * n + at, logistic(v), mask=inside)


@cache
def computed() -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([np.linspace(-9, 9, 20001), [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    out = np.empty((3, x.size), np.float32)
    run(all_three, (-(-x.size // 512),), {"x": x, "out": out, "n": x.size}, {"BLOCK": 512})
    return x.astype(np.float64), out.astype(np.float64)


def region(expr: str, dtype: str = "f16", n: int = 4096) -> Region:
    return parse_region(POINTS.format(n=n, dtype=dtype, expr=expr))


def test_one_plus_erf_is_as_accurate_as_its_docstring_says() -> None:
    x, (got, *_) = computed()
    x, got = x[:-5], got[:-5]
    wanted = np.vectorize(math.erfc)(-x)
    near = x >= -5
    assert np.abs(got / wanted - 1)[near].max() < 1.5e-5
    assert np.abs(got - wanted)[~near].max() < 1e-12


def test_the_others_are_as_accurate_as_their_docstrings_say() -> None:
    x, (_, tanh, sigmoid) = computed()
    for got, scale in ((tanh[:-5] / 2, 2), (sigmoid[:-5], 1)):
        assert np.abs(got * (1 + np.exp(-scale * x[:-5])) - 1).max() < 2**-19


def test_zeros_infinities_and_what_is_no_number() -> None:
    _, (erf, tanh, sigmoid) = computed()
    for got, most in ((erf, 2), (tanh, 2), (sigmoid, 1)):
        np.testing.assert_array_equal(got[-5:], [most / 2, most / 2, most, 0, np.nan])


@pytest.mark.parametrize("expr", FORMULAS)
def test_results_in_half_precision_are_rounded_as_if_they_were_exact(expr: str) -> None:
    """All numbers of float16 from 2^-9 to 16 and their negatives: off by one step at most, and seldom."""
    positive = np.arange(0x1800, 0x4C00, dtype=np.uint16).view(np.float16)
    x = np.concatenate([positive, -positive])
    one = region(expr, n=x.size)
    (got,) = run_checked(print_region(one, schedule(one, H100)), one.outputs, [x])
    wanted = np.array([FORMULAS[expr](float(v)) for v in x]).astype(np.float16)
    steps = np.abs(got.view(np.int16).astype(int) - wanted.view(np.int16).astype(int))
    steps[np.abs(wanted.astype(float)) < 2**-14] = 0  # subnormal: zeros have two signs
    assert steps.max() <= 1 and (steps > 0).mean() < 0.02
    assert np.abs(got.astype(float) - wanted.astype(float)).max() <= 2**-7


@pytest.mark.parametrize(
    ("expr", "dtype", "text"),
    [
        (GELU, "f16", "one_plus_erf"),
        (GELU, "bf16", "one_plus_erf"),
        (GELU, "f32", "tl.erf"),
        (TANH, "f16", "one_plus_tanh"),
        (SILU, "f16", "logistic"),
        (SILU, "f32", "tl.div_rn"),
        ("floor(div(v0, 3.0))", "f16", "tl.div_rn"),  # a quotient just below a whole number
        ("erf(v0)", "f16", "tl.erf"),  # near zero its error is that of the result, not of one plus it
    ],
)
def test_where_they_are_printed(expr: str, dtype: str, text: str) -> None:
    one = region(expr, dtype)
    source = print_region(one, schedule(one, H100)).source
    assert f"{text}(" in source
    assert (" import one_plus" in source or " import logistic" in source) == (text[:3] != "tl.")


def test_quotients_and_branches_of_the_library_are_gone() -> None:
    for expr in FORMULAS:
        built = build(print_region(region(expr), schedule(region(expr), H100)), H100)
        assert "div.rn" not in built.assembly and built.report.spilled == 0
        assert set(built.report.loads) == set(built.report.stores) == {128}
    gelu = build(print_region(region(GELU), schedule(region(GELU), H100)), H100).assembly
    exact = build(print_region(region(GELU, "f32"), schedule(region(GELU, "f32"), H100)), H100).assembly
    assert gelu.count("fma.rn") == 6 * 8 and gelu.count("ex2.approx.ftz") == 8  # a thread has 8 numbers
    assert not re.search(r"\bbra\b", gelu) and re.search(r"\bbra\b", exact)


def test_integers_are_left_alone() -> None:
    text = "\n".join([
        "region [i0=4]", "  in x0: i32[4]", "  out y0: f16[4]", "  v0: i32 = load x0[i0]",
        "  v1: f16 = f16(div(v0, 3))", "  store y0[i0] = v1",
    ])  # fmt: skip
    one = parse_region(text)
    stage = one.stages[1]
    assert isinstance(stage, Map) and "quotient" in str(smoothed(stage.expr, DType.F16))  # but for the operand's type
    x = np.array([7, -7, 9, 1], np.int32)
    (got,) = run_checked(print_region(one, schedule(one, H100)), one.outputs, [x])
    np.testing.assert_array_equal(got, (x / 3).astype(int).astype(np.float16))
