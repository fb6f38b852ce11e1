"""Attention, RotaryEmbedding, LinearAttention, CausalConvWithState."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value


@onnx_op("Attention")
def attention(c: NodeContext) -> Sequence[Value]:
    """Attention (nonpad_kv_seqlen since opset 24, windows since 25)."""
    operands = [c.required(i) if i < 3 else c.optional(i) for i in range(7)]
    packed = c.rank(0) == 3
    attrs = {
        # Of no meaning for operands of rank 4, which older exporters gave them all the same.
        "q_num_heads": c.attr_int("q_num_heads") if packed else None,
        "kv_num_heads": c.attr_int("kv_num_heads") if packed else None,
        "is_causal": c.attr_int("is_causal", 0) != 0,
        "scale": c.attr_float("scale") if c.has_attr("scale") else None,
        "softcap": c.attr_float("softcap", 0.0),
        "softmax_precision": c.attr_dtype("softmax_precision") if c.has_attr("softmax_precision") else None,
        "left_window_size": c.attr_int("left_window_size", -1),
        "right_window_size": c.attr_int("right_window_size", -1),
    }
    if c.rank(0) is None:
        c.unsupported("the rank of Q is not known; state it with shapes={...}")
    if c.wants(3):
        mode = c.attr_int("qk_matmul_output_mode", 0)
        return c.add_node("attention_with_scores", *operands, outputs=4, qk_matmul_output_mode=mode, **attrs).outputs
    if c.wants(1) or c.wants(2):
        return c.add_node("attention_with_cache", *operands, outputs=3, **attrs).outputs
    return [c.add("attention", *operands, **attrs)]


@onnx_op("RotaryEmbedding")
def rotary_embedding(c: NodeContext) -> Value:
    """RotaryEmbedding."""
    return c.add(
        "rotary_embedding",
        c.required(0),
        c.required(1),
        c.required(2),
        c.optional(3),
        interleaved=c.attr_int("interleaved", 0) != 0,
        rotary_embedding_dim=c.attr_int("rotary_embedding_dim", 0),
        num_heads=c.attr_int("num_heads") if c.known_rank(0) == 3 else None,
    )


@onnx_op("LinearAttention")
def linear_attention(c: NodeContext) -> Sequence[Value]:
    """LinearAttention (chunk_size does not change the result)."""
    operands = [c.required(i) if i < 3 else c.optional(i) for i in range(6)]
    return c.add_node(
        "linear_attention",
        *operands,
        outputs=2,
        q_num_heads=c.attr_int("q_num_heads"),
        kv_num_heads=c.attr_int("kv_num_heads"),
        scale=c.attr_float("scale", 0.0),
        update_rule=c.attr_string("update_rule", "gated_delta"),
    ).outputs


@onnx_op("CausalConvWithState")
def causal_conv_with_state(c: NodeContext) -> Sequence[Value]:
    """CausalConvWithState."""
    operands = [c.required(0), c.required(1), c.optional(2), c.optional(3)]
    activation = c.attr_string("activation", "none")
    return c.add_node("causal_conv_with_state", *operands, outputs=2, activation=activation).outputs
