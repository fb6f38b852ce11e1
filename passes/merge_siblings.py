"""Compute the queries, keys and values of attention by one product:  x @ q, x @ k, x @ v  ->  slices of x @ [q k v].

The operand is packed once and the larger product is shared out among threads more evenly; attention reads its slices
where they lie. Only products whose results reach products of two computed matrices through views and scales are merged:
any other reader would have to copy its slice. Kernels that read slices in place whatever they compute (Triton's) let
element-wise nodes and concatenations stand between, as rotary embedding and a cache of keys do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.definition import Contraction, View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import graphs_outside_groups, is_pointwise, is_scale
from fusible.passes.ledger import Cost, Entry, Kind
from fusible.passes.packed_weights import READS_PACKED, PackedMatrix, joined, packed_matrix

__all__ = ["MergeSiblings"]


@dataclass(frozen=True)
class _Plain:
    """A weight that is a constant, [K, N], or where `across` [N, K]."""

    constant: Constant
    across: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """K, N."""
        return self.constant.shape[::-1] if self.across else self.constant.shape

    def content(self) -> np.ndarray:
        """The elements, [K, N], which are read now."""
        return self.constant.content.T if self.across else self.constant.content


@dataclass(frozen=True)
class _Linear:
    """x @ weight + bias: the product, the node that gives the result, weight [K, N] and bias [N] in one float type."""

    product: Node
    last: Node
    weight: _Plain | PackedMatrix
    bias: np.ndarray | None

    @property
    def columns(self) -> int:
        """N."""
        return int((self.weight.codes if isinstance(self.weight, PackedMatrix) else self.weight).shape[1])

    @property
    def kind(self) -> tuple[object, ...]:
        """What products have alike that can be one: how their weights are stored."""
        return self.weight.kind if isinstance(self.weight, PackedMatrix) else ()


class MergeSiblings(GraphPass):
    """The pass `merge-sibling-products`, for targets whose attention reads slices in place."""

    name = "merge-sibling-products"
    exactness = Exactness.REASSOCIATING

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Merge the products of each operand."""
        anywhere = bool(context.target.get(READS_PACKED))
        found: dict[tuple[Value, tuple[object, ...]], list[_Linear]] = {}
        for node in graph:
            linear = _linear(node)
            if linear is not None and node.inputs[0] is not None:
                found.setdefault((node.inputs[0], linear.kind), []).append(linear)
        done = 0
        for (operand, _), linears in found.items():
            merged = [linear for linear in linears if _feeds_attention(linear.last.output, graph, anywhere)]
            if len(linears) > 1 and len(merged) < len(linears):
                self._refuse(context, [linear for linear in linears if linear not in merged])
            if len(merged) > 1 and context.take():
                self._merge(graph, operand, merged, context)
                done += 1
        return done

    def _refuse(self, context: PassContext, linears: Sequence[_Linear]) -> None:
        nodes = tuple(dict.fromkeys(o for linear in linears for o in linear.last.origin))
        reason = "its operand has other products, but its result is read by more than views, scales and attention"
        context.ledger.add(Entry(Kind.REFUSED, self.name, "", nodes, reason, cost=Cost(0, len(linears))))

    def _merge(self, graph: Graph, operand: Value, linears: Sequence[_Linear], context: PassContext) -> None:
        origin = tuple(dict.fromkeys(o for linear in linears for o in (*linear.product.origin, *linear.last.origin)))
        with graph.inserting_before(linears[0].product, origin):
            whole = graph.add("matmul", operand, _side_by_side(graph, [linear.weight for linear in linears]))
            if any(linear.bias is not None for linear in linears):
                whole = graph.add("add", whole, graph.constant(np.concatenate([_bias(linear) for linear in linears])))
            pieces = _pieces(graph, whole, [linear.columns for linear in linears])
        for linear, piece in zip(linears, pieces, strict=True):
            graph.replace(linear.last, piece)
            if linear.product is not linear.last:
                graph.erase(linear.product)
        saved = Cost(0, len(linears) - 1)
        reason = f"{len(linears)} products of one operand are one"
        context.ledger.add(Entry(Kind.FUSED, self.name, "", origin, reason, saved=saved))


def _side_by_side(graph: Graph, weights: Sequence[_Plain | PackedMatrix]) -> Value:
    """One weight of several, all packed or none."""
    packed = [w for w in weights if isinstance(w, PackedMatrix)]
    if packed:
        return joined(graph, packed)
    return graph.constant(np.concatenate([w.content() for w in weights if isinstance(w, _Plain)], axis=1))


def _bias(linear: _Linear) -> np.ndarray:
    type_ = linear.last.output.type
    assert isinstance(type_, TensorType)
    return np.zeros(linear.columns, type_.dtype.numpy) if linear.bias is None else linear.bias


def _pieces(graph: Graph, whole: Value, sizes: Sequence[int]) -> list[Value]:
    assert isinstance(whole.type, TensorType) and whole.type.shape is not None
    axis, start, made = len(whole.type.shape) - 1, 0, []
    for size in sizes:
        made.append(graph.add("slice", whole, starts=(start,), ends=(start + size,), axes=(axis,), steps=(1,)))
        start += size
    return made


def _linear(node: Node) -> _Linear | None:
    """The product with constants that a node begins, in floats of 32 or 16 bits, or None."""
    if node.op.name not in ("matmul", "gemm") or node.inputs[1] is None:
        return None
    type_, known = node.output.type, node.inputs[1].constant
    if not isinstance(type_, TensorType) or type_.shape is None or len(type_.shape) < 2:
        return None
    if type_.dtype not in (DType.F32, DType.F16, DType.BF16):
        return None
    weight: _Plain | PackedMatrix | None = packed_matrix(node.inputs[1]) if known is None else None
    if known is not None and len(known.shape) == 2:
        weight = _Plain(known)
    if weight is None:
        return None
    if node.op.name == "gemm":
        return None if isinstance(weight, PackedMatrix) else _gemm(node, weight)
    users, plain = node.output.users, _Linear(node, node, weight, None)
    if len(node.output.uses) == 1 and users[0].op.name == "add" and users[0].graph is node.graph:
        others = [v for v in users[0].inputs if v is not node.output]
        bias = _row(others[0] if others else None, plain.columns, type_.dtype)
        if bias is not None:
            return _Linear(node, users[0], weight, bias)
    return plain


def _gemm(node: Node, weight: _Plain) -> _Linear | None:
    attrs = node.attrs
    if attrs.alpha != 1 or attrs.transA:
        return None
    weight = replace(weight, across=bool(attrs.transB))
    third = node.inputs[2] if len(node.inputs) > 2 else None
    if third is None:
        return _Linear(node, node, weight, None)
    assert isinstance(node.output.type, TensorType)
    bias = _row(third, weight.shape[1], node.output.type.dtype)
    return _Linear(node, node, weight, bias) if bias is not None and attrs.beta == 1 else None


def _row(value: Value | None, size: int, dtype: DType) -> np.ndarray | None:
    """A constant of one number a column, [size]."""
    if value is None or value.constant is None or value.constant.dtype != dtype.numpy:
        return None
    shape = value.constant.shape
    if not shape or shape[-1] != size or any(d != 1 for d in shape[:-1]) or len(shape) > 2:
        return None
    return value.constant.array.reshape(-1)


def _feeds_attention(value: Value, graph: Graph, anywhere: bool) -> bool:
    """True if views and scales lead from a value to products of computed matrices only.

    anywhere: element-wise nodes, concatenations and rotary embeddings may stand on the way, and results of the model be
    among what is reached: kernels read slices where they lie.
    """
    waiting, reached = [value], False
    seen: set[Value] = set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in graph.outputs and current is value:
            return False
        for user in current.users:
            if user.graph is not graph or len(user.outputs) != 1:
                return False
            definition = user.op.definition(user)
            if isinstance(definition, Contraction):
                if any(v is None or v.constant is not None for v in user.inputs[:2]):
                    return False
                reached = True
            elif _is_plain_view(user, definition) or is_scale(user) or (anywhere and _is_pointwise(user, definition)):
                waiting.append(user.output)
            elif anywhere and user.op.name == "attention":
                reached = True
            else:
                return False
    return reached


def _is_pointwise(node: Node, definition: object) -> bool:
    """True for what computes each element of its result from few of its operands', or joins values."""
    return isinstance(definition, View) or is_pointwise(node)


def _is_plain_view(node: Node, definition: object) -> bool:
    return isinstance(definition, View) and len(definition.maps) == 1 and not definition.maps[0].indirect
