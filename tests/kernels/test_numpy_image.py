"""Resize, sampling grids, regions of interest and pixel rearrangements against ONNX Runtime."""

from __future__ import annotations

import tracemalloc
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import grid_sampling, image, roi
from fusible.kernels.numpy import resize as resizing
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close

Attributes = dict[str, Any]
ODD = (1, 2, 7, 9)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def floats(values: Any) -> np.ndarray | None:
    return None if values is None else np.array(values, np.float32)


def reference(x: np.ndarray, scales: Any, sizes: Any, roi: Any = None, **attributes: Any) -> np.ndarray:
    operands = [x, floats(roi), floats(scales), None if sizes is None else np.array(sizes, np.int64)]
    (found,) = run_node("Resize", operands[: 3 if sizes is None else 4], opset=19, **attributes)
    return np.asarray(found)


# Products that are whole numbers: where they are not, ONNX's reference and ONNX Runtime disagree about align_corners
# and tf_crop_and_resize, and the reference decides here.
TARGETS = [
    ((1, 1, 2.0, 3.0), None),
    (None, (1, 2, 5, 13)),
    (None, (1, 2, 7, 18)),
    (None, (1, 2, 1, 1)),
    (None, (1, 2, 14, 4)),
]
FRACTIONS = [((1, 1, 1.0, 1 / 3), None), ((1, 1, 0.6, 1.7), None), ((1, 1, 0.4, 0.3), None)]


@pytest.mark.parametrize("mode", resizing.MODES)
@pytest.mark.parametrize("coordinates", resizing.COORDINATES[:5])
def test_resize(mode: str, coordinates: str) -> None:
    x = normal(*ODD)
    targets = TARGETS if coordinates in ("align_corners", "half_pixel_symmetric") else TARGETS + FRACTIONS
    for scales, sizes in targets:
        for attributes in _variants(mode):
            attributes |= {"coordinate_transformation_mode": coordinates, "mode": mode}
            expected = reference(x, scales, sizes, **attributes)
            got = resizing.resize(x, scales=scales, sizes=sizes, **attributes)
            assert_close(got, expected, accumulation=64)


def _variants(mode: str) -> list[Attributes]:
    if mode == "nearest":
        return [{"nearest_mode": n} for n in resizing.NEAREST_MODES[:4]]
    options = [{"antialias": a} for a in (0, 1)]
    return [o | {"exclude_outside": e} for o in options for e in (0, 1)] if mode == "cubic" else options


@pytest.mark.parametrize("mode", resizing.MODES)
def test_crop_and_resize(mode: str) -> None:
    x, crop = normal(*ODD), [0, 0, 0.1, 0.2, 1, 1, 1.2, 0.8]
    attributes: Attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": mode}
    for sizes in ((1, 2, 5, 13), (1, 2, 1, 1), (1, 2, 14, 4)):
        expected = reference(x, None, sizes, crop, extrapolation_value=7.5, **attributes)
        got = resizing.resize(x, sizes=sizes, roi=crop, extrapolation_value=7.5, **attributes)
        assert_close(got, expected, accumulation=16)
    whole = resizing.resize(x, sizes=ODD, roi=[0, 0, 0, 0, 1, 1, 1, 1], **attributes)
    assert np.array_equal(whole, x)
    with pytest.raises(ValueError, match="roi"):
        resizing.resize(x, sizes=ODD, **attributes)


@pytest.mark.parametrize("policy", resizing.POLICIES)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("sizes", [(5, 13), (20, 11), (3, 30)])
def test_aspect_ratio(policy: str, mode: str, sizes: tuple[int, int]) -> None:
    x = normal(*ODD)
    attributes: Attributes = {"keep_aspect_ratio_policy": policy, "mode": mode, "axes": (2, 3)}
    expected = reference(x, None, sizes, **attributes)
    assert_close(resizing.resize(x, sizes=sizes, **attributes), expected, accumulation=4)
    swapped = attributes | {"axes": (-1, -2)}
    assert_close(resizing.resize(x, sizes=sizes[::-1], **swapped), expected, accumulation=4)


def test_resize_of_opset_10_and_upsample() -> None:
    x = normal(1, 2, 5, 6)
    for scales in ((1, 1, 2, 3), (1, 1, 0.6, 0.5), (1, 1, 1.6, 1.5)):
        plain: Attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "simple"}
        for mode in ("nearest", "linear"):
            (expected,) = run_node("Resize", [x, floats(scales)], opset=10, mode=mode)
            assert_close(resizing.resize(x, scales=scales, mode=mode, **plain), expected, accumulation=4)


def test_resize_of_other_types() -> None:
    for dtype in (np.uint8, np.int64, np.bool_, np.float16, ml_dtypes.bfloat16, object):
        x = np.arange(12).reshape(1, 1, 3, 4).astype(dtype)
        doubled = resizing.resize(x, scales=(1, 1, 2, 2))
        assert doubled.dtype == dtype
        assert np.array_equal(doubled, x.repeat(2, axis=2).repeat(2, axis=3))
    for dtype, value in ((np.uint8, 255), (np.int8, -128), (np.int64, 2**62)):
        flat = np.full((1, 1, 3, 3), value, dtype)
        assert np.array_equal(
            resizing.resize(flat, sizes=(1, 1, 5, 5), mode="cubic"), np.full((1, 1, 5, 5), value, dtype)
        )
    half = normal(1, 1, 3, 4).astype(np.float16)
    expected = resizing.resize(half.astype(np.float64), sizes=(1, 1, 5, 5), mode="linear")
    assert_close(resizing.resize(half, sizes=(1, 1, 5, 5), mode="linear"), expected, accumulation=4)


def test_resize_to_nothing_and_from_nothing() -> None:
    for mode in resizing.MODES:
        assert resizing.resize(normal(1, 2, 7, 9), sizes=(1, 2, 0, 3), mode=mode).shape == (1, 2, 0, 3)
        assert resizing.resize(normal(0, 2, 7, 9), sizes=(0, 2, 3, 3), mode=mode).shape == (0, 2, 3, 3)
        # What lies on the way is no larger than what comes in and goes out.
        assert resizing.resize(normal(1, 1, 7, 9), sizes=(1, 1, 10**12, 0), mode=mode).size == 0
    tiny = resizing.resize(normal(1, 1, 7, 9), scales=(1, 1, 1e-30, 1), mode="linear", antialias=True)
    assert tiny.shape == (1, 1, 0, 9)
    with pytest.raises(ValueError, match="without elements"):
        resizing.resize(normal(1, 0), sizes=(1, 3))


def test_resize_dynamic_counts_empty_operands_as_absent() -> None:
    x, empty = normal(1, 1, 3, 4), np.zeros(0, np.float32)
    by_sizes = resizing.resize_dynamic(x, empty, empty, np.array([1, 1, 6, 8]))
    assert np.array_equal(by_sizes, resizing.resize(x, scales=(1, 1, 2, 2)))
    with pytest.raises(ValueError, match="either scales or sizes"):
        resizing.resize_dynamic(x, None, empty, None)
    with pytest.raises(ValueError, match="mode"):
        resizing.resize_dynamic(x, None, None, np.array([1, 1, 6, 8]), mode="quadratic")


@pytest.mark.parametrize("mode", grid_sampling.MODES)
@pytest.mark.parametrize("padding", grid_sampling.PADDING_MODES)
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    attributes: Attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
    for spatial, output in (((5, 6), (4, 3)), ((4, 5, 3), (2, 3, 4)), ((1, 1), (2, 2))):
        x = normal(2, 3, *spatial)
        grid = (np.random.default_rng(1).random((2, *output, len(spatial))) * 6 - 3).astype(np.float32)
        if mode == "cubic" and len(spatial) == 3:
            continue
        (expected,) = run_node("GridSample", [x, grid], opset=20, **attributes)
        assert_close(grid_sampling.grid_sample(x, grid, **attributes), expected, accumulation=64)


@pytest.mark.parametrize("mode", grid_sampling.MODES)
@pytest.mark.parametrize("padding", grid_sampling.PADDING_MODES)
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample_at_no_number(mode: str, padding: str, align: int) -> None:
    """NaN is -1, as in ONNX Runtime; infinities too where they have no limit, else what is far outside."""
    attributes: Attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
    x, nan, inf = normal(1, 2, 4, 5), np.nan, np.inf
    grid = np.array([[[[nan, 0.1], [0.1, nan], [nan, nan], [inf, 0.1], [0.1, -inf], [-inf, nan]]]], np.float32)
    got = grid_sampling.grid_sample(x, grid, **attributes)
    (expected,) = run_node("GridSample", [x, grid], opset=20, **attributes)
    same = slice(None) if padding == "reflection" else slice(3)
    assert_close(got[..., same], expected[..., same], accumulation=64)
    if padding != "reflection":
        (expected,) = run_node("GridSample", [x, np.clip(grid, -100, 100)], opset=20, **attributes)
        assert_close(got[..., 3:], expected[..., 3:], accumulation=64)


def test_grid_sample_far_outside_and_next_to_infinity() -> None:
    x = np.full((1, 1, 3, 3), np.inf, np.float32)
    grid = np.array([[[[1e30, 0], [-9, 9], [np.inf, 0], [0.1, 0.1]]]], np.float32)
    zeros = grid_sampling.grid_sample(x, grid).reshape(-1)
    assert np.array_equal(zeros[:3], [0, 0, 0])
    assert zeros[3] == np.inf
    edge = grid_sampling.grid_sample(np.ones_like(x), grid[:, :, :3], padding_mode="border")
    assert np.array_equal(edge.reshape(-1), [1, 1, 1])


def test_grid_sample_of_a_product_is_the_product_of_samples() -> None:
    factors = [normal(5, seed=k) for k in range(3)]
    x = np.einsum("i,j,k->ijk", *factors)[None, None]
    grid = (np.random.default_rng(0).random((1, 3, 2, 4, 3)) * 3 - 1.5).astype(np.float32)
    for mode in ("linear", "cubic"):
        got = grid_sampling.grid_sample(x, grid, mode=mode)
        expected = np.ones((1, 1, 24))
        for k, factor in enumerate(factors):
            line = grid[..., 2 - k].reshape(1, 24, 1)
            expected *= grid_sampling.grid_sample(factor[None, None], line, mode=mode)
        assert_close(got.reshape(1, 1, 24), expected, accumulation=64)


@pytest.mark.parametrize("align", [0, 1])
def test_affine_grid(align: int) -> None:
    for theta, size in ((normal(2, 2, 3), (2, 3, 4, 5)), (normal(2, 3, 4), (2, 3, 4, 5, 2))):
        (expected,) = run_node("AffineGrid", [theta, np.array(size)], opset=20, align_corners=align)
        assert_close(grid_sampling.affine_grid(theta, size=size, align_corners=bool(align)), expected, accumulation=4)
    assert grid_sampling.affine_grid_dynamic(normal(0, 2, 3), np.array([0, 1, 4, 5])).shape == (0, 4, 5, 2)


BOXES = [[1, 2, 8, 9], [-3, -2, 5, 5.5], [4.2, 3.1, 20, 18], [5, 5, 4, 4], [2.5, 2.5, 2.6, 2.6], [0, 0, 14, 11]]
IMAGES = [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode: str, coordinates: str) -> None:
    x, rois, images = normal(2, 3, 12, 15), floats(BOXES), np.array(IMAGES, np.int64)
    assert rois is not None
    for ratio, scale in product((0, 2, 3), (1.0, 0.5)):
        attributes: Attributes = {
            "mode": mode, "sampling_ratio": ratio, "spatial_scale": scale, "output_height": 3, "output_width": 4,
            "coordinate_transformation_mode": coordinates,
        }  # fmt: skip
        (expected,) = run_node("RoiAlign", [x, rois, images], opset=16, **attributes)
        assert_close(roi.roi_align(x, rois, images, **attributes), expected, accumulation=4096)
    half = roi.roi_align(x.astype(np.float16), rois.astype(np.float16), images, output_height=2)
    assert half.dtype == np.float16
    with pytest.raises(ValueError, match="image 2"):
        roi.roi_align(x, rois, images + 1)


LARGE_BOXES = [[-3000, -2000, 2000, 9], [0, -1e6, 14, 1e6], [-1e6, 2, 1e6, 1e6], [5e5, 5e5, 6e5, 6e5], [-9, -9, 1e6, 3]]


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_of_large_boxes_takes_little_memory(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, images = normal(1, 3, 12, 15), np.zeros(5, np.int64)
    boxes = np.array(LARGE_BOXES, np.float32)
    tracemalloc.start()
    got = roi.roi_align(x, boxes, images, output_height=2, output_width=3, mode=mode)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1_000_000
    monkeypatch.setattr(roi, "_FEW_SAMPLES", 2**30)  # all are gone through
    assert np.array_equal(got, roi.roi_align(x, boxes, images, output_height=2, output_width=3, mode=mode))
    with pytest.raises(ValueError, match=r"from -0\.5 to .* has no number of pixels"):
        roi.roi_align(x, np.array([[0, 0, np.inf, 9]], np.float32), images[:1], mode=mode)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
def test_max_roi_pool(scale: float) -> None:
    x, boxes = normal(2, 3, 12, 15), floats(BOXES)
    assert boxes is not None
    rois = np.concatenate([np.array(IMAGES, np.float32)[:, None], boxes], axis=1)
    (expected,) = run_node("MaxRoiPool", [x, rois], opset=21, pooled_shape=(3, 4), spatial_scale=scale)
    assert np.array_equal(roi.max_roi_pool(x, rois, pooled_shape=(3, 4), spatial_scale=scale), expected)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, object])
def test_depth_and_space(mode: str, dtype: Any) -> None:
    x = np.arange(2 * 18 * 2 * 5).reshape(2, 18, 2, 5).astype(dtype)
    space = image.depth_to_space(x, blocksize=3, mode=mode)
    assert np.array_equal(image.space_to_depth(space, blocksize=3, mode=mode), x)
    if dtype is np.float32:
        assert np.array_equal(space, run_node("DepthToSpace", [x], blocksize=3, mode=mode)[0])
        if mode == "DCR":
            assert np.array_equal(
                image.space_to_depth(space, blocksize=3), run_node("SpaceToDepth", [space], blocksize=3)[0]
            )
    with pytest.raises(ValueError, match="multiples"):
        image.depth_to_space(x, blocksize=2, mode=mode)
    assert image.depth_to_space(x[:0], blocksize=3, mode=mode).shape == (0, 2, 6, 15)
