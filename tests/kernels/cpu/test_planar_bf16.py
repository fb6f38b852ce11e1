"""planar.h in bf16: operands rounded by ml_dtypes, the sum in float64, for every instruction set; guard pages."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.cpu.convolution_weights import pack_planar_bf16
from tests.kernels.cpu.layers import Layer, random
from tests.kernels.cpu.test_convolution import Case, operands
from tests.kernels.cpu.test_convolution_bf16 import rounded_reference
from tests.kernels.cpu.test_planar import CASES, SOURCE, planar_sizes
from tests.kernels.cpu.variants import BF16_VARIANTS, bf16_variant
from tests.tolerance import assert_close

BF16_SOURCE = SOURCE.replace("planar_scratch_bytes(", "planar_bf16_scratch_bytes(").replace(
    "planar_item(", "planar_bf16_item("
)

MORE = (
    Case((9, 12), 3, 32, kernel=(2, 3), stride=(2, 2), band=3),  # pairs of rows alone
    Case((9, 31), 2, 24, kernel=(4, 3), stride=(3, 1), pads=(1, 1, 2, 1), band=2),
    Case((8, 30), 3, 16, kernel=(1, 1), band=3),  # rows that have no other
    Case((10, 9), 3, 40, kernel=(5, 2), stride=(3, 2), pads=(2, 0, 2, 1), images=2, band=2),
)


@pytest.mark.parametrize("case", (*CASES, *MORE), ids=str)
@pytest.mark.parametrize("variant", BF16_VARIANTS)
def test_planar(variant: str, case: Case) -> None:
    x, weights = operands(case)
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(-1)
    shape = (case.images * case.out[0] * case.out[1], case.outputs)
    bias, residual = random((case.outputs,), seed=2), random(shape, seed=3)
    layer = Layer(*bf16_variant(BF16_SOURCE, variant))
    got = layer(planar_sizes(case), [planes, pack_planar_bf16(weights)], bias, shape, residual)
    wanted = rounded_reference(case).reshape(shape) + bias.astype(np.float64) + residual
    assert_close(got, wanted, accumulation=weights[0].size)


def test_an_infinite_element_stays_under_its_own_taps() -> None:
    """The row that fills up a pair is one of zeros, not the image's next."""
    case = Case((7, 20), 2, 16, kernel=(3, 3), band=5)
    x, weights = operands(case)
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    planes[:, :, 3] = np.inf
    shape = (case.images * case.out[0] * case.out[1], case.outputs)
    layer = Layer(*bf16_variant(BF16_SOURCE, "native"))
    got = layer(planar_sizes(case), [planes.reshape(-1), pack_planar_bf16(weights)], np.zeros(16, np.float32), shape)
    rows = np.isfinite(got.reshape(case.out[0], -1)).all(axis=1)
    np.testing.assert_array_equal(rows, [True, False, False, False, True])


def test_weights_of_odd_rows_are_filled_up_with_zeros() -> None:
    weights = random((5, 2, 3, 4))
    packed = pack_planar_bf16(weights)
    assert packed.dtype == ml_dtypes.bfloat16 and packed.shape == (2 * 2 * 4 * 8 * 2,)
    taps = packed.reshape(2, 2, 4, 8, 2).transpose(3, 0, 1, 4, 2).reshape(8, 2, 4, 4)
    np.testing.assert_array_equal(taps[:5, :, :3], weights.astype(packed.dtype))
    assert not taps[5:].any() and not taps[:, :, 3].any()
