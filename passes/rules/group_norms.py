"""Norms over groups of channels:

reshape(instance_normalization(reshape(x)))  ->  group_normalization(x)
group_normalization(x)                       ->  means by channel, then by group, and one step for each element

The first is how exporters write it. The second: loops over channels share nothing with loops over groups, so one nest
would sum a whole group for each element of it. With n elements a channel, m its mean and v its variance, a group has
the mean M of its m, and the variance mean(v) + mean((m - M)^2) (Chan, Golub and LeVeque, "Updating formulae and a
pairwise algorithm for computing sample variances", 1979). Images whose channels are adjacent are summed in vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.composition import converted, scalar, widened
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op
from fusible.passes.rewrite import Reject, rule

__all__ = ["grouped_instances", "means_by_channel"]


def _shape(value: Value) -> tuple[Dim, ...]:
    assert isinstance(value.type, TensorType)
    return value.type.shape or ()


@rule(exactness=Exactness.EXACT)
def grouped_instances(x: Any, s: Any, b: Any, a: Any, n: Any, c: Any) -> Any:
    """reshape(instance_normalization(reshape(x [N, C, ...]) [N, G, L]))  ->  group_normalization(x), G groups."""

    def build(graph: Graph, x: Value, s: Value, b: Value, a: Node, n: Node, c: Node) -> Value | Reject:
        whole, grouped = _shape(x), _shape(a.output)
        if s.constant is None or b.constant is None:
            return Reject("its scale or its bias is not constant", s)
        if len(whole) < 3 or len(grouped) < 3 or whole[0] != grouped[0] or _shape(c.output) != whole:
            return Reject("it is not a tensor by groups of its channels, and back", a)
        channels, groups = whole[1], grouped[1]
        if not isinstance(channels, int) or not isinstance(groups, int) or groups == 0 or channels % groups:
            return Reject("the groups do not divide the channels, or their number is not known", a)
        if x.type.dtype is not n.output.type.dtype:  # type: ignore[union-attr]
            return Reject("types change on the way", x)
        parameters = [graph.constant(np.repeat(p.constant.array, channels // groups)) for p in (s, b) if p.constant]
        return graph.add("group_normalization", x, *parameters, num_groups=groups, epsilon=n.attrs.epsilon)

    return op.reshape(op.instance_normalization(op.reshape(x).named(a), s, b).named(n)).named(c), build


@rule(exactness=Exactness.REASSOCIATING)
def means_by_channel(x: Any, s: Any, b: Any, n: Any) -> Any:
    """group_normalization(x)  ->  (x - mean) * scale + bias, all by channel; instances if a group has one channel."""

    def build(graph: Graph, x: Value, s: Value, b: Value, n: Node) -> Value | Reject:
        shape, groups = _shape(x), n.attrs.num_groups
        if len(shape) < 3 or not isinstance(shape[1], int) or shape[1] == 0:
            return Reject("it has no channels, or their number is not known", x)
        if groups == shape[1]:
            return graph.add("instance_normalization", x, s, b, epsilon=n.attrs.epsilon)
        return _by_channel(graph, (x, s, b), groups, n)

    return op.group_normalization(x, s, b).named(n), build


def _by_channel(graph: Graph, operands: tuple[Value, Value, Value], groups: int, norm: Node) -> Value:
    x, scale, bias = (widened(graph, v) for v in operands)
    shape = _shape(x)
    axes = tuple(range(2, len(shape)))
    mean = graph.add("reduce_mean", x, axes=axes, keepdims=True)
    apart = graph.add("sub", x, mean)
    variance = graph.add("reduce_mean", graph.add("mul", apart, apart), axes=axes, keepdims=True)
    together, deviation = _by_group(graph, mean, variance, groups, norm.attrs.epsilon)
    by_channel = (shape[1],) + (1,) * len(axes)
    factor = graph.add("mul", deviation, graph.add("reshape", scale, shape=by_channel))
    scaled = graph.add("mul", graph.add("sub", x, together), factor)
    result = graph.add("add", scaled, graph.add("reshape", bias, shape=by_channel))
    dtype = norm.output.type.dtype  # type: ignore[union-attr]
    return converted(graph, result, dtype)


def _by_group(graph: Graph, mean: Value, variance: Value, groups: int, epsilon: float) -> tuple[Value, Value]:
    """The mean of its group and 1 / sqrt(the group's variance + epsilon) for each channel [N, C, 1...]."""
    images, channels = _shape(mean)[0], _shape(mean)[1]
    assert isinstance(channels, int)
    shape = (images, groups, channels // groups)
    means, variances = (graph.add("reshape", v, shape=shape) for v in (mean, variance))
    middle = graph.add("reduce_mean", means, axes=(2,), keepdims=True)
    apart = graph.add("sub", means, middle)
    spread = graph.add("add", variances, graph.add("mul", apart, apart))
    whole = graph.add("reduce_mean", spread, axes=(2,), keepdims=True)
    root = graph.add("sqrt", graph.add("add", whole, scalar(graph, whole, epsilon)))
    found = [graph.add("expand", v, shape=shape) for v in (middle, graph.add("reciprocal", root))]
    one, other = (graph.add("reshape", v, shape=_shape(mean)) for v in found)
    return one, other
