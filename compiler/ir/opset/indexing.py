"""Gather and scatter in all their forms, one_hot, compress, tensor_scatter."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.content import moved_content
from fusible.compiler.ir.definition import Definition, Opaque, View
from fusible.compiler.ir.extents import is_negative
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Content, Infer, Op
from fusible.compiler.ir.opset.movement import RUN_TIME_SIZES, UNKNOWN_RANK, shape_of
from fusible.compiler.ir.symbols import Dim, modulo
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.compiler.ir.view_maps import gather_elements_map, gather_map, gather_nd_map
from fusible.compiler.region.index import Bound, IndexMap, Indirect, axis, identity, loaded

__all__ = [
    "BatchDimsAttrs",
    "CompressAttrs",
    "IndexAxisAttrs",
    "OneHotAttrs",
    "OneHotDynamicAttrs",
    "ScatterElementsAttrs",
    "ScatterNDAttrs",
    "TensorScatterAttrs",
]

REDUCTIONS = ("none", "add", "mul", "max", "min")


@dataclass(frozen=True, slots=True)
class IndexAxisAttrs:
    """axis: the one that the indices count along."""

    axis: int = 0


@dataclass(frozen=True, slots=True)
class BatchDimsAttrs:
    """batch_dims: leading axes that operand and indices share."""

    batch_dims: int = 0


@dataclass(frozen=True, slots=True)
class ScatterElementsAttrs:
    """axis: the one that the indices count along; reduction: none, add, mul, max or min."""

    axis: int = 0
    reduction: str = "none"


@dataclass(frozen=True, slots=True)
class ScatterNDAttrs:
    """reduction: none, add, mul, max or min."""

    reduction: str = "none"


@dataclass(frozen=True, slots=True)
class OneHotAttrs:
    """depth: size of the new axis; axis: its place in the result."""

    depth: Dim
    axis: int = -1


@dataclass(frozen=True, slots=True)
class OneHotDynamicAttrs:
    """axis: the place of the new axis in the result."""

    axis: int = -1


@dataclass(frozen=True, slots=True)
class CompressAttrs:
    """axis: to select from; None: the flattened operand."""

    axis: int | None = None


@dataclass(frozen=True, slots=True)
class TensorScatterAttrs:
    """axis: the sequence axis; mode: linear, or circular (positions modulo the capacity)."""

    axis: int = -2
    mode: str = "linear"


def _check_indices(ctx: Infer, index: int) -> None:
    if ctx.dtype(index) not in (DType.I32, DType.I64):
        ctx.fail(f"indices must be i32 or i64, got {ctx.type(index)}")


def _gather(ctx: Infer) -> TensorType:
    shape, indices = ctx.shape(0), ctx.shape(1)
    _check_indices(ctx, 1)
    if shape is None or indices is None:
        return TensorType(ctx.dtype(0), None)
    if not shape:
        ctx.fail("the operand must have an axis to gather from, got a scalar")
    along = ctx.axis(ctx.attrs.axis, len(shape))
    return TensorType(ctx.dtype(0), shape[:along] + indices + shape[along + 1 :])


def _gather_definition(node: Node) -> Definition:
    shape, indices = shape_of(node, 0), shape_of(node, 1)
    if shape is None or indices is None:
        return UNKNOWN_RANK
    return View((gather_map(shape, len(indices), node.attrs.axis % len(shape)),))


def _fitting_indices(ctx: Infer) -> None:
    """Check gather_elements' and scatter_elements' indices: of the operand's rank, within it off the axis."""
    shape, indices = ctx.shape(0), ctx.shape(1)
    _check_indices(ctx, 1)
    if shape is None or indices is None:
        return
    along = ctx.axis(ctx.attrs.axis, len(shape))
    if len(shape) != len(indices):
        ctx.fail(f"indices {ctx.type(1)} must have the rank of {ctx.type(0)}")
    for d, (n, m) in enumerate(zip(indices, shape, strict=True)):
        if d != along and not ctx.at_most(n, m):
            ctx.fail(f"indices {ctx.type(1)} do not fit {ctx.type(0)} along axis {d}")


def _gather_elements(ctx: Infer) -> TensorType:
    _fitting_indices(ctx)
    return TensorType(ctx.dtype(0), ctx.shape(1))


def _gather_elements_definition(node: Node) -> Definition:
    shape = shape_of(node)
    return UNKNOWN_RANK if shape is None else View((gather_elements_map(shape, node.attrs.axis % len(shape)),))


def _depth(ctx: Infer, batch_dims: int) -> int | None:
    """The number of coordinates in an index vector, None if not known; fails if it does not fit the operand."""
    shape, indices = ctx.shape(0), ctx.shape(1)
    if shape is None or indices is None:
        return None
    if not indices or not shape or not 0 <= batch_dims < min(len(shape), len(indices)):
        ctx.fail(f"{batch_dims} batch dimensions and index vectors {ctx.type(1)} do not fit {ctx.type(0)}")
    depth = indices[-1]
    if not isinstance(depth, int):
        return None
    if depth > len(shape) - batch_dims:
        ctx.fail(f"index vectors of length {depth} are too long for {ctx.type(0)}")
    return depth


def _gather_nd(ctx: Infer) -> TensorType:
    _check_indices(ctx, 1)
    batch_dims = ctx.attrs.batch_dims
    shape, indices, depth = ctx.shape(0), ctx.shape(1), _depth(ctx, batch_dims)
    if shape is None or indices is None or depth is None:
        return TensorType(ctx.dtype(0), None)
    if not ctx.equal_shapes(shape[:batch_dims], indices[:batch_dims]):
        ctx.fail(f"the first {batch_dims} dimensions of {ctx.type(0)} and {ctx.type(1)} must agree")
    return TensorType(ctx.dtype(0), indices[:-1] + shape[batch_dims + depth :])


def _gather_nd_definition(node: Node) -> Definition:
    shape, indices = shape_of(node, 0), shape_of(node, 1)
    if shape is None or indices is None or not isinstance(indices[-1], int):
        return UNKNOWN_RANK
    return View((gather_nd_map(shape, len(indices), indices[-1], node.attrs.batch_dims),))


def _check_reduction(ctx: Infer, updates: int) -> None:
    if ctx.attrs.reduction not in REDUCTIONS:
        ctx.fail(f"reduction must be one of {', '.join(REDUCTIONS)}, got {ctx.attrs.reduction!r}")
    if ctx.dtype(updates) is not ctx.dtype(0):
        ctx.fail(f"updates {ctx.type(updates)} must have the element type of {ctx.type(0)}")
    if ctx.attrs.reduction != "none" and ctx.dtype(0) is DType.STRING:
        ctx.fail("strings cannot be reduced")


def _scatter_elements(ctx: Infer) -> TensorType:
    _fitting_indices(ctx)
    _check_reduction(ctx, 2)
    indices, updates = ctx.shape(1), ctx.shape(2)
    if indices is not None and updates is not None and not ctx.equal_shapes(indices, updates):
        ctx.fail(f"updates {ctx.type(2)} must have the shape of indices {ctx.type(1)}")
    return ctx.type(0)


def _scatter_nd(ctx: Infer) -> TensorType:
    _check_indices(ctx, 1)
    _check_reduction(ctx, 2)
    shape, indices, updates, depth = ctx.shape(0), ctx.shape(1), ctx.shape(2), _depth(ctx, 0)
    if shape is not None and indices is not None and updates is not None and depth is not None:
        expected = indices[:-1] + shape[depth:]
        if not ctx.equal_shapes(expected, updates):
            ctx.fail(f"updates {ctx.type(2)} must have shape {list(expected)}")
    return ctx.type(0)


def _scatter_definition(_: Node) -> Definition:
    return Opaque("it writes to places that its indices name")


def _one_hot_shape(ctx: Infer, depth: Dim, values: int) -> TensorType:
    indices, pair = ctx.shape(0), ctx.shape(values)
    if pair is not None and not ctx.equal_shapes(pair, (2,)):
        ctx.fail(f"values must be the two elements off and on, got {ctx.type(values)}")
    if isinstance(depth, int) and depth < 0:
        ctx.fail(f"depth must not be negative, got {depth}")
    if indices is None:
        return TensorType(ctx.dtype(values), None)
    along = ctx.axis(ctx.attrs.axis, len(indices) + 1)
    return TensorType(ctx.dtype(values), (*indices[:along], depth, *indices[along:]))


def _one_hot(ctx: Infer) -> TensorType:
    return _one_hot_shape(ctx, ctx.attrs.depth, 1)


def _one_hot_definition(node: Node) -> Definition:
    shape, type_ = shape_of(node), node.inputs[0].type if node.inputs[0] is not None else None
    if shape is None:
        return UNKNOWN_RANK
    if isinstance(type_, TensorType) and not (type_.dtype.is_integer and type_.dtype is not DType.U64):
        return Opaque(f"its indices are of type {type_.dtype.value}")
    along, depth = node.attrs.axis % (len(shape) + 1), node.attrs.depth
    places = tuple(axis(d if d < along else d + 1) for d in range(len(shape)))
    hot = loaded(0) + depth * is_negative(loaded(0))
    on = IndexMap((1,), (Bound(axis(along) - hot, 0, 1),), indirect=(Indirect(0, IndexMap(places)),))
    return View((on, IndexMap((0,))), (1, 1))


def _one_hot_dynamic(ctx: Infer) -> TensorType:
    return _one_hot_shape(ctx, ctx.fresh("depth"), 2)


def _compress(ctx: Infer) -> TensorType:
    shape, condition, along = ctx.shape(0), ctx.shape(1), ctx.attrs.axis
    if condition is not None and len(condition) != 1:
        ctx.fail(f"the condition must be a vector, got {ctx.type(1)}")
    if ctx.dtype(1) is not DType.BOOL:
        ctx.fail(f"the condition must be bool, got {ctx.type(1)}")
    selected = ctx.fresh("selected")
    if along is None:
        return TensorType(ctx.dtype(0), (selected,))
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    along = ctx.axis(along, len(shape))
    return TensorType(ctx.dtype(0), (*shape[:along], selected, *shape[along + 1 :]))


def _tensor_scatter(ctx: Infer) -> TensorType:
    past, update, attrs = ctx.shape(0), ctx.shape(1), ctx.attrs
    if attrs.mode not in ("linear", "circular"):
        ctx.fail(f"mode must be linear or circular, got {attrs.mode!r}")
    if ctx.dtype(1) is not ctx.dtype(0):
        ctx.fail(f"the update {ctx.type(1)} must have the element type of {ctx.type(0)}")
    if past is not None and update is not None:
        along = ctx.axis(attrs.axis, len(past))
        if along == 0 or not ctx.equal_shapes(_without(past, along), _without(update, along)):
            ctx.fail(f"the update {ctx.type(1)} must fit {ctx.type(0)} along axis {along} >= 1")
    indices = ctx.shape(2) if ctx.has(2) else None
    if indices is not None and (len(indices) != 1 or (past is not None and not ctx.equal_shapes(indices, past[:1]))):
        ctx.fail(f"write_indices must be one index a batch item, got {ctx.type(2)}")
    return ctx.type(0)


def _without(shape: Shape, along: int) -> Shape:
    return shape[:along] + shape[along + 1 :]


def _tensor_scatter_definition(node: Node) -> Definition:
    past, update = shape_of(node, 0), shape_of(node, 1)
    if past is None or update is None:
        return UNKNOWN_RANK
    along, rank = node.attrs.axis % len(past), len(past)
    reads = (Indirect(2, IndexMap((axis(0),))),) if len(node.inputs) > 2 else ()
    step: Dim = axis(along) - (loaded(0) if reads else 0)
    if node.attrs.mode == "circular":
        step = modulo(step, past[along])
    components = tuple(step if d == along else axis(d) for d in range(rank))
    written = IndexMap(components, (Bound(step, 0, update[along]),), indirect=reads)
    return View((written, identity(rank)), (1, 0))


def _register() -> None:
    content = moved_content(0)
    OPS.register(
        Op("gather", _gather, _gather_definition, "indexing:gather", IndexAxisAttrs, (2, 2), propagate=content)
    )
    OPS.register(
        Op(
            "gather_elements",
            _gather_elements,
            _gather_elements_definition,
            "indexing:gather_elements",
            IndexAxisAttrs,
            (2, 2),
            propagate=content,
        )
    )
    OPS.register(
        Op(
            "gather_nd",
            _gather_nd,
            _gather_nd_definition,
            "indexing:gather_nd",
            BatchDimsAttrs,
            (2, 2),
            propagate=content,
        )
    )
    OPS.register(
        Op(
            "scatter_elements",
            _scatter_elements,
            _scatter_definition,
            "indexing:scatter_elements",
            ScatterElementsAttrs,
            (3, 3),
            propagate=_scattered_content,
        )
    )
    OPS.register(
        Op(
            "scatter_nd",
            _scatter_nd,
            _scatter_definition,
            "indexing:scatter_nd",
            ScatterNDAttrs,
            (3, 3),
            propagate=_scattered_content,
        )
    )
    OPS.register(Op("one_hot", _one_hot, _one_hot_definition, "indexing:one_hot", OneHotAttrs, (2, 2)))
    OPS.register(
        Op(
            "one_hot_dynamic",
            _one_hot_dynamic,
            lambda node: RUN_TIME_SIZES,
            "indexing:one_hot_dynamic",
            OneHotDynamicAttrs,
            (3, 3),
            dynamic=True,
        )
    )
    OPS.register(
        Op(
            "compress",
            _compress,
            lambda node: RUN_TIME_SIZES,
            "indexing:compress",
            CompressAttrs,
            (2, 2),
            dynamic=True,
        )
    )
    OPS.register(
        Op(
            "tensor_scatter",
            _tensor_scatter,
            _tensor_scatter_definition,
            "indexing:tensor_scatter",
            TensorScatterAttrs,
            (2, 3),
        )
    )


_move_scattered = moved_content(0, 2)


def _scattered_content(ctx: Infer) -> Content | None:
    return _move_scattered(ctx) if ctx.attrs.reduction == "none" else None


_register()
