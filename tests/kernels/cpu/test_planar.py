"""planar.h against float64 NumPy, for every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.kernels.cpu.convolution_weights import pack_convolution
from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.kernels.cpu.test_convolution import Case, operands, reference
from tests.tolerance import assert_close

SOURCE = f"""
#include "planar.h"
{HOOKS}
static struct planar shape(const long *s, const float *const *operands) {{
    return (struct planar){{
        .x = operands ? operands[0] : 0, .panels = operands ? operands[1] : 0, .images = s[0], .planes = s[1],
        .height = s[2], .width = s[3], .outputs = s[4], .kernel_height = s[5], .kernel_width = s[6], .stride_y = s[7],
        .stride_x = s[8], .pad_top = s[9], .pad_left = s[10], .out_height = s[11], .out_width = s[12],
        .image_stride = s[13], .plane_stride = s[14], .row_stride = s[15], .bands = (s[11] + s[16] - 1) / s[16]}};
}}
long items(const long *s) {{ struct planar p = shape(s, 0); return planar_items(&p); }}
long scratch(const long *s) {{ struct planar p = shape(s, 0); return planar_scratch_bytes(&p); }}
void run(const long *s, const float *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    struct planar p = shape(s, operands);
    struct layer layer = {{bias, residual, y, p.outputs}};
    planar_item(&p, item, scratch, start, finish, &layer);
}}
"""

CASES = (
    Case((9, 7), 3, 32, stride=(2, 2), pads=(1, 1, 1, 1), images=2, band=2),
    Case((12, 20), 3, 40, kernel=(7, 7), stride=(2, 2), pads=(3, 3, 3, 3), band=3),
    Case((6, 61), 2, 24, kernel=(2, 3), stride=(1, 3), pads=(0, 2, 1, 2), band=9),
    Case((5, 5), 4, 9, kernel=(5, 1), pads=(2, 0, 2, 0), band=1),
    Case((11, 30), 4, 77, kernel=(4, 4), stride=(4, 4), band=2),
    Case((3, 4), 3, 5, kernel=(3, 3), pads=(5, 6, 5, 6), band=4),  # windows that see nothing but padding
    Case((13, 9), 3, 16, kernel=(3, 5), band=11, pads=(0, 0, 0, 9)),
    # Rows of whole tiles and of what is left, for one vector of columns and two, the last of them whole or not.
    Case((5, 65), 3, 16, kernel=(3, 3), stride=(2, 1), pads=(1, 1, 1, 1), band=2),
    Case((4, 59), 1, 8, kernel=(3, 3), band=1),
    Case((3, 33), 3, 56, kernel=(2, 2), band=3),
    Case((3, 30), 3, 20, kernel=(2, 2), band=3),
)


def planar_sizes(case: Case) -> list[int]:
    """The sizes that SOURCE takes, of an image that is stored channels first."""
    height, width = case.size
    strides = (case.channels * height * width, height * width, width)
    return [
        case.images, case.channels, height, width, case.outputs, *case.kernel, *case.stride, *case.pads[:2], *case.out,
        *strides, case.band,
    ]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_planar(variant: str, case: Case) -> None:
    x, weights = operands(case)
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(-1)
    packed = [planes, pack_convolution(weights.reshape(case.outputs, 1, -1, case.kernel[1]))]
    shape = (case.images * case.out[0] * case.out[1], case.outputs)
    bias, residual = random((case.outputs,), seed=2), random(shape, seed=3)
    got = Layer(SOURCE, variant)(planar_sizes(case), packed, bias, shape, residual)
    wanted = reference(case).reshape(shape) + bias.astype(np.float64) + residual
    assert_close(got, wanted, accumulation=weights[0].size)
