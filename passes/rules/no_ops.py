"""Ops that return their operand as it is.

identity(x), cast(x) to its own type, concat(x) alone, reshape and expand to the shape it has, transpose that moves
nothing, pad by nothing, tile once, a slice of everything  ->  x.
"""

from __future__ import annotations

from typing import Any

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import bounds_of
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, op
from fusible.passes.rewrite import Reject, rule

__all__ = ["RULES"]


@rule(exactness=Exactness.EXACT)
def identity(x: Any) -> Any:
    """identity(x)  ->  x,  concat(x)  ->  x."""

    def build(graph: Graph, x: Value) -> Value:
        return x

    return any_of(op.identity(x), op.concat(x)), build


@rule(exactness=Exactness.EXACT)
def same_type(x: Any, node: Any) -> Any:
    """An op that only changes the type of x, to the type that it has."""

    def build(graph: Graph, x: Value, node: Node) -> Value | Reject:
        before, after = x.type, node.output.type
        if not isinstance(before, TensorType) or before.shape is None or before != after:
            return Reject(f"it makes {after} of {before}", x)
        return x

    views = (op.cast(x), op.reshape(x), op.expand(x), op.squeeze(x), op.unsqueeze(x), op.flatten(x))
    return any_of(*(view.named(node) for view in views)), build


@rule(exactness=Exactness.EXACT)
def unmoved(x: Any) -> Any:
    """transpose(x, perm=(0, 1, ...)), pad by 0, tile by 1  ->  x."""

    def build(graph: Graph, x: Value) -> Value:
        return x

    return any_of(
        op.transpose(x, perm=lambda p: p is not None and tuple(p) == tuple(range(len(p)))),
        op.pad(x, ..., pads=lambda pads: all(p == 0 for p in pads)),
        op.tile(x, repeats=lambda repeats: all(r == 1 for r in repeats)),
    ), build


@rule(exactness=Exactness.EXACT)
def whole_slice(x: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
    """slice(x) from 0 to the end of each axis in steps of 1  ->  x."""

    def build(graph: Graph, x: Value, starts: Any, ends: Any, axes: Any, steps: Any) -> Value | Reject:
        if not isinstance(x.type, TensorType) or x.type.shape is None:
            return Reject("the rank of its operand is not known", x)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            low = bounds_of(end - x.type.shape[axis])[0]
            if start != 0 or step != 1 or low is None or low < 0:
                return Reject(f"it takes a part of axis {axis}", x)
        return x

    return op.slice(x, starts=starts, ends=ends, axes=axes, steps=steps), build


RULES = (identity, same_type, unmoved, whole_slice)
