"""transposed.h against float64 NumPy, for every instruction set."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fusible.kernels.cpu.convolution_weights import pack_transposed
from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.kernels.cpu.references import transpose_convolve
from tests.kernels.cpu.test_convolution import Case, spread
from tests.tolerance import assert_close

SOURCE = f"""
#include "transposed.h"
{HOOKS}
static struct transposed shape(const long *s, const float *const *operands) {{
    return (struct transposed){{
        .x = operands ? operands[0] : 0, .panels = operands ? operands[1] : 0, .images = s[0], .height = s[1],
        .width = s[2], .groups = s[3], .channels = s[4], .outputs = s[5], .kernel_height = s[6], .kernel_width = s[7],
        .stride_y = s[8], .stride_x = s[9], .dilation_y = s[10], .dilation_x = s[11], .pad_top = s[12],
        .pad_left = s[13], .out_height = s[14], .out_width = s[15], .image_stride = s[16], .row_stride = s[17],
        .pixel_stride = s[18], .band = s[19], .panels_per_item = s[20]}};
}}
long items(const long *s) {{ struct transposed t = shape(s, 0); return transposed_items(&t); }}
long scratch(const long *s) {{ struct transposed t = shape(s, 0); return transposed_scratch_bytes(&t); }}
void run(const long *s, const float *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    struct transposed t = shape(s, operands);
    struct layer layer = {{bias, residual, y, t.groups * t.outputs}};
    transposed_item(&t, item, scratch, start, finish, &layer);
}}
"""

# `size` is the input's, `kernel` and `stride` those of the transposed convolution.
CASES = (
    Case((5, 6), 7, 33, kernel=(2, 2), stride=(2, 2)),
    Case((4, 5), 9, 24, kernel=(4, 4), stride=(2, 2), pads=(1, 1, 1, 1), images=2),
    Case((5, 4), 8, 40, kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1), band=3),
    Case((6, 5), 5, 64, kernel=(3, 3), pads=(1, 1, 1, 1), panels=2),
    Case((4, 3), 6, 10, kernel=(5, 3), stride=(3, 2), dilation=(1, 3), pads=(0, 2, 1, 1), groups=2),
    Case((3, 4), 4, 8, kernel=(3, 3), stride=(4, 2), dilation=(2, 2), gaps=(3, 2)),  # phases without taps
    Case((3, 3), 3, 9, kernel=(1, 2), stride=(2, 3), images=2),
    Case((2, 2), 600, 16, kernel=(5, 4), stride=(1, 2), pads=(2, 1, 1, 0)),
)


def out_of(case: Case) -> tuple[int, int]:
    """Height and width of the output, without output padding."""
    sides = zip(case.size, case.kernel, case.stride, case.dilation, case.pads[:2], case.pads[2:], strict=True)
    height, width = ((i - 1) * s + (k - 1) * d + 1 - p - q for i, k, s, d, p, q in sides)
    return height, width


@functools.cache
def reference(case: Case, out: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The input, the ONNX weights and the float64 result without bias."""
    channels = case.groups * case.channels
    x, weights = random((case.images, *case.size, channels)), random((channels, case.outputs, *case.kernel), seed=1)
    return x, weights, transpose_convolve(x, weights, out, case.stride, case.dilation, case.pads[:2], case.groups)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_transposed(variant: str, case: Case, padding: int) -> None:
    height, width = out_of(case)
    out = height + padding, width + padding
    x, weights, result = reference(case, out)
    flat, strides = spread(case, x)
    shape = (case.images * out[0] * out[1], case.groups * case.outputs)
    bias, residual = random((shape[1],), seed=2), random(shape, seed=3)
    sizes = [
        case.images, *case.size, case.groups, case.channels, case.outputs, *case.kernel, *case.stride, *case.dilation,
        *case.pads[:2], *out, *strides, case.band, case.panels,
    ]  # fmt: skip
    packed = [flat, pack_transposed(weights, case.stride, case.dilation, case.groups)]
    got = Layer(SOURCE, variant)(sizes, packed, bias, shape, residual)
    terms = case.channels * case.kernel[0] * case.kernel[1]
    assert_close(got, result.reshape(shape) + bias.astype(np.float64) + residual, accumulation=terms)
