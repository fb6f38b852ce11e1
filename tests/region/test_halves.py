"""Two elements in a byte: what is packed is read back, by regions with a half as an axis, and by sums without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusible.compiler.ir.types import DType
from fusible.compiler.region.evaluate import run_region
from fusible.compiler.region.halves import in_halves, packed_in_halves
from fusible.compiler.region.region import Reduce
from fusible.compiler.region.sums import contractions_as_sums
from fusible.compiler.region.unrolled_axis import unrolled_axis
from fusible.compiler.region.verify import verify_region
from tests.region.quantised import arrays_for, product

WEIGHT = 1  # the input


@pytest.mark.parametrize("dtype", [DType.I4, DType.U4])
@pytest.mark.parametrize(("terms", "block"), [(8, 0), (12, 2), (10, 3), (4, 0)])
def test_bytes_are_what_they_were_made_of(dtype: DType, terms: int, block: int) -> None:
    region = product(DType.F32, dtype, (3, terms, 5), block=block).region
    halves = in_halves(region, [WEIGHT, 2, 3])
    assert halves is not None and (halves.buffer, halves.dimension) == (WEIGHT, 0)
    verify_region(halves.region)
    assert halves.region.extents[halves.axis] == 2 and halves.region.inputs[WEIGHT].shape == (terms // 2, 5)
    inputs = arrays_for(region)
    packed = [packed_in_halves(x, 0) if n == WEIGHT else x for n, x in enumerate(inputs)]
    assert packed[WEIGHT].nbytes * 2 == inputs[WEIGHT].nbytes
    wanted = run_region(region, inputs)[0]
    np.testing.assert_allclose(run_region(halves.region, packed)[0], wanted, rtol=1e-5, atol=1e-4)
    summed = unrolled_axis(contractions_as_sums(halves.region), halves.axis)
    verify_region(summed)
    assert summed.extents[halves.axis] == 1
    np.testing.assert_allclose(run_region(summed, packed)[0], wanted, rtol=1e-5, atol=1e-4)
    packed[WEIGHT] = packed[WEIGHT] ^ 16  # of the second half
    assert np.abs(run_region(halves.region, packed)[0] - wanted).max() > 0.1


def test_what_cannot_be_packed() -> None:
    odd = product(DType.F32, DType.I4, (3, 7, 5)).region
    assert in_halves(odd, [WEIGHT]) is None
    assert in_halves(product(DType.F32, DType.I8).region, [WEIGHT]) is None
    assert in_halves(product(DType.F32, DType.I4).region, []) is None
    with pytest.raises(ValueError, match="7 elements are no two halves"):
        packed_in_halves(np.zeros((7, 2), DType.I4.numpy), 0)


def test_only_one_sum_is_unrolled() -> None:
    region = contractions_as_sums(product(DType.F32, DType.I8).region)
    (fold,) = (s for s in region.stages if isinstance(s, Reduce))
    with pytest.raises(ValueError, match="a sum was expected"):
        unrolled_axis(region, next(a for a in range(3) if a not in fold.axes))
    stages = tuple(replace(s, combiner="max") if s is fold else s for s in region.stages)
    with pytest.raises(ValueError, match="a sum was expected"):
        unrolled_axis(replace(region, stages=stages), fold.axes[0])
