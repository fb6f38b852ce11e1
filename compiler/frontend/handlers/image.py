"""Resize and Upsample, DepthToSpace, SpaceToDepth, GridSample, AffineGrid, RoiAlign, MaxRoiPool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.opset.resize import scaled_extent
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import Shape

# What Upsample and Resize of opset 10 do, which have no attributes for it.
_PLAIN = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "simple"}
_MODES = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}


@onnx_op("Upsample")
def upsample_attributes(c: NodeContext) -> Value:
    """Upsample before opset 9: the scales are attributes, before 7 of height and width only."""
    scales = c.attr_floats("scales")
    if scales is None:
        scales = (1.0, 1.0, c.attr_float("height_scale"), c.attr_float("width_scale"))
    return _scaled(c, scales, None, mode=_mode(c, "mode"), **_PLAIN)


@onnx_op("Upsample", since=9)
@onnx_op("Resize", since=10)
def upsample(c: NodeContext) -> Value:
    """Upsample since opset 9 and Resize of opset 10: the scales are operand 1."""
    return _by_scales(c, 1, None, mode=_mode(c, "mode"), **_PLAIN)


@onnx_op("Resize", since=11)
def resize(c: NodeContext) -> Value:
    """Resize: axes, antialias and keep_aspect_ratio_policy since opset 18, half_pixel_symmetric since 19."""
    attrs: dict[str, Any] = {
        "mode": _mode(c, "mode"),
        "nearest_mode": c.attr_string("nearest_mode", "round_prefer_floor"),
        "coordinate_transformation_mode": c.attr_string("coordinate_transformation_mode", "half_pixel"),
        "cubic_coeff_a": c.attr_float("cubic_coeff_a", -0.75),
        "exclude_outside": c.attr_int("exclude_outside", 0) != 0,
        "antialias": c.attr_int("antialias", 0) != 0,
        "extrapolation_value": c.attr_float("extrapolation_value", 0.0),
        "keep_aspect_ratio_policy": c.attr_string("keep_aspect_ratio_policy", "stretch"),
        "axes": c.attr_ints("axes"),
    }
    roi = None
    if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
        found = c.static(1)
        if found is None:
            return _at_run_time(c, c.required(1), c.optional(2), c.optional(3), attrs)
        roi = _floats(found)
    if not _is_absent(c, 3):
        return _by_sizes(c, roi, attrs)
    return _by_scales(c, 2, roi, **attrs)


def _is_absent(c: NodeContext, index: int) -> bool:
    """An operand that is missing or has no elements, which before opset 13 was the way to leave one out."""
    return c.optional(index) is None or c.tensor_type(index).elements == 0


def _by_sizes(c: NodeContext, roi: tuple[float, ...] | None, attrs: dict[str, Any]) -> Value:
    sizes, shape = c.dims(3), c.shape(0)
    stretch = attrs["keep_aspect_ratio_policy"] == "stretch"
    if sizes is None or (not stretch and not _is_static(sizes, shape)):
        return _at_run_time(c, c.optional(1), None, c.required(3), attrs)
    return c.add("resize", c.required(0), sizes=sizes, roi=roi, **attrs)


def _is_static(sizes: Sequence[Dim], shape: Shape | None) -> bool:
    return shape is not None and all(isinstance(d, int) for d in (*sizes, *shape))


def _by_scales(c: NodeContext, index: int, roi: tuple[float, ...] | None, **attrs: Any) -> Value:
    if _is_absent(c, index):
        c.invalid("neither scales nor sizes are given")
    scales = c.static(index)
    if scales is None:
        return _at_run_time(c, c.optional(1) if index == 2 else None, c.required(index), None, attrs)
    return _scaled(c, _floats(scales), roi, **attrs)


def _scaled(c: NodeContext, scales: Sequence[float], roi: tuple[float, ...] | None, **attrs: Any) -> Value:
    """A resize by known scales; the result's sizes may still depend on float products that only a run can round."""
    shape = c.shape(0)
    axes = attrs.get("axes")
    chosen = range(len(scales)) if axes is None else axes
    known = shape is not None and len(chosen) == len(scales) and all(-len(shape) <= a < len(shape) for a in chosen)
    if known and shape is not None and all(s > 0 for s in scales):
        if any(scaled_extent(shape[a], s) is None for a, s in zip(chosen, scales, strict=True)):
            operand = c.constant(np.asarray(scales, np.float32))
            crop = None if roi is None else c.constant(np.asarray(roi, np.float32))
            return _at_run_time(c, crop, operand, None, attrs)
    return c.add("resize", c.required(0), scales=tuple(scales), roi=roi, **attrs)


def _at_run_time(
    c: NodeContext, roi: Value | None, scales: Value | None, sizes: Value | None, attrs: dict[str, Any]
) -> Value:
    return c.add("resize_dynamic", c.required(0), roi, scales, sizes, **attrs)


def _floats(array: np.ndarray) -> tuple[float, ...]:
    return tuple(float(x) for x in array.reshape(-1))


def _mode(c: NodeContext, name: str, default: str = "nearest") -> str:
    mode = c.attr_string(name, default)
    return _MODES.get(mode, mode)


@onnx_op("DepthToSpace")
def depth_to_space(c: NodeContext) -> Value:
    """DepthToSpace (mode since opset 11)."""
    return c.add("depth_to_space", c.required(0), blocksize=c.attr_int("blocksize"), mode=c.attr_string("mode", "DCR"))


@onnx_op("SpaceToDepth")
def space_to_depth(c: NodeContext) -> Value:
    """SpaceToDepth (mode since opset 28)."""
    return c.add("space_to_depth", c.required(0), blocksize=c.attr_int("blocksize"), mode=c.attr_string("mode", "DCR"))


@onnx_op("GridSample")
def grid_sample(c: NodeContext) -> Value:
    """GridSample (modes bilinear and bicubic were renamed linear and cubic in opset 20)."""
    return c.add(
        "grid_sample",
        c.required(0),
        c.required(1),
        mode=_mode(c, "mode", "linear"),
        padding_mode=c.attr_string("padding_mode", "zeros"),
        align_corners=c.attr_int("align_corners", 0) != 0,
    )


@onnx_op("AffineGrid")
def affine_grid(c: NodeContext) -> Value:
    """AffineGrid."""
    size, align_corners = c.dims(1), c.attr_int("align_corners", 0) != 0
    if size is None:
        return c.add("affine_grid_dynamic", c.required(0), c.required(1), align_corners=align_corners)
    return c.add("affine_grid", c.required(0), size=size, align_corners=align_corners)


@onnx_op("RoiAlign")
def roi_align(c: NodeContext) -> Value:
    """RoiAlign: coordinate_transformation_mode since opset 16, before it was output_half_pixel."""
    default = "half_pixel" if c.opset >= 16 else "output_half_pixel"
    return c.add(
        "roi_align",
        c.required(0),
        c.required(1),
        c.required(2),
        output_height=c.attr_int("output_height", 1),
        output_width=c.attr_int("output_width", 1),
        sampling_ratio=c.attr_int("sampling_ratio", 0),
        spatial_scale=c.attr_float("spatial_scale", 1.0),
        mode=c.attr_string("mode", "avg"),
        coordinate_transformation_mode=c.attr_string("coordinate_transformation_mode", default),
    )


@onnx_op("MaxRoiPool")
def max_roi_pool(c: NodeContext) -> Value:
    """MaxRoiPool."""
    pooled = c.attr_ints("pooled_shape")
    if pooled is None:
        c.invalid("required attribute 'pooled_shape' is missing")
    return c.add(
        "max_roi_pool",
        c.required(0),
        c.required(1),
        pooled_shape=pooled,
        spatial_scale=c.attr_float("spatial_scale", 1.0),
    )
