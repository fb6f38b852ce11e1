"""Attention and what transformers put around it: rotary_embedding, linear_attention, causal_conv_with_state."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.opset.attention_definition import attention_definition, rotary_definition
from fusible.compiler.ir.requirements import Relation, decide
from fusible.compiler.ir.symbols import Dim, floordiv, modulo
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.kernels.numpy.linear_attention import RULES

__all__ = [
    "AttentionAttrs",
    "AttentionScoresAttrs",
    "CausalConvWithStateAttrs",
    "LinearAttentionAttrs",
    "RotaryEmbeddingAttrs",
]

_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)


@dataclass(frozen=True, slots=True)
class AttentionAttrs:
    """Attributes of ONNX Attention. q_num_heads, kv_num_heads: for operands of rank 3 only; scale None: 1/sqrt(D).

    softmax_precision None: that of the operands, at least float32.
    """

    q_num_heads: int | None = None
    kv_num_heads: int | None = None
    is_causal: bool = False
    scale: float | None = None
    softcap: float = 0.0
    softmax_precision: DType | None = None
    left_window_size: int = -1
    right_window_size: int = -1


@dataclass(frozen=True, slots=True)
class AttentionScoresAttrs:
    """As AttentionAttrs; qk_matmul_output_mode: the last result is scores 0 raw, 1 capped, 2 biased, 3 softmax."""

    q_num_heads: int | None = None
    kv_num_heads: int | None = None
    is_causal: bool = False
    scale: float | None = None
    softcap: float = 0.0
    softmax_precision: DType | None = None
    left_window_size: int = -1
    right_window_size: int = -1
    qk_matmul_output_mode: int = 0


@dataclass(frozen=True, slots=True)
class RotaryEmbeddingAttrs:
    """interleaved: pairs are neighbours, not halves; rotary_embedding_dim: 0 for all; num_heads: for rank 3."""

    interleaved: bool = False
    rotary_embedding_dim: int = 0
    num_heads: int | None = None


@dataclass(frozen=True, slots=True)
class LinearAttentionAttrs:
    """update_rule: linear, gated, delta or gated_delta; scale 0: 1/sqrt(D)."""

    q_num_heads: int
    kv_num_heads: int
    scale: float = 0.0
    update_rule: str = "gated_delta"


@dataclass(frozen=True, slots=True)
class CausalConvWithStateAttrs:
    """activation: none, silu or swish."""

    activation: str = "none"


@dataclass(frozen=True, slots=True)
class _Heads:
    """[batch, heads, length, depth] of an operand."""

    batch: Dim
    heads: Dim
    length: Dim
    depth: Dim


def _attention(ctx: Infer) -> TensorType:
    return _attention_types(ctx)[0]


def _attention_with_cache(ctx: Infer) -> list[TensorType]:
    return _attention_types(ctx)[:3]


def _attention_with_scores(ctx: Infer) -> list[TensorType]:
    if ctx.attrs.qk_matmul_output_mode not in (0, 1, 2, 3):
        ctx.fail(f"qk_matmul_output_mode must be 0, 1, 2 or 3, got {ctx.attrs.qk_matmul_output_mode}")
    return _attention_types(ctx)


def _attention_types(ctx: Infer) -> list[TensorType]:
    attrs = ctx.attrs
    for index in (0, 1, 2):
        if ctx.dtype(index) not in _FLOATS:
            ctx.fail(f"input {index} must be a float of at least 16 bits, got {ctx.type(index)}")
    if min(attrs.left_window_size, attrs.right_window_size) < -1:
        ctx.fail("window sizes must be -1 or more")
    if ctx.has(4) != ctx.has(5):
        ctx.fail("past_key and past_value must be given together")
    if ctx.has(6) and ctx.has(4):
        ctx.fail("nonpad_kv_seqlen excludes past_key and past_value")
    unknown = [TensorType(ctx.dtype(k), None) for k in (0, 1, 2, 0)]
    if any(ctx.shape(i) is None for i in range(3)):
        return unknown
    packed = ctx.rank(0) == 3
    q = _split(ctx, 0, attrs.q_num_heads)
    k, v = _split(ctx, 1, attrs.kv_num_heads), _split(ctx, 2, attrs.kv_num_heads)
    _check_heads(ctx, q, k, v)
    total = k.length + _past_length(ctx, k, v)
    _check_mask(ctx, q, total)
    y: Shape = (q.batch, q.heads, q.length, v.depth)
    if packed:
        y = (q.batch, q.length, q.heads * v.depth)
    return [
        TensorType(ctx.dtype(0), y),
        TensorType(ctx.dtype(1), (k.batch, k.heads, total, k.depth)),
        TensorType(ctx.dtype(2), (v.batch, v.heads, total, v.depth)),
        TensorType(ctx.dtype(0), (q.batch, q.heads, q.length, total)),
    ]


def _split(ctx: Infer, index: int, heads: int | None) -> _Heads:
    """The heads of an operand of known rank."""
    shape = ctx.shape(index)
    assert shape is not None
    if len(shape) != ctx.rank(0) or len(shape) not in (3, 4):
        ctx.fail(f"operands must all have rank 3 or all 4, got {ctx.type(0)} and {ctx.type(index)}")
    if len(shape) == 4:
        if heads is not None and not ctx.equal(shape[1], heads):
            ctx.fail(f"input {index} has {shape[1]} heads, not {heads}")
        return _Heads(*shape)
    if heads is None or heads < 1 or not ctx.divides(heads, shape[2]):
        ctx.fail(f"input {index} of rank 3 needs a number of heads that divides {shape[2]}, got {heads}")
    return _Heads(shape[0], heads, shape[1], floordiv(shape[2], heads))


def _check_heads(ctx: Infer, q: _Heads, k: _Heads, v: _Heads) -> None:
    if q.depth == 0:
        ctx.fail(f"a head of the queries has no elements, got {ctx.type(0)}")
    if k.heads == 0 or not ctx.equal(modulo(q.heads, k.heads), 0):
        ctx.fail(f"{q.heads} query heads are no multiple of {k.heads} key heads")
    for name, a, b in (
        ("batch", q.batch, k.batch), ("batch", q.batch, v.batch), ("heads of keys and values", k.heads, v.heads),
        ("depth of queries and keys", q.depth, k.depth), ("length of keys and values", k.length, v.length),
    ):  # fmt: skip
        if not ctx.equal(a, b):
            ctx.fail(f"{name}: {a} and {b} differ")


def _past_length(ctx: Infer, k: _Heads, v: _Heads) -> Dim:
    """How many keys the past holds."""
    lengths: list[Dim] = [0]
    for index, heads in ((4, k), (5, v)):
        shape = ctx.shape(index) if ctx.has(index) else None
        if shape is None:
            if ctx.has(index):
                ctx.fail(f"the shape of input {index} must be known")
            continue
        expected = (heads.batch, heads.heads, shape[2] if len(shape) == 4 else 0, heads.depth)
        _check_shape(ctx, index, shape, expected)
        lengths.append(shape[2])
    return lengths[-1] if len(lengths) < 3 else lengths[1]


def _check_shape(ctx: Infer, index: int, shape: Shape, expected: Shape) -> None:
    if not ctx.equal_shapes(shape, expected):
        ctx.fail(f"input {index} must have shape {list(expected)}, got {ctx.type(index)}")


def _check_mask(ctx: Infer, q: _Heads, total: Dim) -> None:
    mask = ctx.shape(3) if ctx.has(3) else None
    if mask is not None:
        whole = (q.batch, q.heads, q.length)
        pairs = zip(reversed(mask[:-1]), reversed(whole), strict=False)
        if not 1 <= len(mask) <= 4 or not all(ctx.fits(d, e) for d, e in pairs):
            ctx.fail(f"attn_mask must broadcast to {[*whole, total]}, got {ctx.type(3)}")
        if not ctx.at_most(mask[-1], total):
            ctx.fail(f"attn_mask has {mask[-1]} columns for {total} keys")
    lengths = ctx.shape(6) if ctx.has(6) else None
    if lengths is not None:
        _check_shape(ctx, 6, lengths, (q.batch,))


def _rotary_embedding(ctx: Infer) -> TensorType:
    attrs, shape = ctx.attrs, ctx.shape(0)
    for index in (1, 2):
        if ctx.dtype(index) is not ctx.dtype(0):
            ctx.fail(f"the caches must have the type of X, got {ctx.type(index)}")
    if shape is None:
        return ctx.type(0)
    if len(shape) not in (3, 4):
        ctx.fail(f"takes [B, H, S, D] or [B, S, H * D], got {ctx.type(0)}")
    x = _split(ctx, 0, attrs.num_heads if len(shape) == 3 else None)
    dim: Dim = attrs.rotary_embedding_dim or x.depth
    if attrs.rotary_embedding_dim < 0 or not ctx.divides(2, dim):
        ctx.fail(f"rotary_embedding_dim must be even, got {dim}")
    if not ctx.at_most(dim, x.depth):
        ctx.fail(f"rotary_embedding_dim {dim} is more than the {x.depth} elements of a head")
    positions = ctx.shape(3) if ctx.has(3) else None
    if positions is not None:
        _check_shape(ctx, 3, positions, (x.batch, x.length))
    for index in (1, 2):
        cache = ctx.shape(index)
        if cache is not None:
            lead: Shape = (x.batch, x.length) if not ctx.has(3) else cache[:1]
            _check_shape(ctx, index, cache, (*lead, floordiv(dim, 2)))
    return ctx.type(0)


def _linear_attention(ctx: Infer) -> list[TensorType]:
    attrs = ctx.attrs
    rule = attrs.update_rule
    if rule not in RULES:
        ctx.fail(f"update_rule must be one of {', '.join(RULES)}, got {rule!r}")
    if ctx.has(4) != rule.startswith("gated") or ctx.has(5) != rule.endswith("delta"):
        ctx.fail(f"rule {rule} does not take these operands: decay {ctx.has(4)}, beta {ctx.has(5)}")
    if attrs.kv_num_heads < 1 or attrs.q_num_heads < 1 or attrs.q_num_heads % attrs.kv_num_heads:
        ctx.fail(f"{attrs.q_num_heads} query heads are no multiple of {attrs.kv_num_heads} key heads")
    state = ctx.dtype(3) if ctx.has(3) else ctx.dtype(0)
    if any(ctx.shape(i) is None for i in range(3)):
        return [TensorType(ctx.dtype(0), None), TensorType(state, None)]
    if ctx.rank(0) != 3:
        ctx.fail(f"takes operands of rank 3, got {ctx.type(0)}")
    q = _split(ctx, 0, attrs.q_num_heads)
    k, v = _split(ctx, 1, attrs.kv_num_heads), _split(ctx, 2, attrs.kv_num_heads)
    _check_heads(ctx, q, k, v)
    if not ctx.equal(q.length, k.length):
        ctx.fail(f"queries and keys differ in length: {q.length} and {k.length}")
    states = (k.batch, k.heads, k.depth, v.depth)
    past = ctx.shape(3) if ctx.has(3) else None
    if past is not None:
        _check_shape(ctx, 3, past, states)
    _check_gates(ctx, k)
    return [TensorType(ctx.dtype(0), (q.batch, q.length, q.heads * v.depth)), TensorType(state, states)]


def _check_gates(ctx: Infer, k: _Heads) -> None:
    """decay has one value for each head or each element of a key, beta one for each head or one for all."""
    for index, widths in ((4, (k.heads, k.heads * k.depth)), (5, (k.heads, 1))):
        shape = ctx.shape(index) if ctx.has(index) else None
        if shape is None:
            continue
        if len(shape) != 3 or not ctx.equal_shapes(shape[:2], (k.batch, k.length)):
            ctx.fail(f"input {index} must have shape [{k.batch}, {k.length}, ...], got {ctx.type(index)}")
        if all(decide(Relation.EQUAL, shape[2], width) is False for width in widths):
            ctx.fail(f"input {index} must have {widths[0]} or {widths[1]} columns, got {ctx.type(index)}")


def _causal_conv(ctx: Infer) -> list[TensorType]:
    x, w = ctx.shape(0), ctx.shape(1)
    if ctx.attrs.activation not in ("none", "silu", "swish"):
        ctx.fail(f"activation must be none, silu or swish, got {ctx.attrs.activation!r}")
    if x is None or w is None:
        return [TensorType(ctx.dtype(0), None)] * 2
    if len(x) != 3 or len(w) != 3 or w[2] == 0 or not ctx.equal_shapes(w[:2], (x[1], 1)):
        ctx.fail(f"takes X [B, C, L] and a kernel [C, 1, k], got {ctx.type(0)} and {ctx.type(1)}")
    state = (x[0], x[1], w[2] - 1)
    for index, expected in ((2, (x[1],)), (3, state)):
        shape = ctx.shape(index) if ctx.has(index) else None
        if shape is not None:
            _check_shape(ctx, index, shape, expected)
    return [ctx.type(0), TensorType(ctx.dtype(0), state)]


OPS.register(Op("attention", _attention, attention_definition, "attention:attention", AttentionAttrs, inputs=(3, 7)))
OPS.register(
    Op(
        "attention_with_cache",
        _attention_with_cache,
        attention_definition,
        "attention:attention_with_cache",
        AttentionAttrs,
        inputs=(3, 7),
        outputs=3,
    )
)
OPS.register(
    Op(
        "attention_with_scores",
        _attention_with_scores,
        attention_definition,
        "attention:attention_with_scores",
        AttentionScoresAttrs,
        inputs=(3, 7),
        outputs=4,
    )
)
OPS.register(
    Op(
        "rotary_embedding",
        _rotary_embedding,
        rotary_definition,
        "attention:rotary_embedding",
        RotaryEmbeddingAttrs,
        inputs=(3, 4),
    )
)
OPS.register(
    Op(
        "linear_attention",
        _linear_attention,
        same(Opaque("a recurrence: each step needs the state that the one before left")),
        "linear_attention:linear_attention",
        LinearAttentionAttrs,
        inputs=(3, 6),
        outputs=2,
    )
)
OPS.register(
    Op(
        "causal_conv_with_state",
        _causal_conv,
        same(Opaque("its state is the end of the sequence that it reads")),
        "linear_attention:causal_conv_with_state",
        CausalConvWithStateAttrs,
        inputs=(2, 4),
        outputs=2,
    )
)
