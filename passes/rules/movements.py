"""Merge what moves elements twice.

transpose(transpose(x, p), q)  ->  transpose(x, p[q]), or x;   reshape(reshape(x))  ->  reshape(x);
squeeze, unsqueeze, flatten  ->  reshape, where the shape of the result is known;
cast(cast(x, a), b)  ->  cast(x, b), or x, where a holds every value of x's type.
The inner node may have other users: it then stays for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, op
from fusible.passes.rewrite import Reject, rule

__all__ = ["CASTS", "RESHAPES", "TRANSPOSES", "widens"]


@rule(exactness=Exactness.EXACT)
def merge_transposes(x: Any, p: Any, q: Any) -> Any:
    """transpose(transpose(x, p), q)  ->  transpose(x, [p[i] for i in q])."""

    def build(graph: Graph, x: Value, p: Sequence[int] | None, q: Sequence[int] | None) -> Value | Reject:
        rank = x.type.rank if isinstance(x.type, TensorType) else None
        if rank is None:
            return Reject("the rank of its operand is not known", x)
        first = tuple(p) if p is not None else tuple(range(rank))[::-1]
        second = tuple(q) if q is not None else tuple(range(rank))[::-1]
        merged = tuple(first[i] for i in second)
        return x if merged == tuple(range(rank)) else graph.add("transpose", x, perm=merged)

    return op.transpose(op.transpose(x, perm=p).shared(), perm=q), build


@rule(exactness=Exactness.EXACT)
def view_as_reshape(x: Any, node: Any) -> Any:
    """squeeze, unsqueeze, flatten  ->  reshape to the shape of the result."""

    def build(graph: Graph, x: Value, node: Node) -> Value | Reject:
        after = node.output.type
        known = isinstance(x.type, TensorType) and x.type.shape is not None
        if not isinstance(after, TensorType) or after.shape is None or not known or node.defines:
            return Reject("the shape of its result is not known", x)
        return graph.add("reshape", x, shape=after.shape)

    return any_of(op.squeeze(x).named(node), op.unsqueeze(x).named(node), op.flatten(x).named(node)), build


@rule(exactness=Exactness.EXACT)
def merge_reshapes(x: Any, shape: Any) -> Any:
    """reshape(reshape(x), shape)  ->  reshape(x, shape)."""

    def build(graph: Graph, x: Value, shape: Any) -> Value:
        known = isinstance(x.type, TensorType) and x.type.shape == shape
        return x if known else graph.add("reshape", x, shape=shape)

    return op.reshape(op.reshape(x).shared(), shape=shape), build


@rule(exactness=Exactness.EXACT)
def merge_casts(x: Any, middle: Any, last: Any, saturate: Any, mode: Any) -> Any:
    """cast(cast(x, wider), dtype)  ->  cast(x, dtype), or x."""

    def build(graph: Graph, x: Value, middle: DType, last: DType, saturate: bool, mode: str) -> Value | Reject:
        first = x.type.dtype if isinstance(x.type, TensorType) else DType.STRING
        if not widens(first, middle):
            return Reject(f"{middle.value} does not hold every {first.value}", x)
        if first is last:
            return x
        return graph.add("cast", x, dtype=last, saturate=saturate, round_mode=mode)

    inner = op.cast(x, dtype=middle).shared()
    return op.cast(inner, dtype=last, saturate=saturate, round_mode=mode), build


_INTEGER_BITS = {
    DType.I8: (True, 8), DType.I16: (True, 16), DType.I32: (True, 32), DType.I64: (True, 64),
    DType.U8: (False, 8), DType.U16: (False, 16), DType.U32: (False, 32), DType.U64: (False, 64),
}  # fmt: skip
_MANTISSA = {DType.F16: 11, DType.BF16: 8, DType.F32: 24, DType.F64: 53}
_FLOATS = {
    DType.F16: (DType.F32, DType.F64),
    DType.BF16: (DType.F32, DType.F64),
    DType.F32: (DType.F64,),
}


def widens(narrow: DType, wide: DType) -> bool:
    """True if every value of the first type is a value of the second."""
    if narrow is wide or (narrow is DType.BOOL and (wide in _INTEGER_BITS or wide in _MANTISSA)):
        return True
    if narrow in _FLOATS:
        return wide in _FLOATS[narrow]
    if narrow not in _INTEGER_BITS:
        return False
    signed, bits = _INTEGER_BITS[narrow]
    if wide in _MANTISSA:
        return bits <= _MANTISSA[wide] and wide is not DType.BF16
    if wide not in _INTEGER_BITS:
        return False
    wide_signed, wide_bits = _INTEGER_BITS[wide]
    return wide_bits > bits if wide_signed or not signed else False


TRANSPOSES = (merge_transposes,)
RESHAPES = (view_as_reshape, merge_reshapes)
CASTS = (merge_casts,)
