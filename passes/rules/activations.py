"""Activations that exporters write out.

gelu:         x/2 * (1 + erf(x / sqrt 2)), in every order of the factors;
              with tanh: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
swish:        x * sigmoid(alpha x),  x / (1 + exp(-x))
hard_sigmoid: clip(x + 3, 0, 6) / 6;     hard_swish: x * hard_sigmoid(x)
mish:         x * tanh(softplus(x)),  softplus: log(1 + exp(x))
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, approx, op
from fusible.passes.rewrite import Reject, rule

__all__ = ["RULES"]


def _half_times(x: Any, factor: Any) -> Any:
    """0.5 * x * factor in any order."""
    return any_of(
        op.mul(op.mul(x, factor), 0.5),
        op.mul(op.mul(x, 0.5), factor),
        op.mul(x, op.mul(factor, 0.5)),
        op.div(op.mul(x, factor), 2.0),
        op.mul(op.div(x, 2.0), factor),
    )


@rule(exactness=Exactness.REASSOCIATING)
def gelu_erf(x: Any) -> Any:
    """0.5 * x * (1 + erf(x / sqrt(2)))  ->  gelu(x)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("gelu", x, approximate="none")

    scaled = any_of(op.div(x, approx(sqrt(2), 1e-4)), op.mul(x, approx(1 / sqrt(2), 1e-4)))
    return _half_times(x, op.add(op.erf(scaled), 1.0)), build


@rule(exactness=Exactness.REASSOCIATING)
def gelu_tanh(x: Any) -> Any:
    """0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3)))  ->  gelu(x, tanh)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("gelu", x, approximate="tanh")

    cube = any_of(op.pow(x, 3), op.mul(op.mul(x, x), x))
    k, c = approx(sqrt(2 / pi), 1e-4), approx(0.044715, 1e-4)
    scaled_cube = any_of(op.mul(cube, c), op.mul(op.mul(op.mul(x, c), x), x), op.mul(op.mul(op.mul(x, x), c), x))
    plain = op.mul(op.add(x, scaled_cube), k)
    inner = op.add(any_of(op.mul(op.mul(x, c), x), op.mul(op.mul(x, x), c)), 1.0)
    fast = any_of(op.mul(op.mul(x, k), inner), op.mul(x, op.mul(inner, k)), op.mul(op.mul(x, inner), k))
    return _half_times(x, op.add(op.tanh(any_of(plain, fast)), 1.0)), build


@rule(exactness=Exactness.REASSOCIATING)
def swish(x: Any) -> Any:
    """x * sigmoid(x)  ->  swish(x),  x / (1 + exp(-x))  ->  swish(x)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("swish", x, alpha=1.0)

    return any_of(op.mul(x, op.sigmoid(x)), op.div(x, op.add(op.exp(op.neg(x)), 1.0))), build


@rule(exactness=Exactness.REASSOCIATING)
def scaled_swish(x: Any, alpha: Any) -> Any:
    """x * sigmoid(alpha * x)  ->  swish(x, alpha)."""

    def build(graph: Graph, x: Value, alpha: Value) -> Value | Reject:
        if alpha.constant is None or alpha.constant.size != 1:
            return Reject("alpha is no constant of one element", alpha)
        return graph.add("swish", x, alpha=float(alpha.constant.array.reshape(())))

    return op.mul(x, op.sigmoid(op.mul(x, alpha))), build


@rule(exactness=Exactness.REASSOCIATING)
def hard_sigmoid(x: Any) -> Any:
    """clip(x + 3, 0, 6) / 6  ->  hard_sigmoid(x, 1/6, 1/2)."""

    def build(graph: Graph, x: Value) -> Value | Reject:
        if not (isinstance(x.type, TensorType) and x.type.dtype.is_float):
            return Reject("its operand is no float", x)
        return graph.add("hard_sigmoid", x, alpha=1 / 6, beta=0.5)

    shifted = op.add(x, 3.0)
    bounded = any_of(op.clip(shifted, 0.0, 6.0), op.min(op.relu(shifted), 6.0), op.clip(op.relu(shifted), None, 6.0))
    return any_of(op.div(bounded, 6.0), op.mul(bounded, approx(1 / 6, 1e-4))), build


@rule(exactness=Exactness.REASSOCIATING)
def hard_swish(x: Any) -> Any:
    """x * hard_sigmoid(x, 1/6, 1/2)  ->  hard_swish(x), also with the division outside."""

    def build(graph: Graph, x: Value) -> Value | Reject:
        if not (isinstance(x.type, TensorType) and x.type.dtype.is_float):
            return Reject("its operand is no float", x)
        return graph.add("hard_swish", x)

    shifted = op.add(x, 3.0)
    bounded = any_of(op.clip(shifted, 0.0, 6.0), op.min(op.relu(shifted), 6.0))
    sigmoid = op.hard_sigmoid(x, alpha=lambda a: abs(a - 1 / 6) < 1e-4, beta=0.5)
    whole = op.mul(x, bounded)
    return any_of(op.mul(x, sigmoid), op.div(whole, 6.0), op.mul(whole, approx(1 / 6, 1e-4))), build


@rule(exactness=Exactness.REASSOCIATING)
def mish(x: Any) -> Any:
    """x * tanh(softplus(x))  ->  mish(x)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("mish", x)

    softplus = any_of(op.softplus(x), op.log(op.add(op.exp(x), 1.0)))
    return op.mul(x, op.tanh(softplus)), build


RULES = (gelu_erf, gelu_tanh, swish, scaled_swish, hard_sigmoid, hard_swish, mish)
