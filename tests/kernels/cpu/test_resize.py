"""resize.h against float64 NumPy, for every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.tolerance import assert_close

SOURCE = f"""
#include "resize.h"
{HOOKS}
static struct resize shape(const long *s, const void *const *operands) {{
    struct resize r = {{
        .images = s[1], .channels = s[4], .out_height = s[5], .out_width = s[6], .image_stride = s[2] * s[3] * s[4],
        .row_stride = s[3] * s[4], .pixel_stride = s[4], .rows_per_item = s[7]}};
    if (operands) {{
        r.x = operands[0], r.rows_at = operands[1], r.columns_at = operands[2];
        r.row_weights = operands[3], r.column_weights = operands[4];
    }}
    return r;
}}
long items(const long *s) {{ struct resize r = shape(s, 0); return resize_items(&r); }}
long scratch(const long *s) {{ (void)s; return 0; }}
void run(const long *s, const void *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    (void)scratch, (void)bias, (void)residual, (void)start;
    struct resize r = shape(s, operands);
    struct layer layer = {{0, 0, y, r.channels}};
    if (s[0] == 1) resize_item(1, &r, item, finish, &layer);
    if (s[0] == 2) resize_item(2, &r, item, finish, &layer);
    if (s[0] == 4) resize_item(4, &r, item, finish, &layer);
}}
"""


def table(taps: int, size: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices int32 and weights float32 [out, taps] of half-pixel coordinates; the weights sum to one."""
    centre = (np.arange(out) + 0.5) * size / out - 0.5
    first = np.floor(centre).astype(int) - (taps - 1) // 2
    at = first[:, None] + np.arange(taps)
    weights = np.maximum(0, taps / 2 - np.abs(centre[:, None] - at)) + 0.01
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return np.clip(at, 0, size - 1).astype(np.int32), weights


@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 5, 7, 19, 10, 14), (1, 6, 4, 32, 3, 9), (1, 1, 3, 5, 4, 1)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_resize(variant: str, shape: tuple[int, ...], taps: int) -> None:
    images, height, width, channels, out_height, out_width = shape
    x = random((images, height, width, channels))
    rows_at, row_weights = table(taps, height, out_height)
    columns_at, column_weights = table(taps, width, out_width)
    weights = np.einsum("hi,wj->hwij", row_weights.astype(np.float64), column_weights)
    seen = x[:, rows_at[:, None, :, None], columns_at[None, :, None, :]]
    wanted = np.einsum("nhwijc,hwij->nhwc", seen, weights if taps > 1 else np.ones_like(weights)).reshape(-1, channels)
    operands = [x, rows_at, columns_at, row_weights, column_weights]
    got = Layer(SOURCE, variant)([taps, *shape, 3], operands, np.zeros(1, np.float32), wanted.shape)
    assert_close(got, wanted, accumulation=taps * taps)
    if taps == 1:
        np.testing.assert_array_equal(got, wanted.astype(np.float32))
