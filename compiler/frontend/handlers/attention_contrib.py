"""ONNX Runtime's attention (com.microsoft): GroupQueryAttention, MultiHeadAttention, RotaryEmbedding.

Written out in the canonical `attention`, `rotary_embedding`, `concat` and `tensor_scatter`. Semantics:
docs/ContribOperators.md of ONNX Runtime, whose CPU kernels are what tests compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.contrib_shapes import check_shape, flag
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim, exact_div
from fusible.compiler.ir.types import DType, Shape, TensorType

_DOMAIN = "com.microsoft"


@onnx_op("RotaryEmbedding", domain=_DOMAIN)
def rotary_embedding(c: NodeContext) -> Value:
    """RotaryEmbedding: X [B, S, H * D] or [B, H, S, D], position_ids [B, S] or [1] (the first), both caches."""
    if flag(c, "is_packed_batching"):
        c.unsupported("its sequences are packed without padding (is_packed_batching)")
    shape, cache = _shape(c, 0, (3, 4)), _shape(c, 2, (2,))
    batch, length = (shape[0], shape[1]) if len(shape) == 3 else (shape[0], shape[2])
    check_shape(c, 1, (1,), (batch, length))
    check_shape(c, 3, cache)
    positions = c.required(1)
    if c.known_rank(1) == 1:
        positions = _grid(c, c.add("cast", positions, dtype=DType.I64), batch, length)
    heads, turned = c.attr_int("num_heads", 0), c.attr_int("rotary_embedding_dim", 0)
    if len(shape) == 3 and not heads:
        if turned:
            c.invalid("rotary_embedding_dim needs num_heads")
        found = exact_div(shape[2], cache[1] * 2)
        if not isinstance(found, int):
            c.unsupported("the number of heads does not follow from the shapes; state num_heads")
        heads = found
    return c.add(
        "rotary_embedding", c.required(0), c.required(2), c.required(3), positions,
        interleaved=flag(c, "interleaved"), rotary_embedding_dim=turned,
        num_heads=heads if len(shape) == 3 else None,
    )  # fmt: skip


@onnx_op("MultiHeadAttention", domain=_DOMAIN)
def multi_head_attention(c: NodeContext) -> list[Value | None]:
    """MultiHeadAttention: query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value."""
    for index, name in ((8, "past_sequence_length"), (9, "cache_indirection")):
        if c.optional(index) is not None:
            c.unsupported(f"it has {name}: its caches are buffers of full length")
    if c.wants(3):
        c.unsupported("its scores are a result")
    heads = c.attr_int("num_heads")
    q, k, v = _biased(c, _three(c, heads))
    past = c.optional(6), c.optional(7)
    batch, length, total = _check_keys(c, q, k, v, heads)
    mask = _padding_mask(c, (batch, total))
    check_shape(c, 5, *((b, h, length, total) for b in (batch, 1) for h in (heads, 1)))
    if c.optional(5) is not None:
        mask = c.required(5) if mask is None else c.add("add", mask, c.required(5))
    attrs: dict[str, Any] = {
        "q_num_heads": heads, "kv_num_heads": heads, "is_causal": flag(c, "unidirectional"),
        "scale": c.attr_float("scale", 0.0) or None,
    }  # fmt: skip
    k, v = (_rows(c, value) for value in (k, v))
    return _attend(c, (q, k, v, mask, *past), attrs)


@onnx_op("GroupQueryAttention", domain=_DOMAIN)
def group_query_attention(c: NodeContext) -> list[Value | None]:
    """GroupQueryAttention over caches that grow, or over buffers of full length.

    New keys are written where seqlens_k says that a sequence ends, as ONNX Runtime does. Where that is known to be the
    end of a cache that grows by them, keys are joined and attention is causal, which costs less.

    Inputs: query, key, value, past_key, past_value, seqlens_k, total_sequence_length, caches of cosines and sines,
    position_ids, attention_bias.
    """
    _check_group_query(c)
    heads, groups = c.attr_int("num_heads"), c.attr_int("kv_num_heads")
    q, k, v = _group_operands(c, heads, groups)
    place = _place_of(c, q, k, groups)
    _check_group_shapes(c, (q, k, v), place, heads, groups)
    if flag(c, "do_rotary"):
        q, k = (_rotated(c, x, n, place) for x, n in ((q, heads), (k, groups)))
    window = c.attr_int("local_window_size", -1)
    if window == 0 or abs(window) >= 2**31:
        c.invalid(f"attribute 'local_window_size' must be -1 for none, or a positive number of 32 bits, got {window}")
    attrs: dict[str, Any] = {
        "q_num_heads": heads, "kv_num_heads": groups, "is_causal": place.start is None,
        "scale": c.attr_float("scale", 0.0) or None, "softcap": c.attr_float("softcap", 0.0),
        "left_window_size": window - 1 if window > 0 and place.start is None else -1,
    }  # fmt: skip
    mask = c.optional(10)
    if place.start is None:
        past = (None, None) if place.past == 0 else (c.optional(3), c.optional(4))
        return _attend(c, (q, k, v, mask, *past), attrs)
    return _in_buffers(c, (q, k, v), place, window, attrs)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where new keys come to lie: behind `past` others, or from `start` [B] on in caches of `total` keys.

    start None: caches are as long as what they hold, and are known to end with the last new key. positions: of the
    queries, int64 [B, S].
    """

    batch: Dim
    length: Dim
    past: Dim
    total: Dim
    start: Value | None
    positions: Value


def _check_group_query(c: NodeContext) -> None:
    inputs = {11: "head_sink", 12: "k_scale", 13: "v_scale", 14: "q_norm_weight", 15: "k_norm_weight"}
    given = [name for index, name in {**inputs, 16: "query_seqlens"}.items() if c.optional(index) is not None]
    flags = [name for name in ("smooth_softmax", "qk_output", "kv_cache_bit_width") if c.attr_int(name, 0) > 0]
    if given or flags:
        c.unsupported(f"it has {(given + flags)[0]}")
    if c.wants(3):
        c.unsupported("its scores are a result")
    if not c.attr_int("causal", 1):
        c.unsupported("it is not causal")
    if flag(c, "do_rotary") and (c.optional(7) is None or c.optional(8) is None):
        c.invalid("do_rotary needs cos_cache and sin_cache")
    if (c.optional(3) is None) != (c.optional(4) is None):
        c.invalid("past_key and past_value must both be given or both be left out")
    if c.optional(3) is not None and c.tensor_type(3).dtype is not c.tensor_type(0).dtype:
        c.unsupported(f"its caches hold {c.tensor_type(3).dtype.value}, its queries {c.tensor_type(0).dtype.value}")


def _check_group_shapes(
    c: NodeContext, operands: tuple[Value, Value, Value], place: _Place, heads: int, groups: int
) -> None:
    """Keys, values, caches, positions and a mask fit the queries."""
    batch, length = place.batch, place.length
    columns = [_shape_of(c, x, 3) for x in operands]
    sizes = [exact_div(shape[2], count) for shape, count in zip(columns, (heads, groups, groups), strict=True)]
    for index in (1, 2):
        if c.optional(index) is not None:
            check_shape(c, index, (batch, length, None))
    for index, size in ((3, sizes[1]), (4, sizes[2])):
        check_shape(c, index, (batch, groups, place.past, size))
    if c.optional(7) is not None and c.optional(8) is not None:
        check_shape(c, 8, _shape(c, 7, (2,)))
    check_shape(c, 9, (batch, length))
    keys = c.dims(6)
    total = None if keys is None else keys[0]
    check_shape(c, 10, *((b, h, length, total) for b in (batch, 1) for h in (heads, 1)))


def _group_operands(c: NodeContext, heads: int, groups: int) -> tuple[Value, Value, Value]:
    """Queries, keys and values [B, S, heads * D], also where they come side by side in one tensor."""
    if c.optional(1) is not None and c.optional(2) is not None:
        return c.required(0), c.required(1), c.required(2)
    columns = _shape(c, 0, (3,))[2]
    size = exact_div(columns, heads + 2 * groups)
    if size is None:
        c.invalid(f"{columns} columns are not those of {heads} queries, {groups} keys and {groups} values")
    ends = [heads * size, (heads + groups) * size, columns]
    q, k, v = (_columns(c, c.required(0), a, b, 2) for a, b in zip([0, *ends[:2]], ends, strict=True))
    return q, k, v


def _place_of(c: NodeContext, q: Value, k: Value, groups: int) -> _Place:
    batch, length, _ = _shape_of(c, q, 3)
    past: Dim = 0 if c.optional(3) is None else _shape(c, 3, (4,))[2]
    check_shape(c, 5, (batch,), (batch, 1))
    check_shape(c, 6, (), (1,))
    known = c.dims(6)
    if known is None:
        c.unsupported("total_sequence_length is computed from more than shapes, so those of the caches are not known")
    total = known[0]
    if isinstance(past, int) and isinstance(total, int) and isinstance(length, int):
        if not length <= total <= past + length:
            c.invalid(
                f"total_sequence_length must be {length} to {past + length}, for {length} new keys and caches of "
                f"{past}, got {total}; check what makes it"
            )
    grows = total == past + length
    if past == 0 or (grows and batch == 1 and c.dims(5) == (total - 1,)):
        positions = _grid(c, c.add("dims", values=(past,), shape=(1,)), batch, length)
        return _Place(batch, length, past, past + length, None, _stated(c, positions))
    if not grows and not all(isinstance(d, int) for d in (past, total, length)):
        c.unsupported("whether the caches are buffers of full length is not known; fix lengths with shapes={...}")
    if total == length:  # the first prompt: it fills the buffers from their start, wherever each sequence ends
        start = c.add("expand", c.constant(np.zeros(1, np.int64)), shape=(batch,))
    elif length != 1 and batch != 1:
        c.unsupported(
            f"its {length} new keys of each of {batch} sequences come behind others (total_sequence_length {total}); "
            "ONNX Runtime takes several sequences only as a first prompt, or with one new key each"
        )
    else:
        start = _first_place(c, batch, length, prompt=not isinstance(past, int))
    positions = _grid(c, c.add("unsqueeze", start, axes=(1,)), batch, length)
    full = total if grows else max(past, total)  # type: ignore[type-var]
    return _Place(batch, length, past, full, start, _stated(c, positions))


def _first_place(c: NodeContext, batch: Dim, length: Dim, *, prompt: bool) -> Value:
    """Where new keys come to lie that end where seqlens_k says, int64 [batch].

    prompt: there may be no past; a first prompt lies from 0 on, though the sequence may end within it.
    """
    last = c.add("cast", c.required(5), dtype=DType.I64)
    last = c.add("reshape", last, shape=(batch,))
    start = c.add("sub", c.add("add", last, c.constant(np.asarray(1, np.int64))), _number(c, length))
    return c.add("max", start, c.constant(np.asarray(0, np.int64))) if prompt else start


def _stated(c: NodeContext, positions: Value) -> Value:
    """The positions that the node is given, or else those that follow."""
    given = c.optional(9)
    return positions if given is None else given


def _rotated(c: NodeContext, x: Value, heads: int, place: _Place) -> Value:
    size = exact_div(_shape_of(c, x, 3)[2], heads)
    turned = _shape(c, 7, (2,))[1] * 2
    if not isinstance(size, int) or not isinstance(turned, int) or turned > size:
        c.invalid(f"caches of {turned} elements do not fit heads of {size}")
    return c.add(
        "rotary_embedding", x, c.required(7), c.required(8), place.positions,
        interleaved=flag(c, "rotary_interleaved"), rotary_embedding_dim=0 if turned == size else turned,
        num_heads=heads,
    )  # fmt: skip


def _in_buffers(
    c: NodeContext, operands: tuple[Value, Value, Value], place: _Place, window: int, attrs: dict[str, Any]
) -> list[Value | None]:
    """Attention over caches of full length, into which new keys and values are written where each sequence ends."""
    q, k, v = operands
    assert place.start is not None
    caches = []
    for index, new in ((3, k), (4, v)):
        cache, more = c.required(index), place.total - place.past
        if more != 0:
            batch, heads, _, size = _shape(c, index, (4,))
            cache = c.add("concat", cache, _zeros(c, cache, (batch, heads, more, size)), axis=2)
        new = _apart(c, new, attrs["kv_num_heads"])
        caches.append(c.add("tensor_scatter", cache, new, place.start, axis=2, mode="linear"))
    reached = _grid(c, c.add("unsqueeze", place.start, axes=(1,)), place.batch, place.length)
    rows = c.add("reshape", reached, shape=(place.batch, 1, place.length, 1))
    keys = _range(c, place.total)
    seen = c.add("less_or_equal", keys, rows)
    if window > 0:
        seen = c.add("and", seen, c.add("greater", keys, c.add("sub", rows, c.constant(np.asarray(window, np.int64)))))
    mask = seen
    if c.optional(10) is not None:
        bias, never = c.required(10), c.scalar_like(c.required(10), -np.inf)
        *lead, width = _shape(c, 10, (4,))
        if width != place.total:  # of the keys that are there, not of the buffers
            bias = c.add("concat", bias, c.add("expand", never, shape=(*lead, place.total - width)), axis=3)
        mask = c.add("where", seen, bias, never)
    heads = attrs["q_num_heads"]
    y = c.add("attention", _apart(c, q, heads), *caches, mask, **{**attrs, "q_num_heads": None, "kv_num_heads": None})
    columns = exact_div(_shape_of(c, v, 3)[2], attrs["kv_num_heads"])
    assert columns is not None  # or taking values apart had failed
    y = c.add("transpose", y, perm=(0, 2, 1, 3))
    return [c.add("reshape", y, shape=(place.batch, place.length, heads * columns)), *caches]


def _three(c: NodeContext, heads: int) -> tuple[Value, Value, Value]:
    """Queries [B, S, H * D], keys and values the same or [B, H, L, D], of one tensor where they come in one."""
    if c.optional(1) is None:
        shape = _shape(c, 0, (5,))
        check_shape(c, 0, (None, None, heads, 3, None))
        rows = [_columns(c, c.required(0), n, n + 1, 3) for n in range(3)]
        q, k, v = (c.add("reshape", x, shape=(*shape[:2], heads * shape[4])) for x in rows)
        return q, k, v
    if c.optional(2) is None:
        shape = _shape(c, 1, (5,))
        check_shape(c, 1, (None, None, heads, 2, None))
        rows = [_columns(c, c.required(1), n, n + 1, 3) for n in range(2)]
        k, v = (c.add("reshape", x, shape=(*shape[:2], heads * shape[4])) for x in rows)
        return c.required(0), k, v
    return c.required(0), c.required(1), c.required(2)


def _check_keys(c: NodeContext, q: Value, k: Value, v: Value, heads: int) -> tuple[Dim, Dim, Dim]:
    """Batch, number of queries and of all keys; values and caches fit the keys."""
    batch, length, _ = _shape_of(c, q, 3)
    lengths: list[Dim] = []
    for x in (k, v):
        assert isinstance(x.type, TensorType)
        shape = _shape_of(c, x, 4 if x.type.rank == 4 else 3)
        lengths.append(shape[-2])
        if shape[0] != batch and isinstance(shape[0], int) and isinstance(batch, int):
            c.invalid(f"queries are of {batch} sequences, keys or values of {shape[0]}; check what makes them")
    if lengths[0] != lengths[1] and all(isinstance(d, int) for d in lengths):
        c.invalid(f"there are {lengths[0]} keys and {lengths[1]} values; check what makes them")
    if (c.optional(6) is None) != (c.optional(7) is None):
        c.invalid("past_key and past_value must both be given or both be left out")
    past: Dim = 0 if c.optional(6) is None else _shape(c, 6, (4,))[2]
    for index in (6, 7):
        check_shape(c, index, (batch, heads, past, None))
    return batch, length, past + lengths[0]


def _biased(c: NodeContext, operands: tuple[Value, Value, Value]) -> tuple[Value, Value, Value]:
    """The bias's parts added: [H * D] for queries, [H * D] for keys, [H * Dv] for values."""
    bias = c.optional(3)
    if bias is None:
        return operands
    found, start = [], 0
    for x in operands:
        assert isinstance(x.type, TensorType)
        if x.type.rank != 3 or x.type.shape is None or not isinstance(x.type.shape[2], int):
            c.unsupported("it has a bias, and the columns of an operand are not known")
        end = start + x.type.shape[2]
        found.append((x, start, end))
        start = end
    check_shape(c, 3, (start,))
    q, k, v = (c.add("add", x, _columns(c, bias, a, b, 0)) for x, a, b in found)
    return q, k, v


def _padding_mask(c: NodeContext, expected: tuple[Dim, Dim]) -> Value | None:
    """key_padding_mask [B, T], 0 for keys that do not count, as what is added to scores."""
    mask = c.optional(4)
    if mask is None:
        return None
    shape = c.shape(4)
    if shape is None or len(shape) != 2:
        c.unsupported(f"its key_padding_mask is of rank {'?' if shape is None else len(shape)}, not [batch, keys]")
    check_shape(c, 4, expected)
    like = c.required(0)
    filled = c.scalar_like(like, c.attr_float("mask_filter_value", -10000.0))
    counts = c.add("reshape", c.add("cast", mask, dtype=DType.BOOL), shape=(shape[0], 1, 1, shape[1]))
    return c.add("where", counts, c.scalar_like(like, 0.0), filled)


def _attend(c: NodeContext, operands: tuple[Value | None, ...], attrs: dict[str, Any]) -> list[Value | None]:
    """Attention of operands of rank 3, with the caches where they are wanted or given."""
    if c.wants(1) or c.wants(2) or operands[4] is not None:
        return list(c.add_node("attention_with_cache", *operands, outputs=3, **attrs).outputs)
    return [c.add("attention", *operands, **attrs)]


def _rows(c: NodeContext, x: Value) -> Value:
    """[B, H, L, D] as [B, L, H * D]."""
    assert isinstance(x.type, TensorType)
    if x.type.rank != 4:
        return x
    batch, heads, length, size = _shape_of(c, x, 4)
    return c.add("reshape", c.add("transpose", x, perm=(0, 2, 1, 3)), shape=(batch, length, heads * size))


def _apart(c: NodeContext, x: Value, heads: int) -> Value:
    """[B, L, H * D] as [B, H, L, D]."""
    batch, length, columns = _shape_of(c, x, 3)
    size = exact_div(columns, heads)
    if size is None:
        c.invalid(f"{heads} heads do not divide {columns} columns")
    return c.add("transpose", c.add("reshape", x, shape=(batch, length, heads, size)), perm=(0, 2, 1, 3))


def _columns(c: NodeContext, x: Value, start: Dim, end: Dim, axis: int) -> Value:
    if not isinstance(start, int) or not isinstance(end, int):
        c.unsupported("the sizes of its heads are not known; state them with shapes={...}")
    return c.add("slice", x, starts=(start,), ends=(end,), axes=(axis,), steps=(1,))


def _grid(c: NodeContext, first: Value, batch: Dim, length: Dim) -> Value:
    """first + 0, 1, ... length - 1, int64 [batch, length]; first [1] or [batch, 1]."""
    return c.add("expand", c.add("add", first, _range(c, length)), shape=(batch, length))


def _range(c: NodeContext, count: Dim) -> Value:
    """0, 1, ... int64 [count]."""
    ends = (c.add("dims", values=(d,), shape=()) for d in (0, count))
    return c.add("range", *ends, c.constant(np.asarray(1, np.int64)))


def _number(c: NodeContext, dim: Dim) -> Value:
    return c.add("dims", values=(dim,), shape=())


def _zeros(c: NodeContext, like: Value, shape: Shape) -> Value:
    return c.add("expand", c.scalar_like(like, 0.0), shape=shape)


def _shape(c: NodeContext, index: int, ranks: tuple[int, ...]) -> Shape:
    """The shape of an input of one of these ranks."""
    shape = c.shape(index)
    if shape is None:
        c.unsupported(f"the rank of input {index} is not known; state it with shapes={{...}}")
    if len(shape) not in ranks:
        c.invalid(f"input {index} must be of rank {' or '.join(map(str, ranks))}, got {c.tensor_type(index)}")
    return shape


def _shape_of(c: NodeContext, x: Value, rank: int) -> Shape:
    assert isinstance(x.type, TensorType)
    if x.type.shape is None or len(x.type.shape) != rank:
        c.invalid(f"an operand of rank {rank} was expected, got {x.type}")
    return x.type.shape
