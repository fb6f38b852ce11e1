"""winograd_line.h and winograd.py against float64 NumPy: rows and columns of images, 3 and 5 taps, every tail."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.kernels.cpu.winograd import pack_winograd_line
from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.kernels.cpu.references import convolve
from tests.kernels.cpu.test_convolution import Case, spread
from tests.tolerance import assert_close

SOURCE = f"""
#include "winograd_line.h"
{HOOKS}
static struct winograd_line shape(const long *s, const float *const *operands) {{
    struct winograd_line l = {{
        .x = operands ? operands[0] : 0, .weights = operands ? operands[1] : 0, .images = s[1], .lines = s[2],
        .length = s[3], .channels = s[4], .outputs = s[5], .pad = s[6], .out_length = s[7], .image_stride = s[8],
        .line_stride = s[9], .step = s[10], .row_line = s[11], .row_step = s[12],
        .panels_per_item = s[14]}};
    l.blocks = winograd_parts(winograd_line_tiles(&l), s[13]);
    l.tiles_per_item = winograd_parts(winograd_line_tiles(&l), l.blocks);
    return l;
}}
long items(const long *s) {{
    struct winograd_line l = shape(s, 0);
    return s[0] == 3 ? winograd_line_items(3, &l) : winograd_line_items(5, &l);
}}
long scratch(const long *s) {{
    struct winograd_line l = shape(s, 0);
    return s[0] == 3 ? winograd_line_scratch_bytes(3, &l) : winograd_line_scratch_bytes(5, &l);
}}
void run(const long *s, const float *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    struct winograd_line l = shape(s, operands);
    struct layer layer = {{bias, residual, y, l.outputs}};
    if (s[0] == 3) winograd_line_item(3, &l, item, scratch, start, finish, &layer);
    else winograd_line_item(5, &l, item, scratch, start, finish, &layer);
}}
"""

# Lines along the width; the tests turn them. `band` is the tiles of a block, about.
CASES = (
    Case((1, 40), 16, 32, kernel=(1, 5), band=4),
    Case((3, 17), 19, 56, kernel=(1, 5), pads=(0, 2, 0, 2), images=2, band=3, panels=2),
    Case((2, 6), 3, 9, kernel=(1, 5), pads=(0, 4, 0, 3), band=20),
    Case((1, 50), 33, 41, kernel=(1, 3), pads=(0, 1, 0, 1), band=5, gaps=(3, 5)),
    Case((4, 3), 8, 72, kernel=(1, 3), images=3, band=1),
    Case((1, 1), 5, 16, kernel=(1, 3), pads=(0, 1, 0, 1), band=28),
    Case((1, 127), 64, 64, kernel=(1, 5), band=14, panels=1),
)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_lines(variant: str, case: Case, upright: bool) -> None:
    taps = case.kernel[1]
    x = random((case.images, *case.size, case.channels))
    weights = random((case.outputs, case.channels, 1, taps), seed=1)
    expected = convolve(x, weights, case.out, pad=case.pads[:2])  # [N, lines, out_length, O]
    lines, length = case.out
    if upright:
        expected = expected.transpose(0, 2, 1, 3)
        turned = Case(case.size[::-1], case.channels, case.outputs, kernel=(taps, 1), gaps=case.gaps)
        flat, (image, step, line) = spread(turned, np.ascontiguousarray(x.transpose(0, 2, 1, 3)))
    else:
        flat, (image, line, step) = spread(case, x)
    rows = (1, lines) if upright else (length, 1)
    shape = (case.images * lines * length, case.outputs)
    bias, residual = random((case.outputs,), seed=2), random(shape, seed=3)
    sizes = [
        taps, case.images, *case.size, case.channels, case.outputs, case.pads[1], length, image, line, step, *rows,
        case.band, case.panels,
    ]  # fmt: skip
    got = Layer(SOURCE, variant)(sizes, [flat, pack_winograd_line(weights[:, :, 0])], bias, shape, residual)
    products = (taps + 3) * case.channels  # that each output adds up
    assert_close(got, expected.reshape(shape) + bias.astype(np.float64) + residual, accumulation=products)


def test_refuses_what_it_cannot_transform() -> None:
    for shape in ((4, 2, 7), (4, 2, 3, 3)):
        with pytest.raises(ValueError, match=r"\[O, C, 3\] or \[O, C, 5\]"):
            pack_winograd_line(random(shape))
