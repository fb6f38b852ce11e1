"""Reductions, running sums, positions of extremes, softmax and its like."""

from __future__ import annotations

from collections.abc import Callable

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import product

_REDUCTIONS = {
    "ReduceMean": "reduce_mean", "ReduceProd": "reduce_prod", "ReduceMax": "reduce_max", "ReduceMin": "reduce_min",
    "ReduceL1": "reduce_l1", "ReduceL2": "reduce_l2", "ReduceLogSum": "reduce_log_sum",
    "ReduceLogSumExp": "reduce_log_sum_exp", "ReduceSumSquare": "reduce_sum_square",
}  # fmt: skip


def _by_attribute(op: str) -> Callable[[NodeContext], Value]:
    def convert(context: NodeContext) -> Value:
        axes, keepdims = context.attr_ints("axes"), bool(context.attr_int("keepdims", 1))
        return context.add(op, context.required(0), axes=axes or None, keepdims=keepdims)

    return convert


def _by_input(op: str) -> Callable[[NodeContext], Value]:
    def convert(context: NodeContext) -> Value:
        x, keepdims = context.required(0), bool(context.attr_int("keepdims", 1))
        noop = bool(context.attr_int("noop_with_empty_axes", 0))
        axes = context.static(1)
        if axes is None and context.optional(1) is not None and context.tensor_type(1).elements != 0:
            return context.add(
                "reduce_dynamic", x, context.required(1), reduction=op, keepdims=keepdims, noop_with_empty_axes=noop
            )
        if axes is None or axes.size == 0:
            return context.add(op, x, axes=() if noop else None, keepdims=keepdims)
        return context.add(op, x, axes=tuple(int(a) for a in axes.reshape(-1)), keepdims=keepdims)

    return convert


for _onnx, _op in _REDUCTIONS.items():
    onnx_op(_onnx)(_by_attribute(_op))
    onnx_op(_onnx, since=18)(_by_input(_op))
onnx_op("ReduceSum")(_by_attribute("reduce_sum"))
onnx_op("ReduceSum", since=13)(_by_input("reduce_sum"))


@onnx_op("ArgMax")
def arg_max(context: NodeContext) -> Value:
    """ArgMax."""
    return _position(context, "arg_max")


@onnx_op("ArgMin")
def arg_min(context: NodeContext) -> Value:
    """ArgMin."""
    return _position(context, "arg_min")


def _position(context: NodeContext, op: str) -> Value:
    return context.add(
        op,
        context.required(0),
        axis=context.attr_int("axis", 0),
        keepdims=bool(context.attr_int("keepdims", 1)),
        select_last_index=bool(context.attr_int("select_last_index", 0)),
    )


@onnx_op("CumSum", since=11)
def cum_sum(context: NodeContext) -> Value:
    """CumSum."""
    return _scan(context, "cum_sum")


@onnx_op("CumProd", since=26)
def cum_prod(context: NodeContext) -> Value:
    """CumProd."""
    return _scan(context, "cum_prod")


def _scan(context: NodeContext, op: str) -> Value:
    axis = context.static(1)
    exclusive, reverse = bool(context.attr_int("exclusive", 0)), bool(context.attr_int("reverse", 0))
    x = context.required(0)
    if axis is None:
        return context.add(f"{op}_dynamic", x, context.required(1), exclusive=exclusive, reverse=reverse)
    if axis.size != 1:
        context.invalid(f"the axis must be one number, got shape {axis.shape}")
    return context.add(op, x, axis=int(axis.reshape(())), exclusive=exclusive, reverse=reverse)


def _along_axis(op: str) -> Callable[[NodeContext], Value]:
    return lambda context: context.add(op, context.required(0), axis=context.attr_int("axis", -1))


def _flattened(op: str) -> Callable[[NodeContext], Value]:
    return lambda context: by_rows(context, op, context.attr_int("axis", 1))


def by_rows(context: NodeContext, op: str, axis: int) -> Value:
    """Until opset 12 input 0 counts as a matrix: the axes before `axis` are its rows, the others its columns."""
    x, shape = context.required(0), context.shape(0)
    if shape is None:
        context.unsupported("the rank of input 0 is not known")
    rank = len(shape)
    if not -rank <= axis <= rank:
        context.invalid(f"axis {axis} is out of range for rank {rank}")
    axis += rank if axis < 0 else 0
    if axis == rank - 1:
        return context.add(op, x, axis=axis)
    matrix = context.add("reshape", x, shape=(product(shape[:axis]), product(shape[axis:])))
    return context.add("reshape", context.add(op, matrix, axis=1), shape=shape)


for _onnx, _op in {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Hardmax": "hardmax"}.items():
    onnx_op(_onnx)(_flattened(_op))
    onnx_op(_onnx, since=13)(_along_axis(_op))
