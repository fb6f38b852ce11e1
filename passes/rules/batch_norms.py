"""Batch normalisation with constant statistics, in a = scale / sqrt(var + epsilon), b = bias - mean * a:

bn(conv(x, w) + c)  ->  conv(x, a w) + (a c + b), the same for conv_transpose and gemm;   bn(x)  ->  x * a + b.
Computed in float64 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op, optional
from fusible.passes.rewrite import Reject, attributes, rule

__all__ = ["RULES"]


def _affine(parts: tuple[Value, ...], epsilon: float) -> tuple[np.ndarray, np.ndarray] | Reject:
    """(a, b) in float64, or why not."""
    moving = [v for v in parts if v.constant is None]
    if moving:
        return Reject("its statistics or scale are not constant", *moving)
    scale, bias, mean, variance = (np.asarray(v.constant, np.float64) for v in parts)
    if np.any(variance + epsilon <= 0):
        return Reject("a variance plus epsilon is not positive", parts[3])
    factor = scale / np.sqrt(variance + epsilon)
    return factor, bias - mean * factor


def _constant(graph: Graph, data: np.ndarray, like: Value) -> Value:
    assert isinstance(like.type, TensorType)
    return graph.constant(data.astype(like.type.dtype.numpy))


def _not_constant(*values: Value | None) -> Reject | None:
    moving = [v for v in values if v is not None and v.constant is None]
    return Reject("its weight or bias is not constant", *moving) if moving else None


@rule(exactness=Exactness.REASSOCIATING)
def into_conv(x: Any, w: Any, c: Any, s: Any, b: Any, m: Any, v: Any, e: Any, node: Any) -> Any:
    """bn(conv(x, w, c))  ->  conv(x, a w, a c + b)."""

    def build(
        graph: Graph, x: Value, w: Value, c: Value | None, s: Value, b: Value, m: Value, v: Value, e: float, node: Node
    ) -> Value | Reject:
        affine = _not_constant(w, c) or _affine((s, b, m, v), e)
        if isinstance(affine, Reject):
            return affine
        factor, shift = affine
        weight = np.asarray(w.constant, np.float64)
        weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        bias = shift if c is None else np.asarray(c.constant, np.float64) * factor + shift
        return graph.add("conv", x, _constant(graph, weight, w), _constant(graph, bias, w), **attributes(node))

    return op.batch_normalization(op.conv(x, w, optional(c)).named(node), s, b, m, v, epsilon=e), build


@rule(exactness=Exactness.REASSOCIATING)
def into_conv_transpose(x: Any, w: Any, c: Any, s: Any, b: Any, m: Any, v: Any, e: Any, node: Any) -> Any:
    """bn(conv_transpose(x, w, c)): as for conv; output channels are the second axis of w, in each group."""

    def build(
        graph: Graph, x: Value, w: Value, c: Value | None, s: Value, b: Value, m: Value, v: Value, e: float, node: Node
    ) -> Value | Reject:
        affine = _not_constant(w, c) or _affine((s, b, m, v), e)
        if isinstance(affine, Reject):
            return affine
        factor, shift = affine
        weight = np.asarray(w.constant, np.float64)
        group = node.attrs.group
        parts = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        weight = (parts * factor.reshape(group, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
        bias = shift if c is None else np.asarray(c.constant, np.float64) * factor + shift
        made = (_constant(graph, weight, w), _constant(graph, bias, w))
        return graph.add("conv_transpose", x, *made, **attributes(node))

    return op.batch_normalization(op.conv_transpose(x, w, optional(c)).named(node), s, b, m, v, epsilon=e), build


@rule(exactness=Exactness.REASSOCIATING)
def into_gemm(x: Any, w: Any, c: Any, s: Any, b: Any, m: Any, v: Any, e: Any, node: Any) -> Any:
    """bn(gemm(x, w, c))  ->  gemm(x, w a, beta a c + b)."""

    def build(
        graph: Graph, x: Value, w: Value, c: Value | None, s: Value, b: Value, m: Value, v: Value, e: float, node: Node
    ) -> Value | Reject:
        affine = _not_constant(w, c) or _affine((s, b, m, v), e)
        if isinstance(affine, Reject):
            return affine
        factor, shift = affine
        weight = np.asarray(w.constant, np.float64) * (factor[:, None] if node.attrs.transB else factor)
        old = 0.0 if c is None else np.asarray(c.constant, np.float64) * node.attrs.beta
        changed = {**attributes(node), "beta": 1.0}
        made = (_constant(graph, weight, w), _constant(graph, old * factor + shift, w))
        return graph.add("gemm", x, *made, **changed)

    return op.batch_normalization(op.gemm(x, w, optional(c)).named(node), s, b, m, v, epsilon=e), build


@rule(exactness=Exactness.REASSOCIATING)
def standalone(x: Any, s: Any, b: Any, m: Any, v: Any, e: Any) -> Any:
    """bn(x)  ->  x * a + b."""

    def build(graph: Graph, x: Value, s: Value, b: Value, m: Value, v: Value, e: float) -> Value | Reject:
        affine = _affine((s, b, m, v), e)
        if isinstance(affine, Reject):
            return affine
        if not isinstance(x.type, TensorType) or x.type.rank is None or x.type.rank < 2:
            return Reject("the rank of its operand is not known", x)
        shape = (-1, *[1] * (x.type.rank - 2))
        factor, shift = (_constant(graph, part.reshape(shape), x) for part in affine)
        return graph.add("add", graph.add("mul", x, factor), shift)

    return op.batch_normalization(x, s, b, m, v, epsilon=e), build


RULES = (into_conv, into_conv_transpose, into_gemm, standalone)
