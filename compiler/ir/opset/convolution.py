"""Convolutions: conv, conv_transpose, deform_conv, col2im."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fusible.compiler.ir.definition import Contraction, Definition, Opaque, Reduce, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.opset.contraction import same_types
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, floordiv, maximum, modulo, product
from fusible.compiler.ir.types import Shape, TensorType
from fusible.compiler.ir.window_shapes import (
    WindowAxis,
    check_windows,
    inverse_window_index,
    padded_axes,
    window_axes,
    window_extents,
    window_index,
)
from fusible.compiler.region.index import Bound, IndexMap, axis

__all__ = [
    "Col2ImAttrs",
    "ConvAttrs",
    "ConvTransposeAttrs",
    "DeformConvAttrs",
    "convolution_definition",
    "transposed_axes",
]

_UNKNOWN_RANK = Opaque("the rank of an operand is not known")


@dataclass(frozen=True, slots=True)
class ConvAttrs:
    """strides, dilations: one an axis, () for 1; pads: beginnings, then ends, () for 0; group: parts of the channels.

    auto_pad: SAME_UPPER or SAME_LOWER where pads depend on sizes that are known only at run time.
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    auto_pad: str = "NOTSET"


@dataclass(frozen=True, slots=True)
class ConvTransposeAttrs:
    """As ConvAttrs; output_padding: added at the end; output_shape: () or the spatial sizes, which replace pads.

    auto_pad also says on which side the odd element of the padding stands that output_shape implies.
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"


@dataclass(frozen=True, slots=True)
class DeformConvAttrs:
    """As ConvAttrs; offset_group: parts of the channels that share offsets."""

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    offset_group: int = 1


@dataclass(frozen=True, slots=True)
class Col2ImAttrs:
    """image_shape, block_shape: sizes of the image and of a block along each spatial axis; the rest as ConvAttrs."""

    image_shape: tuple[Dim, ...]
    block_shape: tuple[Dim, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Col2ImDynamicAttrs:
    """As ConvAttrs; the shapes are operands."""

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()


def _conv(ctx: Infer) -> TensorType:
    shapes = _image_and_kernel(ctx, channels_first=False)
    if shapes is None:
        return TensorType(ctx.dtype(0), None)
    x, w = shapes
    attrs = ctx.attrs
    check_windows(ctx, len(x) - 2, w[2:], attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad)
    extents = window_extents(x[2:], w[2:], attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad)
    return TensorType(ctx.dtype(0), (x[0], w[0], *extents))


def _image_and_kernel(ctx: Infer, channels_first: bool) -> tuple[Shape, Shape] | None:
    """The shapes of X and W once their types, ranks, channels, groups and the bias fit; None if a rank is unknown.

    channels_first: W is [C, M / group, ...] rather than [M, C / group, ...].
    """
    same_types(ctx)
    group = ctx.attrs.group
    if group < 1:
        ctx.fail(f"group must be positive, got {group}")
    x, w = ctx.shape(0), ctx.shape(1)
    for index, shape in enumerate((x, w)):
        if shape is not None and len(shape) < 3:
            ctx.fail(f"input {index} must have a spatial axis, got {ctx.type(index)}")
    if x is None or w is None:
        return None
    if len(x) != len(w):
        ctx.fail(f"X and W must have the same rank, got {ctx.type(0)} and {ctx.type(1)}")
    channels, filters = (w[0], w[1] * group) if channels_first else (w[1] * group, w[0])
    if not ctx.equal(x[1], channels):
        ctx.fail(f"X has {x[1]} channels, the kernel takes {channels}")
    for count in (channels, filters):
        if not ctx.divides(group, count):
            ctx.fail(f"{count} channels cannot be cut into {group} groups")
    bias_index = 3 if ctx.op.name == "deform_conv" else 2
    bias = ctx.shape(bias_index) if ctx.has(bias_index) else None
    if bias is not None and (len(bias) != 1 or not ctx.equal(bias[0], filters)):
        ctx.fail(f"the bias must have shape [{filters}], got {ctx.type(bias_index)}")
    return x, w


def _conv_definition(node: Node) -> Definition:
    x, w, attrs = _shape(node, 0), _shape(node, 1), node.attrs
    if x is None or w is None:
        return _UNKNOWN_RANK
    return convolution_definition(x, w, attrs)


def convolution_definition(x: Shape, w: Shape, attrs: ConvAttrs, fill: int = 0) -> Definition:
    """The sum of products of an image and filters [O, C / group, ...], and a bias of each filter; fill: padding."""
    symbols = tuple(s for dim in (*x, *w, *attrs.pads) for s in symbols_of(dim))
    return _convolution(tuple(x), tuple(w), attrs, fill, symbols)


@lru_cache(maxsize=1024)
def _convolution(x: Shape, w: Shape, attrs: ConvAttrs, fill: int, symbols: tuple[Symbol, ...]) -> Definition:
    """symbols: those of the sizes, which are equal by name alone; their bounds decide too."""
    rank = len(x)
    taps = [axis(rank + 1 + a) for a in range(rank - 2)]
    spatial = padded_axes(x[2:], w[2:], attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad)
    places = [window_index(s, 2 + a, rank + 1 + a) for a, s in enumerate(spatial)]
    channel = axis(rank) + _group_start(attrs.group, w[0], w[1])
    image = IndexMap((axis(0), channel, *(p for p, _ in places)), tuple(b for _, b in places), fill=fill)
    kernel = IndexMap((axis(1), axis(rank), *taps))
    return Contraction((w[1], *w[2:]), (image, kernel), bias=IndexMap((axis(1),)))


def _group_start(group: int, filters: Dim, depth: Dim) -> Dim:
    """The first channel that filter i1 sees."""
    return 0 if group == 1 else floordiv(axis(1), floordiv(filters, group)) * depth


def _conv_transpose(ctx: Infer) -> TensorType:
    shapes = _image_and_kernel(ctx, channels_first=True)
    if shapes is None:
        return TensorType(ctx.dtype(0), None)
    x, w = shapes
    attrs = ctx.attrs
    rank = len(x) - 2
    check_windows(ctx, rank, w[2:], attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad)
    for name in ("output_padding", "output_shape"):
        values = getattr(attrs, name)
        if len(values) not in (0, rank) or min(values, default=0) < 0 or max(values, default=0) >= 2**31:
            ctx.fail(f"{name} must have {rank} sizes, got {list(values)}")
    return TensorType(ctx.dtype(0), (x[0], w[1] * attrs.group, *(a.size for a in transposed_axes(x[2:], w[2:], attrs))))


def transposed_axes(spatial: Sequence[Dim], kernel: Sequence[Dim], attrs: ConvTransposeAttrs) -> list[WindowAxis]:
    """The windows of the convolution that a transposed one turns round; `size` is that of its result."""
    found = []
    for a, w in enumerate(window_axes(spatial, kernel, attrs.strides, attrs.pads, attrs.dilations)):
        extra = attrs.output_padding[a] if attrs.output_padding else 0
        full = (spatial[a] - 1) * w.stride + w.span + extra
        before, size = w.before, full - w.before - w.after
        if attrs.output_shape or attrs.auto_pad.startswith("SAME"):
            size = attrs.output_shape[a] if attrs.output_shape else spatial[a] * w.stride
            before = _begin(attrs.auto_pad, full - size)
        elif attrs.auto_pad == "VALID":
            before, size = 0, full
        found.append(WindowAxis(size, kernel[a], w.stride, w.dilation, before, full - size - before))
    return found


def _begin(auto_pad: str, total: Dim) -> Dim:
    """The part of the padding that stands before; a negative total lengthens the end."""
    total = maximum(0, total)
    half = floordiv(total, 2)
    return half if auto_pad == "SAME_UPPER" else total - half


def _conv_transpose_definition(node: Node) -> Definition:
    x, w, attrs = _shape(node, 0), _shape(node, 1), node.attrs
    if x is None or w is None:
        return _UNKNOWN_RANK
    rank, group = len(x), attrs.group
    spatial = transposed_axes(x[2:], w[2:], attrs)
    places = [inverse_window_index(s, 2 + a, rank + 1 + a, x[2 + a]) for a, s in enumerate(spatial)]
    channels = floordiv(w[0], group)
    channel = axis(rank) + (0 if group == 1 else floordiv(axis(1), w[1]) * channels)
    taps = [axis(rank + 1 + a) for a in range(rank - 2)]
    image = IndexMap((axis(0), channel, *(p for p, _ in places)), tuple(b for _, bs in places for b in bs), fill=0)
    kernel = IndexMap((channel, axis(1) if group == 1 else modulo(axis(1), w[1]), *taps))
    return Contraction((channels, *w[2:]), (image, kernel), bias=IndexMap((axis(1),)))


def _deform_conv(ctx: Infer) -> TensorType:
    shapes = _image_and_kernel(ctx, channels_first=False)
    if shapes is None:
        return TensorType(ctx.dtype(0), None)
    x, w = shapes
    attrs, rank = ctx.attrs, len(x) - 2
    check_windows(ctx, rank, w[2:], attrs.strides, attrs.pads, attrs.dilations)
    if attrs.offset_group < 1 or not ctx.divides(attrs.offset_group, x[1]):
        ctx.fail(f"{x[1]} channels cannot be cut into {attrs.offset_group} offset groups")
    output = window_extents(x[2:], w[2:], attrs.strides, attrs.pads, attrs.dilations)
    taps = product(w[2:])
    for index, depth in ((2, taps * attrs.offset_group * rank), (4, taps * attrs.offset_group)):
        shape = ctx.shape(index) if ctx.has(index) else None
        expected = (x[0], depth, *output)
        if shape is not None and not ctx.equal_shapes(shape, expected):
            ctx.fail(f"input {index} must have shape {list(expected)}, got {ctx.type(index)}")
    return TensorType(ctx.dtype(0), (x[0], w[0], *output))


def _col2im(ctx: Infer) -> TensorType:
    attrs, shape = ctx.attrs, ctx.shape(0)
    rank = len(attrs.block_shape)
    if len(attrs.image_shape) != rank:
        ctx.fail(f"the image has {len(attrs.image_shape)} spatial axes, a block {rank}")
    check_windows(ctx, rank, attrs.block_shape, attrs.strides, attrs.pads, attrs.dilations)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    if len(shape) != 3:
        ctx.fail(f"input 0 must be [N, C * block, L], got {ctx.type(0)}")
    taps = product(attrs.block_shape)
    if taps == 0 or not ctx.equal(modulo(shape[1], taps), 0):
        ctx.fail(f"{shape[1]} rows are not a multiple of the {taps} elements of a block")
    places = product(window_extents(attrs.image_shape, attrs.block_shape, attrs.strides, attrs.pads, attrs.dilations))
    if not ctx.equal(shape[2], places):
        ctx.fail(f"a block has {places} places in the image, input 0 has {shape[2]} columns")
    return TensorType(ctx.dtype(0), (shape[0], floordiv(shape[1], taps), *attrs.image_shape))


def _col2im_definition(node: Node) -> Definition:
    attrs, shape = node.attrs, _shape(node, 0)
    if shape is None:
        return _UNKNOWN_RANK
    rank = len(attrs.block_shape)
    spatial = window_axes(attrs.image_shape, attrs.block_shape, attrs.strides, attrs.pads, attrs.dilations)
    counts = [w.count() for w in spatial]
    row: Dim = axis(1)
    column: Dim = 0
    bounds: list[Bound] = []
    for a, (w, count) in enumerate(zip(spatial, counts, strict=True)):
        window, conditions = inverse_window_index(w, 2 + a, 2 + rank + a, count)
        row = row * w.kernel + axis(2 + rank + a)
        column = column * count + window
        bounds.extend(conditions)
    return Reduce("sum", tuple(attrs.block_shape), IndexMap((axis(0), row, column), tuple(bounds), fill=0))


def _col2im_dynamic(ctx: Infer) -> TensorType:
    attrs = ctx.attrs
    for index in (1, 2):
        shape = ctx.shape(index)
        if shape is not None and len(shape) != 1:
            ctx.fail(f"input {index} must be a vector, got {ctx.type(index)}")
    length = next((s[0] for s in (ctx.shape(1), ctx.shape(2)) if s is not None and isinstance(s[0], int)), None)
    if length is None:
        return TensorType(ctx.dtype(0), None)
    check_windows(ctx, int(length), (1,) * int(length), attrs.strides, attrs.pads, attrs.dilations)
    batch = (ctx.shape(0) or (ctx.fresh("batch"),))[0]
    sizes = tuple(ctx.fresh("image") for _ in range(int(length)))
    return TensorType(ctx.dtype(0), (batch, ctx.fresh("channels"), *sizes))


def _shape(node: Node, index: int) -> Shape | None:
    value = node.inputs[index]
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


OPS.register(Op("conv", _conv, _conv_definition, "convolution:conv", ConvAttrs, inputs=(2, 3), accepts_out=True))
OPS.register(
    Op(
        "conv_transpose",
        _conv_transpose,
        _conv_transpose_definition,
        "convolution_transpose:conv_transpose",
        ConvTransposeAttrs,
        inputs=(2, 3),
        accepts_out=True,
    )
)
OPS.register(
    Op(
        "deform_conv",
        _deform_conv,
        same(Opaque("it reads between pixels, at places that an operand states")),
        "deformable:deform_conv",
        DeformConvAttrs,
        inputs=(3, 5),
        accepts_out=True,
    )
)
OPS.register(Op("col2im", _col2im, _col2im_definition, "convolution_transpose:col2im", Col2ImAttrs))
OPS.register(
    Op(
        "col2im_dynamic",
        _col2im_dynamic,
        same(Opaque("its sizes are known only when it runs")),
        "convolution_transpose:col2im_dynamic",
        Col2ImDynamicAttrs,
        inputs=(3, 3),
        dynamic=True,
    )
)
