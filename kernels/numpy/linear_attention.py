"""LinearAttention and CausalConvWithState: layers of state-space and linear-attention language models (opset 27)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.attention import split_heads
from fusible.kernels.numpy.convolution import conv
from fusible.kernels.numpy.halves import delivered, widened

Array = np.ndarray[Any, Any]

RULES = ("linear", "gated", "delta", "gated_delta")


def linear_attention(
    query: Array, key: Array, value: Array, past_state: Array | None = None, decay: Array | None = None,
    beta: Array | None = None, /, *, q_num_heads: int, kv_num_heads: int, scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[Array, Array]:  # fmt: skip
    """o_t = scale * q_t^T S_t over time, for a state S [Dk, Dv] of each key head; returns the outputs, the last state.

    S_t = g S_{t-1} + k_t (outer) u_t; u_t = v_t, or with a delta rule beta_t * (v_t - g S_{t-1}^T k_t);
    g = exp(decay_t) with a gated rule, else 1. query [B, T, Hq * Dk], key [B, T, Hk * Dk], value [B, T, Hk * Dv],
    decay [B, T, Hk] or [B, T, Hk * Dk], beta [B, T, Hk] or [B, T, 1], states [B, Hk, Dk, Dv]. scale 0 means
    1 / sqrt(Dk). Computed in float32. Source: Yang et al. 2024, Gated Delta Networks.
    """
    if update_rule not in RULES:
        raise ValueError(f"update_rule must be one of {', '.join(RULES)}, got {update_rule!r}")
    gated, delta = update_rule.startswith("gated"), update_rule.endswith("delta")
    if gated != (decay is not None) or delta != (beta is not None):
        raise ValueError(f"update rule {update_rule}: decay goes with the gated rules, beta with the delta rules")
    q, k, v = (
        widened(split_heads(x, n)) for x, n in ((query, q_num_heads), (key, kv_num_heads), (value, kv_num_heads))
    )
    batch, _, steps, depth = q.shape
    group = q_num_heads // kv_num_heads
    state = np.zeros((batch, kv_num_heads, depth, v.shape[3]), np.float32)
    if past_state is not None:
        state[...] = past_state
    gate = None if decay is None else np.exp(widened(split_heads(decay, kv_num_heads)))
    rate = None if beta is None else widened(beta).swapaxes(1, 2)[..., None]
    factor = np.float32(scale or 1 / np.sqrt(depth))
    output = np.empty((batch, steps, q_num_heads, v.shape[3]), query.dtype)
    with np.errstate(all="ignore"):
        for t in range(steps):
            kt, update = k[:, :, t, :], v[:, :, t, :]
            if gate is not None:
                state *= gate[:, :, t, :, None]
            if rate is not None:
                update = rate[:, :, t] * (update - np.matmul(kt[:, :, None], state)[:, :, 0])
            state += kt[..., None] * update[:, :, None]
            # The query heads of a group read one state.
            qt = q[:, :, t].reshape(batch, kv_num_heads, group, depth)
            output[:, t] = (np.matmul(qt, state) * factor).reshape(batch, q_num_heads, -1)
    last = query.dtype if past_state is None else past_state.dtype
    return output.reshape(batch, steps, -1), delivered(state, last)


def causal_conv_with_state(
    X: Array, weight: Array, bias: Array | None = None, past_state: Array | None = None, /, *, activation: str = "none"
) -> tuple[Array, Array]:
    """A depthwise convolution over time that sees no future, and the last k - 1 elements that it saw.

    X [B, C, L], weight [C, 1, k], bias [C], past_state [B, C, k - 1] (zeros if absent) stands before X. activation:
    none, or silu (also called swish): y * sigmoid(y).
    """
    if activation not in ("none", "silu", "swish"):
        raise ValueError(f"activation must be none, silu or swish, got {activation!r}")
    before = weight.shape[2] - 1
    past = np.zeros((*X.shape[:2], before), X.dtype) if past_state is None else past_state
    if past.shape != (*X.shape[:2], before):
        raise ValueError(f"past_state must have shape {(*X.shape[:2], before)}, got {past.shape}")
    whole = np.concatenate([past, X], axis=2)
    y = conv(whole, weight, bias, group=X.shape[1])
    if activation != "none":
        wide = widened(y)
        with np.errstate(all="ignore"):
            y = delivered(wide / (1 + np.exp(-wide)), X.dtype)
    return y, whole[:, :, whole.shape[2] - before :]
