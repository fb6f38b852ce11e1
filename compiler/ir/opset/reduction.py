"""Reductions along axes, running sums and products, positions of extremes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fusible.compiler.ir.composition import converted, scalar, tensor_of, widened
from fusible.compiler.ir.definition import Composite, Definition, Opaque, Reduce, Scan, same
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.inference import normal_axes, reduced_shape
from fusible.compiler.ir.ops import OPS, Infer, Op, PropagateFunction
from fusible.compiler.ir.propagation import fold_content
from fusible.compiler.ir.symbols import maximum, minimum
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.expr import Arg, Expr, apply
from fusible.compiler.region.index import IndexMap, axis

__all__ = ["ArgAttrs", "ReduceAttrs", "ReduceDynamicAttrs", "ScanAttrs", "ScanDynamicAttrs"]


@dataclass(frozen=True, slots=True)
class ReduceAttrs:
    """axes: to reduce, None for all, () for none; keepdims: keep them with extent 1."""

    axes: tuple[int, ...] | None = None
    keepdims: bool = True


@dataclass(frozen=True, slots=True)
class ReduceDynamicAttrs:
    """reduction: the op's name; noop_with_empty_axes: no axes mean none instead of all."""

    reduction: str
    keepdims: bool = True
    noop_with_empty_axes: bool = False


@dataclass(frozen=True, slots=True)
class ArgAttrs:
    """axis: searched; keepdims: keep it with extent 1; select_last_index: the last among equals, not the first."""

    axis: int = 0
    keepdims: bool = True
    select_last_index: bool = False


@dataclass(frozen=True, slots=True)
class ScanAttrs:
    """axis: along it; exclusive: without the element itself; reverse: from the end."""

    axis: int
    exclusive: bool = False
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class ScanDynamicAttrs:
    """As ScanAttrs, with the axis an operand."""

    exclusive: bool = False
    reverse: bool = False


def _axes(ctx: Infer, rank: int) -> tuple[int, ...]:
    axes: tuple[int, ...] | None = ctx.attrs.axes
    return tuple(range(rank)) if axes is None else normal_axes(ctx, axes, rank)


def _reduced(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is None:
        everything = ctx.attrs.axes is None and not ctx.attrs.keepdims
        return TensorType(ctx.dtype(0), () if everything else None)
    return TensorType(ctx.dtype(0), reduced_shape(shape, _axes(ctx, len(shape)), ctx.attrs.keepdims))


def _reduced_dynamic(ctx: Infer) -> TensorType:
    if ctx.attrs.reduction not in _REDUCTIONS:
        ctx.fail(f"{ctx.attrs.reduction!r} is no reduction")
    shape = ctx.shape(0)
    if shape is None or not ctx.attrs.keepdims:
        return TensorType(ctx.dtype(0), None)
    return TensorType(ctx.dtype(0), tuple(1 if d == 1 else ctx.fresh("reduced") for d in shape))


def _arg(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is None:
        return TensorType(DType.I64, None)
    place = ctx.axis(ctx.attrs.axis, len(shape))
    if not ctx.at_most(1, shape[place]):
        ctx.fail(f"axis {place} has no elements to search")
    return TensorType(DType.I64, reduced_shape(shape, (place,), ctx.attrs.keepdims))


def _scanned(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is not None:
        ctx.axis(ctx.attrs.axis, len(shape))
    return ctx.type(0)


def _scanned_dynamic(ctx: Infer) -> TensorType:
    elements = ctx.type(1).elements
    if elements is not None and not ctx.equal(elements, 1):
        ctx.fail(f"the axis must be one number, got {ctx.type(1)}")
    return ctx.type(0)


@dataclass(frozen=True, slots=True)
class _Reduction:
    """How a reduction maps, folds and finishes; `whole`: integers follow the same definition."""

    combiner: str
    map: Expr = Arg(0)
    finish: Expr = Arg(0)
    whole: bool = True
    propagate: PropagateFunction | None = None


_X = Arg(0)
_SQUARE = apply("mul", _X, _X)
_REDUCTIONS: dict[str, _Reduction | None] = {
    "reduce_sum": _Reduction("sum", propagate=fold_content(lambda a, b: a + b, 0)),
    "reduce_mean": _Reduction("sum", finish=apply("div", _X, Arg(1)), whole=False),
    "reduce_prod": _Reduction("prod", propagate=fold_content(lambda a, b: a * b, 1)),
    "reduce_max": _Reduction("max", propagate=fold_content(maximum, None)),
    "reduce_min": _Reduction("min", propagate=fold_content(minimum, None)),
    "reduce_l1": _Reduction("sum", map=apply("abs", _X)),
    "reduce_l2": _Reduction("sum", map=_SQUARE, finish=apply("sqrt", _X), whole=False),
    "reduce_log_sum": _Reduction("sum", finish=apply("log", _X), whole=False),
    "reduce_log_sum_exp": None,
    "reduce_sum_square": _Reduction("sum", map=_SQUARE),
}
_UNKNOWN_RANK = Opaque("the rank of its operand is not known")
_WIDER = Opaque("it computes integers in a wider type")


def _definition(reduction: _Reduction) -> Callable[[Node], Definition]:
    def define(node: Node) -> Definition:
        operand = tensor_of(node.inputs[0])
        if operand.shape is None:
            return _UNKNOWN_RANK
        if operand.dtype.is_integer and not reduction.whole:
            return _WIDER
        rank = len(operand.shape)
        axes = range(rank) if node.attrs.axes is None else sorted(a % rank for a in node.attrs.axes)
        kept = [d for d in range(rank) if node.attrs.keepdims or d not in axes]
        places = {d: axis(position) for position, d in enumerate(kept)}
        places |= {d: axis(len(kept) + number) for number, d in enumerate(axes)}
        return Reduce(
            reduction.combiner,
            tuple(operand.shape[d] for d in axes),
            IndexMap(tuple(places[d] for d in range(rank))),
            reduction.map,
            reduction.finish,
        )

    return define


def _position_definition(node: Node) -> Definition:
    operand, attrs = tensor_of(node.inputs[0]), node.attrs
    if operand.shape is None:
        return _UNKNOWN_RANK
    rank = len(operand.shape)
    along = attrs.axis % rank if rank else 0
    kept = [d for d in range(rank) if attrs.keepdims or d != along]
    places = {d: axis(position) for position, d in enumerate(kept)} | {along: axis(len(kept))}
    combiner = f"{node.op.name.replace('_', '')}{'_last' if attrs.select_last_index else ''}"
    return Reduce(combiner, operand.shape[along : along + 1], IndexMap(tuple(places[d] for d in range(rank))))


def _scan_definition(node: Node) -> Definition:
    operand, attrs = tensor_of(node.inputs[0]), node.attrs
    if operand.shape is None:
        return _UNKNOWN_RANK
    combiner = "sum" if node.op.name == "cum_sum" else "prod"
    return Scan(combiner, attrs.axis % len(operand.shape), attrs.exclusive, attrs.reverse)


def _log_sum_exp(node: Node) -> Definition:
    operand = tensor_of(node.inputs[0])
    if operand.shape is None:
        return _UNKNOWN_RANK
    return _WIDER if operand.dtype.is_integer else Composite(_log_sum_exp_graph)


def _log_sum_exp_graph(node: Node) -> Graph:
    """ln(sum of e^(x - m)) + m with m the maximum, or 0 where that is infinite."""
    graph = Graph("reduce_log_sum_exp")
    given, axes, keepdims = tensor_of(node.inputs[0]), node.attrs.axes, node.attrs.keepdims
    x = widened(graph, graph.input(given, "x"))
    top = graph.add("reduce_max", x, axes=axes, keepdims=True)
    shift = graph.add("where", graph.add("is_inf", top), scalar(graph, x, 0), top)
    exponentials = graph.add("exp", graph.add("sub", x, shift))
    total = graph.add("log", graph.add("reduce_sum", exponentials, axes=axes, keepdims=keepdims))
    # Summing the one element of each reduced axis drops that axis.
    result = graph.add("add", total, shift if keepdims else graph.add("reduce_sum", shift, axes=axes, keepdims=False))
    graph.set_outputs([converted(graph, result, given.dtype)], ["y"])
    return graph


for _name, _reduction in _REDUCTIONS.items():
    OPS.register(
        Op(
            _name,
            _reduced,
            _log_sum_exp if _reduction is None else _definition(_reduction),
            f"reduce:{_name}",
            ReduceAttrs,
            propagate=None if _reduction is None else _reduction.propagate,
        )
    )
OPS.register(
    Op(
        "reduce_dynamic",
        _reduced_dynamic,
        same(Opaque("its axes are known only when it runs")),
        "reduce:reduce_dynamic",
        ReduceDynamicAttrs,
        inputs=(1, 2),
        dynamic=True,
    )
)
for _name in ("arg_max", "arg_min"):
    OPS.register(Op(_name, _arg, _position_definition, f"scan:{_name}", ArgAttrs))
for _name in ("cum_sum", "cum_prod"):
    OPS.register(Op(_name, _scanned, _scan_definition, f"scan:{_name}", ScanAttrs))
    OPS.register(
        Op(
            f"{_name}_dynamic",
            _scanned_dynamic,
            same(Opaque("its axis is known only when it runs")),
            f"scan:{_name}_dynamic",
            ScanDynamicAttrs,
            inputs=(2, 2),
        )
    )
