"""convolution_bf16.h: operands rounded by ml_dtypes, the sum in float64, for every instruction set; guard pages."""

from __future__ import annotations

import functools
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.cpu.convolution_weights import pack_convolution_bf16
from tests.kernels.cpu.layers import Layer, random
from tests.kernels.cpu.references import convolve
from tests.kernels.cpu.test_convolution import CASES, SOURCE, Case, convolution_sizes, operands, spread
from tests.kernels.cpu.variants import BF16_VARIANTS, bf16_variant
from tests.tolerance import assert_close

BF16_SOURCE = SOURCE.replace('#include "convolution.h"', '#include "convolution_bf16.h"')
for _function in ("items", "scratch_bytes", "item"):
    BF16_SOURCE = BF16_SOURCE.replace(f"convolution_{_function}(", f"convolution_bf16_{_function}(")

MORE = (
    Case((6, 5), 512, 24, kernel=(1, 1)),  # pixels that would be a KiB apart
    Case((5, 5), 4, 16, pads=(1, 1, 1, 1), gaps=(3, 2), groups=2, band=3),
    Case((2, 3), 5, 8, kernel=(1, 1), pads=(3, 2, 3, 2), stride=(2, 2), band=2),  # bands of padding only
    Case((11, 3), 6, 33, kernel=(3, 1), stride=(3, 1), pads=(1, 0, 1, 0), images=2, band=4),
)


@functools.cache
def rounded_reference(case: Case) -> np.ndarray:
    """The float64 result of the rounded operands, without bias and residual."""
    x, weights = (a.astype(ml_dtypes.bfloat16).astype(np.float32) for a in operands(case))
    return convolve(x, weights, case.out, case.stride, case.dilation, case.pads[:2], case.groups)


def convolved(variant: str, case: Case, bias: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
    x, weights = operands(case)
    flat, strides = spread(case, x)
    shape = (case.images * case.out[0] * case.out[1], case.groups * case.outputs)
    packed = [flat, pack_convolution_bf16(weights, case.groups)]
    layer = Layer(*bf16_variant(BF16_SOURCE, variant))
    return layer(convolution_sizes(case, strides), packed, bias, shape, residual)


@pytest.mark.parametrize("case", (*CASES, *MORE), ids=str)
@pytest.mark.parametrize("variant", BF16_VARIANTS)
def test_convolution(variant: str, case: Case) -> None:
    columns = case.groups * case.outputs
    shape = (case.images * case.out[0] * case.out[1], columns)
    bias, residual = random((columns,), seed=2), random(shape, seed=3)
    got = convolved(variant, case, bias, residual)
    wanted = rounded_reference(case).reshape(shape) + bias.astype(np.float64) + residual
    assert_close(got, wanted, accumulation=case.channels * case.kernel[0] * case.kernel[1])


@pytest.mark.parametrize("band", [1, 5, 6, 7, 13, 28, 29])
@pytest.mark.parametrize("variant", BF16_VARIANTS)
def test_bands_change_no_bit(variant: str, band: int) -> None:
    case = Case((5, 7), 9, 40, pads=(1, 1, 1, 1), band=35, panels=1)
    other = replace(case, band=band, panels=2 - band % 2)
    bias = np.zeros(40, np.float32)
    assert convolved(variant, case, bias).tobytes() == convolved(variant, other, bias).tobytes()


def test_what_is_not_rounded_is_noticed() -> None:
    case = CASES[1]
    x, weights = operands(case)
    exact = convolve(x, weights, case.out, case.stride, case.dilation, case.pads[:2], case.groups)
    got = convolved("native", case, np.zeros(64, np.float32))
    with pytest.raises(AssertionError, match="exceeds"):
        assert_close(got, exact.reshape(got.shape), accumulation=19 * 9)


def test_odd_channels_are_filled_up_with_zeros() -> None:
    weights = random((5, 3, 2, 2))
    packed = pack_convolution_bf16(weights)
    assert packed.dtype == ml_dtypes.bfloat16 and packed.shape == (2 * 2 * 4 * 8,)
    taps = packed.reshape(4, 2, 8, 2).swapaxes(2, 3).reshape(4, 4, 8)
    np.testing.assert_array_equal(taps[:, :3, :5], weights.transpose(2, 3, 1, 0).reshape(4, 3, 5).astype(packed.dtype))
    assert not taps[:, 3].any() and not taps[:, :, 5:].any()
