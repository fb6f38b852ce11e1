"""Softmax and normalisations that exporters write out.

softmax:             exp(x - max x) / sum exp(x - max x), with or without the maximum
log_softmax:         log(softmax(x)),  d - log(sum(exp(d))) with d = x - max x
layer_normalization: d / sqrt(mean(d^2) + eps) with d = x - mean x; then * w, + b
rms_normalization:   x / sqrt(mean(x^2) + eps); then * w
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, op
from fusible.passes.rewrite import Reject, rule

__all__ = ["RULES"]


def _axes(x: Value, axes: Sequence[int] | None) -> tuple[int, ...] | None:
    """Axes as non-negative numbers in order; None if the rank is not known."""
    rank = x.type.rank if isinstance(x.type, TensorType) else None
    if rank is None or rank == 0:
        return None
    return tuple(range(rank)) if axes is None else tuple(sorted(a % rank for a in axes))


def _one_axis(x: Value, *axes: Sequence[int] | None) -> int | Reject:
    found = {_axes(x, a) for a in axes}
    if len(found) != 1:
        return Reject("its reductions are along different axes", x)
    only = found.pop()
    if only is None or len(only) != 1:
        return Reject("it reduces along other than one axis", x)
    return only[0]


@rule(exactness=Exactness.REASSOCIATING)
def softmax(x: Any, a: Any, b: Any) -> Any:
    """exp(x - max x) / sum exp(x - max x)  ->  softmax(x)."""

    def build(graph: Graph, x: Value, a: Any, b: Any) -> Value | Reject:
        axis = _one_axis(x, a, b)
        return axis if isinstance(axis, Reject) else graph.add("softmax", x, axis=axis)

    e = op.exp(op.sub(x, op.reduce_max(x, axes=a, keepdims=True)))
    return op.div(e, op.reduce_sum(e, axes=b, keepdims=True)), build


@rule(exactness=Exactness.REASSOCIATING)
def softmax_unshifted(x: Any, a: Any) -> Any:
    """exp(x) / sum exp(x)  ->  softmax(x), which does not overflow."""

    def build(graph: Graph, x: Value, a: Any) -> Value | Reject:
        axis = _one_axis(x, a)
        return axis if isinstance(axis, Reject) else graph.add("softmax", x, axis=axis)

    e = op.exp(x)
    return op.div(e, op.reduce_sum(e, axes=a, keepdims=True)), build


@rule(exactness=Exactness.REASSOCIATING)
def log_of_softmax(x: Any, a: Any) -> Any:
    """log(softmax(x))  ->  log_softmax(x)."""

    def build(graph: Graph, x: Value, a: int) -> Value:
        return graph.add("log_softmax", x, axis=a)

    return op.log(op.softmax(x, axis=a)), build


@rule(exactness=Exactness.REASSOCIATING)
def log_softmax(x: Any, a: Any, b: Any) -> Any:
    """d - log(sum(exp(d))) with d = x - max x  ->  log_softmax(x)."""

    def build(graph: Graph, x: Value, a: Any, b: Any) -> Value | Reject:
        axis = _one_axis(x, a, b)
        return axis if isinstance(axis, Reject) else graph.add("log_softmax", x, axis=axis)

    d = op.sub(x, op.reduce_max(x, axes=a, keepdims=True))
    return op.sub(d, op.log(op.reduce_sum(op.exp(d), axes=b, keepdims=True))), build


def _scalar(value: Value) -> float | None:
    constant = value.constant
    return None if constant is None or constant.size != 1 else float(constant.array.reshape(()))


def _normalise(graph: Graph, name: str, x: Value, epsilon: Value, *axes: Any) -> Value | Reject:
    """The op with a scale of ones, or why not."""
    number = _scalar(epsilon)
    if number is None:
        return Reject("epsilon is no constant of one element", epsilon)
    found = {_axes(x, a) for a in axes}
    only = found.pop()
    if found or only is None or not isinstance(x.type, TensorType) or x.type.shape is None:
        return Reject("its means are along different or unknown axes", x)
    first = len(x.type.shape) - len(only)
    if only != tuple(range(first, len(x.type.shape))):
        return Reject(f"it normalises along axes {only}, which are not the last ones", x)
    sizes = x.type.shape[first:]
    if not all(isinstance(d, int) for d in sizes):
        return Reject("the size of what is normalised is not known", x)
    if x.type.dtype not in (DType.F32, DType.F64):
        return Reject(f"{x.type.dtype.value} would be rounded at other places", x)
    ones = np.ones([int(d) for d in sizes if isinstance(d, int)], x.type.dtype.numpy)
    return graph.add(name, x, graph.constant(ones), axis=first, epsilon=number, stash_dtype=x.type.dtype)


def _divided(x: Any, root: Any) -> Any:
    """x / root in the ways of writing it."""
    return any_of(op.div(x, root), op.mul(x, op.reciprocal(root)), op.mul(x, op.div(1.0, root)))


@rule(exactness=Exactness.REASSOCIATING)
def layer_norm(x: Any, e: Any, a: Any, b: Any) -> Any:
    """(x - mean x) / sqrt(mean((x - mean x)^2) + eps)  ->  layer_normalization(x, 1)."""

    def build(graph: Graph, x: Value, e: Value, a: Any, b: Any) -> Value | Reject:
        return _normalise(graph, "layer_normalization", x, e, a, b)

    d = op.sub(x, op.reduce_mean(x, axes=a, keepdims=True))
    variance = op.reduce_mean(any_of(op.mul(d, d), op.pow(d, 2)), axes=b, keepdims=True)
    root = any_of(op.sqrt(op.add(variance, e)), op.pow(op.add(variance, e), 0.5))
    return _divided(d, root), build


@rule(exactness=Exactness.REASSOCIATING)
def rms_norm(x: Any, e: Any, a: Any) -> Any:
    """x / sqrt(mean(x^2) + eps)  ->  rms_normalization(x, 1)."""

    def build(graph: Graph, x: Value, e: Value, a: Any) -> Value | Reject:
        return _normalise(graph, "rms_normalization", x, e, a)

    mean = op.reduce_mean(any_of(op.mul(x, x), op.pow(x, 2)), axes=a, keepdims=True)
    root = any_of(op.sqrt(op.add(mean, e)), op.pow(op.add(mean, e), 0.5))
    return _divided(x, root), build


def _is_scale(x: Value, w: Value, axis: int) -> bool:
    same = isinstance(x.type, TensorType) and isinstance(w.type, TensorType) and x.type.shape is not None
    return same and x.type.dtype is w.type.dtype and w.type.shape == x.type.shape[axis:]  # type: ignore[union-attr,index]


def _is_one(scale: Value) -> bool:
    return scale.constant is not None and bool(np.all(scale.constant.array == 1))


@rule(exactness=Exactness.REASSOCIATING)
def scale_of_layer_norm(x: Any, one: Any, w: Any, axis: Any, e: Any, s: Any) -> Any:
    """layer_normalization(x, 1) * w  ->  layer_normalization(x, w)."""

    def build(graph: Graph, x: Value, one: Value, w: Value, axis: int, e: float, s: DType) -> Value | Reject:
        if not _is_one(one) or not _is_scale(x, w, axis):
            return Reject("the factor has not the shape of what is normalised, or there is a scale", w)
        return graph.add("layer_normalization", x, w, axis=axis, epsilon=e, stash_dtype=s)

    return op.mul(op.layer_normalization(x, one, axis=axis, epsilon=e, stash_dtype=s), w), build


@rule(exactness=Exactness.REASSOCIATING)
def scale_of_rms_norm(x: Any, one: Any, w: Any, axis: Any, e: Any, s: Any) -> Any:
    """rms_normalization(x, 1) * w  ->  rms_normalization(x, w)."""

    def build(graph: Graph, x: Value, one: Value, w: Value, axis: int, e: float, s: DType) -> Value | Reject:
        if not _is_one(one) or not _is_scale(x, w, axis):
            return Reject("the factor has not the shape of what is normalised, or there is a scale", w)
        return graph.add("rms_normalization", x, w, axis=axis, epsilon=e, stash_dtype=s)

    return op.mul(op.rms_normalization(x, one, axis=axis, epsilon=e, stash_dtype=s), w), build


@rule(exactness=Exactness.REASSOCIATING)
def bias_of_layer_norm(x: Any, w: Any, b: Any, axis: Any, e: Any, s: Any) -> Any:
    """layer_normalization(x, w) + b  ->  layer_normalization(x, w, b)."""

    def build(graph: Graph, x: Value, w: Value, b: Value, axis: int, e: float, s: DType) -> Value | Reject:
        if not _is_scale(x, b, axis):
            return Reject("the summand has not the shape of what is normalised", b)
        return graph.add("layer_normalization", x, w, b, axis=axis, epsilon=e, stash_dtype=s)

    return op.add(op.layer_normalization(x, w, axis=axis, epsilon=e, stash_dtype=s), b), build


RULES = (
    softmax,
    softmax_unshifted,
    log_of_softmax,
    log_softmax,
    layer_norm,
    rms_norm,
    scale_of_layer_norm,
    scale_of_rms_norm,
    bias_of_layer_norm,
)
