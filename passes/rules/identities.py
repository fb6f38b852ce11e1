"""Arithmetic that changes nothing:  x * 1, x / 1, x - 0, x + 0, x ** 1, -(-x), not not x  ->  x;  x ** 2  ->  x * x.

x + 0.0 turns -0.0 into 0.0, so dropping it is not bit-equal; x - 0.0 and x + -0.0 are. A constant that widens the
shape keeps the node.
"""

from __future__ import annotations

from typing import Any

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, op
from fusible.passes.rewrite import Reject, rule

__all__ = ["RULES"]


@rule(exactness=Exactness.EXACT)
def unchanged(x: Any) -> Any:
    """x * 1, x / 1, x - 0, x + -0.0, x ** 1  ->  x."""

    def build(graph: Graph, x: Value) -> Value:
        return x

    return any_of(op.mul(x, 1), op.div(x, 1), op.sub(x, 0), op.add(x, -0.0), op.pow(x, 1)), build


@rule(exactness=Exactness.EXACT)
def add_integer_zero(x: Any) -> Any:
    """x + 0  ->  x for integers."""

    def build(graph: Graph, x: Value) -> Value | Reject:
        if not (isinstance(x.type, TensorType) and x.type.dtype.is_integer):
            return Reject("x + 0.0 changes -0.0 to 0.0", x)
        return x

    return op.add(x, 0), build


@rule(exactness=Exactness.REASSOCIATING)
def add_zero(x: Any) -> Any:
    """x + 0.0  ->  x; the sign of a zero may change."""

    def build(graph: Graph, x: Value) -> Value:
        return x

    return op.add(x, 0.0), build


@rule(exactness=Exactness.REASSOCIATING)
def add_zeros(x: Any, zeros: Any) -> Any:
    """x + 0.0  ->  x for a constant of many elements, as masks of attention are that mask nothing."""

    def build(graph: Graph, x: Value, zeros: Value) -> Value | Reject:
        if zeros.constant is None:  # either may stand first
            x, zeros = zeros, x
        if not isinstance(x.type, TensorType) or x.type.shape is None or not x.type.dtype.is_float:
            return Reject("it is no float of known rank", x)
        if zeros.constant is None or zeros.constant.size < 2:
            return Reject("what is added is no constant of many elements", zeros)
        if zeros.constant.array.reshape(-1)[0] != 0 or zeros.constant.array.any():
            return Reject("the constant is not zero everywhere", zeros)
        shape, rank = zeros.constant.shape, len(x.type.shape)
        if len(shape) > rank or any(n not in (1, d) for n, d in zip(shape[::-1], x.type.shape[::-1], strict=False)):
            return Reject("the constant widens the shape", zeros)
        return x

    return op.add(x, zeros), build


@rule(exactness=Exactness.EXACT)
def twice(x: Any) -> Any:
    """-(-x)  ->  x,  not not x  ->  x."""

    def build(graph: Graph, x: Value) -> Value:
        return x

    return any_of(op.neg(op.neg(x).shared()), op.not_(op.not_(x).shared())), build


@rule(exactness=Exactness.EXACT)
def relu_twice(x: Any) -> Any:
    """relu(relu(x))  ->  relu(x)."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("relu", x)

    return op.relu(op.relu(x).shared()), build


@rule(exactness=Exactness.REASSOCIATING)
def square(x: Any) -> Any:
    """x ** 2  ->  x * x."""

    def build(graph: Graph, x: Value) -> Value:
        return graph.add("mul", x, x)

    return op.pow(x, 2), build


RULES = (unchanged, add_integer_zero, add_zero, add_zeros, twice, relu_twice, square)
