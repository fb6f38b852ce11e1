"""Resize: static sizes or scales, and a form whose sizes are known only when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from fusible.compiler.ir.definition import Definition, Opaque, View, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.inference import normal_axes
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.symbols import Dim, exact_div, floordiv
from fusible.compiler.ir.types import Shape, TensorType
from fusible.compiler.region.index import IndexMap, axis
from fusible.kernels.numpy import resize as kernel

__all__ = ["ResizeAttrs", "ResizeDynamicAttrs", "scaled_extent"]

# A product of a dimension below 2**16 and a scale with so small a denominator is exact in float32.
_LARGEST_DENOMINATOR = 256
_PROBE = 64
_LONGEST_PROBE = 4096


@dataclass(frozen=True, slots=True)
class ResizeAttrs:
    """Attributes of ONNX Resize, and its operands. Either scales or sizes is given, for `axes` (None: for all).

    roi: beginnings of those axes, then ends, for coordinate_transformation_mode tf_crop_and_resize.
    """

    scales: tuple[float, ...] | None = None
    sizes: tuple[Dim, ...] | None = None
    roi: tuple[float, ...] | None = None
    axes: tuple[int, ...] | None = None
    mode: str = "nearest"
    nearest_mode: str = "round_prefer_floor"
    coordinate_transformation_mode: str = "half_pixel"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation_value: float = 0.0
    keep_aspect_ratio_policy: str = "stretch"


@dataclass(frozen=True, slots=True)
class ResizeDynamicAttrs:
    """As ResizeAttrs; roi, scales and sizes are operands 1 to 3."""

    axes: tuple[int, ...] | None = None
    mode: str = "nearest"
    nearest_mode: str = "round_prefer_floor"
    coordinate_transformation_mode: str = "half_pixel"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation_value: float = 0.0
    keep_aspect_ratio_policy: str = "stretch"


def scaled_extent(dim: Dim, scale: float) -> Dim | None:
    """floor(dim * scale), None if the dimension is symbolic and the product may round in float32."""
    if isinstance(dim, int):
        return kernel.scalings((dim,), (0,), (scale,), None, "stretch")[0].count
    exact = Fraction(float(np.float32(scale)))
    if exact.denominator > _LARGEST_DENOMINATOR or exact.numerator > _LARGEST_DENOMINATOR:
        return None
    return floordiv(dim * exact.numerator, exact.denominator)


def _check_modes(ctx: Infer) -> None:
    for name, known in (
        ("mode", kernel.MODES),
        ("nearest_mode", kernel.NEAREST_MODES),
        ("coordinate_transformation_mode", kernel.COORDINATES),
        ("keep_aspect_ratio_policy", kernel.POLICIES),
    ):
        if getattr(ctx.attrs, name) not in known:
            ctx.fail(f"{name} must be one of {', '.join(known)}, got {getattr(ctx.attrs, name)!r}")


def _resize(ctx: Infer) -> TensorType:
    _check_modes(ctx)
    attrs, shape = ctx.attrs, ctx.shape(0)
    if (attrs.scales is None) == (attrs.sizes is None):
        ctx.fail("takes either scales or sizes")
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    axes = _axes(ctx, len(shape))
    given = attrs.scales if attrs.scales is not None else attrs.sizes
    if len(given) != len(axes):
        ctx.fail(f"{len(axes)} axes are resized, {len(given)} scales or sizes are given")
    if attrs.coordinate_transformation_mode == "tf_crop_and_resize" and len(attrs.roi or ()) != 2 * len(axes):
        ctx.fail(f"tf_crop_and_resize takes a roi of {2 * len(axes)} numbers, got {attrs.roi}")
    result = list(shape)
    for a, extent in zip(axes, _extents(ctx, [shape[a] for a in axes]), strict=True):
        if shape[a] == 0 and extent != 0:
            ctx.fail(f"axis {a} without elements cannot be resized to {extent}")
        result[a] = extent
    return TensorType(ctx.dtype(0), tuple(result))


def _axes(ctx: Infer, rank: int) -> tuple[int, ...]:
    return tuple(range(rank)) if ctx.attrs.axes is None else normal_axes(ctx, ctx.attrs.axes, rank)


def _extents(ctx: Infer, dims: list[Dim]) -> list[Dim]:
    """The sizes of the resized axes."""
    attrs = ctx.attrs
    if attrs.scales is not None:
        if not all(0 < s < float("inf") for s in attrs.scales):
            ctx.fail(f"scales must be positive, got {list(attrs.scales)}")
        found = [scaled_extent(d, s) for d, s in zip(dims, attrs.scales, strict=True)]
        known = [d for d in found if d is not None]
        if len(known) != len(found):
            ctx.fail(f"the product of {dims} and scales {list(attrs.scales)} is known only at run time: resize_dynamic")
        return known
    if any(isinstance(s, int) and s < 0 for s in attrs.sizes):
        ctx.fail(f"sizes must not be negative, got {list(attrs.sizes)}")
    if attrs.keep_aspect_ratio_policy == "stretch":
        return list(attrs.sizes)
    literal = [d for d in (*dims, *attrs.sizes) if isinstance(d, int)]
    if len(literal) != 2 * len(dims):
        ctx.fail("keep_aspect_ratio_policy needs sizes that are known at import: resize_dynamic")
    extents, sizes = literal[: len(dims)], literal[len(dims) :]
    found_scalings = kernel.scalings(extents, range(len(extents)), None, sizes, attrs.keep_aspect_ratio_policy)
    return [s.count for s in found_scalings]


def _resize_definition(node: Node) -> Definition:
    value = node.inputs[0]
    attrs = node.attrs
    shape = value.type.shape if value is not None and isinstance(value.type, TensorType) else None
    output = node.output.type.shape if isinstance(node.output.type, TensorType) else None
    if shape is None or output is None:
        return Opaque("the rank of the operand is not known")
    if attrs.mode != "nearest":
        return Opaque("its weights follow from coordinates, which expressions have no words for")
    components: list[Dim] = []
    for a, (old, new) in enumerate(zip(shape, output, strict=True)):
        factor = 1 if old == new else exact_div(new, old) if old != 0 else None
        if not isinstance(factor, int) or not _repeats(node, a, old, factor):
            return Opaque(f"axis {a} is not repeated a whole number of times")
        components.append(floordiv(axis(a), factor))
    return View((IndexMap(tuple(components)),))


def _repeats(node: Node, a: int, size: Dim, factor: int) -> bool:
    """True if output element i of axis `a` is a copy of input element i // factor."""
    attrs, rank = node.attrs, len(node.output.type.shape)  # type: ignore[union-attr, arg-type]
    axes = list(range(rank)) if attrs.axes is None else [x % rank for x in attrs.axes]
    if a not in axes:
        return True
    mode = attrs.coordinate_transformation_mode
    if mode == "tf_crop_and_resize":
        return False
    scale = float(np.float32(attrs.scales[axes.index(a)])) if attrs.scales is not None else float(factor)
    if scale != factor or attrs.keep_aspect_ratio_policy != "stretch":
        return False
    if factor == 1:
        return True
    length = size if isinstance(size, int) else _PROBE
    if length > _LONGEST_PROBE or (not isinstance(size, int) and mode == "align_corners"):
        return False
    scaling = kernel.Scaling(length, length * factor, scale, float(length * factor))
    places = kernel.nearest(kernel.source_coordinates(scaling, mode, None), scale, attrs.nearest_mode)
    return bool(np.array_equal(np.clip(places, 0, max(length - 1, 0)), np.arange(length * factor) // factor))


def _has_length(shape: Shape, lengths: tuple[int, ...]) -> bool:
    """Whether this is the shape of a vector of one of the lengths, as far as is known."""
    return len(shape) == 1 and (not isinstance(shape[0], int) or shape[0] in lengths)


def _resize_dynamic(ctx: Infer) -> TensorType:
    _check_modes(ctx)
    shape = ctx.shape(0)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    axes = _axes(ctx, len(shape))
    for index, length in ((1, 2 * len(axes)), (2, len(axes)), (3, len(axes))):
        operand = ctx.shape(index) if ctx.has(index) else None
        if operand is not None and not _has_length(operand, (0, length)):
            ctx.fail(f"input {index} must have {length} elements, got {ctx.type(index)}")
    scales = ctx.content(2)
    stated = scales is not None and scales.size == len(axes) and min(scales, default=1) > 0
    result = list(shape)
    for k, a in enumerate(axes):
        known = scaled_extent(shape[a], float(scales[k])) if stated and scales is not None else None
        result[a] = ctx.fresh("resized") if known is None else known
    return TensorType(ctx.dtype(0), tuple(result))


OPS.register(Op("resize", _resize, _resize_definition, "resize:resize", ResizeAttrs))
OPS.register(
    Op(
        "resize_dynamic",
        _resize_dynamic,
        same(Opaque("its sizes are known only when it runs")),
        "resize:resize_dynamic",
        ResizeDynamicAttrs,
        inputs=(1, 4),
        dynamic=True,
    )
)
