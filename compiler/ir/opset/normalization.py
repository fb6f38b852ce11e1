"""Normalisations: batch, instance, group, layer, RMS, Lp, local response; and dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fusible.compiler.ir.composition import converted, inputs_like, scalar, tensor_of, widened
from fusible.compiler.ir.definition import Composite, Definition, Opaque
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.inference import broadcasts_to
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.symbols import Dim, exact_div, product
from fusible.compiler.ir.types import DType, Shape, TensorType, Type

__all__ = [
    "BatchNormalizationAttrs",
    "BatchNormalizationTrainingAttrs",
    "DropoutAttrs",
    "EpsilonAttrs",
    "GroupNormalizationAttrs",
    "LayerNormalizationAttrs",
    "LpNormalizationAttrs",
    "LrnAttrs",
]


@dataclass(frozen=True, slots=True)
class BatchNormalizationAttrs:
    """epsilon: added to the variance."""

    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class BatchNormalizationTrainingAttrs:
    """epsilon: added to the variance; momentum: the weight of the old running statistics."""

    epsilon: float = 1e-5
    momentum: float = 0.9


@dataclass(frozen=True, slots=True)
class EpsilonAttrs:
    """epsilon: added to the variance."""

    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class GroupNormalizationAttrs:
    """num_groups: divides the channels; epsilon: added to the variance."""

    num_groups: int
    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class LayerNormalizationAttrs:
    """axis: the first one normalised; epsilon: added to the (mean) square; stash_dtype: least precision inside."""

    axis: int = -1
    epsilon: float = 1e-5
    stash_dtype: DType = DType.F32


@dataclass(frozen=True, slots=True)
class LpNormalizationAttrs:
    """axis: along it; p: 1 or 2."""

    axis: int = -1
    p: int = 2


@dataclass(frozen=True, slots=True)
class LrnAttrs:
    """size: the number of channels in a window; the others as in the formula."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0


@dataclass(frozen=True, slots=True)
class DropoutAttrs:
    """seed: of the random numbers, None for new ones each time."""

    seed: int | None = None


_UNKNOWN_RANK = Opaque("the rank of its operand is not known")


def _channels(shape: Shape) -> Dim:
    return shape[1] if len(shape) > 1 else 1


def _check_parameters(ctx: Infer, indices: Sequence[int], least_rank: int) -> TensorType:
    """The type of input 0, after checking that the parameters have one number a channel."""
    shape = ctx.shape(0)
    for index in indices:
        if ctx.rank(index) not in (1, None):
            ctx.fail(f"input {index} must be a vector, got {ctx.type(index)}")
    if shape is None:
        return ctx.type(0)
    if len(shape) < least_rank:
        ctx.fail(f"input 0 must have rank {least_rank} at least, got {ctx.type(0)}")
    for index in indices:
        parameter, channels = ctx.shape(index), _channels(shape)
        if parameter is not None and not ctx.equal(parameter[0], channels):
            ctx.fail(f"input {index} has {parameter[0]} elements for {channels} channels")
    return ctx.type(0)


def _batch(ctx: Infer) -> TensorType:
    return _check_parameters(ctx, (1, 2, 3, 4), 1)


def _batch_training(ctx: Infer) -> list[Type]:
    return [_batch(ctx), ctx.type(3), ctx.type(4)]


def _instance(ctx: Infer) -> TensorType:
    return _check_parameters(ctx, (1, 2), 3)


def _group(ctx: Infer) -> TensorType:
    type_ = _check_parameters(ctx, (1, 2), 2)
    groups = ctx.attrs.num_groups
    if groups < 1:
        ctx.fail(f"num_groups must be positive, got {groups}")
    if type_.shape is not None:
        channels = type_.shape[1]
        if not ctx.divides(groups, channels):
            ctx.fail(f"{groups} groups do not divide {channels} channels")
    return type_


def _layer(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if shape is not None:
        ctx.axis(ctx.attrs.axis, len(shape))
    for index in (1, 2):
        if ctx.has(index):
            broadcasts_to(ctx, index, shape)
    return ctx.type(0)


def _layer_statistics(ctx: Infer) -> list[Type]:
    type_ = _layer(ctx)
    if type_.shape is None:
        statistics = TensorType(ctx.attrs.stash_dtype, None)
    else:
        axis = ctx.axis(ctx.attrs.axis, len(type_.shape))
        shape = type_.shape[:axis] + (1,) * (len(type_.shape) - axis)
        statistics = TensorType(ctx.attrs.stash_dtype, shape)
    return [type_, statistics, statistics]


def _rms(ctx: Infer) -> TensorType:
    return TensorType(ctx.dtype(1), _layer(ctx).shape)


def _lp(ctx: Infer) -> TensorType:
    if ctx.attrs.p not in (1, 2):
        ctx.fail(f"p must be 1 or 2, got {ctx.attrs.p}")
    shape = ctx.shape(0)
    if shape is not None:
        ctx.axis(ctx.attrs.axis, len(shape))
    return ctx.type(0)


def _lrn(ctx: Infer) -> TensorType:
    shape = ctx.shape(0)
    if ctx.attrs.size < 1:
        ctx.fail(f"size must be positive, got {ctx.attrs.size}")
    if shape is not None and len(shape) < 2:
        ctx.fail(f"input 0 must have a channel axis, got {ctx.type(0)}")
    return ctx.type(0)


def _dropout(ctx: Infer) -> list[Type]:
    for index in (1, 2):
        elements = ctx.type(index).elements if ctx.has(index) else 1
        if elements is not None and not ctx.equal(elements, 1):
            ctx.fail(f"input {index} must be one element, got {ctx.type(index)}")
    return [ctx.type(0), TensorType(DType.BOOL, ctx.shape(0))]


def _composite(build: Callable[[Node], Graph]) -> Callable[[Node], Definition]:
    """The composite, where the rank of input 0 is known."""
    return lambda node: _UNKNOWN_RANK if tensor_of(node.inputs[0]).shape is None else Composite(build)


def _per_channel(graph: Graph, parameter: Value, rank: int) -> Value:
    """A vector shaped to broadcast along axis 1 of a tensor of `rank` dimensions."""
    shape = tensor_of(parameter).shape
    assert shape is not None
    return graph.add("reshape", parameter, shape=(shape[0],) + (1,) * (rank - 2) if rank > 1 else ())


def _known_vectors(node: Node, indices: Sequence[int]) -> bool:
    return all(tensor_of(node.inputs[i]).shape is not None for i in indices)


def _compute_dtype(*values: Value | None) -> DType:
    return DType.F64 if any(v is not None and tensor_of(v).dtype is DType.F64 for v in values) else DType.F32


def _finished(graph: Graph, results: Sequence[Value], node: Node) -> Graph:
    graph.set_outputs(
        [converted(graph, r, tensor_of(v).dtype) for r, v in zip(results, node.outputs, strict=True)],
        [f"y{n}" for n in range(len(results))],
    )
    return graph


def _batch_graph(node: Node) -> Graph:
    graph = Graph("batch_normalization")
    wide = _compute_dtype(*node.inputs)
    x, scale, bias, mean, variance = (converted(graph, v, wide) for v in inputs_like(graph, node))
    deviation = graph.add("sqrt", graph.add("add", variance, scalar(graph, variance, node.attrs.epsilon)))
    factor = graph.add("div", scale, deviation)
    offset = graph.add("sub", bias, graph.add("mul", mean, factor))
    rank = len(tensor_of(x).shape or ())
    scaled = graph.add("mul", x, _per_channel(graph, factor, rank))
    return _finished(graph, [graph.add("add", scaled, _per_channel(graph, offset, rank))], node)


def _batch_definition(node: Node) -> Definition:
    if tensor_of(node.inputs[0]).shape is None or not _known_vectors(node, (1, 2, 3, 4)):
        return _UNKNOWN_RANK
    return Composite(_batch_graph)


def _standardised(graph: Graph, x: Value, axes: tuple[int, ...], epsilon: float) -> tuple[Value, Value, Value]:
    """(x - mean) / sqrt(variance + epsilon) over the axes, the mean, and 1 / sqrt(variance + epsilon)."""
    mean = graph.add("reduce_mean", x, axes=axes, keepdims=True)
    deviation = graph.add("sub", x, mean)
    variance = graph.add("reduce_mean", graph.add("mul", deviation, deviation), axes=axes, keepdims=True)
    root = graph.add("sqrt", graph.add("add", variance, scalar(graph, x, epsilon)))
    inverse = graph.add("reciprocal", root)
    return graph.add("mul", deviation, inverse), mean, inverse


def _instance_graph(node: Node) -> Graph:
    graph = Graph("instance_normalization")
    x, scale, bias = (widened(graph, v) for v in inputs_like(graph, node))
    rank = len(tensor_of(x).shape or ())
    normal, _, _ = _standardised(graph, x, tuple(range(2, rank)), node.attrs.epsilon)
    scaled = graph.add("mul", normal, _per_channel(graph, scale, rank))
    return _finished(graph, [graph.add("add", scaled, _per_channel(graph, bias, rank))], node)


def _instance_definition(node: Node) -> Definition:
    if tensor_of(node.inputs[0]).shape is None or not _known_vectors(node, (1, 2)):
        return _UNKNOWN_RANK
    return Composite(_instance_graph)


def _group_graph(node: Node) -> Graph:
    graph = Graph("group_normalization")
    x, scale, bias = (widened(graph, v) for v in inputs_like(graph, node))
    shape, groups = tensor_of(x).shape, node.attrs.num_groups
    assert shape is not None
    size = exact_div(shape[1], groups)
    assert size is not None
    grouped = graph.add("reshape", x, shape=(shape[0], groups, size * product(shape[2:])))
    normal, _, _ = _standardised(graph, grouped, (2,), node.attrs.epsilon)
    scaled = graph.add("mul", graph.add("reshape", normal, shape=shape), _per_channel(graph, scale, len(shape)))
    return _finished(graph, [graph.add("add", scaled, _per_channel(graph, bias, len(shape)))], node)


def _group_definition(node: Node) -> Definition:
    shape = tensor_of(node.inputs[0]).shape
    if shape is None or not _known_vectors(node, (1, 2)):
        return _UNKNOWN_RANK
    if exact_div(shape[1], node.attrs.num_groups) is None:
        return Opaque("the channels of a group are not known")
    return Composite(_group_graph)


def _trailing_axes(x: Value, axis: int) -> tuple[int, ...]:
    rank = len(tensor_of(x).shape or ())
    return tuple(range(axis % rank, rank))


def _layer_graph(node: Node) -> Graph:
    graph = Graph(node.op.name)
    wide = DType.F64 if node.attrs.stash_dtype is DType.F64 else _compute_dtype(node.inputs[0])
    values = [converted(graph, v, wide) for v in inputs_like(graph, node)]
    x = values[0]
    normal, mean, inverse = _standardised(graph, x, _trailing_axes(x, node.attrs.axis), node.attrs.epsilon)
    result = graph.add("mul", normal, values[1])
    if len(values) > 2:
        result = graph.add("add", result, values[2])
    return _finished(graph, [result, mean, inverse][: len(node.outputs)], node)


def _rms_graph(node: Node) -> Graph:
    graph = Graph("rms_normalization")
    wide = DType.F64 if node.attrs.stash_dtype is DType.F64 else _compute_dtype(*node.inputs)
    x, scale = (converted(graph, v, wide) for v in inputs_like(graph, node))
    axes = _trailing_axes(x, node.attrs.axis)
    square = graph.add("reduce_mean", graph.add("mul", x, x), axes=axes, keepdims=True)
    root = graph.add("sqrt", graph.add("add", square, scalar(graph, x, node.attrs.epsilon)))
    normal = graph.add("mul", x, graph.add("reciprocal", root))
    return _finished(graph, [graph.add("mul", normal, scale)], node)


def _lp_graph(node: Node) -> Graph:
    graph = Graph("lp_normalization")
    x = widened(graph, inputs_like(graph, node)[0])
    norm = graph.add(f"reduce_l{node.attrs.p}", x, axes=(node.attrs.axis,), keepdims=True)
    zero, one = scalar(graph, x, 0), scalar(graph, x, 1)
    divisor = graph.add("where", graph.add("equal", norm, zero), one, norm)
    return _finished(graph, [graph.add("div", x, divisor)], node)


def _lrn_graph(node: Node) -> Graph:
    """The window's sum as one reduction: of the squares padded by zeros, whose windows lie on an axis of their own."""
    graph = Graph("lrn")
    attrs: LrnAttrs = node.attrs
    x = widened(graph, inputs_like(graph, node)[0])
    shape = tensor_of(x).shape
    assert shape is not None
    square, before = graph.add("mul", x, x), (attrs.size - 1) // 2
    edges = [
        graph.add("expand", scalar(graph, x, 0), shape=(shape[0], count, *shape[2:]))
        for count in (before, attrs.size - 1 - before)
    ]
    padded = graph.add("concat", edges[0], square, edges[1], axis=1)
    total: Value | None = None
    for offset in range(attrs.size):
        window = graph.add("slice", padded, starts=(offset,), ends=(offset + shape[1],), axes=(1,), steps=(1,))
        total = window if total is None else graph.add("add", total, window)
    assert total is not None
    scaled = graph.add("mul", total, scalar(graph, x, attrs.alpha / attrs.size))
    base = graph.add("add", scaled, scalar(graph, x, attrs.bias))
    return _finished(graph, [graph.add("div", x, graph.add("pow", base, scalar(graph, x, attrs.beta)))], node)


def _register(
    name: str,
    infer: Callable[[Infer], Type | Sequence[Type]],
    definition: Callable[[Node], Definition],
    attrs: type,
    inputs: tuple[int, int],
    outputs: int = 1,
) -> None:
    OPS.register(Op(name, infer, definition, f"normalization:{name}", attrs, inputs, outputs, accepts_out=outputs == 1))


_STATISTICS = Opaque("training computes statistics for later runs")
_register("batch_normalization", _batch, _batch_definition, BatchNormalizationAttrs, (5, 5))
_register(
    "batch_normalization_training",
    _batch_training,
    lambda node: _STATISTICS,
    BatchNormalizationTrainingAttrs,
    (5, 5),
    outputs=3,
)
_register("instance_normalization", _instance, _instance_definition, EpsilonAttrs, (3, 3))
_register("group_normalization", _group, _group_definition, GroupNormalizationAttrs, (3, 3))
_register("layer_normalization", _layer, _composite(_layer_graph), LayerNormalizationAttrs, (2, 3))
_register(
    "layer_normalization_statistics", _layer_statistics, _composite(_layer_graph), LayerNormalizationAttrs, (2, 3), 3
)
_register("rms_normalization", _rms, _composite(_rms_graph), LayerNormalizationAttrs, (2, 2))
_register("lp_normalization", _lp, _composite(_lp_graph), LpNormalizationAttrs, (1, 1))
_register("lrn", _lrn, _composite(_lrn_graph), LrnAttrs, (1, 1))
OPS.register(
    Op(
        "dropout",
        _dropout,
        lambda node: Opaque("it draws random numbers"),
        "dropout:dropout",
        DropoutAttrs,
        inputs=(1, 3),
        outputs=2,
        pure=False,
    )
)
