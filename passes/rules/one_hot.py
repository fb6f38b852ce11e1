"""Products with rows of which one element is 1, and what follows them:

matmul(cast(i == 0 .. N - 1), w)   ->  gather(w and a row of zeros, i), an index outside 0 .. N - 1 gives the zeros
f(gather(t, i)), gather(t, i) + c  ->  gather(f(t), i), gather(t + c, i) where the table t is constant and not larger

The zeros stand behind the last row: min(i, N) finds them for large indices, and max(i, -1) for negative ones, because
gather counts those from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import product
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, op
from fusible.passes.rewrite import Reject, attributes, rule

__all__ = ["RULES"]

_UNARY = ("gelu", "relu", "sigmoid", "tanh", "swish", "neg", "exp", "sqrt")
_BINARY = ("add", "sub", "mul")


def _shape(value: Value) -> tuple[Any, ...] | None:
    return value.type.shape if isinstance(value.type, TensorType) else None


@rule(exactness=Exactness.REASSOCIATING)
def one_hot_product(i: Any, numbers: Any, w: Any, hot: Any) -> Any:
    """matmul(cast(i == 0 .. N - 1), w)  ->  gather(w and a row of zeros, i)."""

    def build(graph: Graph, i: Value, numbers: Value, w: Value, hot: Node) -> Value | Reject:
        shape, table = _shape(i), w.constant
        if numbers.constant is None or table is None or len(_shape(w) or ()) != 2:
            return Reject("what indices are compared with, or the table, is not constant", numbers, w)
        rows = table.array.shape[0]
        counted = numbers.constant.array
        if counted.shape[-1:] != (rows,) or counted.size != rows or (counted.reshape(-1) != np.arange(rows)).any():
            return Reject("indices are not compared with 0, 1, 2 ...", numbers)
        if shape is None or shape[-1:] != (1,) or len(shape) < counted.ndim:
            return Reject("indices do not stand alone in their rows", i)
        if not isinstance(i.type, TensorType) or i.type.dtype not in (DType.I32, DType.I64):
            return Reject("indices are not int32 or int64", i)
        if hot.output.type.dtype is not w.type.dtype or not np.isfinite(table.array).all():  # type: ignore[union-attr]
            return Reject("the table is not finite, or of another type", w)
        wide = np.concatenate([table.array, np.zeros_like(table.array[:1])])
        high, low = (graph.constant(np.asarray(n, i.type.dtype.numpy)) for n in (rows, -1))
        index = graph.add("reshape", i, shape=shape[:-1])
        index = graph.add("max", graph.add("min", index, high), low)
        return graph.add("gather", graph.constant(wide), index, axis=0)

    return op.matmul(op.cast(op.equal(i, numbers)).named(hot), w), build


def _known(value: Value | None) -> bool:
    """True for constants, and for what will be one: operands of other tables that this pass has made."""
    if value is None or value.constant is not None:
        return value is not None
    node = value.producer
    return node is not None and node.op.name in (*_UNARY, *_BINARY) and all(_known(v) for v in node.inputs)


def _rows(gathered: Node, result: Value) -> int | Reject:
    """The rank of a gather's table, if rows of a constant are read and it is not larger than the result."""
    table = gathered.inputs[0]
    shape = None if table is None else _shape(table)
    if table is None or shape is None or not _known(table) or gathered.attrs.axis != 0:
        return Reject("rows are not gathered from a constant", gathered)
    sizes = [product(s or ()) for s in (shape, _shape(result))]
    if not isinstance(sizes[0], int) or not isinstance(sizes[1], int) or sizes[0] > sizes[1]:
        return Reject("the table is larger than the result", table)
    return len(shape)


@rule(exactness=Exactness.EXACT)
def unary_before_gather(t: Any, i: Any, g: Any, f: Any) -> Any:
    """f(gather(t, i))  ->  gather(f(t), i)."""

    def build(graph: Graph, t: Value, i: Value, g: Node, f: Node) -> Value | Reject:
        rank = _rows(g, f.output)
        if isinstance(rank, Reject):
            return rank
        return graph.add("gather", graph.add(f.op.name, t, **attributes(f)), i, axis=0)

    gathered = op.gather(t, i).named(g)
    return any_of(*(op[name](gathered).named(f) for name in _UNARY)), build


@rule(exactness=Exactness.EXACT)
def constant_before_gather(t: Any, i: Any, c: Any, g: Any, f: Any) -> Any:
    """gather(t, i) + c  ->  gather(t + c, i), where c is the same for all indices."""

    def build(graph: Graph, t: Value, i: Value, c: Value, g: Node, f: Node) -> Value | Reject:
        rank = _rows(g, f.output)
        if isinstance(rank, Reject):
            return rank
        if c.constant is None:
            return Reject("the other operand is not constant", c)
        row, array = rank - 1, c.constant.array
        if any(d != 1 for d in array.shape[: max(array.ndim - row, 0)]) or f.output.type != g.output.type:
            return Reject("the constant differs from index to index", c)
        flat = graph.constant(array.reshape(array.shape[max(array.ndim - row, 0) :]))
        operands = (t, flat) if f.inputs[0] is g.output else (flat, t)
        return graph.add("gather", graph.add(f.op.name, *operands), i, axis=0)

    gathered = op.gather(t, i).named(g)
    sides = [(op[name](gathered, c), op[name](c, gathered)) for name in _BINARY]
    return any_of(*(side.named(f) for pair in sides for side in pair)), build


RULES = (one_hot_product, unary_before_gather, constant_before_gather)
