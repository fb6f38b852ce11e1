"""Kernels of regions around one contraction, in checking mode, against the region interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.parse import parse_region
from tests.compiler.triton.contraction_cases import CASES, CHOSEN, DYNAMIC, SUMS, TYPED
from tests.compiler.triton.contractions import Model, check
from tests.compiler.triton.harness import BF16

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


def test_sizes_may_be_known_in_a_run_only() -> None:
    """Two results, one of them transposed; every dimension of the operands is a symbol but one."""
    region = parse_region(DYNAMIC, {n: Symbol(n, 1, 64) for n in "bnk"})
    kernel = check(region, terms=37, env={"b": 3, "n": 11, "k": 37})
    assert [a.type for a in kernel.rule.arguments[-3:]] == ["i32"] * 3
    assert kernel.rule.programs({"b": 3, "n": 0, "k": 37}) == 0
