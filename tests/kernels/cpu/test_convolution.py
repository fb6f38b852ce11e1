"""convolution.h against float64 NumPy, for every instruction set."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from fusible.kernels.cpu.convolution_weights import merge_groups, pack_convolution
from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.kernels.cpu.references import convolve
from tests.tolerance import assert_close

SOURCE = f"""
#include "convolution.h"
{HOOKS}
static struct convolution shape(const long *s, const float *const *operands) {{
    return (struct convolution){{
        .x = operands ? operands[0] : 0, .panels = operands ? operands[1] : 0, .images = s[0], .height = s[1],
        .width = s[2], .groups = s[3], .channels = s[4], .outputs = s[5], .kernel_height = s[6], .kernel_width = s[7],
        .stride_y = s[8], .stride_x = s[9], .dilation_y = s[10], .dilation_x = s[11], .pad_top = s[12],
        .pad_left = s[13], .out_height = s[14], .out_width = s[15], .image_stride = s[16], .row_stride = s[17],
        .pixel_stride = s[18], .band = s[19], .panels_per_item = s[20], .planes = s[21], .plane_stride = s[22]}};
}}
long items(const long *s) {{ struct convolution c = shape(s, 0); return convolution_items(&c); }}
long scratch(const long *s) {{ struct convolution c = shape(s, 0); return convolution_scratch_bytes(&c); }}
void run(const long *s, const float *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    struct convolution c = shape(s, operands);
    struct layer layer = {{bias, residual, y, c.groups * c.outputs}};
    convolution_item(&c, item, scratch, start, finish, &layer);
}}
"""


@dataclass(frozen=True)
class Case:
    """x [images, *size, groups * channels] to groups * outputs channels; pads are top, left, bottom, right."""

    size: tuple[int, int]
    channels: int
    outputs: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    images: int = 1
    gaps: tuple[int, int] = (0, 0)  # floats between pixels and between rows
    band: int = 17
    panels: int = 1

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the output."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        padded = (self.size[0] + self.pads[0] + self.pads[2], self.size[1] + self.pads[1] + self.pads[3])
        return (padded[0] - reach[0]) // self.stride[0] + 1, (padded[1] - reach[1]) // self.stride[1] + 1


CASES = (
    Case((5, 7), 3, 32, pads=(1, 1, 1, 1)),
    Case((7, 7), 19, 64, pads=(1, 1, 1, 1), band=49, panels=2),
    Case((9, 8), 5, 33, stride=(2, 2), pads=(0, 1, 1, 0), images=3),
    Case((6, 5), 11, 10, kernel=(1, 1), panels=3),
    Case((9, 7), 13, 24, kernel=(1, 1), stride=(2, 2), images=2, band=6),
    Case((7, 7), 8, 56, kernel=(5, 3), dilation=(1, 2), pads=(2, 2, 2, 2), band=30),
    Case((4, 4), 3, 16, kernel=(7, 7), stride=(2, 1), pads=(3, 3, 3, 3)),
    Case((3, 2), 6, 40, kernel=(3, 3), dilation=(3, 3), pads=(3, 3, 3, 3)),
    Case((8, 6), 4, 12, pads=(1, 1, 1, 1), groups=3, images=2),
    Case((5, 5), 2, 8, pads=(1, 1, 1, 1), groups=2, band=100),
    Case((6, 6), 7, 96, pads=(1, 1, 1, 1), gaps=(5, 9), panels=4, band=5),
    Case((1, 1), 1, 1, kernel=(1, 1)),
    Case((1, 9), 17, 31, kernel=(1, 5), pads=(0, 2, 0, 2)),
    Case((1, 10), 4, 8, kernel=(1, 5), pads=(0, 0, 0, 3), band=9),  # a tile runs into clipped pixels
    Case((5, 4), 613, 41, pads=(1, 1, 1, 1), band=13),  # K in blocks, of kernel rows
    Case((5, 3), 3501, 64, kernel=(1, 1), band=15),  # ... and of channels
    Case((3, 4), 530, 72, kernel=(3, 3), dilation=(1, 2), pads=(1, 2, 1, 2), images=2, band=12, panels=3),
)


@functools.cache
def reference(case: Case) -> np.ndarray:
    """The float64 result without bias and residual."""
    x, weights = operands(case)
    return convolve(x, weights, case.out, case.stride, case.dilation, case.pads[:2], case.groups)


@functools.cache
def operands(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The input and the ONNX weights."""
    x = random((case.images, *case.size, case.groups * case.channels))
    return x, random((case.groups * case.outputs, case.channels, *case.kernel), seed=1)


def spread(case: Case, x: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """x with the case's gaps, filled with NaN, and the strides of images, rows and pixels in floats."""
    images, height, width, channels = x.shape
    pixel = channels + case.gaps[0]
    row = width * pixel + case.gaps[1]
    wide = np.full((images, height, row), np.nan, np.float32)
    wide[:, :, : width * pixel].reshape(images, height, width, pixel)[..., :channels] = x
    flat = wide.ravel()
    return flat[: flat.size - case.gaps[1] - case.gaps[0]], (height * row, row, pixel)


def convolution_sizes(case: Case, strides: tuple[int, int, int]) -> list[int]:
    """The fields of `struct convolution`."""
    return [
        case.images, *case.size, case.groups, case.channels, case.outputs, *case.kernel, *case.stride, *case.dilation,
        *case.pads[:2], *case.out, *strides, case.band, case.panels, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_convolution(variant: str, case: Case) -> None:
    x, weights = operands(case)
    flat, strides = spread(case, x)
    columns = case.groups * case.outputs
    shape = (case.images * case.out[0] * case.out[1], columns)
    bias, residual = random((columns,), seed=2), random(shape, seed=3)
    packed = [flat, pack_convolution(weights, case.groups)]
    got = Layer(SOURCE, variant)(convolution_sizes(case, strides), packed, bias, shape, residual)
    wanted = reference(case).reshape(shape) + bias.astype(np.float64) + residual
    assert_close(got, wanted, accumulation=weights[0].size)


PLANAR = (
    Case((9, 7), 3, 32, stride=(2, 2), pads=(1, 1, 1, 1), images=2),
    Case((12, 20), 3, 40, kernel=(7, 7), stride=(2, 2), pads=(3, 3, 3, 3), band=30, panels=2),
    Case((6, 11), 2, 24, kernel=(2, 3), dilation=(1, 2), pads=(0, 2, 1, 2)),
    Case((5, 5), 4, 9, kernel=(5, 1), pads=(2, 0, 2, 0), band=25),
    Case((30, 31), 4, 16, kernel=(21, 20), band=99),  # K in blocks that span planes
)


@pytest.mark.parametrize("case", PLANAR, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_planes(variant: str, case: Case) -> None:
    x, weights = operands(case)
    height, width = case.size
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    sizes = convolution_sizes(case, (case.channels * height * width, width, 1))
    sizes[4], sizes[-2:] = 1, [case.channels, height * width]
    packed = [planes.reshape(-1), pack_convolution(weights.reshape(case.outputs, 1, -1, case.kernel[1]))]
    shape = (case.images * case.out[0] * case.out[1], case.outputs)
    bias, residual = random((case.outputs,), seed=2), random(shape, seed=3)
    got = Layer(SOURCE, variant)(sizes, packed, bias, shape, residual)
    wanted = reference(case).reshape(shape) + bias.astype(np.float64) + residual
    assert_close(got, wanted, accumulation=weights[0].size)


@pytest.mark.parametrize("band", [1, 4, 5, 6, 7, 13, 28, 29, 35])
@pytest.mark.parametrize("variant", VARIANTS)
def test_bands_change_no_bit(variant: str, band: int) -> None:
    layer = Layer(SOURCE, variant)
    outcomes = []
    for size in (35, band):
        case = Case((5, 7), 9, 40, pads=(1, 1, 1, 1), band=size, panels=2 - size % 2)
        x, weights = operands(case)
        packed = [x, pack_convolution(weights)]
        sizes = convolution_sizes(case, (35 * 9, 63, 9))
        outcomes.append(layer(sizes, packed, np.zeros(40, np.float32), (35, 40)))
    assert outcomes[0].tobytes() == outcomes[1].tobytes()


def test_merged_groups_are_the_same_convolution() -> None:
    x, weights = random((1, 5, 6, 24)), random((18, 4, 3, 3))
    merged = merge_groups(weights, 6, 3)
    assert merged.shape == (18, 12, 3, 3)
    np.testing.assert_allclose(
        convolve(x, merged, (3, 4), groups=2), convolve(x, weights, (3, 4), groups=6), rtol=1e-12, atol=1e-12
    )


def test_groups_must_divide() -> None:
    with pytest.raises(ValueError, match="4 groups do not divide 18 channels"):
        pack_convolution(random((18, 4, 3, 3)), 4)
    with pytest.raises(ValueError, match="4 does not divide 6 groups"):
        merge_groups(random((18, 4, 3, 3)), 6, 4)
