"""Contractions as plain loops, where no kernel takes them: against the region interpreter."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fusible.compiler.backends.cpu.c_parts import print_nest
from fusible.compiler.backends.cpu.kernel import PLACEHOLDER, NotPrintable, print_region
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.sums import contractions_as_sums
from fusible.compiler.region.verify import verify_region
from tests.compiler.cpu.test_printed import call, steps, terms
from tests.kernels.cpu.harness import compile_c
from tests.tolerance import assert_close, poisoned


@functools.cache
def loops() -> dict[str, str]:
    """The C text of every fusion with contractions that can be printed as loops."""
    found: dict[str, str] = {}
    for name, step in steps().items():
        if step.region.contractions:
            region = contractions_as_sums(step.region)
            verify_region(region)
            assert not region.contractions
            try:
                found[name] = print_nest(region, PLACEHOLDER)[0]
            except NotPrintable:
                continue
    return found


def test_many_contractions_are_loops() -> None:
    assert {name.split(" ")[0] for name in loops()} >= {"transposed_convolution", "pixel_shuffle_epilogue"}


@pytest.mark.parametrize("name", loops())
def test_loops_are_right(name: str) -> None:
    step = steps()[name]
    function = compile_c('#include "printed.h"\n' + loops()[name])[PLACEHOLDER]
    got = [poisoned(tuple(map(int, b.shape)), b.dtype.numpy) for b in step.region.outputs]
    expected = run_region(step.region, step.inputs, into=[a.copy() for a in got])
    assert call(function, step.inputs, got) == 0
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, accumulation=terms(step.region))


PRODUCT = """
region [i0=3, i1=K, i2=5]
  in x0: f32[3, K]
  in x1: f32[K, 5]
  out y0: f32[3, 5]
  v0: f32 = load x0[i0, i1]
  v1: f32 = load x1[i1, i2]
  v2: f32 = contract over i1 of v0, v1
  store y0[i0, i2] = v2
"""


def test_only_small_contractions_are_loops_and_only_where_asked_for() -> None:
    small, large = (parse_region(PRODUCT.replace("K", k)) for k in ("40", "40000"))
    print_region(small, (), loops=True)
    for region, asked in ((small, False), (large, True)):
        with pytest.raises(NotPrintable, match="too few rows to be packed for"):
            print_region(region, (), loops=asked)


def test_a_small_product_of_two_inputs_runs() -> None:
    region = parse_region(PRODUCT.replace("K", "40"))
    function = compile_c('#include "printed.h"\n' + print_region(region, (), loops=True).text)[PLACEHOLDER]
    random = np.random.default_rng(3)
    a, b = (random.standard_normal(s).astype(np.float32) for s in ((3, 40), (40, 5)))
    y = poisoned((3, 5), np.float32)
    assert call(function, [a, b], [y]) == 0
    assert_close(y, a.astype(np.float64) @ b, accumulation=40)
