"""Cutting and joining: concat, split, slice, pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.content import moved_content
from fusible.compiler.ir.definition import Definition, Opaque, View
from fusible.compiler.ir.extents import slice_extent
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.inference import normal_axes
from fusible.compiler.ir.ops import OPS, Content, Infer, Op
from fusible.compiler.ir.opset.movement import RUN_TIME_SIZES, UNKNOWN_RANK, fresh_shape, list_length, shape_of
from fusible.compiler.ir.symbols import Dim, SymInt, maximum, product
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.compiler.ir.view_maps import concat_maps, crop_map, mirrored, pad_map
from fusible.compiler.region.index import IndexMap, axis
from fusible.kernels.numpy.padding import MODES, pad

__all__ = ["AxisAttrs", "PadAttrs", "PadDynamicAttrs", "SliceAttrs", "SplitAttrs", "SplitDynamicAttrs"]


@dataclass(frozen=True, slots=True)
class AxisAttrs:
    """axis: along which."""

    axis: int


@dataclass(frozen=True, slots=True)
class SplitAttrs:
    """axis: along which; split: the sizes of the parts, which add up to the axis."""

    axis: int
    split: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class SplitDynamicAttrs:
    """axis: along which; num_outputs: how many sizes the second operand holds."""

    axis: int
    num_outputs: int


@dataclass(frozen=True, slots=True)
class SliceAttrs:
    """One start (inclusive), end (exclusive) and step for each of `axes`; bounds clamp as in ONNX Slice."""

    starts: tuple[Dim, ...]
    ends: tuple[Dim, ...]
    axes: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PadAttrs:
    """pads: an amount before each axis, then an amount after each; negative ones crop. mode: of the border."""

    pads: tuple[Dim, ...]
    mode: str = "constant"


@dataclass(frozen=True, slots=True)
class PadDynamicAttrs:
    """mode: of the border."""

    mode: str = "constant"


def _concat(ctx: Infer) -> TensorType:
    dtypes = {ctx.dtype(i) for i in range(len(ctx.inputs))}
    if len(dtypes) != 1:
        ctx.fail(f"inputs differ in element type: {', '.join(sorted(d.value for d in dtypes))}")
    shapes = [ctx.shape(i) for i in range(len(ctx.inputs))]
    known = [s for s in shapes if s is not None]
    if not known:
        return TensorType(ctx.dtype(0), None)
    if len({len(s) for s in known}) != 1:
        ctx.fail(f"inputs differ in rank: {', '.join(str(ctx.type(i)) for i in range(len(shapes)))}")
    along = ctx.axis(ctx.attrs.axis, len(known[0]))
    dims = [_agreed(ctx, [s[d] for s in known], d) if d != along else 0 for d in range(len(known[0]))]
    joined: Dim = 0
    for shape in known:
        joined = joined + shape[along]
    dims[along] = joined if len(known) == len(shapes) else ctx.fresh("joined")
    return TensorType(ctx.dtype(0), tuple(dims))


def _agreed(ctx: Infer, dims: Sequence[Dim], position: int) -> Dim:
    """The dimension that all operands share: a literal if one is, for the symbolic ones must equal it."""
    shared = next((d for d in dims if isinstance(d, int)), dims[0])
    if not all(ctx.equal(d, shared) for d in dims):
        ctx.fail(f"inputs differ along axis {position}: {', '.join(map(str, dims))}")
    return shared


def _concat_definition(node: Node) -> Definition:
    shapes = [shape_of(node, i) for i in range(len(node.inputs))]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        return UNKNOWN_RANK
    maps = concat_maps(known, node.attrs.axis % len(known[0]))
    return View(maps, tuple(range(len(maps))))


def _split(ctx: Infer) -> list[TensorType]:
    shape, sizes = ctx.shape(0), ctx.attrs.split
    if any(isinstance(s, int) and s < 0 for s in sizes):
        ctx.fail(f"split sizes must not be negative, got {list(sizes)}")
    if shape is None:
        return [TensorType(ctx.dtype(0), None) for _ in sizes]
    along = ctx.axis(ctx.attrs.axis, len(shape))
    total: Dim = 0
    for size in sizes:
        total = total + size
    if not ctx.equal(total, shape[along]):
        ctx.fail(f"split sizes {list(sizes)} do not add up to {shape[along]}, the size of axis {along}")
    return [TensorType(ctx.dtype(0), (*shape[:along], size, *shape[along + 1 :])) for size in sizes]


def _split_definition(node: Node) -> Definition:
    shape = shape_of(node)
    if shape is None:
        return UNKNOWN_RANK
    along, maps = node.attrs.axis % len(shape), []
    offset: Dim = 0
    for size in node.attrs.split:
        maps.append(crop_map([offset if d == along else 0 for d in range(len(shape))], [1] * len(shape)))
        offset = offset + size
    return View(tuple(maps), split=True)


def _split_dynamic(ctx: Infer) -> list[TensorType]:
    shape, count = ctx.shape(0), list_length(ctx, 1)
    if count is not None and count != ctx.attrs.num_outputs:
        ctx.fail(f"{count} sizes for {ctx.attrs.num_outputs} outputs")
    if shape is None:
        return [TensorType(ctx.dtype(0), None)] * ctx.attrs.num_outputs
    along = ctx.axis(ctx.attrs.axis, len(shape))
    parts = [ctx.fresh("part") for _ in range(ctx.attrs.num_outputs)]
    return [TensorType(ctx.dtype(0), (*shape[:along], part, *shape[along + 1 :])) for part in parts]


def _slice(ctx: Infer) -> TensorType:
    shape, attrs = ctx.shape(0), ctx.attrs
    if not len(attrs.starts) == len(attrs.ends) == len(attrs.axes) == len(attrs.steps):
        ctx.fail("starts, ends, axes and steps differ in number")
    if 0 in attrs.steps:
        ctx.fail("a step must not be 0")
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    dims = list(shape)
    axes = normal_axes(ctx, attrs.axes, len(shape))
    for start, end, along, step in zip(attrs.starts, attrs.ends, axes, attrs.steps, strict=True):
        dims[along] = slice_extent(start, end, step, shape[along])[1]
    return TensorType(ctx.dtype(0), tuple(dims))


def _slice_definition(node: Node) -> Definition:
    shape, attrs = shape_of(node), node.attrs
    if shape is None:
        return UNKNOWN_RANK
    firsts: list[Dim] = [0] * len(shape)
    steps = [1] * len(shape)
    for start, end, along, step in zip(attrs.starts, attrs.ends, attrs.axes, attrs.steps, strict=True):
        firsts[along], steps[along] = slice_extent(start, end, step, shape[along])[0], step
    return View((crop_map(firsts, steps),))


def _slice_dynamic(ctx: Infer) -> TensorType:
    shape, count = ctx.shape(0), list_length(ctx, 1)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    sliced = _sliced_axes(ctx, len(shape), count)
    return TensorType(ctx.dtype(0), tuple(ctx.fresh("sliced") if d in sliced else s for d, s in enumerate(shape)))


def _sliced_axes(ctx: Infer, rank: int, count: int | None) -> Sequence[int]:
    """The axes that a run-time slice may shorten."""
    if ctx.has(3):
        content = ctx.content(3)
        if content is None or not all(isinstance(a, int) for a in content.flat):
            return range(rank)
        return normal_axes(ctx, [int(a) for a in content.flat], rank)
    if count is not None and count > rank:
        ctx.fail(f"{count} starts for {ctx.type(0)}")
    return range(rank if count is None else count)


def _check_border(ctx: Infer, mode: str, constant: int) -> None:
    if mode not in MODES:
        ctx.fail(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if ctx.has(constant) and ctx.dtype(constant) is not ctx.dtype(0):
        ctx.fail(f"the constant is {ctx.type(constant)}, the operand {ctx.type(0)}")
    shape = ctx.shape(constant) if ctx.has(constant) else ()
    if shape is not None and not ctx.equal(product(shape), 1):
        ctx.fail(f"the constant must be one element, got {ctx.type(constant)}")


def _pad(ctx: Infer) -> TensorType:
    shape, pads = ctx.shape(0), ctx.attrs.pads
    _check_border(ctx, ctx.attrs.mode, 1)
    if shape is None:
        return TensorType(ctx.dtype(0), fresh_shape(ctx, len(pads) // 2, "padded"))
    if len(pads) != 2 * len(shape):
        ctx.fail(f"{len(pads)} amounts do not fit {ctx.type(0)}")
    sizes = zip(pads, shape, pads[len(shape) :], strict=False)
    padded = tuple(low + size + high for low, size, high in sizes)
    if ctx.attrs.mode != "constant" and any(s == 0 and p != 0 for s, p in zip(shape, padded, strict=True)):
        ctx.fail(f"an empty axis of {ctx.type(0)} cannot be padded in mode {ctx.attrs.mode!r}")
    return TensorType(ctx.dtype(0), padded)


def _pad_definition(node: Node) -> Definition:
    shape, attrs = shape_of(node), node.attrs
    if shape is None:
        return UNKNOWN_RANK
    before, after = attrs.pads[: len(shape)], attrs.pads[len(shape) :]
    if attrs.mode != "constant":
        return View((_border_map(shape, before, after, attrs.mode),))
    constant = node.inputs[1] if len(node.inputs) > 1 else None
    if constant is None:
        type_ = node.inputs[0].type if node.inputs[0] is not None else None
        if isinstance(type_, TensorType) and type_.dtype is DType.STRING:
            return Opaque("strings are padded with empty strings")
        return View((pad_map(shape, before, 0),))
    rank = len(shape_of(node, 1) or ())
    return View((pad_map(shape, before, None), IndexMap((0,) * rank)), (0, 1))


def _border_map(shape: Shape, before: Sequence[Dim], after: Sequence[Dim], mode: str) -> IndexMap:
    components: list[Dim] = []
    for d, (low, size, high) in enumerate(zip(before, shape, after, strict=True)):
        if low == 0 and high == 0:
            components.append(axis(d))
            continue
        cut_low, cut_high = maximum(0, -low), maximum(0, -high)
        # Positions count from the first element that cropping leaves.
        position = axis(d) - maximum(0, low)
        components.append(cut_low + mirrored(position, size - cut_low - cut_high, mode))
    return IndexMap(tuple(components))


def _pad_content(ctx: Infer) -> Content | None:
    content, pads = ctx.content(0), ctx.attrs.pads
    if content is None or any(isinstance(p, SymInt) for p in pads):
        return None
    fill = ctx.content(1) if ctx.has(1) else np.array(0, dtype=object)
    try:
        return None if fill is None else pad(content, fill, pads=pads, mode=ctx.attrs.mode)
    except ValueError:
        return None  # the kernel meets the same error on numbers


def _pad_dynamic(ctx: Infer) -> TensorType:
    _check_border(ctx, ctx.attrs.mode, 2)
    rank = ctx.rank(0)
    return TensorType(ctx.dtype(0), None if rank is None else fresh_shape(ctx, rank, "padded"))


def _dynamic(_: Node) -> Definition:
    return RUN_TIME_SIZES


def _dynamic_pieces(_: Node) -> Definition:
    return Opaque("the sizes of its parts are known only when it runs")


OPS.register(
    Op(
        "concat",
        _concat,
        _concat_definition,
        "movement:concat",
        AxisAttrs,
        inputs=(1, None),
        propagate=moved_content(),
    )
)
OPS.register(Op("split", _split, _split_definition, "movement:split", SplitAttrs, outputs=None, view=True))
OPS.register(
    Op(
        "split_dynamic",
        _split_dynamic,
        _dynamic_pieces,
        "movement:split_dynamic",
        SplitDynamicAttrs,
        inputs=(2, 2),
        outputs=None,
        dynamic=True,
        view=True,
    )
)
OPS.register(
    Op("slice", _slice, _slice_definition, "movement:slice_", SliceAttrs, propagate=moved_content(), view=True)
)
OPS.register(
    Op("slice_dynamic", _slice_dynamic, _dynamic, "movement:slice_dynamic", inputs=(3, 5), dynamic=True, view=True)
)
OPS.register(Op("pad", _pad, _pad_definition, "padding:pad", PadAttrs, inputs=(1, 2), propagate=_pad_content))
OPS.register(
    Op("pad_dynamic", _pad_dynamic, _dynamic, "padding:pad_dynamic", PadDynamicAttrs, inputs=(2, 4), dynamic=True)
)
