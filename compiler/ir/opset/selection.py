"""Ops that choose elements by value: top_k, non_zero, unique, non_max_suppression."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Definition, Opaque
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.symbols import Dim, SymInt, minimum, product
from fusible.compiler.ir.types import DType, TensorType

__all__ = [
    "NonMaxSuppressionAttrs",
    "NonMaxSuppressionDynamicAttrs",
    "TopKAttrs",
    "TopKDynamicAttrs",
    "UniqueAttrs",
]


@dataclass(frozen=True, slots=True)
class TopKAttrs:
    """k: how many; axis: along which; largest: or smallest; sorted: the order matters."""

    k: Dim
    axis: int = -1
    largest: bool = True
    sorted: bool = True


@dataclass(frozen=True, slots=True)
class TopKDynamicAttrs:
    """As TopKAttrs, k being the second operand."""

    axis: int = -1
    largest: bool = True
    sorted: bool = True


@dataclass(frozen=True, slots=True)
class UniqueAttrs:
    """axis: slices along it are compared, None: elements; sorted: ascending, else by first occurrence."""

    axis: int | None = None
    sorted: bool = True


@dataclass(frozen=True, slots=True)
class NonMaxSuppressionAttrs:
    """Limits of the selection (score_threshold None: no score is too low); center_point_box: boxes are centre, size."""

    max_output_boxes_per_class: int = 0
    iou_threshold: float = 0.0
    score_threshold: float | None = None
    center_point_box: bool = False


@dataclass(frozen=True, slots=True)
class NonMaxSuppressionDynamicAttrs:
    """center_point_box: boxes are given as centre and size."""

    center_point_box: bool = False


def _top_k_types(ctx: Infer, k: Dim) -> list[TensorType]:
    shape = ctx.shape(0)
    if shape is None:
        return [TensorType(ctx.dtype(0), None), TensorType(DType.I64, None)]
    along = ctx.axis(ctx.attrs.axis, len(shape))
    if not ctx.at_most(0, k) or not ctx.at_most(k, shape[along]):
        ctx.fail(f"k = {k} does not lie in [0, {shape[along]}], the size of axis {along}")
    chosen = (*shape[:along], k, *shape[along + 1 :])
    return [TensorType(ctx.dtype(0), chosen), TensorType(DType.I64, chosen)]


def _top_k(ctx: Infer) -> list[TensorType]:
    return _top_k_types(ctx, ctx.attrs.k)


def _top_k_dynamic(ctx: Infer) -> list[TensorType]:
    return _top_k_types(ctx, ctx.fresh("k"))


def _count(ctx: Infer, hint: str, most: Dim | None) -> SymInt:
    """A number of elements that the run decides, at most `most`."""
    return ctx.fresh(hint, upper=most if isinstance(most, int) else None)


def _non_zero(ctx: Infer) -> TensorType:
    rank = ctx.rank(0)
    count = _count(ctx, "nonzero", ctx.type(0).elements)
    return TensorType(DType.I64, (ctx.fresh("rank") if rank is None else rank, count))


def _unique(ctx: Infer) -> list[TensorType]:
    shape, along = ctx.shape(0), ctx.attrs.axis
    if along is None or shape is None:
        distinct = _count(ctx, "unique", ctx.type(0).elements)
        every: Dim = ctx.fresh("elements") if shape is None else product(shape)
        values: tuple[Dim, ...] | None = None if along is not None else (distinct,)
    else:
        along = ctx.axis(along, len(shape))
        every = shape[along]
        distinct = _count(ctx, "unique", every)
        values = (*shape[:along], distinct, *shape[along + 1 :])
    vector = TensorType(DType.I64, (distinct,))
    return [TensorType(ctx.dtype(0), values), vector, TensorType(DType.I64, (every,)), vector]


def _check_boxes(ctx: Infer) -> None:
    boxes, scores = ctx.shape(0), ctx.shape(1)
    if boxes is not None and (len(boxes) != 3 or not ctx.equal(boxes[2], 4)):
        ctx.fail(f"boxes must be [batch, n, 4], got {ctx.type(0)}")
    if scores is not None and len(scores) != 3:
        ctx.fail(f"scores must be [batch, classes, n], got {ctx.type(1)}")
    if boxes is not None and scores is not None:
        if not ctx.equal(boxes[0], scores[0]) or not ctx.equal(boxes[1], scores[2]):
            ctx.fail(f"boxes {ctx.type(0)} and scores {ctx.type(1)} do not agree")


def _non_max_suppression(ctx: Infer) -> TensorType:
    _check_boxes(ctx)
    scores = ctx.shape(1)
    return TensorType(DType.I64, (_count(ctx, "boxes", None if scores is None else product(scores)), 3))


def _check_threshold(ctx: Infer) -> None:
    if not 0.0 <= ctx.attrs.iou_threshold <= 1.0:
        ctx.fail(f"iou_threshold must lie in [0, 1], got {ctx.attrs.iou_threshold}")


def _limited_suppression(ctx: Infer) -> TensorType:
    _check_threshold(ctx)
    return _non_max_suppression(ctx)


def _suppressed_rows(ctx: Infer) -> list[TensorType]:
    """The rows of `non_max_suppression`, room for as many as there can be, and how many there are."""
    _check_threshold(ctx)
    _check_boxes(ctx)
    scores = ctx.shape(1)
    if scores is None:
        ctx.fail("the rank of the scores must be known")
    batch, classes, n = scores
    most = product((batch, classes, minimum(max(ctx.attrs.max_output_boxes_per_class, 0), n)))
    return [TensorType(DType.I64, (most, 3)), TensorType(DType.I64, (1,))]


def _first_rows(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is None or not shape:
        ctx.fail(f"rows expected, got {ctx.type(0)}")
    return TensorType(ctx.dtype(0), (_count(ctx, "rows", shape[0]), *shape[1:]))


def _ranked(_: Node) -> Definition:
    return Opaque("it ranks elements by their values")


def _counted(_: Node) -> Definition:
    return Opaque("how many elements it selects depends on their values")


OPS.register(Op("top_k", _top_k, _ranked, "selection:top_k", TopKAttrs, outputs=2))
OPS.register(
    Op(
        "top_k_dynamic",
        _top_k_dynamic,
        _ranked,
        "selection:top_k_dynamic",
        TopKDynamicAttrs,
        (2, 2),
        outputs=2,
        dynamic=True,
    )
)
OPS.register(Op("non_zero", _non_zero, _counted, "selection:non_zero", dynamic=True))
OPS.register(Op("unique", _unique, _counted, "selection:unique", UniqueAttrs, outputs=4, dynamic=True))
OPS.register(
    Op(
        "non_max_suppression",
        _limited_suppression,
        _counted,
        "detection:non_max_suppression",
        NonMaxSuppressionAttrs,
        (2, 2),
        dynamic=True,
    )
)
OPS.register(
    Op(
        "non_max_suppression_dynamic",
        _non_max_suppression,
        _counted,
        "detection:non_max_suppression_dynamic",
        NonMaxSuppressionDynamicAttrs,
        (2, 5),
        dynamic=True,
    )
)
# The two halves of non_max_suppression where a kernel finds the rows: its results have sizes that are known beforehand.
OPS.register(
    Op(
        "suppressed_rows",
        _suppressed_rows,
        _counted,
        "detection:suppressed_rows",
        NonMaxSuppressionAttrs,
        (2, 2),
        outputs=2,
    )
)
OPS.register(Op("first_rows", _first_rows, _counted, "detection:first_rows", inputs=(2, 2), dynamic=True))
