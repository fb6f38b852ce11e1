"""Scales behind the sum: the same numbers but for rounding, integers multiplied as integers, others left alone."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.types import DType
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.region import Contract, Region
from fusible.compiler.region.scales import scales_behind
from fusible.compiler.region.text import region_text
from fusible.compiler.region.verify import verify_region
from tests.region.quantised import arrays_for, product
from tests.tolerance import assert_close

E4, E5 = DType.F8E4M3FN, DType.F8E5M2


def contraction(region: Region) -> tuple[DType, ...]:
    """The types of the sum and of the operands."""
    contract = region.stages[region.contractions[0]]
    assert isinstance(contract, Contract)
    return contract.dtype, *(region.dtypes[v] for v in contract.args)


@pytest.mark.parametrize(
    ("left", "right", "zeros", "kinds"),
    [
        (DType.U8, DType.I8, (True, True), (DType.I32, DType.I32, DType.I32)),
        (DType.I8, DType.I4, (False, True), (DType.I32, DType.I32, DType.I32)),
        (DType.F16, DType.I8, (False, True), (DType.F32, DType.F16, DType.F16)),
        (DType.BF16, DType.U4, (False, False), (DType.F32, DType.BF16, DType.BF16)),
        (DType.F32, E4, (False, False), (DType.F32, DType.F32, DType.F32)),
        (E4, E4, (False, False), (DType.F32, E4, E4)),
        (E4, E5, (False, False), (DType.F32, DType.F16, DType.F16)),
        (E5, DType.I8, (False, False), (DType.F32, DType.F16, DType.F16)),
    ],
)
def test_what_is_stored_is_multiplied(left: DType, right: DType, zeros: tuple[bool, bool], kinds: tuple) -> None:  # type: ignore[type-arg]
    real = left if left in (DType.F16, DType.BF16) else DType.F32
    region = product(left, right, real=real, zeros=zeros).region
    moved = scales_behind(region, products_of_floats8=True)
    verify_region(moved)
    assert contraction(moved) == kinds
    inputs = arrays_for(region)
    (wanted,), (got,) = run_region(region, inputs), run_region(moved, inputs)
    assert_close(got, wanted, accumulation=64)
    assert region_text(scales_behind(moved, products_of_floats8=True)) == region_text(moved)


def test_floats_of_8_bits_are_converted_where_they_are_not_multiplied() -> None:
    region = product(E4, E4, zeros=(False, False)).region
    assert contraction(scales_behind(region, products_of_floats8=False)) == (DType.F32, DType.F16, DType.F16)


def test_long_sums_of_integers_are_no_sums_of_int32() -> None:
    region = product(DType.U8, DType.I8, (2, 40_000, 3)).region
    assert contraction(scales_behind(region, products_of_floats8=True)) == (DType.F32, DType.F16, DType.F16)


@pytest.mark.parametrize("block", [2, 4])
def test_scales_of_blocks_stay(block: int) -> None:
    region = product(DType.F16, DType.I4, real=DType.F16, block=block).region
    assert scales_behind(region, products_of_floats8=True) is region


def test_a_zero_point_of_8_bit_floats_stays() -> None:
    region = product(E4, E4, zeros=(False, True)).region
    moved = scales_behind(region, products_of_floats8=True)
    inputs = arrays_for(region)
    np.testing.assert_allclose(run_region(moved, inputs)[0], run_region(region, inputs)[0], rtol=1e-5, atol=1e-4)
    assert contraction(moved)[0] is DType.F32 and E4 not in contraction(moved)
