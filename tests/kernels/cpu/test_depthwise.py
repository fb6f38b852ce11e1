"""depthwise.h against float64 NumPy, for every instruction set."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fusible.kernels.cpu.convolution_weights import pack_depthwise
from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.kernels.cpu.references import convolve
from tests.kernels.cpu.test_convolution import Case, spread
from tests.tolerance import assert_close

# Width, stride and dilation of the kernels: constants where the header is inlined, or every branch would be kept.
CONSTANTS = ((3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (7, 2, 1), (1, 1, 1), (3, 1, 3), (6, 2, 1))
CALLS = "\n".join(
    f"""    if (d.kernel_width == {width} && d.stride_x == {stride} && d.dilation_x == {dilation}) {{
        d.kernel_width = {width}, d.stride_x = {stride}, d.dilation_x = {dilation};
        depthwise_item(&d, item, start, finish, &layer);
        return;
    }}"""
    for width, stride, dilation in CONSTANTS
)
SOURCE = f"""
#include "depthwise.h"
{HOOKS}
static struct depthwise shape(const long *s, const float *const *operands) {{
    return (struct depthwise){{
        .x = operands ? operands[0] : 0, .weights = operands ? operands[1] : 0, .images = s[0], .height = s[1],
        .width = s[2], .channels = s[3], .kernel_height = s[4], .kernel_width = s[5], .stride_y = s[6],
        .stride_x = s[7], .dilation_y = s[8], .dilation_x = s[9], .pad_top = s[10], .pad_left = s[11],
        .out_height = s[12], .out_width = s[13], .image_stride = s[14], .row_stride = s[15], .pixel_stride = s[16],
        .bands = (s[12] + s[17] - 1) / s[17], .channels_per_item = s[18]}};
}}
long items(const long *s) {{ struct depthwise d = shape(s, 0); return depthwise_items(&d); }}
long scratch(const long *s) {{ (void)s; return 0; }}
void run(const long *s, const float *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    (void)scratch;
    struct depthwise d = shape(s, operands);
    struct layer layer = {{bias, residual, y, d.channels}};
{CALLS}
}}
"""

# `channels` is the multiplier's 1, `groups` the channels, `band` output rows and `panels` times 16 channels an item.
CASES = (
    Case((7, 7), 1, 1, pads=(1, 1, 1, 1), groups=40, band=3, panels=9),
    Case((5, 16), 1, 1, pads=(1, 1, 1, 1), groups=35, images=2, band=2),
    Case((9, 31), 1, 1, stride=(2, 2), pads=(0, 0, 1, 1), groups=19, band=9),
    Case((6, 30), 1, 1, kernel=(5, 5), pads=(2, 2, 2, 2), groups=9, band=4),
    Case((7, 7), 1, 1, kernel=(5, 5), pads=(2, 2, 2, 2), groups=16, band=7),
    Case((8, 35), 1, 1, kernel=(5, 5), stride=(2, 2), pads=(2, 2, 2, 2), groups=33, band=2, panels=2),
    Case((9, 29), 1, 1, kernel=(7, 7), pads=(3, 3, 3, 3), groups=24, band=5, gaps=(3, 7)),
    Case((9, 41), 1, 1, kernel=(7, 7), stride=(2, 2), pads=(3, 3, 3, 3), groups=5, band=5, panels=2),
    Case((4, 9), 1, 1, kernel=(1, 5), pads=(0, 2, 0, 2), groups=8, band=2),
    Case((9, 4), 1, 1, kernel=(5, 1), pads=(2, 0, 2, 0), groups=17, band=2),
    Case((9, 9), 1, 1, dilation=(2, 3), pads=(2, 3, 2, 3), groups=21, band=2, images=2),
    Case((7, 8), 1, 1, kernel=(4, 6), stride=(3, 2), pads=(1, 2, 2, 3), groups=10, band=2),
    Case((3, 3), 1, 1, dilation=(6, 1), pads=(6, 1, 6, 1), groups=12, band=2),
    Case((1, 1), 1, 1, kernel=(7, 7), pads=(3, 3, 3, 3), groups=3, band=1),
)


@functools.cache
def reference(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The input, the ONNX weights and the float64 result without bias."""
    x, weights = random((case.images, *case.size, case.groups)), random((case.groups, 1, *case.kernel), seed=1)
    return x, weights, convolve(x, weights, case.out, case.stride, case.dilation, case.pads[:2], case.groups)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_depthwise(variant: str, case: Case) -> None:
    x, weights, result = reference(case)
    flat, strides = spread(case, x)
    shape = (case.images * case.out[0] * case.out[1], case.groups)
    bias, residual = random((case.groups,), seed=2), random(shape, seed=3)
    sizes = [
        case.images, *case.size, case.groups, *case.kernel, *case.stride, *case.dilation, *case.pads[:2], *case.out,
        *strides, case.band, 16 * case.panels,
    ]  # fmt: skip
    flags = () if variant == "native" else ("-O1",)  # much unrolled code: seconds of compilation
    got = Layer(SOURCE, variant, flags)(sizes, [flat, pack_depthwise(weights)], bias, shape, residual)
    assert_close(got, result.reshape(shape) + bias.astype(np.float64) + residual, accumulation=weights[0].size)


def test_weights_must_have_one_channel() -> None:
    with pytest.raises(ValueError, match="depthwise weights have one channel a group, got 2"):
        pack_depthwise(random((4, 2, 3, 3)))
