"""convolution_bytes.h: the integers of NumPy to the bit, for every instruction set; guard pages around operands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusible.kernels.cpu.convolution_weights import pack_convolution_bytes
from fusible.kernels.numpy.quantized_products import conv_bytes
from tests.kernels.cpu.layers import Layer
from tests.kernels.cpu.test_convolution import CASES, SOURCE, Case, convolution_sizes
from tests.kernels.cpu.variants import VARIANTS

BYTES_SOURCE = SOURCE.replace('#include "convolution.h"', '#include "convolution_bytes.h"')
for _function in ("items", "scratch_bytes", "item"):
    BYTES_SOURCE = BYTES_SOURCE.replace(f"convolution_{_function}(", f"convolution_bytes_{_function}(")
# The image may be of bytes that end anywhere; the hooks move the bits of int32 without a sum.
BYTES_SOURCE = BYTES_SOURCE.replace(".plane_stride = s[22]", ".plane_stride = s[22], .fill = (int)s[23]")

MORE = (
    Case((6, 5), 1024, 24, kernel=(1, 1)),  # pixels that are a KiB apart
    Case((5, 5), 4, 16, pads=(1, 1, 1, 1), gaps=(3, 2), groups=2, band=3),
    Case((5, 5), 12, 16, pads=(1, 1, 1, 1), gaps=(4, 0), groups=2, band=9),  # words that are read where they lie
    Case((5, 6), 20, 40, kernel=(1, 1), band=30),
    Case((2, 3), 5, 8, kernel=(1, 1), pads=(3, 2, 3, 2), stride=(2, 2), band=2),  # bands of padding only
    Case((11, 3), 6, 33, kernel=(3, 1), stride=(3, 1), pads=(1, 0, 1, 0), images=2, band=4),
)


def convolved(variant: str, case: Case, x: np.ndarray, w: np.ndarray, bias: np.ndarray, fill: int) -> np.ndarray:
    """x [images, height, width, groups * channels]; what lies in gaps between pixels and rows is 255."""
    images, height, width, channels = x.shape
    pixel, row = channels + case.gaps[0], width * (channels + case.gaps[0]) + case.gaps[1]
    wide = np.full((images, height, row), 255, np.uint8)
    wide[:, :, : width * pixel].reshape(images, height, width, pixel)[..., :channels] = x
    flat = wide.ravel()[: wide.size - sum(case.gaps)]
    shape = (case.images * case.out[0] * case.out[1], case.groups * case.outputs)
    layer = Layer(BYTES_SOURCE, variant)
    sizes = [*convolution_sizes(case, (height * row, row, pixel)), fill]
    got = layer(sizes, [flat, pack_convolution_bytes(w, case.groups)], bias.view(np.float32), shape)
    return got.view(np.int32)


def operands(case: Case, *, most: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, filters and bias, random or as large as they can be."""
    rng = np.random.default_rng((case.channels, case.outputs, *case.size))
    x = rng.integers(0, 256, (case.images, *case.size, case.groups * case.channels)).astype(np.uint8)
    w = rng.integers(-128, 128, (case.groups * case.outputs, case.channels, *case.kernel)).astype(np.int8)
    if most:
        x[...], w[...] = 255, -128
    return x, w, rng.integers(-1000, 1000, case.groups * case.outputs).astype(np.int32)


def wanted(case: Case, x: np.ndarray, w: np.ndarray, bias: np.ndarray, fill: int) -> np.ndarray:
    """[pixels, filters]."""
    sizes = {"strides": case.stride, "pads": case.pads, "dilations": case.dilation, "group": case.groups}
    y = conv_bytes(x.transpose(0, 3, 1, 2), w, bias, **sizes, fill=fill)
    return y.transpose(0, 2, 3, 1).reshape(-1, y.shape[1])


@pytest.mark.parametrize("case", (*CASES, *MORE), ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_convolution(variant: str, case: Case) -> None:
    x, w, bias = operands(case)
    fill = 0 if case.images > 1 else 117
    np.testing.assert_array_equal(convolved(variant, case, x, w, bias, fill), wanted(case, x, w, bias, fill))


@pytest.mark.parametrize("variant", VARIANTS)
def test_sums_do_not_saturate(variant: str) -> None:
    case = Case((5, 4), 613, 41, pads=(1, 1, 1, 1), band=13)
    x, w, bias = operands(case, most=True)
    got = convolved(variant, case, x, w, bias, 255)
    np.testing.assert_array_equal(got, np.broadcast_to(bias - 255 * 128 * 613 * 9, got.shape))


@pytest.mark.parametrize("band", [1, 5, 6, 7, 13, 28, 29])
def test_bands_change_nothing(band: int) -> None:
    case = Case((5, 7), 9, 40, pads=(1, 1, 1, 1), band=35, panels=1)
    x, w, bias = operands(case)
    other = replace(case, band=band, panels=2 - band % 2)
    np.testing.assert_array_equal(convolved("native", other, x, w, bias, 9), wanted(case, x, w, bias, 9))


def test_channels_are_filled_up_with_zeros() -> None:
    weights = np.arange(-60, 60).astype(np.int8).reshape(5, 6, 2, 2)
    packed = pack_convolution_bytes(weights).view(np.int8)
    assert packed.shape == (2 * 2 * 8 * 8,)
    taps = packed.reshape(4, 2, 8, 4).swapaxes(2, 3).reshape(4, 8, 8)
    np.testing.assert_array_equal(taps[:, :6, :5], weights.transpose(2, 3, 1, 0).reshape(4, 6, 5))
    assert not taps[:, 6:].any() and not taps[:, :, 5:].any()
    with pytest.raises(TypeError, match="int8"):
        pack_convolution_bytes(weights.astype(np.uint8))
