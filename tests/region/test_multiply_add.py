"""Dequantised operands as one product and a difference: nearer to the truth; others are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.types import DType
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.halves import in_halves, packed_in_halves
from fusible.compiler.region.multiply_add import with_multiply_add
from fusible.compiler.region.region import Contract
from fusible.compiler.region.sums import contractions_as_sums
from fusible.compiler.region.text import region_text
from fusible.compiler.region.verify import verify_region
from tests.region.quantised import arrays_for, product

_TERMS, _BLOCK = 64, 16


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("stored", [DType.I4, DType.U4, DType.I8, DType.U8])
@pytest.mark.parametrize("real", [DType.F16, DType.BF16])
def test_operands_are_the_exact_ones_in_float32(real: DType, stored: DType, zeros: bool) -> None:
    region = product(real, stored, (1, _TERMS, 5), real=real, block=_BLOCK, zeros=(False, zeros)).region
    inputs = arrays_for(region)
    x, q, s, *z = (array.astype(np.float64) for array in inputs)
    block = np.arange(_TERMS) // _BLOCK
    truth = x @ ((q - (z[0][block] if zeros else 0)) * s[block])
    halves = in_halves(region, [1])
    if halves is not None:
        region, inputs[1] = halves.region, packed_in_halves(inputs[1], 0)
    moved = with_multiply_add(region)
    verify_region(contractions_as_sums(moved))
    contract = moved.stages[moved.contractions[0]]
    assert isinstance(contract, Contract) and {moved.dtypes[v] for v in contract.args} == {real, DType.F32}
    (got,), (before,) = run_region(moved, inputs), run_region(region, inputs)
    error, old = (np.abs(y.astype(np.float64) - truth).max() for y in (got, before))
    assert error <= old and error <= np.abs(truth).max() * (2**-11 if real is DType.F16 else 2**-8)


def test_scales_of_float32_stay_behind_the_difference() -> None:
    region = product(DType.F32, DType.U8, (1, _TERMS, 5), block=_BLOCK, zeros=(False, True)).region
    assert region_text(with_multiply_add(region)) == region_text(region)
