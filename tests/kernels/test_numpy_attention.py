"""Attention and its neighbours against ONNX Runtime and a plain float64 version."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import attention as module
from fusible.kernels.numpy.attention import (
    attention,
    attention_with_cache,
    attention_with_scores,
    rotary_embedding,
)
from fusible.kernels.numpy.convolution import conv
from fusible.kernels.numpy.linear_attention import RULES, causal_conv_with_state, linear_attention
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close

Attributes = dict[str, Any]
B, HQ, HK, S, T, D, DV = 2, 6, 3, 5, 7, 8, 4


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def operands(dtype: Any = np.float32, heads: int = HK) -> list[np.ndarray]:
    shapes = ((B, HQ, S, D), (B, heads, T, D), (B, heads, T, DV))
    return [normal(*s, dtype=dtype, seed=k) for k, s in enumerate(shapes)]


def plain(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias: np.ndarray | float,
    scale: float | None = None,
    softcap: float = 0,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The result and the scores at each stage, in float64; a row of -inf gives zeros."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    k, v = (x.repeat(q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    raw = q @ k.swapaxes(2, 3) * (scale if scale is not None else q.shape[3] ** -0.5)
    capped = np.tanh(raw / softcap) * softcap if softcap else raw
    biased = capped + bias
    with np.errstate(all="ignore"):
        weights = np.exp(biased - biased.max(axis=3, keepdims=True))
        weights = np.nan_to_num(weights / weights.sum(axis=3, keepdims=True), nan=0.0)
    return weights @ v, [raw, capped, biased, weights]


def allowed(condition: np.ndarray) -> np.ndarray:
    return np.where(condition, 0.0, -np.inf)


def place(rows: int, columns: int, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(rows)[:, None] + offset, np.arange(columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("heads", [1, 3, 6])
def test_heads_share_keys(heads: int, dtype: Any) -> None:
    q, k, v = operands(dtype, heads)
    expected, _ = plain(q, k, v, 0.0, scale=0.7, softcap=1.5)
    got = attention(q, k, v, scale=0.7, softcap=1.5)
    assert got.dtype == dtype
    assert_close(got, expected, accumulation=64)
    packed = [x.swapaxes(1, 2).reshape(B, x.shape[2], -1) for x in (q, k, v)]
    flat = attention(*packed, q_num_heads=HQ, kv_num_heads=heads, scale=0.7, softcap=1.5)
    assert np.array_equal(flat, got.swapaxes(1, 2).reshape(B, S, -1))


MASKS = [(T,), (1, T), (S, T), (HQ, S, T), (1, HQ, 1, T), (B, 1, S, T), (B, HQ, S, T), (S, T - 2)]


@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("causal", [False, True])
def test_masks(shape: tuple[int, ...], causal: bool) -> None:
    q, k, v = operands()
    i, j = place(S, T)
    order = allowed(j <= i) if causal else 0.0
    filled = [(0, 0)] * (len(shape) - 1) + [(0, T - shape[-1])]
    added = normal(*shape, seed=7)
    bias = np.pad(added.astype(np.float64), filled, constant_values=-np.inf)
    assert_close(attention(q, k, v, added, is_causal=causal), plain(q, k, v, bias + order)[0], accumulation=64)
    mask = np.random.default_rng(8).random(shape) < 0.4
    bias = allowed(np.pad(mask, filled))
    got = attention(q, k, v, mask, is_causal=causal)
    assert_close(got, plain(q, k, v, bias + order)[0], accumulation=64)
    assert np.isfinite(got).all()


@pytest.mark.parametrize(("left", "right"), [(-1, -1), (2, -1), (-1, 1), (0, 0), (3, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_past_and_windows(left: int, right: int, causal: bool) -> None:
    q, k, v = operands()
    past = [normal(B, HK, 4, D, seed=5), normal(B, HK, 4, DV, seed=6)]
    keys, values = np.concatenate([past[0], k], axis=2), np.concatenate([past[1], v], axis=2)
    i, j = place(S, T + 4, 4)
    condition = np.ones((S, T + 4), bool)
    condition &= (j <= i) | (not causal)
    condition &= (j >= i - left) | (left < 0)
    condition &= (j <= i + right) | (right < 0)
    expected, stages = plain(q, keys, values, allowed(condition))
    attributes: Attributes = {"is_causal": causal, "left_window_size": left, "right_window_size": right}
    y, key, value = attention_with_cache(q, k, v, None, *past, **attributes)
    assert_close(y, expected, accumulation=64)
    assert np.array_equal(key, keys)
    assert np.array_equal(value, values)
    for mode in range(4):
        *same, scores = attention_with_scores(q, k, v, None, *past, qk_matmul_output_mode=mode, **attributes)
        assert np.array_equal(same[0], y)
        assert_close(scores, stages[mode], accumulation=64)


def test_lengths_of_an_external_cache() -> None:
    q, k, v = operands()
    lengths = np.array([3, 7])
    i, j = place(S, T)
    offset = (lengths - S)[:, None, None, None]
    padding = j < lengths[:, None, None, None]
    for causal in (False, True):
        condition = padding & ((j <= i + offset) | (not causal))
        got = attention(q, k, v, None, None, None, lengths, is_causal=causal)
        assert_close(got, plain(q, k, v, allowed(condition))[0], accumulation=64)
    assert not attention(q, k, v, None, None, None, lengths, is_causal=True)[0, :, :2].any()


def test_agrees_with_onnx_runtime() -> None:
    q, k, v = (x.swapaxes(1, 2).reshape(B, x.shape[2], -1) for x in operands())
    mask = np.random.default_rng(0).random((B, 1, S, T + 4)) < 0.7
    past = [normal(B, HK, 4, D, seed=5), normal(B, HK, 4, DV, seed=6)]
    attributes: Attributes = {"q_num_heads": HQ, "kv_num_heads": HK, "softcap": 2.0}
    expected = run_node("Attention", [q, k, v, mask, *past], 3, opset=23, **attributes)
    for got, reference in zip(attention_with_cache(q, k, v, mask, *past, **attributes), expected, strict=True):
        assert_close(got, reference, accumulation=64)


def test_rows_in_small_blocks_and_no_rows_or_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = operands()
    mask = normal(B, HQ, S, T)
    expected = attention(q, k, v, mask, is_causal=True)
    monkeypatch.setattr(module, "_SCORE_BYTES", 1)
    assert_close(attention(q, k, v, mask, is_causal=True), expected, accumulation=8)
    assert attention(q[:, :, :0], k, v).shape == (B, HQ, 0, DV)
    assert not attention(q, k[:, :, :0], v[:, :, :0]).any()
    assert attention(q[:0], k[:0], v[:0]).shape == (0, HQ, S, DV)


def test_forbidden_keys_do_not_leak() -> None:
    q, k, v = operands()
    k[:, :, 3], v[:, :, 3] = np.inf, 0
    mask = np.arange(T) != 3
    kept = attention(q, np.delete(k, 3, axis=2), np.delete(v, 3, axis=2))
    assert_close(attention(q, k, v, mask), kept, accumulation=64)
    bias = np.where(mask, np.float32(0), np.float32(-np.inf))
    assert_close(attention(q, k, v, bias), kept, accumulation=64)


def test_softmax_in_another_precision() -> None:
    q, k, v = operands()
    exact = attention(q, k, v)
    assert_close(attention(q, k, v, softmax_precision=np.dtype(np.float64)), exact, accumulation=64)
    rough = attention(q, k, v, softmax_precision=np.dtype(np.float16))
    assert rough.dtype == np.float32
    assert 1e-6 < np.abs(rough - exact).max() < 1e-2


@pytest.mark.parametrize(
    "shapes",
    [
        ((B, 4, S, D), (B, 3, T, D), (B, 3, T, D)),
        ((B, 3, S, D), (B, 3, T, D + 1), (B, 3, T, D)),
        ((B, 3, S, D), (B, 3, T, D), (B, 3, T + 1, D)),
        ((B, S, D), (B, T, D), (B, T, D)),
    ],
)
def test_operands_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="heads"):
        attention(*(normal(*s) for s in shapes))
    with pytest.raises(ValueError, match="attn_mask"):
        attention(*operands(), np.ones((S + 1, T), bool))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dim", [0, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rotary_embedding(dim: int, interleaved: bool, dtype: Any) -> None:
    x = normal(B, 3, S, D, dtype=dtype)
    half = (dim or D) // 2
    angles = np.arange(9)[:, None] * 10.0 ** -np.arange(half)
    caches = [np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)]
    positions = np.random.default_rng(0).integers(0, 9, (B, S))
    got = rotary_embedding(x, *caches, positions, interleaved=interleaved, rotary_embedding_dim=dim)
    first, second = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(half), slice(half, 2 * half))
    )
    pairs = x.astype(np.float64)[..., first] + 1j * x.astype(np.float64)[..., second]
    cos, sin = (c.astype(np.float64)[positions][:, None] for c in caches)
    turned = pairs * (cos + 1j * sin)
    assert_close(got[..., first], turned.real, accumulation=4)
    assert_close(got[..., second], turned.imag, accumulation=4)
    assert np.array_equal(got[..., 2 * half :], x[..., 2 * half :])
    packed = x.swapaxes(1, 2).reshape(B, S, -1)
    flat = rotary_embedding(
        packed, *(c[positions] for c in caches), interleaved=interleaved, rotary_embedding_dim=dim, num_heads=3
    )
    assert np.array_equal(flat, got.swapaxes(1, 2).reshape(B, S, -1))
    if dtype is np.float32:
        operands_ = [x, *caches, positions]
        attributes: Attributes = {"interleaved": int(interleaved)} | (
            {"rotary_embedding_dim": dim, "num_heads": 3} if dim else {}
        )
        (expected,) = run_node("RotaryEmbedding", operands_, opset=23, **attributes)
        assert_close(got, expected, accumulation=4)


def test_rotary_positions_out_of_range() -> None:
    x, cache = normal(1, 2, 3, 4), normal(5, 2)
    with pytest.raises(ValueError, match="position_ids"):
        rotary_embedding(x, cache, cache, np.array([[0, 1, 5]]))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wide_gate", [False, True])
def test_linear_attention(rule: str, wide_gate: bool) -> None:
    q, k, v = normal(B, S, HQ * D), normal(B, S, HK * D, seed=1) * 0.3, normal(B, S, HK * DV, seed=2)
    past = normal(B, HK, D, DV, seed=3)
    decay = -np.abs(normal(B, S, HK * (D if wide_gate else 1), seed=4)) if rule.startswith("gated") else None
    beta = np.abs(normal(B, S, HK, seed=5)) if rule.endswith("delta") else None
    got, state = linear_attention(
        q, k, v, past, decay, beta, q_num_heads=HQ, kv_num_heads=HK, update_rule=rule, scale=0.5
    )
    expected, last = np.empty((B, S, HQ, DV)), np.empty((B, HK, D, DV))
    for b in range(B):
        for h in range(HK):
            s = past[b, h].astype(np.float64)
            for t in range(S):
                kt, vt = k[b, t].reshape(HK, D)[h].astype(np.float64), v[b, t].reshape(HK, DV)[h].astype(np.float64)
                if decay is not None:
                    s = np.exp(decay[b, t].reshape(HK, -1)[h].astype(np.float64))[:, None] * s
                if beta is not None:
                    vt = beta[b, t, h] * (vt - s.T @ kt)
                s = s + np.outer(kt, vt)
                for g in range(HQ // HK):
                    head = h * (HQ // HK) + g
                    expected[b, t, head] = 0.5 * q[b, t].reshape(HQ, D)[head] @ s
            last[b, h] = s
    assert_close(got, expected.reshape(B, S, -1), accumulation=256)
    assert_close(state, last, accumulation=256)


def test_linear_attention_goes_on_where_it_stopped() -> None:
    q, k, v = normal(B, S, HQ * D), normal(B, S, HK * D, seed=1), normal(B, S, HK * DV, seed=2)
    attributes: Attributes = {"q_num_heads": HQ, "kv_num_heads": HK, "update_rule": "linear"}
    whole, end = linear_attention(q, k, v, **attributes)
    first, state = linear_attention(q[:, :2], k[:, :2], v[:, :2], **attributes)
    rest, last = linear_attention(q[:, 2:], k[:, 2:], v[:, 2:], state, **attributes)
    assert_close(np.concatenate([first, rest], axis=1), whole, accumulation=64)
    assert_close(last, end, accumulation=64)
    with pytest.raises(ValueError, match="decay"):
        linear_attention(q, k, v, q_num_heads=HQ, kv_num_heads=HK)


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_causal_convolution_goes_on_where_it_stopped(activation: str) -> None:
    x, w, b = normal(2, 3, 9), normal(3, 1, 4, seed=1), normal(3, seed=2)
    y, state = causal_conv_with_state(x, w, b, activation=activation)
    expected = conv(x, w, b, group=3, pads=(3, 0)).astype(np.float64)
    if activation == "silu":
        expected = expected / (1 + np.exp(-expected))
    assert_close(y, expected, accumulation=8)
    assert np.array_equal(state, x[:, :, 6:])
    parts, carried = [], None
    for begin in (0, 1, 3):
        part = x[:, :, begin : {0: 1, 1: 3, 3: 9}[begin]]
        found, carried = causal_conv_with_state(part, w, b, carried, activation=activation)
        parts.append(found)
    assert_close(np.concatenate(parts, axis=2), y, accumulation=8)
    assert carried is not None
    assert np.array_equal(carried, state)
