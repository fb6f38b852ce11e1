"""resize_image.h against the NumPy kernel in float64, for every instruction set, rule and layout."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest

from fusible.kernels.numpy.resize import COORDINATES, NEAREST_MODES, resize
from tests.kernels.cpu import harness
from tests.kernels.cpu.layers import NO_VECTORS, VARIANTS, guarded, random
from tests.tolerance import assert_close, poisoned

SOURCE = """
#include "resize_image.h"
static struct resize_image image(const long *s, const float *f, const float *x, float *y) {
    return (struct resize_image){
        .x = x, .y = y, .outer = s[1], .height = s[2], .width = s[3], .inner = s[4], .out_height = s[5],
        .out_width = s[6], .x_last = (int)s[7], .y_last = (int)s[8], .coordinates = (int)s[9], .nearest = (int)s[10],
        .row_scale = f[0], .column_scale = f[1], .cubic = f[2]};
}
long floats(const long *s) {
    struct resize_image r = image(s, (float[3]){0}, 0, 0);
    return resize_image_floats(&r, (int)s[0], 1);
}
void run(const long *s, const float *f, const float *x, float *y, float *scratch) {
    struct resize_image r = image(s, f, x, y);
    if (s[0] == 1) resize_image_run(1, &r, NULL, scratch);
    if (s[0] == 2) resize_image_run(2, &r, NULL, scratch);
    if (s[0] == 4) resize_image_run(4, &r, NULL, scratch);
}
"""
TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
MODES = [c for c in COORDINATES if c != "tf_crop_and_resize"]
_RULES = (  # in the order of the header
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
)  # fmt: skip
SIZES = [((2, 19, 5, 7), (11, 16)), ((1, 3, 8, 33), (3, 18)), ((2, 1, 1, 4), (2, 1)), ((1, 16, 6, 6), (6, 13))]


@functools.cache
def library(variant: str) -> ctypes.CDLL:
    wide = variant == "16 lanes"
    made = harness.compile_c(SOURCE, "plain" if wide else variant, ("-DVL=16", "-O1", *NO_VECTORS) if wide else ())
    made.floats.restype = ctypes.c_long
    return made


def check(
    variant: str,
    sizes: tuple[int, int, int, int],
    *,
    to: tuple[int, int] | None = None,
    scales: tuple[float, float] | None = None,
    mode: str = "linear",
    coordinates: str = "half_pixel",
    nearest: str = "floor",
    last: tuple[bool, bool] = (True, True),
) -> None:
    """Compare for x [outer, inner, height, width], stored as `last` says of x and y."""
    outer, inner, height, width = sizes
    x = random(sizes)
    given = {"sizes": (outer, inner, *to)} if to else {"scales": (1.0, 1.0, *(scales or ()))}
    wanted = resize(
        x.astype(np.float64), mode=mode, coordinate_transformation_mode=coordinates, nearest_mode=nearest, **given
    )  # type: ignore[arg-type]
    rules = [_RULES.index(coordinates), NEAREST_MODES.index(nearest)]
    longs = [TAPS[mode], outer, height, width, inner, *wanted.shape[2:], *map(int, last), *rules]
    s = (ctypes.c_long * len(longs))(*longs)
    f = (ctypes.c_float * 3)(*(scales or (0.0, 0.0)), -0.75)
    stored = guarded(np.ascontiguousarray(x.transpose(0, 2, 3, 1) if last[0] else x))
    shape = (outer, *wanted.shape[2:], inner) if last[1] else wanted.shape
    y = guarded(poisoned(shape, np.float32))
    scratch = guarded(poisoned((library(variant).floats(s),), np.float32))
    library(variant).run(s, f, harness.pointer(stored), harness.pointer(y), harness.pointer(scratch))
    assert_close(y.transpose(0, 3, 1, 2) if last[1] else y, wanted, accumulation=16)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("last", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_layouts(variant: str, last: tuple[bool, bool], mode: str) -> None:
    for sizes, to in SIZES:
        check(variant, sizes, to=to, mode=mode, last=last)


@pytest.mark.parametrize("coordinates", MODES)
@pytest.mark.parametrize("scales", [(2.0, 2.0), (0.6, 1.5), (1.0, 3.0), (4 / 3, 0.37), (0.2, 0.1)])
def test_coordinates(coordinates: str, scales: tuple[float, float]) -> None:
    for mode in TAPS:
        check("plain", (1, 2, 9, 10), scales=scales, mode=mode, coordinates=coordinates)


@pytest.mark.parametrize("nearest", NEAREST_MODES)
@pytest.mark.parametrize("scales", [(2.0, 2.0), (0.6, 1.5), (2.5, 0.4)])
def test_nearest(nearest: str, scales: tuple[float, float]) -> None:
    for coordinates in MODES:
        check("plain", (1, 2, 9, 10), scales=scales, mode="nearest", nearest=nearest, coordinates=coordinates)


def test_an_axis_that_stays_keeps_infinities() -> None:
    x = np.full((1, 1, 3, 4), np.inf, np.float32)
    s = (ctypes.c_long * 11)(2, 1, 3, 4, 1, 6, 4, 1, 1, 0, 0)
    y = guarded(poisoned((1, 1, 6, 4), np.float32))
    scratch = guarded(poisoned((library("plain").floats(s),), np.float32))
    stored = guarded(x)
    library("plain").run(
        s, (ctypes.c_float * 3)(2.0, 1.0, 0), harness.pointer(stored), harness.pointer(y), harness.pointer(scratch)
    )
    assert np.isinf(y[0, 0, 1:5]).all()
