"""Put back together softmax and norms that exporters write out:

exp(x - max(x)) / sum(exp(x - max(x)))                           ->  softmax(x)
log(softmax(x))                                                  ->  log_softmax(x)
(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * scale + bias ->  layer_normalization(x, scale, bias)
x / sqrt(mean(x^2) + eps) * scale                                ->  rms_normalization(x, scale)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, op
from fusible.passes.rewrite import Reject, attributes, rule

__all__ = ["RULES"]


def _axis(x: Value, axes: tuple[int, ...] | None, scale: Value | None = None) -> int | Reject:
    """The first of the trailing axes that are normalised, non-negative; a Reject if they are not trailing."""
    if axes is None:
        return Reject("all axes are reduced, or not known which", x)
    if not isinstance(x.type, TensorType) or x.type.shape is None:
        return Reject("the rank is not known", x)
    rank = len(x.type.shape)
    normal = sorted(a % rank for a in axes)
    if normal != list(range(rank - len(normal), rank)) or not normal:
        return Reject(f"axes {tuple(axes)} are not the last ones", x)
    if scale is not None and (not isinstance(scale.type, TensorType) or scale.type.shape != x.type.shape[normal[0] :]):
        return Reject("the scale does not have the shape of the normalised axes", scale)
    return normal[0]


def _epsilon(eps: Value) -> float | Reject:
    if eps.constant is None or eps.constant.size != 1:
        return Reject("epsilon is not a constant of one element", eps)
    return float(np.asarray(eps.constant.array).reshape(()))


@rule(exactness=Exactness.REASSOCIATING)
def compose_softmax(x: Any, a: Any, b: Any) -> Any:
    """exp(x - max(x)) / sum(exp(x - max(x)))  ->  softmax(x)."""

    def build(graph: Graph, x: Value, a: tuple[int, ...] | None, b: tuple[int, ...] | None) -> Value | Reject:
        if not isinstance(x.type, TensorType) or x.type.shape is None:
            return Reject("the rank is not known", x)
        rank = len(x.type.shape)
        if a is None or b is None or len(a) != 1 or len(b) != 1 or a[0] % rank != b[0] % rank:
            return Reject(f"maximum over {a} and sum over {b} are not one common axis", x)
        return graph.add("softmax", x, axis=a[0] % rank)

    e = op.exp(op.sub(x, op.reduce_max(x, axes=a, keepdims=True)))
    return op.div(e, op.reduce_sum(e, axes=b, keepdims=True)), build


@rule(exactness=Exactness.REASSOCIATING)
def compose_log_softmax(x: Any, k: Any) -> Any:
    """log(softmax(x))  ->  log_softmax(x)."""

    def build(graph: Graph, x: Value, k: int) -> Value:
        return graph.add("log_softmax", x, axis=k)

    return op.log(op.softmax(x, axis=k)), build


def _normalised(x: Any, eps: Any, a: Any, b: Any) -> Any:
    centred = op.sub(x, op.reduce_mean(x, axes=a, keepdims=True))
    variance = op.reduce_mean(any_of(op.pow(centred, 2.0), op.mul(centred, centred)), axes=b, keepdims=True)
    deviation = op.sqrt(op.add(variance, eps))
    return any_of(op.div(centred, deviation), op.mul(centred, op.reciprocal(deviation)))


@rule(exactness=Exactness.REASSOCIATING)
def compose_layer_norm(x: Any, eps: Any, scale: Any, a: Any, b: Any) -> Any:
    """(x - mean) / sqrt(variance + eps) * scale  ->  layer_normalization(x, scale)."""

    def build(
        graph: Graph, x: Value, eps: Value, scale: Value, a: tuple[int, ...], b: tuple[int, ...]
    ) -> Value | Reject:
        axis, epsilon = _axis(x, a, scale), _epsilon(eps)
        if isinstance(axis, Reject):
            return axis
        if isinstance(epsilon, Reject):
            return epsilon
        if a != b:
            return Reject(f"mean over {a} but variance over {b}", x)
        return graph.add("layer_normalization", x, scale, axis=axis, epsilon=epsilon, stash_dtype=DType.F32)

    return op.mul(_normalised(x, eps, a, b), scale), build


@rule(exactness=Exactness.REASSOCIATING)
def bias_into_layer_norm(x: Any, scale: Any, bias: Any, n: Any) -> Any:
    """layer_normalization(x, scale) + bias  ->  layer_normalization(x, scale, bias)."""

    def build(graph: Graph, x: Value, scale: Value, bias: Value, n: Node) -> Value | Reject:
        if bias.type != scale.type:
            return Reject("the bias does not have the shape of the scale", bias)
        return graph.add("layer_normalization", x, scale, bias, **attributes(n))

    return op.add(op.layer_normalization(x, scale).named(n), bias), build


@rule(exactness=Exactness.REASSOCIATING)
def compose_rms_norm(x: Any, eps: Any, scale: Any, a: Any) -> Any:
    """x / sqrt(mean(x^2) + eps) * scale  ->  rms_normalization(x, scale)."""

    def build(graph: Graph, x: Value, eps: Value, scale: Value, a: tuple[int, ...]) -> Value | Reject:
        axis, epsilon = _axis(x, a, scale), _epsilon(eps)
        if isinstance(axis, Reject):
            return axis
        if isinstance(epsilon, Reject):
            return epsilon
        return graph.add("rms_normalization", x, scale, axis=axis, epsilon=epsilon, stash_dtype=DType.F32)

    root = op.sqrt(op.add(op.reduce_mean(any_of(op.pow(x, 2.0), op.mul(x, x)), axes=a, keepdims=True), eps))
    inverse = any_of(op.reciprocal(root), op.div(1.0, root))
    return op.mul(any_of(op.mul(x, inverse), op.div(x, root)), scale), build


RULES = (
    compose_softmax,
    compose_log_softmax,
    compose_layer_norm,
    bias_into_layer_norm,
    compose_rms_norm,
)
