"""pooling.h against float64 NumPy, for every instruction set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.kernels.cpu.layers import HOOKS, VARIANTS, Layer, random
from tests.kernels.cpu.references import taps
from tests.tolerance import assert_close

SOURCE = f"""
#include "pooling.h"
{HOOKS}
static struct pooling shape(const long *s, const float *x) {{
    return (struct pooling){{
        .x = x, .images = s[1], .height = s[2], .width = s[3], .channels = s[4], .kernel_height = s[5],
        .kernel_width = s[6], .stride_y = s[7], .stride_x = s[8], .dilation_y = s[9], .dilation_x = s[10],
        .pad_top = s[11], .pad_left = s[12], .pad_bottom = s[13], .pad_right = s[14], .out_height = s[15],
        .out_width = s[16], .image_stride = s[2] * s[3] * s[4], .row_stride = s[3] * s[4], .pixel_stride = s[4],
        .rows_per_item = s[17], .count_padding = (int)s[18]}};
}}
static struct pooling_global whole(const long *s, const float *x) {{
    return (struct pooling_global){{
        .x = x, .images = s[1], .height = s[2], .width = s[3], .channels = s[4], .image_stride = s[2] * s[3] * s[4],
        .row_stride = s[3] * s[4], .pixel_stride = s[4], .channels_per_item = s[17]}};
}}
long items(const long *s) {{
    struct pooling p = shape(s, 0);
    struct pooling_global w = whole(s, 0);
    return s[0] < 2 ? pooling_items(&p) : pooling_global_items(&w);
}}
long scratch(const long *s) {{ (void)s; return 0; }}
void run(const long *s, const float *const *operands, const float *bias, const float *residual, float *y, void *scratch,
         long item) {{
    (void)scratch, (void)bias, (void)residual, (void)start;
    struct pooling p = shape(s, operands[0]);
    struct pooling_global w = whole(s, operands[0]);
    struct layer layer = {{0, 0, y, p.channels}};
    if (s[0] == 0) pooling_item(POOLING_MAX, &p, item, finish, &layer);
    if (s[0] == 1) pooling_item(POOLING_AVERAGE, &p, item, finish, &layer);
    if (s[0] == 2) pooling_global_item(POOLING_MAX, &w, item, finish, &layer);
    if (s[0] == 3) pooling_global_item(POOLING_AVERAGE, &w, item, finish, &layer);
}}
"""


@dataclass(frozen=True)
class Window:
    """A pooling of x [images, *size, channels]; pads are top, left, bottom, right; out follows the rounding."""

    size: tuple[int, int]
    channels: int
    out: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    images: int = 1
    rows: int = 2
    count_padding: bool = False

    def sizes(self, kind: int) -> list[int]:
        """What the C source reads."""
        return [
            kind, self.images, *self.size, self.channels, *self.kernel, *self.stride, *self.dilation, *self.pads,
            *self.out, self.rows, self.count_padding,
        ]  # fmt: skip

    def seen(self, x: np.ndarray, fill: float) -> np.ndarray:
        """[KH, KW, rows, channels] float64: what each tap sees."""
        result = taps(x, self.kernel, self.out, self.stride, self.dilation, self.pads[:2], fill)
        return result.reshape(*self.kernel, -1, self.channels)

    def counts(self) -> np.ndarray:
        """[rows, 1]: by how many taps a mean divides."""
        top, left, bottom, right = self.pads
        counted = np.pad(
            np.ones((self.images, *self.size, 1)),
            ((0, 0), (top, bottom), (left, right), (0, 0)),
            constant_values=self.count_padding,
        )
        result: np.ndarray = taps(counted, self.kernel, self.out, self.stride, self.dilation, (0, 0)).sum((0, 1))
        return result.reshape(-1, 1)


WINDOWS = (
    Window((7, 9), 21, (4, 5), stride=(2, 2), pads=(1, 1, 1, 1), images=2),
    Window((6, 7), 40, (5, 6), kernel=(2, 2), count_padding=True),
    Window((6, 6), 5, (3, 3), kernel=(3, 3), stride=(2, 2), pads=(0, 0, 0, 0)),  # ceil mode: windows reach beyond
    Window((6, 6), 19, (4, 4), kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1), count_padding=True),
    Window((5, 5), 8, (5, 5), kernel=(5, 5), pads=(2, 2, 2, 2), count_padding=True, rows=5),
    Window((9, 8), 17, (5, 4), kernel=(3, 2), dilation=(2, 3), pads=(0, 0, 0, 0)),
    Window((1, 4), 3, (1, 2), kernel=(1, 3), stride=(1, 2), pads=(0, 1, 0, 0)),
)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_max(variant: str, window: Window) -> None:
    x = -1 - np.abs(random((window.images, *window.size, window.channels)))
    wanted = window.seen(x, -np.inf).max((0, 1))
    got = Layer(SOURCE, variant)(window.sizes(0), [x], np.zeros(1, np.float32), wanted.shape)
    np.testing.assert_array_equal(got, wanted.astype(np.float32))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_average(variant: str, window: Window) -> None:
    x = random((window.images, *window.size, window.channels)) + 1
    wanted = window.seen(x, 0.0).sum((0, 1)) / window.counts()
    got = Layer(SOURCE, variant)(window.sizes(1), [x], np.zeros(1, np.float32), wanted.shape)
    assert_close(got, wanted, accumulation=window.kernel[0] * window.kernel[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_special_values(variant: str) -> None:
    window = Window((4, 4), 9, (2, 2), kernel=(2, 2), stride=(2, 2))
    x = random((1, 4, 4, 9))
    x[0, 0, 1, 2], x[0, 3, 2, 5], x[0, 0, 0, 0] = np.nan, np.inf, -np.inf
    x[0, :2, 2:, 8] = -np.inf
    wanted = window.seen(x, -np.inf).max((0, 1)).astype(np.float32)
    got = Layer(SOURCE, variant)(window.sizes(0), [x], np.zeros(1, np.float32), wanted.shape)
    np.testing.assert_array_equal(got, wanted)
    assert np.isnan(got[0, 2]) and got[1, 8] == -np.inf


@pytest.mark.parametrize("shape", [(2, 7, 7, 70), (1, 3, 5, 37), (1, 1, 1, 4), (1, 61, 83, 130)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_global(variant: str, shape: tuple[int, int, int, int]) -> None:
    x = random(shape) - 1
    layer = Layer(SOURCE, variant)
    for kind, wanted in ((2, x.max((1, 2))), (3, x.mean((1, 2), dtype=np.float64))):
        sizes = [kind, *shape, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 64, 0]
        got = layer(sizes, [x], np.zeros(1, np.float32), wanted.shape)
        assert_close(got, wanted, accumulation=1 if kind == 2 else shape[1] * shape[2])
