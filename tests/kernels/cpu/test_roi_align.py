"""roi_align.h against the NumPy kernel: modes, coordinates, layouts, regions of every kind, guard pages."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import pytest

from fusible.kernels.numpy.roi import roi_align
from tests.kernels.cpu.layers import guarded, random
from tests.kernels.cpu.variants import VARIANTS, compile_variant
from tests.tolerance import assert_close, poisoned

SOURCE = """
#include "roi_align.h"
long scratch(const struct roi_align *r) { return roi_align_scratch_floats(r, 1); }
void run(struct roi_align *r, int mode, int planes, long threads) {
    roi_align_cut(r, threads);
    for (long item = roi_align_items(r); item--;) {
        if (mode == ROI_MEAN && planes) roi_align_item(ROI_MEAN, 1, r, item);
        if (mode == ROI_MEAN && !planes) roi_align_item(ROI_MEAN, 0, r, item);
        if (mode == ROI_LARGEST && planes) roi_align_item(ROI_LARGEST, 1, r, item);
        if (mode == ROI_LARGEST && !planes) roi_align_item(ROI_LARGEST, 0, r, item);
    }
}
"""
_SIZES = ("images", "channels", "height", "width", "regions", "bins_height", "bins_width")
_STRIDES = tuple(f"{of}_{axis}" for of, first in (("x", "image"), ("y", "region"))
                 for axis in (first, "row", "pixel", "channel"))  # fmt: skip
_MODES = ("avg", "max")
_COORDINATES = ("half_pixel", "output_half_pixel")


class _RoiAlign(ctypes.Structure):
    _fields_ = (
        [(n, ctypes.c_void_p) for n in ("x", "rois", "numbers", "y")]
        + [(n, ctypes.c_long) for n in (*_SIZES, *_STRIDES, "ratio")]
        + [("scale", ctypes.c_float), ("half_pixel", ctypes.c_int)]
        + [(n, ctypes.c_void_p) for n in ("error", "pool", "scratch")]
        + [("regions_per_item", ctypes.c_long), ("channels_per_item", ctypes.c_long)]
    )


@functools.cache
def _library(variant: str) -> ctypes.CDLL:
    library = compile_variant(SOURCE, variant)
    library.scratch.restype = ctypes.c_long
    return library


def _strides(operand: str, array: np.ndarray, axes: tuple[str, ...]) -> dict[str, int]:
    return {f"{operand}_{axis}": s // 4 for axis, s in zip(axes, array.strides, strict=True)}


def _run(
    x: np.ndarray, rois: np.ndarray, numbers: np.ndarray, variant: str, *, x_last: bool = False, y_last: bool = False,
    threads: int = 1, mode: str = "avg", output_height: int = 1, output_width: int = 1, sampling_ratio: int = 0,
    spatial_scale: float = 1.0, coordinate_transformation_mode: str = "half_pixel",
) -> np.ndarray:  # fmt: skip
    """y [R, C, bins]; items from the last to the first. Raises ValueError for the error that is noted."""
    (n, c, h, w), (i, j) = x.shape, (output_height, output_width)
    last, first = ("row", "pixel", "channel"), ("channel", "row", "pixel")
    held_x = guarded(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x_last else x)
    held_rois, held_numbers = guarded(rois.astype(np.float32)), guarded(np.asarray(numbers, np.int64))
    y = guarded(poisoned((len(rois), i, j, c) if y_last else (len(rois), c, i, j), np.float32))
    error = ctypes.c_int(0)
    r = _RoiAlign(
        x=held_x.ctypes.data, rois=held_rois.ctypes.data, numbers=held_numbers.ctypes.data, y=y.ctypes.data,
        **dict(zip(_SIZES, (n, c, h, w, len(rois), i, j), strict=True)),
        **_strides("x", held_x, ("image", *(last if x_last else first))),
        **_strides("y", y, ("region", *(last if y_last else first))), ratio=sampling_ratio, scale=spatial_scale,
        half_pixel=coordinate_transformation_mode == "half_pixel",
        error=ctypes.cast(ctypes.pointer(error), ctypes.c_void_p),
    )  # fmt: skip
    scratch = guarded(poisoned((_library(variant).scratch(ctypes.byref(r)),), np.float32))
    r.scratch = scratch.ctypes.data
    _library(variant).run(ctypes.byref(r), _MODES.index(mode), int(not x_last), ctypes.c_long(threads))
    if error.value:
        raise ValueError(f"error {error.value}")
    return (y.transpose(0, 3, 1, 2) if y_last else y).copy()


def _check(x: np.ndarray, rois: np.ndarray, numbers: np.ndarray, variant: str, **attributes: Any) -> None:
    wanted = roi_align(x, rois, numbers, **attributes)
    for layout in range(4):
        got = _run(
            x, rois, numbers, variant, x_last=bool(layout & 1), y_last=bool(layout & 2), threads=1 + layout % 3,
            **attributes,
        )  # fmt: skip
        assert_close(got, wanted, accumulation=4096)


BOXES = np.asarray(
    [[1, 2, 8, 9], [-3, -2, 5, 5.5], [4.2, 3.1, 20, 18], [5, 5, 4, 4], [2.5, 2.5, 2.6, 2.6], [0, 0, 14, 11],
     [40, 40, 50, 50], [-1, 0, 15, 0.5], [9, 2, 3, 8], [14, 11, 14, 11], [0, 0, 0, 0],
     [13.3, 10.4, -2, -2]], np.float32,
)  # fmt: skip
IMAGES = np.asarray([0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("coordinates", _COORDINATES)
@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_modes_coordinates_and_layouts(variant: str, mode: str, coordinates: str) -> None:
    for channels, bins in ((3, (3, 4)), (1, (1, 1)), (70, (7, 2)), (16, (2, 5))):
        for ratio, scale in ((0, 1.0), (1, 0.3), (2, 1.0), (3, 0.5), (100, 1.0)):
            _check(
                random((2, channels, 12, 15)), BOXES, IMAGES, variant, mode=mode, output_height=bins[0],
                output_width=bins[1], sampling_ratio=ratio, spatial_scale=scale,
                coordinate_transformation_mode=coordinates,
            )  # fmt: skip


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_images_of_one_pixel_and_many_bins(variant: str, mode: str) -> None:
    for height, width in ((1, 1), (1, 5), (2, 1)):
        for bins in ((1, 1), (9, 40)):
            _check(
                random((2, 5, height, width)), BOXES, IMAGES, variant, mode=mode, output_height=bins[0],
                output_width=bins[1],
            )  # fmt: skip


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_large_regions_are_gone_through_where_they_are_inside(variant: str, mode: str) -> None:
    """2^30 samples a bin would take hours, and their lists all memory."""
    boxes = np.asarray(
        [[-3000, -2000, 2000, 9], [0, -1e6, 14, 1e6], [-1e6, 2, 1e6, 1e6], [5e5, 5e5, 6e5, 6e5], [-9, -9, 1e6, 3],
         [-1e9, -1e9, 1e9, 1e9], [1e9, 3, 1.5e9, 8]], np.float32,
    )  # fmt: skip
    numbers = np.zeros(len(boxes), np.int64)
    for ratio in (0, 4096):
        x = random((1, 3, 12, 15))
        _check(x, boxes, numbers, variant, mode=mode, output_height=2, output_width=3, sampling_ratio=ratio)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bins_of_whole_pixels_have_as_many_samples_as_numpys(variant: str) -> None:
    """A multiply-add, which does not round the product with the scale, would find one more or one less in some."""
    ends = np.arange(0, 140, dtype=np.float32)
    boxes = np.stack([ends % 43, ends % 37, ends % 43 + 10 * (ends % 9), ends % 37 + 10 * (ends % 8)], axis=-1)
    numbers = np.zeros(len(boxes), np.int64)
    _check(random((1, 3, 12, 15)), boxes, numbers, variant, spatial_scale=0.1)


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_not_finite(variant: str, mode: str) -> None:
    x, numbers = random((1, 3, 12, 15)), np.zeros(1, np.int64)
    for odd in (np.nan, np.inf, -np.inf):
        for place in range(4):
            box = np.asarray([[1, 2, 8, 9]], np.float32)
            box[0, place] = odd
            _check(x, box, numbers, variant, mode=mode, output_height=2, output_width=2, sampling_ratio=2)
            for attributes in ({}, {"coordinate_transformation_mode": "output_half_pixel"}):
                try:
                    _check(x, box, numbers, variant, mode=mode, output_height=2, **attributes)
                except (ValueError, OverflowError):  # of NumPy's kernel
                    with pytest.raises(ValueError, match="error 1"):
                        _run(x, box, numbers, variant, mode=mode, output_height=2, **attributes)
    x[0, :, 3, 4] = np.nan
    _check(x, BOXES, 0 * IMAGES, variant, mode="max", output_height=3, output_width=3, sampling_ratio=2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("number", [-1, 2, 2**40, -(2**62)])
def test_images_that_are_none_are_noted(variant: str, number: int) -> None:
    for x_last in (False, True):
        with pytest.raises(ValueError, match="error 1"):
            _run(random((2, 3, 6, 6)), BOXES[:2], np.asarray([1, number]), variant, x_last=x_last)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_to_compute_and_nothing_to_read(variant: str) -> None:
    assert _run(random((2, 3, 6, 6)), BOXES[:0], IMAGES[:0], variant, threads=3).shape == (0, 3, 1, 1)
    assert _run(random((2, 0, 6, 6)), BOXES, IMAGES, variant).shape == (len(BOXES), 0, 1, 1)
    for shape in ((2, 3, 0, 6), (2, 3, 6, 0), (0, 3, 6, 6)):
        with pytest.raises(ValueError, match="error 1"):
            _run(random(shape), BOXES, IMAGES, variant)
