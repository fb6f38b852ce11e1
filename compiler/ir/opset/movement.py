"""Views of one tensor: reshape, transpose, expand, tile, trilu, reverse_sequence.

Flatten, Squeeze and Unsqueeze are imported as `reshape`; ops of their own serve operands of unknown rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.content import moved_content
from fusible.compiler.ir.definition import Definition, Elementwise, Opaque, View
from fusible.compiler.ir.extents import ENDLESS
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.inference import broadcast_shapes, normal_axes
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.symbols import Dim, bounds_of, product
from fusible.compiler.ir.types import Shape, TensorType, Type
from fusible.compiler.ir.view_maps import expand_map, fold_map, reshape_map, transpose_map
from fusible.compiler.region.expr import Arg
from fusible.compiler.region.index import Bound, IndexMap, Indirect, axis, identity, loaded

__all__ = [
    "AxesAttrs",
    "FlattenAttrs",
    "PermAttrs",
    "RepeatsAttrs",
    "ReshapeDynamicAttrs",
    "ReverseSequenceAttrs",
    "ShapeAttrs",
    "SqueezeAttrs",
    "TriluAttrs",
    "TriluDynamicAttrs",
    "fresh_shape",
    "shape_of",
]

UNKNOWN_RANK = Opaque("the rank of an operand is not known")
RUN_TIME_SIZES = Opaque("its sizes are known only when it runs")


@dataclass(frozen=True, slots=True)
class ShapeAttrs:
    """shape: of the result, every dimension resolved (reshape), or to broadcast with (expand)."""

    shape: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class ReshapeDynamicAttrs:
    """allowzero: a 0 in the target is a size, not a copy of the operand's dimension."""

    allowzero: bool = False


@dataclass(frozen=True, slots=True)
class FlattenAttrs:
    """axis: the first one of the columns, in [-rank, rank]."""

    axis: int = 1


@dataclass(frozen=True, slots=True)
class SqueezeAttrs:
    """axes: to drop; None: all of size 1."""

    axes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class AxesAttrs:
    """axes: to insert, counted in the result."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PermAttrs:
    """perm: output axis d is input axis perm[d]; None reverses."""

    perm: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class RepeatsAttrs:
    """repeats: one count an axis."""

    repeats: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class TriluAttrs:
    """k: the diagonal; upper: which triangle stays."""

    k: Dim = 0
    upper: bool = True


@dataclass(frozen=True, slots=True)
class TriluDynamicAttrs:
    """upper: which triangle stays."""

    upper: bool = True


@dataclass(frozen=True, slots=True)
class ReverseSequenceAttrs:
    """batch_axis, time_axis: 0 and 1 in either order."""

    batch_axis: int = 1
    time_axis: int = 0


def shape_of(node: Node, index: int = 0) -> Shape | None:
    """The shape of an operand of a node, None if it is no tensor or its rank is unknown."""
    value = node.inputs[index]
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


def output_shape(node: Node) -> Shape | None:
    """The shape of the first output, None if its rank is unknown."""
    type_ = node.outputs[0].type
    return type_.shape if isinstance(type_, TensorType) else None


def fresh_shape(ctx: Infer, rank: int, hint: str = "n") -> Shape:
    """As many new dimensions, which the node defines."""
    return tuple(ctx.fresh(hint) for _ in range(rank))


def list_length(ctx: Infer, index: int) -> int | None:
    """The number of elements of an input that holds a list of integers, None if not known."""
    shape = ctx.shape(index)
    if shape is None or len(shape) != 1:
        if shape is not None and len(shape) > 1:
            ctx.fail(f"input {index} must be a list, got {ctx.type(index)}")
        return None if shape is None else 1
    return shape[0] if isinstance(shape[0], int) else None


def _identity(ctx: Infer) -> Type:
    return ctx.any_type(0)


def _identity_definition(node: Node) -> Definition:
    if isinstance(node.outputs[0].type, TensorType):
        return Elementwise(Arg(0))
    return Opaque("its operand is no tensor")


def _reshape(ctx: Infer) -> TensorType:
    old, new = ctx.shape(0), ctx.attrs.shape
    if old is not None:
        if not ctx.equal(product(old), product(new)):
            ctx.fail(f"{ctx.type(0)} has not as many elements as shape {list(new)}")
    return TensorType(ctx.dtype(0), new)


def _reshape_definition(node: Node) -> Definition:
    old = shape_of(node)
    return UNKNOWN_RANK if old is None else View((reshape_map(old, node.attrs.shape),))


def _reshape_dynamic(ctx: Infer) -> TensorType:
    rank = list_length(ctx, 1)
    return TensorType(ctx.dtype(0), None if rank is None else fresh_shape(ctx, rank, "reshaped"))


def _flatten(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is None:
        return TensorType(ctx.dtype(0), (ctx.fresh("rows"), ctx.fresh("columns")))
    split_at = len(shape) if ctx.attrs.axis == len(shape) else ctx.axis(ctx.attrs.axis, len(shape))
    return TensorType(ctx.dtype(0), (product(shape[:split_at]), product(shape[split_at:])))


def _squeeze(ctx: Infer) -> TensorType:
    shape, axes = ctx.shape(0), ctx.attrs.axes
    if shape is None or (axes is None and any(_may_be_one(d) for d in shape)):
        return TensorType(ctx.dtype(0), None)
    if axes is None:
        return TensorType(ctx.dtype(0), tuple(d for d in shape if d != 1))
    dropped = normal_axes(ctx, axes, len(shape))
    for a in dropped:
        if not ctx.equal(shape[a], 1):
            ctx.fail(f"axis {a} of {ctx.type(0)} is not of size 1")
    return TensorType(ctx.dtype(0), tuple(d for i, d in enumerate(shape) if i not in dropped))


def _may_be_one(dim: Dim) -> bool:
    low, high = bounds_of(dim)
    return not isinstance(dim, int) and (low is None or low <= 1) and (high is None or high >= 1)


def _unsqueeze(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    rank = len(shape) + len(ctx.attrs.axes)
    added = normal_axes(ctx, ctx.attrs.axes, rank)
    dims = iter(shape)
    return TensorType(ctx.dtype(0), tuple(1 if d in added else next(dims) for d in range(rank)))


def _unknown_rank(ctx: Infer) -> TensorType:
    return TensorType(ctx.dtype(0), None)


def _reshaped_definition(node: Node) -> Definition:
    """The definition of flatten, squeeze and unsqueeze: all of them are reshapes."""
    old, new = shape_of(node), output_shape(node)
    return UNKNOWN_RANK if old is None or new is None else View((reshape_map(old, new),))


def _transpose(ctx: Infer) -> TensorType:
    shape, perm = ctx.shape(0), ctx.attrs.perm
    if shape is None:
        # A permutation fixes the rank; the sizes are the run's.
        return TensorType(ctx.dtype(0), None if perm is None else fresh_shape(ctx, len(perm), "transposed"))
    order = tuple(reversed(range(len(shape)))) if perm is None else perm
    if sorted(order) != list(range(len(shape))):
        ctx.fail(f"perm {perm} does not name every axis of {ctx.type(0)} once")
    return TensorType(ctx.dtype(0), tuple(shape[p] for p in order))


def _transpose_definition(node: Node) -> Definition:
    shape = shape_of(node)
    if shape is None:
        return UNKNOWN_RANK
    perm = node.attrs.perm
    return View((transpose_map(tuple(reversed(range(len(shape)))) if perm is None else perm),))


def _expand(ctx: Infer) -> TensorType:
    return TensorType(ctx.dtype(0), broadcast_shapes(ctx, [ctx.shape(0), ctx.attrs.shape]))


def _expand_definition(node: Node) -> Definition:
    old, new = shape_of(node), output_shape(node)
    return UNKNOWN_RANK if old is None or new is None else View((expand_map(old, new),))


def _expand_dynamic(ctx: Infer) -> TensorType:
    shape, rank = ctx.shape(0), list_length(ctx, 1)
    if shape is None or rank is None:
        return TensorType(ctx.dtype(0), None)
    return TensorType(ctx.dtype(0), fresh_shape(ctx, max(rank, len(shape)), "expanded"))


def _tile(ctx: Infer) -> TensorType:
    shape, repeats = ctx.shape(0), ctx.attrs.repeats
    if shape is None:
        return TensorType(ctx.dtype(0), fresh_shape(ctx, len(repeats), "tiled"))
    if len(repeats) != len(shape):
        ctx.fail(f"{len(repeats)} repeats do not fit {ctx.type(0)}")
    if any(isinstance(r, int) and r < 0 for r in repeats):
        ctx.fail(f"repeats must not be negative, got {list(repeats)}")
    return TensorType(ctx.dtype(0), tuple(d * r for d, r in zip(shape, repeats, strict=True)))


def _tile_definition(node: Node) -> Definition:
    shape = shape_of(node)
    return UNKNOWN_RANK if shape is None else View((fold_map(shape),))


def _tile_dynamic(ctx: Infer) -> TensorType:
    shape, count = ctx.shape(0), list_length(ctx, 1)
    rank = len(shape) if shape is not None else count
    if shape is not None and count is not None and count != len(shape):
        ctx.fail(f"{count} repeats do not fit {ctx.type(0)}")
    return TensorType(ctx.dtype(0), None if rank is None else fresh_shape(ctx, rank, "tiled"))


def _trilu(ctx: Infer) -> TensorType:
    rank = ctx.rank(0)
    if rank is not None and rank < 2:
        ctx.fail(f"takes matrices, got {ctx.type(0)}")
    return ctx.type(0)


def _trilu_definition(node: Node) -> Definition:
    shape = shape_of(node)
    if shape is None:
        return UNKNOWN_RANK
    offset, k = axis(len(shape) - 1) - axis(len(shape) - 2), node.attrs.k
    if isinstance(k, int):
        k = max(-ENDLESS, min(k, ENDLESS))  # no diagonal lies further out
    # Beyond these ends no element lies: they stand for "unbounded".
    bound = Bound(offset - k, 0, shape[-1] - k + 1) if node.attrs.upper else Bound(offset - k, -shape[-2] - k, 1)
    return View((IndexMap(identity(len(shape)).components, (bound,), 0),))


def _reverse_sequence(ctx: Infer) -> TensorType:
    shape, lengths, attrs = ctx.shape(0), ctx.shape(1), ctx.attrs
    if {attrs.batch_axis, attrs.time_axis} != {0, 1}:
        ctx.fail(f"batch_axis and time_axis must be 0 and 1, got {attrs.batch_axis} and {attrs.time_axis}")
    if shape is not None and len(shape) < 2:
        ctx.fail(f"takes rank 2 or more, got {ctx.type(0)}")
    if lengths is not None and len(lengths) != 1:
        ctx.fail(f"sequence_lens must be a vector, got {ctx.type(1)}")
    if shape is not None and lengths is not None:
        batch = shape[attrs.batch_axis]
        if not ctx.equal(lengths[0], batch):
            ctx.fail(f"sequence_lens {ctx.type(1)} does not fit the batch of {ctx.type(0)}")
    return ctx.type(0)


def _reverse_sequence_definition(node: Node) -> Definition:
    shape = shape_of(node)
    if shape is None:
        return UNKNOWN_RANK
    time, read = node.attrs.time_axis, Indirect(1, IndexMap((axis(node.attrs.batch_axis),)))
    reversed_ = tuple(loaded(0) - 1 - axis(d) if d == time else axis(d) for d in range(len(shape)))
    inside = IndexMap(reversed_, (Bound(axis(time), 0, loaded(0)),), indirect=(read,))
    return View((inside, identity(len(shape))), (0, 0))


def _dynamic(_: Node) -> Definition:
    return RUN_TIME_SIZES


OPS.register(Op("identity", _identity, _identity_definition, "movement:identity", propagate=moved_content(), view=True))
OPS.register(
    Op("reshape", _reshape, _reshape_definition, "movement:reshape", ShapeAttrs, propagate=moved_content(), view=True)
)
OPS.register(
    Op(
        "reshape_dynamic",
        _reshape_dynamic,
        _dynamic,
        "movement:reshape_dynamic",
        ReshapeDynamicAttrs,
        inputs=(2, 2),
        dynamic=True,
        view=True,
    )
)
OPS.register(Op("flatten", _flatten, _reshaped_definition, "movement:flatten", FlattenAttrs, dynamic=True, view=True))
OPS.register(Op("squeeze", _squeeze, _reshaped_definition, "movement:squeeze", SqueezeAttrs, dynamic=True, view=True))
OPS.register(
    Op("unsqueeze", _unsqueeze, _reshaped_definition, "movement:unsqueeze", AxesAttrs, dynamic=True, view=True)
)
for _name in ("squeeze_dynamic", "unsqueeze_dynamic"):
    OPS.register(Op(_name, _unknown_rank, _dynamic, f"movement:{_name}", inputs=(2, 2), dynamic=True, view=True))
OPS.register(
    Op(
        "transpose",
        _transpose,
        _transpose_definition,
        "movement:transpose",
        PermAttrs,
        propagate=moved_content(),
        view=True,
    )
)
OPS.register(
    Op("expand", _expand, _expand_definition, "movement:expand", ShapeAttrs, propagate=moved_content(), view=True)
)
OPS.register(
    Op("expand_dynamic", _expand_dynamic, _dynamic, "movement:expand_dynamic", inputs=(2, 2), dynamic=True, view=True)
)
OPS.register(Op("tile", _tile, _tile_definition, "movement:tile", RepeatsAttrs, propagate=moved_content()))
OPS.register(Op("tile_dynamic", _tile_dynamic, _dynamic, "movement:tile_dynamic", inputs=(2, 2), dynamic=True))
OPS.register(Op("trilu", _trilu, _trilu_definition, "movement:trilu", TriluAttrs))
OPS.register(
    Op(
        "trilu_dynamic",
        _trilu,
        lambda node: Opaque("its diagonal is known only when it runs"),
        "movement:trilu_dynamic",
        TriluDynamicAttrs,
        inputs=(2, 2),
    )
)
OPS.register(
    Op(
        "reverse_sequence",
        _reverse_sequence,
        _reverse_sequence_definition,
        "movement:reverse_sequence",
        ReverseSequenceAttrs,
        inputs=(2, 2),
    )
)
