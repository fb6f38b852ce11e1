"""grid_sample.h against the NumPy kernel: modes, paddings, layouts, sizes, odd coordinates, guard pages."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest

from fusible.kernels.numpy import grid_sampling
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import assert_close, poisoned

SOURCE = """
#include "grid_sample.h"
#define CASE(TAPS, PADDING, PLANES) \\
    if (taps == TAPS && padding == PADDING && planes == PLANES) { \\
        grid_sample_cut(TAPS, g, threads); \\
        for (long item = grid_sample_items(g); item--;) grid_sample_item(TAPS, PADDING, PLANES, g, item); \\
    }
#define CASES(TAPS, PADDING) CASE(TAPS, PADDING, 0) CASE(TAPS, PADDING, 1)
#define PADDINGS(TAPS) CASES(TAPS, GRID_ZEROS) CASES(TAPS, GRID_BORDER) CASES(TAPS, GRID_REFLECTION)
int run(struct grid_sample *g, int taps, int padding, int planes, long threads) {
    if (padding == GRID_ZEROS ? !grid_sample_fits(GRID_ZEROS, g) : !grid_sample_fits(GRID_BORDER, g)) return 1;
    PADDINGS(1) PADDINGS(2) PADDINGS(4)
    return 0;
}
"""
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_PADDINGS = ("zeros", "border", "reflection")
_SIZES = ("images", "channels", "height", "width", "out_height", "out_width")
_STRIDES = (
    *(f"x_{axis}" for axis in ("image", "row", "pixel", "channel")),
    *(f"grid_{axis}" for axis in ("image", "row", "pixel", "coordinate")),
    *(f"y_{axis}" for axis in ("image", "row", "pixel", "channel")),
)


class _GridSample(ctypes.Structure):
    _fields_ = (
        [(n, ctypes.c_void_p) for n in ("x", "grid", "y")]
        + [(n, ctypes.c_long) for n in (*_SIZES, *_STRIDES)]
        + [("align_corners", ctypes.c_int), ("points_per_item", ctypes.c_long)]
    )


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    return compile_variant(SOURCE, variant)


def _strides(operand: str, array: np.ndarray, axes: str) -> dict[str, int]:
    """In floats, of an array whose axes are named by letters: n, c, y, x."""
    names = {"n": "image", "c": "channel", "y": "row", "x": "pixel", "k": "coordinate"}
    return {f"{operand}_{names[a]}": s // 4 for a, s in zip(axes, array.strides, strict=True)}


def _run(
    x: np.ndarray, grid: np.ndarray, variant: str, *, mode: str = "linear", padding_mode: str = "zeros",
    align_corners: int = 0, x_last: bool = False, y_last: bool = False, grid_turned: bool = False, threads: int = 1,
) -> np.ndarray:  # fmt: skip
    """y [N, C, OH, OW] of x [N, C, H, W] and grid [N, OH, OW, 2], stored as said; items from the last to the first."""
    (n, c, h, w), (_, oh, ow, _) = x.shape, grid.shape
    held_x = guarded(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x_last else x)
    held_grid = guarded(np.ascontiguousarray(grid.transpose(0, 2, 3, 1)) if grid_turned else grid)
    y = guarded(poisoned((n, oh, ow, c) if y_last else (n, c, oh, ow), np.float32))
    g = _GridSample(
        x=held_x.ctypes.data, grid=held_grid.ctypes.data, y=y.ctypes.data, align_corners=align_corners,
        **dict(zip(_SIZES, (n, c, h, w, oh, ow), strict=True)), **_strides("x", held_x, "nyxc" if x_last else "ncyx"),
        **_strides("grid", held_grid, "nxky" if grid_turned else "nyxk"),
        **_strides("y", y, "nyxc" if y_last else "ncyx"),
    )  # fmt: skip
    arguments = _TAPS[mode], _PADDINGS.index(padding_mode), int(not x_last), ctypes.c_long(threads)
    if _library(variant).run(ctypes.byref(g), *arguments):
        raise ValueError("there are no pixels")
    return (y.transpose(0, 3, 1, 2) if y_last else y).copy()


def _check(x: np.ndarray, grid: np.ndarray, variant: str, mode: str, padding: str, align: int) -> None:
    """In every layout; the places are NumPy's to the bit, so what has one tap is the same."""
    wanted = grid_sampling.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=bool(align))
    for number in range(8):
        got = _run(
            x, grid, variant, mode=mode, padding_mode=padding, align_corners=align, x_last=bool(number & 1),
            y_last=bool(number & 2), grid_turned=number in (4, 7), threads=1 + number % 3,
        )  # fmt: skip
        if mode == "nearest":
            np.testing.assert_array_equal(got, wanted)
        else:
            assert_close(got, wanted, accumulation=_TAPS[mode] ** 2)


def _places(images: int, height: int, width: int, reach: float) -> np.ndarray:
    """A smooth map of rows and columns for most points, and places up to `reach` anywhere."""
    generator = np.random.default_rng([images, height, width])
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    smooth = np.stack([0.9 * columns + 0.1 * rows, 0.9 * rows - 0.1 * columns], axis=-1)
    anywhere = (generator.random((images, height, width, 2)) * 2 - 1) * reach
    return np.where(generator.random((images, height, width, 1)) < 0.1, anywhere, smooth).astype(np.float32)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", _PADDINGS)
@pytest.mark.parametrize("mode", _TAPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_modes_paddings_and_layouts(variant: str, mode: str, padding: str, align: int) -> None:
    for shape, out in (((2, 5, 7, 9), (11, 13)), ((1, 33, 4, 5), (1, 3)), ((1, 1, 12, 6), (3, 57))):
        _check(random(shape), _places(shape[0], *out, reach=3.0), variant, mode, padding, align)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", _PADDINGS)
@pytest.mark.parametrize("mode", _TAPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_images_smaller_than_the_taps(variant: str, mode: str, padding: str, align: int) -> None:
    for height, width in ((1, 1), (1, 4), (3, 1), (2, 2), (3, 2)):
        grid = _places(1, 6, 7, reach=9.0)
        grid[0, 0, :, 0] = np.arange(-3, 4) / 2  # edges and centres themselves
        _check(random((1, 3, height, width)), grid, variant, mode, padding, align)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", _PADDINGS)
@pytest.mark.parametrize("mode", _TAPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_coordinates_that_are_none_or_far_away(variant: str, mode: str, padding: str, align: int) -> None:
    far = np.geomspace(1e9, 3e18, 20) * (-1) ** np.arange(20)  # mirrored, what they leave is larger than the image
    near = np.linspace(-0.9, 0.9, 31)  # most of what there is, for errors are in units of the whole
    odd = np.asarray([np.nan, np.inf, -np.inf, 1e30, -1e30, -7e5, 1e20, 123456.78, *near, *far], np.float32)
    grid = np.stack(np.meshgrid(odd, odd), axis=-1)[None]
    for height, width in ((5, 6), (3, 4), (7, 11), (2, 8)):
        _check(random((1, 4, height, width)), grid, variant, mode, padding, align)


@pytest.mark.parametrize("mode", _TAPS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_weight_of_zero_meets_no_infinity_outside(variant: str, mode: str) -> None:
    x = np.full((1, 3, 4, 4), np.inf, np.float32)
    inside, centre = np.asarray([0.1, 0.2], np.float32), np.asarray([0.75, 0.75], np.float32)
    points = [inside, centre, [9, 9], [-3, 0], [np.inf, 0], centre, centre, centre]
    grid = np.asarray(points, np.float32)[None, None]
    for x_last in (False, True):
        got = _run(x, grid, variant, mode=mode, x_last=x_last)[0, 0, 0]
        wanted = grid_sampling.grid_sample(x, grid, mode=mode)[0, 0, 0]
        np.testing.assert_array_equal(got, wanted)
        assert np.array_equal(got[2:5], [0, 0, 0])
        # In the corner every tap outside has a weight of 0; the cubic's others inside have too.
        assert np.isposinf(got[5]) or mode == "cubic"


@pytest.mark.parametrize("variant", VARIANTS)
def test_places_halfway_between_pixels_are_numpys(variant: str) -> None:
    """A multiply-add, which does not round the product, would find others where a pixel is as near as the next."""
    for size in range(2, 300):
        halves = (2 * np.arange(size + 1) / size - 1).astype(np.float32)
        grid = np.stack([halves, np.zeros_like(halves)], axis=-1)[None, None]
        x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
        wanted = grid_sampling.grid_sample(x, grid, mode="nearest", padding_mode="border")
        np.testing.assert_array_equal(_run(x, grid, variant, mode="nearest", padding_mode="border"), wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_to_compute_and_nothing_to_read(variant: str) -> None:
    grid = random((2, 3, 5, 2))
    for shape in ((2, 3, 0, 4), (2, 3, 4, 0), (2, 0, 4, 4)):
        x = np.zeros(shape, np.float32)
        for x_last in (False, True):
            assert not _run(x, grid, variant, x_last=x_last).any()
            if shape[1]:
                with pytest.raises(ValueError, match="no pixels"):
                    _run(x, grid, variant, padding_mode="border", x_last=x_last)
    assert _run(random((2, 3, 4, 4)), grid[:, :0], variant).shape == (2, 3, 0, 5)
    assert _run(random((2, 3, 4, 4)), grid[:, :, :0], variant, threads=3).shape == (2, 3, 3, 0)
    assert _run(random((0, 3, 4, 4)), grid[:0], variant).shape == (0, 3, 3, 5)
