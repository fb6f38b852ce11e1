"""Put back together activations that exporters write out:

x * sigmoid(x),  x * sigmoid(a * x)                         ->  swish(x)
x * hard_sigmoid(x, 1/6, 1/2),  x * clip(x + 3, 0, 6) / 6   ->  hard_swish(x)
x * tanh(softplus(x))                                       ->  mish(x)
0.5 * x * (1 + erf(x / sqrt 2))                             ->  gelu(x)
0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))   ->  gelu(x, approximate="tanh")

The factors of each product stand in any order and grouping that exporters use.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from fusible.compiler.ir.graph import Graph, Value
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, approx, op
from fusible.passes.rewrite import Reject, rule

__all__ = ["RULES"]

_ROOT = sqrt(2.0)
_TOLERANCE = 1e-3  # how exactly exporters write irrational constants


@rule(exactness=Exactness.REASSOCIATING)
def compose_swish(x: Any) -> Any:
    """x * sigmoid(x)  ->  swish(x)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("swish", x, alpha=1.0)

    return op.mul(x, op.sigmoid(x)), build


@rule(exactness=Exactness.REASSOCIATING)
def compose_scaled_swish(x: Any, a: Any) -> Any:
    """x * sigmoid(a * x)  ->  swish(x) with alpha = a."""

    def build(graph: Graph, x: Value, a: Value) -> Value | Reject:
        if a.constant is None or a.constant.size != 1:
            return Reject("what x is multiplied by is not a constant number", a)
        return graph.add("swish", x, alpha=float(a.constant.array.reshape(())))

    return op.mul(x, op.sigmoid(op.mul(x, a))), build


@rule(exactness=Exactness.REASSOCIATING)
def compose_hard_swish(x: Any) -> Any:
    """x * hard_sigmoid(x, 1/6, 1/2)  ->  hard_swish(x), also with the gate written out."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("hard_swish", x)

    relu6 = op.clip(op.add(x, 3.0), 0.0, 6.0)
    gate = any_of(
        op.hard_sigmoid(x, alpha=lambda a: abs(a - 1 / 6) < 1e-4, beta=0.5),
        op.div(relu6, 6.0),
        op.mul(relu6, approx(1 / 6, rtol=_TOLERANCE)),
    )
    product = op.mul(x, relu6)
    whole = any_of(op.mul(x, gate), op.div(product, 6.0), op.mul(product, approx(1 / 6, rtol=_TOLERANCE)))
    return whole, build


@rule(exactness=Exactness.REASSOCIATING)
def compose_mish(x: Any) -> Any:
    """x * tanh(softplus(x))  ->  mish(x)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("mish", x)

    return op.mul(x, op.tanh(op.softplus(x))), build


def _halved(x: Any, gate: Any) -> Any:
    """0.5 * x * gate in each grouping; halving is also written as a division by 2."""
    return any_of(
        op.mul(op.mul(x, 0.5), gate),
        op.mul(op.mul(x, gate), 0.5),
        op.mul(x, op.mul(gate, 0.5)),
        op.mul(op.div(x, 2.0), gate),
        op.div(op.mul(x, gate), 2.0),
    )


@rule(exactness=Exactness.REASSOCIATING)
def compose_gelu(x: Any) -> Any:
    """0.5 * x * (1 + erf(x / sqrt 2))  ->  gelu(x)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("gelu", x, approximate="none")

    scaled = any_of(op.div(x, approx(_ROOT, rtol=_TOLERANCE)), op.mul(x, approx(1 / _ROOT, rtol=_TOLERANCE)))
    return _halved(x, op.add(op.erf(scaled), 1.0)), build


@rule(exactness=Exactness.REASSOCIATING)
def compose_gelu_tanh(x: Any) -> Any:
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))  ->  gelu(x, approximate="tanh")."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("gelu", x, approximate="tanh")

    square = any_of(op.pow(x, 2.0), op.mul(x, x))
    cube = any_of(op.pow(x, 3.0), op.mul(square, x))
    small = approx(0.044715, rtol=_TOLERANCE)
    inner = any_of(
        op.add(x, op.mul(cube, small)),
        op.add(x, op.mul(op.mul(x, small), square)),
        op.add(x, op.mul(op.mul(op.mul(x, small), x), x)),
        op.mul(x, op.add(op.mul(square, small), 1.0)),
    )
    return _halved(x, op.add(op.tanh(op.mul(inner, approx(sqrt(2 / pi), rtol=_TOLERANCE))), 1.0)), build


RULES = (compose_swish, compose_scaled_swish, compose_hard_swish, compose_mish, compose_gelu, compose_gelu_tanh)
