"""Pools over sliding windows and over whole images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from fusible.compiler.ir.definition import Definition, Opaque, Reduce, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Infer, NoAttrs, Op
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.compiler.ir.window_shapes import check_windows, padded_axes, window_extents, window_index
from fusible.compiler.region.expr import Arg, Expr, Literal, apply
from fusible.compiler.region.index import IndexMap, axis

__all__ = ["AveragePoolAttrs", "GlobalLpPoolAttrs", "LpPoolAttrs", "MaxPoolAttrs", "MaxPoolWithIndicesAttrs"]

_ITSELF = Arg(0)
_UNKNOWN_RANK = Opaque("the rank of an operand is not known")
_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)


@dataclass(frozen=True, slots=True)
class MaxPoolAttrs:
    """kernel_shape; strides, dilations: one an axis, () for 1; pads: beginnings, then ends, () for 0; ceil_mode.

    auto_pad: SAME_UPPER or SAME_LOWER where pads depend on sizes that are known only at run time.
    """

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    auto_pad: str = "NOTSET"


@dataclass(frozen=True, slots=True)
class MaxPoolWithIndicesAttrs:
    """As MaxPoolAttrs; storage_order 1: indices count column-major within an image."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    storage_order: int = 0
    auto_pad: str = "NOTSET"


@dataclass(frozen=True, slots=True)
class AveragePoolAttrs:
    """As MaxPoolAttrs; count_include_pad: the padding counts as elements."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    count_include_pad: bool = False
    auto_pad: str = "NOTSET"


@dataclass(frozen=True, slots=True)
class LpPoolAttrs:
    """As MaxPoolAttrs; p: of the norm."""

    kernel_shape: tuple[int, ...]
    p: int = 2
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    ceil_mode: bool = False
    auto_pad: str = "NOTSET"


@dataclass(frozen=True, slots=True)
class GlobalLpPoolAttrs:
    """p: of the norm."""

    p: int = 2


@dataclass(frozen=True, slots=True)
class MaxUnpoolAttrs:
    """kernel_shape, strides, pads: of the pool to undo; output_shape: the whole shape, None to compute it."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    output_shape: tuple[Dim, ...] | None = None


@dataclass(frozen=True, slots=True)
class MaxUnpoolDynamicAttrs:
    """kernel_shape, strides, pads: of the pool to undo; the shape is an operand."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()


def _pool(ctx: Infer) -> TensorType:
    attrs, shape = ctx.attrs, ctx.shape(0)
    if ctx.op.name not in ("max_pool", "max_pool_with_indices"):
        _floating(ctx)
    rank = len(attrs.kernel_shape)
    check_windows(ctx, rank, attrs.kernel_shape, attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad)
    if min(attrs.kernel_shape) < 1:
        ctx.fail(f"kernel_shape must be positive, got {list(attrs.kernel_shape)}")
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    if len(shape) != rank + 2:
        ctx.fail(f"a kernel of rank {rank} takes [N, C, *spatial], got {ctx.type(0)}")
    _check_pads(ctx, shape[2:])
    extents = window_extents(
        shape[2:], attrs.kernel_shape, attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad, attrs.ceil_mode
    )
    return TensorType(ctx.dtype(0), (*shape[:2], *extents))


def _floating(ctx: Infer) -> None:
    if ctx.dtype(0) not in _FLOATS:
        ctx.fail(f"input 0 must be a float of at least 16 bits, got {ctx.type(0)}")


def _check_pads(ctx: Infer, spatial: Shape) -> None:
    """A window that lies in the padding alone has no maximum or mean."""
    attrs = ctx.attrs
    for w in padded_axes(spatial, attrs.kernel_shape, attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad):
        for pad in (w.before, w.after):
            if isinstance(pad, int) and isinstance(w.span, int) and pad >= w.span:
                ctx.fail(f"pads {list(attrs.pads)} must be smaller than the window, which spans {w.span} elements")


def _pool_with_indices(ctx: Infer) -> list[TensorType]:
    if ctx.attrs.storage_order not in (0, 1):
        ctx.fail(f"storage_order must be 0 or 1, got {ctx.attrs.storage_order}")
    values = _pool(ctx)
    return [values, TensorType(DType.I64, values.shape)]


def _window_reduction(node: Node, combiner: str, map_: Expr = _ITSELF, finish: Expr = _ITSELF) -> Definition:
    attrs, shape = node.attrs, _shape(node)
    if shape is None:
        return _UNKNOWN_RANK
    rank = len(shape)
    spatial = padded_axes(shape[2:], attrs.kernel_shape, attrs.strides, attrs.pads, attrs.dilations, attrs.auto_pad)
    places = [window_index(w, 2 + a, rank + a) for a, w in enumerate(spatial)]
    index = IndexMap((axis(0), axis(1), *(p for p, _ in places)), tuple(b for _, b in places))
    return Reduce(combiner, attrs.kernel_shape, index, map_, finish)


def _max_pool_definition(node: Node) -> Definition:
    return _window_reduction(node, "max")


def _average_pool_definition(node: Node) -> Definition:
    attrs = node.attrs
    if not attrs.count_include_pad:
        return _window_reduction(node, "sum", finish=apply("div", Arg(0), Arg(1)))
    if attrs.ceil_mode:
        return Opaque("its last windows reach beyond the padding, where elements do not count")
    return _window_reduction(node, "sum", finish=apply("div", Arg(0), Literal(float(prod(attrs.kernel_shape)))))


def _lp_pool_definition(node: Node) -> Definition:
    return _window_reduction(node, "sum", *_norm(node.attrs.p))


def _norm(p: int) -> tuple[Expr, Expr]:
    """What is added up for a p-norm, and what becomes of the sum."""
    size = apply("abs", Arg(0))
    match p:
        case 1:
            return size, Arg(0)
        case 2:
            return apply("mul", Arg(0), Arg(0)), apply("sqrt", Arg(0))
    return apply("pow", size, float(p)), apply("pow", Arg(0), 1.0 / p)


def _global(ctx: Infer) -> TensorType:
    _floating(ctx)
    shape = ctx.shape(0)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    if len(shape) < 2:
        ctx.fail(f"takes [N, C, *spatial], got {ctx.type(0)}")
    if ctx.op.name == "global_max_pool" and 0 in shape[2:]:
        ctx.fail(f"an image without pixels has no maximum: {ctx.type(0)}")
    return TensorType(ctx.dtype(0), (*shape[:2], *(1,) * (len(shape) - 2)))


def _global_reduction(node: Node, combiner: str, map_: Expr = _ITSELF, finish: Expr = _ITSELF) -> Definition:
    shape = _shape(node)
    if shape is None:
        return _UNKNOWN_RANK
    rank = len(shape)
    index = IndexMap((axis(0), axis(1), *(axis(rank + a) for a in range(rank - 2))))
    return Reduce(combiner, shape[2:], index, map_, finish)


def _global_average_definition(node: Node) -> Definition:
    return _global_reduction(node, "sum", finish=apply("div", Arg(0), Arg(1)))


def _max_unpool(ctx: Infer) -> TensorType:
    attrs = ctx.attrs
    shape = _unpooled(ctx)
    stated = attrs.output_shape
    if stated is None:
        return TensorType(ctx.dtype(0), shape)
    if len(stated) != len(attrs.kernel_shape) + 2:
        ctx.fail(f"output_shape must have {len(attrs.kernel_shape) + 2} values, got {list(stated)}")
    return TensorType(ctx.dtype(0), stated)


def _max_unpool_dynamic(ctx: Infer) -> TensorType:
    shape = _unpooled(ctx)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    return TensorType(ctx.dtype(0), (*shape[:2], *(ctx.fresh("unpooled") for _ in shape[2:])))


def _unpooled(ctx: Infer) -> Shape | None:
    """The shape that the pool had, None if the rank is unknown."""
    attrs, shape = ctx.attrs, ctx.shape(0)
    rank = len(attrs.kernel_shape)
    check_windows(ctx, rank, attrs.kernel_shape, attrs.strides, attrs.pads, ())
    _floating(ctx)
    indices = ctx.shape(1)
    if ctx.dtype(1) is not DType.I64:
        ctx.fail(f"indices must be i64, got {ctx.type(1)}")
    if shape is None:
        return None
    if len(shape) != rank + 2:
        ctx.fail(f"a kernel of rank {rank} takes [N, C, *spatial], got {ctx.type(0)}")
    if indices is not None and not ctx.equal_shapes(indices, shape):
        ctx.fail(f"one index for each element is needed, got {ctx.type(0)} and {ctx.type(1)}")
    strides, pads = attrs.strides or (1,) * rank, attrs.pads or (0,) * (2 * rank)
    sizes = [(shape[2 + a] - 1) * strides[a] + attrs.kernel_shape[a] - pads[a] - pads[a + rank] for a in range(rank)]
    return (*shape[:2], *sizes)


def _shape(node: Node) -> Shape | None:
    value = node.inputs[0]
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


def _window_op(name: str, attrs: type, definition: Callable[[Node], Definition]) -> None:
    OPS.register(Op(name, _pool, definition, f"pooling:{name}", attrs, accepts_out=True))


def _global_op(name: str, definition: Callable[[Node], Definition], attrs: type = NoAttrs) -> None:
    OPS.register(Op(name, _global, definition, f"pooling:{name}", attrs, accepts_out=True))


_SCATTERED = same(Opaque("it puts elements at places that an operand states"))
_window_op("max_pool", MaxPoolAttrs, _max_pool_definition)
_window_op("average_pool", AveragePoolAttrs, _average_pool_definition)
_window_op("lp_pool", LpPoolAttrs, _lp_pool_definition)
_global_op("global_max_pool", lambda node: _global_reduction(node, "max"))
_global_op("global_average_pool", _global_average_definition)
_global_op("global_lp_pool", lambda node: _global_reduction(node, "sum", *_norm(node.attrs.p)), GlobalLpPoolAttrs)
OPS.register(
    Op(
        "max_pool_with_indices",
        _pool_with_indices,
        same(Opaque("it has two results: the maxima and where they stand")),
        "pooling:max_pool_with_indices",
        MaxPoolWithIndicesAttrs,
        outputs=2,
    )
)
OPS.register(Op("max_unpool", _max_unpool, _SCATTERED, "pooling:max_unpool", MaxUnpoolAttrs, inputs=(2, 2)))
OPS.register(
    Op(
        "max_unpool_dynamic",
        _max_unpool_dynamic,
        _SCATTERED,
        "pooling:max_unpool_dynamic",
        MaxUnpoolDynamicAttrs,
        inputs=(3, 3),
        dynamic=True,
    )
)
