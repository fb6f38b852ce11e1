"""Resize: along each axis in turn, every output element is a weighted sum of a few input elements.

Coordinates are computed in float32, as ONNX Runtime does: in a wider type a quotient such as 4 / (4 / 3) would miss the
whole number that it stands for, and with it the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened
from fusible.kernels.numpy.movement import normalise_axis
from fusible.kernels.numpy.sampling import cubic_filter, linear_filter

Array = np.ndarray[Any, Any]

MODES = ("nearest", "linear", "cubic")
# "simple" is the rule of opset 10: down-sampling rounds up, up-sampling down.
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
# tf_half_pixel_for_nn existed in opsets 11 and 12.
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)  # fmt: skip
POLICIES = ("stretch", "not_larger", "not_smaller")


@dataclass(frozen=True, slots=True)
class Scaling:
    """One axis: `size` input and `count` output elements; `length` is size * scale, maybe fractional."""

    size: int
    count: int
    scale: float
    length: float


@dataclass(frozen=True, slots=True)
class Interpolation:
    """How values between elements are found; the fields are the attributes of ONNX Resize."""

    mode: str
    nearest_mode: str
    coordinates: str
    cubic_coeff_a: float
    exclude_outside: bool
    antialias: bool


def resize(
    X: Array, /, *, scales: Sequence[float] | None = None, sizes: Sequence[int] | None = None,
    roi: Sequence[float] | None = None, axes: Sequence[int] | None = None, mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor", coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75, exclude_outside: bool = False, antialias: bool = False,
    extrapolation_value: float = 0.0, keep_aspect_ratio_policy: str = "stretch",
) -> Array:  # fmt: skip
    """X resampled to floor(size * scales), or to `sizes`, along `axes` (all if None).

    roi lists the normalised beginnings of those axes, then the ends, for coordinate_transformation_mode
    tf_crop_and_resize, which puts `extrapolation_value` wherever a coordinate lies outside X. Integers are computed in
    float64, then rounded and saturated; `nearest` takes any type.
    """
    how = Interpolation(mode, nearest_mode, coordinate_transformation_mode, cubic_coeff_a, exclude_outside, antialias)
    _check(how)
    chosen = [normalise_axis(a, X.ndim) for a in axes] if axes is not None else list(range(X.ndim))
    crops = _crops(roi, len(chosen)) if coordinate_transformation_mode == "tf_crop_and_resize" else None
    result = X if mode == "nearest" else _floating(X)
    outside: list[tuple[int, Array]] = []
    found = scalings(X.shape, chosen, scales, sizes, keep_aspect_ratio_policy)
    if any(scaling.count == 0 for scaling in found):
        shape = list(X.shape)
        for axis, scaling in zip(chosen, found, strict=True):
            shape[axis] = scaling.count
        return np.empty(shape, X.dtype)
    with np.errstate(all="ignore"):
        # What shrinks goes first, so that nothing on the way is larger than both X and the result.
        for i in sorted(range(len(found)), key=lambda i: found[i].count / max(found[i].size, 1)):
            axis, scaling, crop = chosen[i], found[i], None if crops is None else crops[i]
            if scaling.count == scaling.size and scaling.scale == 1 and crop in (None, (0.0, 1.0)):
                continue
            x = source_coordinates(scaling, coordinate_transformation_mode, crop)
            result = _along_axis(result, axis, x, scaling, how)
            if crop is not None:
                outside.append((axis, (x < 0) | (x > scaling.size - 1)))
        result = _cast(result, X.dtype)
        return _extrapolated(result, outside, extrapolation_value)


def resize_dynamic(
    X: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None, /, **attributes: Any
) -> Array:
    """`resize` with roi, scales and sizes known at run time; empty ones count as absent."""
    operands = (("roi", roi), ("scales", scales), ("sizes", sizes))
    given = {name: value.tolist() for name, value in operands if value is not None and value.size}
    return resize(X, **given, **attributes)


def scalings(
    shape: Sequence[int], axes: Sequence[int], scales: Sequence[float] | None, sizes: Sequence[int] | None, policy: str
) -> list[Scaling]:
    """The input and output sizes of the resized axes. Raises ValueError unless exactly one list is given and fits."""
    given = scales if scales is not None else sizes
    if (scales is None) == (sizes is None) or given is None or len(given) != len(axes):
        raise ValueError(f"Resize takes either scales or sizes, {len(axes)} of them, got {scales} and {sizes}")
    if policy not in POLICIES:
        raise ValueError(f"keep_aspect_ratio_policy must be one of {POLICIES}, got {policy!r}")
    extents = [shape[a] for a in axes]
    if scales is not None:
        if min(scales, default=1) <= 0:
            raise ValueError(f"scales must be positive, got {tuple(scales)}")
        return [_scaled(size, float(np.float32(s))) for size, s in zip(extents, scales, strict=True)]
    assert sizes is not None
    ratios = [_ratio(count, size) for count, size in zip(sizes, extents, strict=True)]
    if policy == "stretch":
        return [Scaling(s, n, r, float(n)) for s, n, r in zip(extents, sizes, ratios, strict=True)]
    ratio = (min if policy == "not_larger" else max)(ratios)
    return [Scaling(s, floor(ratio * s + 0.5), ratio, ratio * s) for s in extents]


def _scaled(size: int, scale: float) -> Scaling:
    """The product is rounded to float32 before it is cut, as the scale itself was: 3 * (4 / 3) is 4."""
    length = float(np.float32(size) * np.float32(scale))
    return Scaling(size, floor(length), scale, length)


def _ratio(count: int, size: int) -> float:
    if size == 0:
        if count:
            raise ValueError(f"cannot resize an axis without elements to {count}")
        return 1.0
    return float(np.float32(count) / np.float32(size))


def source_coordinates(scaling: Scaling, mode: str, crop: tuple[float, float] | None) -> Array:
    """Where in the input each output element lies, float32 [count]."""
    one = np.float32
    y = np.arange(scaling.count, dtype=one)
    size, scale, length = one(scaling.size), one(scaling.scale), one(scaling.length)
    match mode:
        case "asymmetric":
            return y / scale
        case "tf_half_pixel_for_nn":
            return (y + one(0.5)) / scale
        case "half_pixel":
            return (y + one(0.5)) / scale - one(0.5)
        case "pytorch_half_pixel":
            return (y + one(0.5)) / scale - one(0.5) if scaling.count > 1 else np.zeros_like(y)
        case "half_pixel_symmetric":
            offset = size / one(2) * (one(1) - one(scaling.count) / length)
            return offset + (y + one(0.5)) / scale - one(0.5)
        case "align_corners":
            return y * ((size - one(1)) / (length - one(1))) if length != 1 else np.zeros_like(y)
    begin, end = (one(c) for c in crop or (0.0, 1.0))
    if length == 1:
        return np.full_like(y, one(0.5) * (begin + end) * (size - one(1)))
    return begin * (size - one(1)) + y * ((end - begin) * (size - one(1)) / (length - one(1)))


def _along_axis(data: Array, axis: int, x: Array, scaling: Scaling, how: Interpolation) -> Array:
    """Resample one axis at the coordinates x."""
    if how.mode == "nearest":
        return np.take(data, np.clip(nearest(x, scaling.scale, how.nearest_mode), 0, scaling.size - 1), axis=axis)
    numbers, weights = taps(x, scaling, how)
    weights = weights.astype(data.dtype)
    shape = (-1, *(1,) * (data.ndim - 1 - axis))
    total: Array | None = None
    for tap in range(numbers.shape[1]):
        values = np.take(data, numbers[:, tap], axis=axis)
        values *= weights[:, tap].reshape(shape)
        total = values if total is None else np.add(total, values, out=total)
    assert total is not None
    return total


def taps(x: Array, scaling: Scaling, how: Interpolation) -> tuple[Array, Array]:
    """The elements that each coordinate reads and their weights: two arrays [count, taps]."""
    # Antialiasing widens the filter when shrinking, so that it covers all that falls into an output element.
    scale = min(scaling.scale, 1.0) if how.antialias else 1.0
    support = 2 if how.mode == "cubic" else 1
    low = np.floor(x).astype(np.int64)
    numbers = low[:, None] + np.arange(floor(-support / scale) + 1, ceil(support / scale) + 1)
    distance = (numbers - x[:, None].astype(np.float64)) * scale
    weights = cubic_filter(distance, how.cubic_coeff_a) if how.mode == "cubic" else linear_filter(distance)
    if how.exclude_outside:
        weights = np.where((numbers < 0) | (numbers >= scaling.size), 0, weights)
    if how.exclude_outside or scale < 1:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    return np.clip(numbers, 0, scaling.size - 1), weights


def nearest(x: Array, scale: float, mode: str) -> Array:
    """The whole numbers next to coordinates, before they are clamped."""
    match mode:
        case "round_prefer_floor":
            found = np.ceil(x - np.float32(0.5))
        case "round_prefer_ceil":
            found = np.floor(x + np.float32(0.5))
        case "floor":
            found = np.floor(x)
        case "ceil":
            found = np.ceil(x)
        case _:
            found = np.ceil(x) if scale < 1 else np.floor(x)
    return found.astype(np.int64)


def _crops(roi: Sequence[float] | None, rank: int) -> list[tuple[float, float]]:
    if roi is None or len(roi) != 2 * rank:
        raise ValueError(f"tf_crop_and_resize takes a roi of {2 * rank} numbers, got {roi}")
    return [(float(begin), float(end)) for begin, end in zip(roi[:rank], roi[rank:], strict=True)]


def _floating(X: Array) -> Array:
    return widened(X) if X.dtype.kind not in "iub" else X.astype(np.float64)


def _cast(result: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind in "iu" and result.dtype != dtype:
        info = np.iinfo(dtype)
        # The largest 64-bit integers are not float64 values; the next float64 below them is.
        return np.clip(np.rint(result), info.min, np.nextafter(float(info.max) + 1, 0)).astype(dtype)
    return delivered(result, dtype)


def _extrapolated(result: Array, outside: Sequence[tuple[int, Array]], value: float) -> Array:
    """The result with `value` wherever the coordinate of some axis lies outside."""
    if not any(mask.any() for _, mask in outside):
        return result
    result = result.copy()
    for axis, mask in outside:
        result[(slice(None),) * axis + (mask,)] = value
    return result


def _check(how: Interpolation) -> None:
    for name, value, known in (
        ("mode", how.mode, MODES),
        ("nearest_mode", how.nearest_mode, NEAREST_MODES),
        ("coordinate_transformation_mode", how.coordinates, COORDINATES),
    ):
        if value not in known:
            raise ValueError(f"{name} of Resize must be one of {', '.join(known)}, got {value!r}")
