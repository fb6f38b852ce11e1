"""Attention (scaled dot products, Vaswani et al. 2017), RotaryEmbedding (Su et al. 2021).

Scores are computed for a block of query rows at a time, so that they need bounded memory however long the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from fusible.kernels.numpy.contraction import product
from fusible.kernels.numpy.halves import HALVES, delivered, widened

Array = np.ndarray[Any, Any]

_SCORE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """The attributes of ONNX Attention that say how scores are made; see `attention`."""

    is_causal: bool = False
    scale: float | None = None
    softcap: float = 0.0
    softmax_precision: np.dtype[Any] | None = None
    left_window_size: int = -1
    right_window_size: int = -1
    qk_matmul_output_mode: int = 0


def attention(
    Q: Array, K: Array, V: Array, attn_mask: Array | None = None, past_key: Array | None = None,
    past_value: Array | None = None, nonpad_kv_seqlen: Array | None = None, /, *, q_num_heads: int | None = None,
    kv_num_heads: int | None = None, is_causal: bool = False, scale: float | None = None, softcap: float = 0.0,
    softmax_precision: np.dtype[Any] | None = None, left_window_size: int = -1, right_window_size: int = -1,
) -> Array:  # fmt: skip
    """Y = softmax(softcap(scale * Q @ K^T) + bias) @ V for each head.

    Q [B, Hq, S, D], K [B, Hk, T, D], V [B, Hk, T, Dv], with Hq a multiple of Hk (each key head serves Hq / Hk query
    heads), give Y [B, Hq, S, Dv]; or Q [B, S, Hq * D] and so on with the numbers of heads given. past_key, past_value
    [B, Hk, P, D] stand before K and V. scale None: 1 / sqrt(D); softcap(x) = softcap * tanh(x / softcap) if not 0.

    A query at place i attends key j where all of these allow it: attn_mask, broadcast to [B, Hq, S, P + T], filled up
    with "no" at the end (bool: True is yes; else it is added); is_causal: j <= i + offset; left_window_size,
    right_window_size, unless -1: i + offset - left <= j <= i + offset + right; nonpad_kv_seqlen [B]: j less than it.
    offset is P, or nonpad_kv_seqlen - S where that is given. A query that attends no key gives zeros.
    """
    options = Options(is_causal, scale, softcap, softmax_precision, left_window_size, right_window_size)
    heads = _Heads.of(Q, K, V, past_key, past_value, q_num_heads, kv_num_heads)
    return _attend(heads, attn_mask, nonpad_kv_seqlen, options, None)


def attention_with_cache(*operands: Array | None, **attributes: Any) -> tuple[Array, Array, Array]:
    """`attention`, present_key, present_value: keys, values with those of the past before them, [B, Hk, P + T, D]."""
    Y, key, value, _ = _with_outputs(operands, attributes, scores=False)
    return Y, key, value


def attention_with_scores(*operands: Array | None, **attributes: Any) -> tuple[Array, Array, Array, Array]:
    """`attention_with_cache` and the scores [B, Hq, S, P + T] at a stage: qk_matmul_output_mode.

    0: the products; 1: after softcap; 2: and the bias; 3: after softmax.
    """
    Y, key, value, scores = _with_outputs(operands, attributes, scores=True)
    assert scores is not None
    return Y, key, value, scores


def _with_outputs(
    operands: Sequence[Array | None], attributes: dict[str, Any], *, scores: bool
) -> tuple[Array, Array, Array, Array | None]:
    given: list[Array | None] = [*operands, *[None] * 7]
    Q, K, V, mask, past_key, past_value, lengths = given[:7]
    assert Q is not None and K is not None and V is not None
    heads = _Heads.of(
        Q, K, V, past_key, past_value, attributes.pop("q_num_heads", None), attributes.pop("kv_num_heads", None)
    )
    recorded = np.empty((*heads.query.shape[:3], heads.key.shape[2]), Q.dtype) if scores else None
    Y = _attend(heads, mask, lengths, Options(**attributes), recorded)
    return Y, heads.key, heads.value, recorded


@dataclass(frozen=True, slots=True)
class _Heads:
    """Operands split into heads [B, H, length, depth]; the past stands before keys and values."""

    query: Array
    key: Array
    value: Array
    packed: bool
    past: int | None

    @staticmethod
    def of(
        Q: Array, K: Array, V: Array, past_key: Array | None, past_value: Array | None, q_heads: int | None,
        kv_heads: int | None,
    ) -> _Heads:  # fmt: skip
        if Q.ndim not in (3, 4) or K.ndim != Q.ndim or V.ndim != Q.ndim:
            raise ValueError(f"Attention takes Q, K and V of rank 3 or 4, got {Q.shape}, {K.shape}, {V.shape}")
        if (past_key is None) != (past_value is None):
            raise ValueError("past_key and past_value must be given together")
        packed = Q.ndim == 3
        if packed:
            Q, K, V = split_heads(Q, q_heads), split_heads(K, kv_heads), split_heads(V, kv_heads)
        if K.shape[1] == 0 or Q.shape[1] % K.shape[1] or K.shape[1] != V.shape[1]:
            raise ValueError(f"{Q.shape[1]} query heads do not fit {K.shape[1]} key and {V.shape[1]} value heads")
        past = None
        if past_key is not None and past_value is not None:
            past = past_key.shape[2]
            K, V = np.concatenate([past_key, K], axis=2), np.concatenate([past_value, V], axis=2)
        if Q.shape[3] != K.shape[3] or K.shape[2] != V.shape[2] or not Q.shape[0] == K.shape[0] == V.shape[0]:
            raise ValueError(f"heads of shapes {Q.shape}, {K.shape} and {V.shape} do not fit each other")
        return _Heads(Q, K, V, packed, past)


def split_heads(x: Array, heads: int | None) -> Array:
    """[B, length, heads * depth] as a view [B, heads, length, depth]."""
    if not heads or x.shape[2] % heads:
        raise ValueError(f"operands of rank 3 need a number of heads that divides {x.shape[2]}, got {heads}")
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).swapaxes(1, 2)


def _attend(
    heads: _Heads, mask: Array | None, lengths: Array | None, options: Options, recorded: Array | None
) -> Array:
    """Y, and the scores of the stage that is asked for in `recorded`."""
    query, key, value = heads.query, heads.key, heads.value
    batch, q_heads, rows, depth = query.shape
    columns = key.shape[2]
    bias = _Bias.of(mask, (batch, q_heads, rows, columns), heads.past, lengths, options)
    factor = 1 / sqrt(depth) if options.scale is None and depth else options.scale or 0.0
    result = np.empty((batch, rows, q_heads, value.shape[3]), query.dtype)
    step = max(1, _SCORE_BYTES // max(1, 4 * q_heads * columns))
    with np.errstate(all="ignore"):
        for b in range(batch):
            q, k, v = widened(query[b]), widened(key[b]), widened(value[b])
            for begin in range(0, rows, step):
                part = slice(begin, min(begin + step, rows))
                scores = _grouped_product(q[:, part] * q.dtype.type(factor), k.swapaxes(1, 2))
                stage = None if recorded is None else recorded[b, :, part]
                weights = _weights(scores, bias, b, part, options, stage)
                result[b, part] = _grouped_product(weights, v).swapaxes(0, 1)
    if heads.packed:
        return result.reshape(batch, rows, q_heads * value.shape[3])
    return np.ascontiguousarray(result.swapaxes(1, 2))


def _grouped_product(a: Array, b: Array) -> Array:
    """a [Hq, M, K] @ b [Hk, K, N] -> [Hq, M, N]; the query heads of a group share one product with their key head."""
    heads, rows, inner = a.shape
    grouped = a.reshape(b.shape[0], heads // b.shape[0] * rows, inner)
    return product(grouped, b).reshape(heads, rows, b.shape[2])


def _weights(scores: Array, bias: _Bias, b: int, rows: slice, options: Options, recorded: Array | None) -> Array:
    """The probabilities of a block of scores [H, rows, columns], which it overwrites; `recorded` gets one stage."""
    mode = options.qk_matmul_output_mode
    if recorded is not None and mode == 0:
        recorded[...] = scores
    if options.softcap:
        scores /= scores.dtype.type(options.softcap)
        np.tanh(scores, out=scores)
        scores *= scores.dtype.type(options.softcap)
    if recorded is not None and mode == 1:
        recorded[...] = scores
    bias.apply(scores, b, rows)
    if recorded is not None and mode == 2:
        recorded[...] = scores
    weights = _softmax(scores, options.softmax_precision)
    if recorded is not None and mode == 3:
        recorded[...] = weights
    return weights


def _softmax(scores: Array, precision: np.dtype[Any] | None) -> Array:
    """Probabilities along the last axis, in the type of scores; zeros where every score is -inf."""
    dtype = scores.dtype
    if precision is not None and precision in HALVES:
        scores = scores.astype(precision).astype(np.float32)
    elif precision is not None:
        scores = scores.astype(precision, copy=False)
    if scores.shape[-1] == 0:
        return scores.astype(dtype, copy=False)
    largest = scores.max(axis=-1, keepdims=True)
    scores -= np.where(np.isneginf(largest), scores.dtype.type(0), largest)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= np.where(total == 0, scores.dtype.type(1), total)
    if precision is not None and precision in HALVES:
        scores = scores.astype(precision)
    return scores.astype(dtype, copy=False)


@dataclass(frozen=True, slots=True)
class _Bias:
    """What keeps queries from keys: a mask [B', H', S', columns], and bounds on the key's place."""

    mask: Array | None
    rows: int
    columns: int
    offset: int
    lengths: Array | None
    options: Options

    @staticmethod
    def of(
        mask: Array | None, shape: tuple[int, int, int, int], past: int | None, lengths: Array | None, options: Options
    ) -> _Bias:
        if lengths is not None and (past is not None or lengths.shape != shape[:1]):
            raise ValueError("nonpad_kv_seqlen has one length for each batch and excludes past_key and past_value")
        if mask is not None:
            mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
            missing = shape[3] - mask.shape[3]
            if missing < 0 or any(m not in (1, s) for m, s in zip(mask.shape[:3], shape[:3], strict=True)):
                raise ValueError(f"attn_mask of shape {mask.shape} does not broadcast to {shape}")
            if missing:
                never = np.full((*mask.shape[:3], missing), False if mask.dtype == bool else -np.inf, mask.dtype)
                mask = np.concatenate([mask, never], axis=3)
        return _Bias(mask, shape[2], shape[3], past or 0, lengths, options)

    def apply(self, scores: Array, b: int, rows: slice) -> None:
        """Add the bias of batch b and some rows to scores [H, rows, columns]."""
        refused = self._refused(b, rows)
        if self.mask is not None:
            part = self.mask[min(b, self.mask.shape[0] - 1)]
            part = part if part.shape[1] == 1 else part[:, rows]
            if part.dtype == bool:
                refused = ~part if refused is None else refused | ~part
            else:
                scores += widened(part).astype(scores.dtype, copy=False)
                never = np.isneginf(part.astype(scores.dtype, copy=False))
                if never.any():
                    refused = never if refused is None else refused | never
        if refused is not None:
            # Chosen rather than added, so that an infinite or undefined score of a forbidden key does not matter.
            np.copyto(scores, -np.inf, where=refused)

    def _refused(self, b: int, rows: slice) -> Array | None:
        """Which keys places forbid: bool [rows, columns]."""
        o = self.options
        place = np.arange(self.columns)
        offset = self.offset if self.lengths is None else int(self.lengths[b]) - self.rows
        here = np.arange(rows.start, rows.stop)[:, None] + offset
        limits = []
        if o.is_causal:
            limits.append(place > here)
        if o.left_window_size >= 0:
            limits.append(place < here - o.left_window_size)
        if o.right_window_size >= 0:
            limits.append(place > here + o.right_window_size)
        if self.lengths is not None:
            limits.append(np.broadcast_to(place >= int(self.lengths[b]), (here.shape[0], self.columns)))
        return np.logical_or.reduce(limits) if limits else None


def rotary_embedding(
    X: Array, cos_cache: Array, sin_cache: Array, position_ids: Array | None = None, /, *, interleaved: bool = False,
    rotary_embedding_dim: int = 0, num_heads: int | None = None,
) -> Array:  # fmt: skip
    """Pairs (a, b) of a head's first rotary_embedding_dim elements (0: all) turned by the angle of their position.

    (a, b) -> (a cos - b sin, a sin + b cos), pairs being neighbours if interleaved, else the halves' elements. X [B, H,
    S, D], or [B, S, H * D] with num_heads. The caches are [positions, dim / 2], read at position_ids [B, S], or without
    those [B, S, dim / 2].
    """
    heads = X if X.ndim == 4 else split_heads(X, num_heads)
    dim = rotary_embedding_dim or heads.shape[3]
    if dim % 2 or dim > heads.shape[3]:
        raise ValueError(f"rotary_embedding_dim must be even and at most {heads.shape[3]}, got {dim}")
    places = (heads.shape[0], heads.shape[2], dim // 2)
    cos, sin = (_angles(cache, position_ids, places) for cache in (cos_cache, sin_cache))
    first, second = (slice(0, dim, 2), slice(1, dim, 2)) if interleaved else (slice(0, dim // 2), slice(dim // 2, dim))
    a, b = widened(heads[..., first]), widened(heads[..., second])
    result = np.empty(X.shape, X.dtype)
    turned = result if X.ndim == 4 else split_heads(result, num_heads)
    with np.errstate(all="ignore"):
        turned[..., first] = delivered(cos * a - sin * b, X.dtype)
        turned[..., second] = delivered(sin * a + cos * b, X.dtype)
    turned[..., dim:] = heads[..., dim:]
    return result


def _angles(cache: Array, position_ids: Array | None, shape: tuple[int, int, int]) -> Array:
    """Cosines or sines of each position: [B, 1, S, dim / 2]."""
    if position_ids is not None:
        if position_ids.size and not 0 <= position_ids.min() <= position_ids.max() < cache.shape[0]:
            raise ValueError(f"position_ids must lie in [0, {cache.shape[0]})")
        cache = cache[position_ids]
    if cache.shape != shape:
        raise ValueError(f"the rotary caches must give {shape} values, got {cache.shape}")
    return widened(cache)[:, None]
