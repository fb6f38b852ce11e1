"""RoiAlign and MaxRoiPool: each region of interest is pooled to a fixed number of bins."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

import numpy as np

from fusible.kernels.numpy.contraction import product
from fusible.kernels.numpy.halves import delivered, widened

Array = np.ndarray[Any, Any]

_MOST_SAMPLES = 2.0**30  # along an axis of a bin
_FEW_SAMPLES = 64  # that are looked at without asking which may be inside the image
_BLOCK = 1 << 20  # elements that are read at once for a maximum


def roi_align(
    X: Array, rois: Array, batch_indices: Array, /, *, output_height: int = 1, output_width: int = 1,
    sampling_ratio: int = 0, spatial_scale: float = 1.0, mode: str = "avg",
    coordinate_transformation_mode: str = "half_pixel",
) -> Array:  # fmt: skip
    """Y [R, C, output_height, output_width]: the mean or maximum of bilinear samples in each bin of each region.

    X [N, C, H, W]; rois [R, 4] = x1, y1, x2, y2, times spatial_scale in pixels, less 0.5 for half_pixel; batch_indices
    [R]. A bin has sampling_ratio**2 samples, or for 0 as many as it has pixels. Source: He et al. 2017, Mask R-CNN.
    `max` takes the largest weighted corner of all samples, as ONNX's reference and ONNX Runtime do.

    Memory is bounded by the image, the bins and sampling_ratio, whatever the regions. Raises ValueError for regions
    that are not finite or whose bins have 2**30 pixels.
    """
    if X.ndim != 4 or rois.shape != (len(batch_indices), 4):
        raise ValueError(f"RoiAlign takes X [N, C, H, W], rois [R, 4], got {X.shape}, {rois.shape}")
    if mode not in ("avg", "max") or coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise ValueError(f"RoiAlign has no mode {mode!r} or no coordinates {coordinate_transformation_mode!r}")
    half_pixel = coordinate_transformation_mode == "half_pixel"
    Y = np.zeros((len(rois), X.shape[1], output_height, output_width), X.dtype)
    boxes = widened(rois) * widened(rois).dtype.type(spatial_scale) - (0.5 if half_pixel else 0)
    with np.errstate(all="ignore"):
        for r, (x1, y1, x2, y2) in enumerate(boxes):
            image = widened(X[_image_number(batch_indices[r], len(X))])
            rows = _Samples(y1, y2, X.shape[2], output_height, sampling_ratio, half_pixel)
            columns = _Samples(x1, x2, X.shape[3], output_width, sampling_ratio, half_pixel)
            if rows.number * columns.number:
                Y[r] = (_mean if mode == "avg" else _largest_corner)(image, rows, columns).astype(X.dtype)
    return Y


class _Samples:
    """The samples of a region along one axis that read pixels: for each its bin, two pixels and their weights.

    number: of samples of a bin. Those more than a pixel outside the image are 0; however many there are, `outside` says
    which bins have some, and memory is bounded by the image and the bins.
    """

    def __init__(self, start: Any, end: Any, size: int, bins: int, ratio: int, half_pixel: bool) -> None:
        length = end - start if half_pixel else max(end - start, type(start)(1))
        step = length / bins
        if ratio <= 0 and not step < _MOST_SAMPLES:
            raise ValueError(f"a region from {start} to {end} has no number of pixels, or 2**30 and more in a bin")
        self.size, self.bins = size, bins
        self.number = max(0, ratio if ratio > 0 else ceil(step))
        first, last = self._near(start, step)
        # Row-major, so that sums are added up in the order of all samples.
        bin_of, nth = np.nonzero(np.arange(int((last - first).max(initial=0))) < (last - first)[:, None])
        nth = (nth + first[bin_of]).astype(start.dtype)
        inner = (nth + start.dtype.type(0.5)) * step / max(1, self.number)
        x = start + bin_of.astype(start.dtype) * step + inner
        there = (x >= -1) & (x <= size)
        self.bin, x = bin_of[there], np.clip(x[there], 0, size - 1)
        self.outside = np.bincount(self.bin, minlength=bins) < self.number
        self.low = np.floor(x).astype(np.int64)
        self.high = np.minimum(self.low + 1, size - 1)
        self.high_weight = (x - self.low).astype(x.dtype)
        self.low_weight = (1 - self.high_weight).astype(x.dtype)

    def _near(self, start: Any, step: Any) -> tuple[Array, Array]:
        """For each bin the first sample that may be inside the image, and the first of those behind it that is not."""
        none, every = np.zeros(self.bins, np.int64), np.full(self.bins, self.number, np.int64)
        if self.number <= _FEW_SAMPLES or not step > 0:
            return none, every
        origin, apart = float(start) + np.arange(self.bins) * float(step), float(step) / self.number
        error = 8 * np.finfo(start.dtype).eps * (abs(float(start)) + abs(origin) + float(step))
        first = np.floor((-1 - origin - error) / apart) - 2
        last = np.ceil((self.size - origin + error) / apart) + 2
        first = np.clip(first, 0, self.number).astype(np.int64)
        return first, np.clip(last, first, self.number).astype(np.int64)

    def averaging(self) -> Array:
        """The matrix [bins, size] that takes the mean of the samples of each bin."""
        matrix = np.zeros((self.bins, self.size), self.low_weight.dtype)
        np.add.at(matrix, (self.bin, self.low), self.low_weight)
        np.add.at(matrix, (self.bin, self.high), self.high_weight)
        return matrix / self.number

    def window(self) -> slice:
        """The pixels that samples read; those outside the image count as the first."""
        least = 0 if self.outside.any() else int(self.low.min())
        return slice(least, int(self.high.max(initial=0)) + 1)

    def of_bin(self, number: int) -> slice:
        """The samples of a bin."""
        return slice(*np.searchsorted(self.bin, (number, number + 1)))


def _mean(image: Array, rows: _Samples, columns: _Samples) -> Array:
    """Sampling and averaging are linear and separable, hence two matrix products."""
    tall, wide = rows.window(), columns.window()
    part = image[:, tall, wide]
    return product(product(rows.averaging()[:, tall], part), columns.averaging()[:, wide].T)


def _largest_corner(image: Array, rows: _Samples, columns: _Samples) -> Array:
    """Bin by bin, some rows of samples at once."""
    best = np.full((len(image), rows.bins, columns.bins), -np.inf, np.result_type(image, rows.low_weight))
    for i, j in np.ndindex(best.shape[1:]):
        down, across = rows.of_bin(i), columns.of_bin(j)
        width = max(1, len(image) * (across.stop - across.start))
        if rows.outside[i] or columns.outside[j]:
            best[:, i, j] = 0
        for top in range(down.start, down.stop, max(1, _BLOCK // width)):
            block = slice(top, min(down.stop, top + max(1, _BLOCK // width)))
            for y, y_weight in ((rows.low, rows.low_weight), (rows.high, rows.high_weight)):
                for x, x_weight in ((columns.low, columns.low_weight), (columns.high, columns.high_weight)):
                    weights = y_weight[block, None] * x_weight[across]
                    value = image[:, y[block, None], x[across]] * weights
                    best[:, i, j] = np.maximum(best[:, i, j], value.max(axis=(1, 2), initial=-np.inf))
    return best


def max_roi_pool(X: Array, rois: Array, /, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Array:
    """Y [R, C, *pooled_shape]: the maximum of each bin of each region, 0 for an empty bin.

    X [N, C, H, W]; rois [R, 5] = batch index, x1, y1, x2, y2, times spatial_scale rounded to whole pixels, both corners
    included. Source: Girshick 2015, Fast R-CNN.
    """
    if X.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 5 or len(pooled_shape) != 2:
        raise ValueError(f"MaxRoiPool takes X [N, C, H, W] and rois [R, 5], got {X.shape} and {rois.shape}")
    Y = np.zeros((len(rois), X.shape[1], *pooled_shape), X.dtype)
    regions = widened(rois)
    for r, region in enumerate(regions):
        image = X[_image_number(region[0], len(X))]
        x1, y1, x2, y2 = (_round_away(float(v) * spatial_scale) for v in region[1:])
        rows = _bins(y1, y2, X.shape[2], pooled_shape[0])
        columns = _bins(x1, x2, X.shape[3], pooled_shape[1])
        for i, row in enumerate(rows):
            if row.start >= row.stop:
                continue
            line = image[:, row].max(axis=1)
            for j, column in enumerate(columns):
                if column.start < column.stop:
                    Y[r, :, i, j] = line[:, column].max(axis=1)
    return delivered(Y, X.dtype)


def _bins(start: int, end: int, size: int, count: int) -> list[slice]:
    """The pixels of each bin of a region from `start` to `end` inclusive, cut at the image's border."""
    step = np.float32(max(end - start + 1, 1)) / np.float32(count)

    def inside(pixel: int) -> int:
        return min(max(pixel + start, 0), size)

    return [slice(inside(floor(b * step)), inside(ceil((b + 1) * step))) for b in range(count)]


def _round_away(x: float) -> int:
    """Halves away from zero, as C's round."""
    return floor(x + 0.5) if x >= 0 else ceil(x - 0.5)


def _image_number(index: Any, images: int) -> int:
    number = int(index)
    if not 0 <= number < images:
        raise ValueError(f"a region names image {number} of a batch of {images}")
    return number
