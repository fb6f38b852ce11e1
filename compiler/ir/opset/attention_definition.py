"""What attention and rotary_embedding compute, as graphs of simpler ops. Halves are computed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from fusible.compiler.ir.definition import Composite, Definition, Opaque
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim, floordiv
from fusible.compiler.ir.types import DType, Shape, TensorType

__all__ = ["attention_definition", "rotary_definition"]

_QUERY, _KEY, _VALUE, _MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = range(7)


def attention_definition(node: Node) -> Definition:
    """The definition of attention and its forms with more results."""
    attrs = node.attrs
    if any(_shape(node, i) is None for i in range(3)):
        return Opaque("the rank of an operand is not known")
    if _present(node, _LENGTHS):
        return Opaque("the keys that count differ from batch to batch")
    if attrs.softmax_precision not in (None, _dtype(node, 0), DType.F32) or _dtype(node, 0) is not _dtype(node, 2):
        return Opaque("it changes its precision on the way")
    if not isinstance(_heads(node, _QUERY), int) or not isinstance(_heads(node, _KEY), int):
        return Opaque("the numbers of heads are not known")
    if not isinstance(_depth(node, _QUERY), int):
        return Opaque("the size of a head is not known")
    mask = _shape(node, _MASK)
    if _present(node, _MASK) and (mask is None or mask[-1] != _total(node)):
        return Opaque("the mask may have fewer columns than there are keys")
    return Composite(_attention_graph)


def _attention_graph(node: Node) -> Graph:
    g, operands = _formal_graph(node)
    attrs, packed = node.attrs, len(_known(_shape(node, 0))) == 3
    q, k, v = (_split(g, node, i, operands[i]) for i in range(3))
    past_key, past_value = operands[_PAST_KEY], operands[_PAST_VALUE]
    if past_key is not None and past_value is not None:
        k, v = g.add("concat", past_key, k, axis=2), g.add("concat", past_value, v, axis=2)
    present = (k, v)
    q, k, v = (_widened(g, x) for x in (q, k, v))
    depth = _depth(node, _QUERY)
    assert isinstance(depth, int)
    scale = attrs.scale if attrs.scale is not None else 1 / sqrt(depth)
    scores = _grouped(g, g.add("mul", q, _like(g, q, scale)), g.add("transpose", k, perm=(0, 1, 3, 2)))
    stages = [scores]
    if attrs.softcap:
        cap = _like(g, scores, attrs.softcap)
        scores = g.add("mul", g.add("tanh", g.add("div", scores, cap)), cap)
    stages.append(scores)
    scores = _biased(g, node, scores, operands[_MASK])
    stages.append(scores)
    weights = _probabilities(g, scores)
    stages.append(weights)
    y = _grouped(g, weights, v)
    if packed:
        y = g.add("transpose", y, perm=(0, 2, 1, 3))
        y = g.add("reshape", y, shape=_known(node.outputs[0].type.shape))  # type: ignore[union-attr]
    results = [y, *present]
    if len(node.outputs) == 4:
        results.append(stages[attrs.qk_matmul_output_mode])
    kept = [_narrowed(g, r, o) for r, o in zip(results, node.outputs, strict=False)]
    g.set_outputs(kept, ["Y", "present_key", "present_value", "scores"][: len(kept)])
    return g


def _split(g: Graph, node: Node, index: int, x: Value | None) -> Value:
    """[B, length, heads * depth] as [B, heads, length, depth]; operands of rank 4 are."""
    assert x is not None
    shape = _known(_shape(node, index))
    if len(shape) == 4:
        return x
    heads = _heads(node, index)
    x = g.add("reshape", x, shape=(shape[0], shape[1], heads, floordiv(shape[2], heads)))
    return g.add("transpose", x, perm=(0, 2, 1, 3))


def _grouped(g: Graph, a: Value, b: Value) -> Value:
    """a [B, Hq, M, K] @ b [B, Hk, K, N]: the query heads of a group multiply one key head."""
    left, right = _type_shape(a), _type_shape(b)
    if left[1] == right[1]:
        return g.add("matmul", a, b)
    batch, heads, rows, inner = left
    group = floordiv(heads, right[1])
    a = g.add("reshape", a, shape=(batch, right[1], group * rows, inner))
    return g.add("reshape", g.add("matmul", a, b), shape=(batch, heads, rows, right[3]))


def _biased(g: Graph, node: Node, scores: Value, mask: Value | None) -> Value:
    """Scores with the mask added, -inf where mask, order or window forbid a key."""
    never = _like(g, scores, -np.inf)
    if mask is not None:
        assert isinstance(mask.type, TensorType)
        if mask.type.dtype is DType.BOOL:
            scores = g.add("where", mask, scores, never)
        else:
            scores = g.add("add", scores, g.add("cast", mask, dtype=_type_dtype(scores)))
    for condition in _conditions(g, node):
        scores = g.add("where", condition, scores, never)
    return scores


def _conditions(g: Graph, node: Node) -> list[Value]:
    """Which keys [T] each query [S, 1] may attend by its place."""
    attrs = node.attrs
    past = _shape(node, _PAST_KEY)
    offset: Dim = past[2] if past is not None else 0
    if not attrs.is_causal and attrs.left_window_size < 0 and attrs.right_window_size < 0:
        return []
    keys = _positions(g, 0, _total(node))
    queries = g.add("unsqueeze", _positions(g, offset, _length(node, _QUERY)), axes=(1,))
    found = []
    if attrs.is_causal:
        found.append(g.add("less_or_equal", keys, queries))
    if attrs.left_window_size >= 0:
        low = g.add("sub", queries, g.constant(np.asarray(attrs.left_window_size, np.int64)))
        found.append(g.add("greater_or_equal", keys, low))
    if attrs.right_window_size >= 0:
        high = g.add("add", queries, g.constant(np.asarray(attrs.right_window_size, np.int64)))
        found.append(g.add("less_or_equal", keys, high))
    return found


def _positions(g: Graph, start: Dim, count: Dim) -> Value:
    """start, start + 1, ... int64 [count]."""
    first, end = (g.add("dims", values=(v,), shape=()) for v in (start, start + count))
    return g.add("range", first, end, g.constant(np.asarray(1, np.int64)))


def _probabilities(g: Graph, scores: Value) -> Value:
    """Softmax along the last axis, 0 for a query that attends no key."""
    never = _like(g, scores, -np.inf)
    dead = g.add("equal", g.add("reduce_max", scores, axes=(3,), keepdims=True), never)
    return g.add("where", dead, _like(g, scores, 0.0), g.add("softmax", scores, axis=3))


def rotary_definition(node: Node) -> Definition:
    """The definition of rotary_embedding."""
    if any(_shape(node, i) is None for i in range(len(node.inputs)) if _present(node, i)):
        return Opaque("the rank of an operand is not known")
    if not isinstance(_rotary_depth(node), int):
        return Opaque("the size of a head is not known")
    return Composite(_rotary_graph)


def _rotary_depth(node: Node) -> Dim:
    shape = _known(_shape(node, 0))
    return shape[3] if len(shape) == 4 else floordiv(shape[2], node.attrs.num_heads)


def _rotary_graph(node: Node) -> Graph:
    g, (x, cos, sin, positions, *_) = _formal_graph(node)
    assert x is not None and cos is not None and sin is not None
    shape, depth = _known(_shape(node, 0)), _rotary_depth(node)
    assert isinstance(depth, int)
    if len(shape) == 3:
        heads = node.attrs.num_heads
        x = g.add("reshape", x, shape=(shape[0], shape[1], heads, depth))
        x = g.add("transpose", x, perm=(0, 2, 1, 3))
    x = _widened(g, x)
    cos, sin = (_angles(g, cache, positions) for cache in (cos, sin))
    dim = node.attrs.rotary_embedding_dim or depth
    turned = _turned(g, x, dim, cos, sin, node.attrs.interleaved)
    if dim < depth:
        turned = g.add("concat", turned, _cut(g, x, dim, depth), axis=3)
    if len(shape) == 3:
        turned = g.add("reshape", g.add("transpose", turned, perm=(0, 2, 1, 3)), shape=shape)
    g.set_outputs([_narrowed(g, turned, node.output)], ["Y"])
    return g


def _angles(g: Graph, cache: Value, positions: Value | None) -> Value:
    """[B, 1, S, dim / 2]."""
    if positions is not None:
        cache = g.add("gather", cache, positions, axis=0)
    return _widened(g, g.add("unsqueeze", cache, axes=(1,)))


def _turned(g: Graph, x: Value, dim: int, cos: Value, sin: Value, interleaved: bool) -> Value:
    """The first `dim` elements of each head, turned pair by pair."""
    half = dim // 2
    parts = [(0, dim, 2), (1, dim, 2)] if interleaved else [(0, half, 1), (half, dim, 1)]
    a, b = (_cut(g, x, *part) for part in parts)
    real = g.add("sub", g.add("mul", cos, a), g.add("mul", sin, b))
    imaginary = g.add("add", g.add("mul", sin, a), g.add("mul", cos, b))
    if not interleaved:
        return g.add("concat", real, imaginary, axis=3)
    pairs = g.add("concat", g.add("unsqueeze", real, axes=(4,)), g.add("unsqueeze", imaginary, axes=(4,)), axis=4)
    shape = _type_shape(real)
    return g.add("reshape", pairs, shape=(*shape[:3], dim))


def _cut(g: Graph, x: Value, start: int, end: int, step: int = 1) -> Value:
    return g.add("slice", x, starts=(start,), ends=(end,), axes=(3,), steps=(step,))


def _formal_graph(node: Node) -> tuple[Graph, list[Value | None]]:
    """A graph with an input for each operand that is present; absent ones are None, up to seven."""
    g = Graph(node.op.name)
    operands = [None if v is None else g.input(v.type, f"x{k}") for k, v in enumerate(node.inputs)]
    return g, [*operands, *[None] * (7 - len(operands))]


def _widened(g: Graph, x: Value) -> Value:
    return g.add("cast", x, dtype=DType.F32) if _type_dtype(x).is_small_float else x


def _narrowed(g: Graph, x: Value, like: Value) -> Value:
    return x if _type_dtype(x) is _type_dtype(like) else g.add("cast", x, dtype=_type_dtype(like))


def _like(g: Graph, x: Value, number: float) -> Value:
    return g.constant(np.asarray(number, _type_dtype(x).numpy))


def _type_dtype(x: Value) -> DType:
    assert isinstance(x.type, TensorType)
    return x.type.dtype


def _type_shape(x: Value) -> Shape:
    assert isinstance(x.type, TensorType) and x.type.shape is not None
    return x.type.shape


def _present(node: Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _shape(node: Node, index: int) -> Shape | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


def _known(shape: Sequence[Dim] | None) -> Shape:
    assert shape is not None
    return tuple(shape)


def _dtype(node: Node, index: int) -> DType:
    value = node.inputs[index]
    assert value is not None
    return _type_dtype(value)


def _heads(node: Node, index: int) -> Dim:
    shape = _known(_shape(node, index))
    if len(shape) == 4:
        return shape[1]
    stated = node.attrs.q_num_heads if index == _QUERY else node.attrs.kv_num_heads
    assert stated is not None
    return int(stated)


def _depth(node: Node, index: int) -> Dim:
    shape = _known(_shape(node, index))
    return shape[3] if len(shape) == 4 else floordiv(shape[2], _heads(node, index))


def _length(node: Node, index: int) -> Dim:
    shape = _known(_shape(node, index))
    return shape[2] if len(shape) == 4 else shape[1]


def _total(node: Node) -> Dim:
    """The number of keys, those of the past included."""
    past = _shape(node, _PAST_KEY)
    return _length(node, _KEY) + (0 if past is None else past[2])
