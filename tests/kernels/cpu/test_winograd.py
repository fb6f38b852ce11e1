"""winograd.h and winograd.py against float64 NumPy, for every instruction set."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fusible.kernels.cpu.winograd import pack_winograd
from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.kernels.cpu.references import convolve
from tests.kernels.cpu.test_convolution import Case, spread
from tests.tolerance import assert_close

SOURCE = f"""
#include "winograd.h"
{HOOKS}
static struct winograd shape(const long *s, const float *const *operands) {{
    struct winograd w = {{
        .x = operands ? operands[0] : 0, .weights = operands ? operands[1] : 0, .images = s[1], .height = s[2],
        .width = s[3], .channels = s[4], .outputs = s[5], .pad_top = s[6], .pad_left = s[7], .out_height = s[8],
        .out_width = s[9], .image_stride = s[10], .row_stride = s[11], .pixel_stride = s[12],
        .panels_per_item = s[14]}};
    long tiles = s[0] == 2 ? winograd_tiles(2, &w) : winograd_tiles(4, &w);
    w.blocks = winograd_parts(tiles, s[13]), w.tiles_per_item = winograd_parts(tiles, w.blocks);
    return w;
}}
long items(const long *s) {{
    struct winograd w = shape(s, 0);
    return s[0] == 2 ? winograd_items(2, &w) : winograd_items(4, &w);
}}
long scratch(const long *s) {{
    struct winograd w = shape(s, 0);
    return s[0] == 2 ? winograd_scratch_bytes(2, &w) : winograd_scratch_bytes(4, &w);
}}
void run(const long *s, const float *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    struct winograd w = shape(s, operands);
    struct layer layer = {{bias, residual, y, w.outputs}};
    if (s[0] == 2) winograd_item(2, &w, item, scratch, start, finish, &layer);
    else winograd_item(4, &w, item, scratch, start, finish, &layer);
}}
"""

# `band` is the tiles of a block, about.
CASES = (
    Case((8, 8), 16, 32, pads=(1, 1, 1, 1), band=4),
    Case((7, 9), 19, 56, pads=(1, 1, 1, 1), images=2, band=3, panels=2),
    Case((5, 6), 3, 9, pads=(0, 1, 1, 0), band=20),
    Case((13, 11), 8, 72, pads=(1, 1, 1, 1), band=5, gaps=(3, 5)),
    Case((3, 3), 33, 41, band=1),
    Case((30, 30), 5, 16, pads=(1, 1, 1, 1), band=28),
    Case((1, 2), 7, 8, pads=(1, 1, 1, 1), band=2),
    Case((14, 14), 64, 64, pads=(1, 1, 1, 1), band=14, panels=1),
)


@functools.cache
def reference(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The input, the ONNX weights and the float64 result without bias."""
    x, weights = random((case.images, *case.size, case.channels)), random((case.outputs, case.channels, 3, 3), seed=1)
    return x, weights, convolve(x, weights, case.out, pad=case.pads[:2])


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_winograd(variant: str, case: Case, m: int) -> None:
    x, weights, result = reference(case)
    flat, strides = spread(case, x)
    shape = (case.images * case.out[0] * case.out[1], case.outputs)
    bias, residual = random((case.outputs,), seed=2), random(shape, seed=3)
    sizes = [
        m, case.images, *case.size, case.channels, case.outputs, *case.pads[:2], *case.out, *strides, case.band,
        case.panels,
    ]  # fmt: skip
    got = Layer(SOURCE, variant)(sizes, [flat, pack_winograd(weights, m)], bias, shape, residual)
    products = (m + 2) ** 2 * case.channels  # that each output adds up
    assert_close(got, result.reshape(shape) + bias.astype(np.float64) + residual, accumulation=products)


def test_refuses_what_it_cannot_transform() -> None:
    with pytest.raises(ValueError, match="2x2 or 4x4, got 6"):
        pack_winograd(random((4, 2, 3, 3)), 6)
    with pytest.raises(ValueError, match=r"\[O, C, 3, 3\], got shape \(4, 2, 5, 5\)"):
        pack_winograd(random((4, 2, 5, 5)), 2)
