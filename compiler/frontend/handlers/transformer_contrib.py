"""ONNX Runtime's operators around transformers' products (com.microsoft), written out in canonical ops.

Norms with residuals, activations with biases, products with transposed operands: what ONNX Runtime's model optimiser
and its model builder write. Attention is with `attention_contrib`. Semantics: docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType

_DOMAIN = "com.microsoft"


@onnx_op("SimplifiedLayerNormalization", domain=_DOMAIN)
@onnx_op("SimplifiedLayerNormalization")
def simplified_layer_normalization(c: NodeContext) -> list[Value | None]:
    """SimplifiedLayerNormalization: X, scale; an RMSNormalization that older models have in ONNX's own domain."""
    _without(c, {1: "inv_std_var"})
    return [_rms(c, c.required(0), c.required(1), c.attr_int("axis", -1), 1e-5)]


@onnx_op("SkipSimplifiedLayerNormalization", domain=_DOMAIN)
def skip_simplified_layer_normalization(c: NodeContext) -> list[Value | None]:
    """SkipSimplifiedLayerNormalization: input, skip, gamma, a bias; the result, and the sum that was normalised."""
    _without(c, {1: "mean", 2: "inv_std_var"})
    total = _skipped(c, bias=3)
    return [_rms(c, total, c.required(2), -1, 1e-12), None, None, total]


@onnx_op("SkipLayerNormalization", domain=_DOMAIN)
def skip_layer_normalization(c: NodeContext) -> list[Value | None]:
    """SkipLayerNormalization: input, skip, gamma, beta, a bias; the result, and the sum that was normalised."""
    _without(c, {1: "mean", 2: "inv_std_var"})
    total = _skipped(c, bias=4)
    return [_layer(c, total, c.required(2), c.optional(3)), None, None, total]


@onnx_op("EmbedLayerNormalization", domain=_DOMAIN)
def embed_layer_normalization(c: NodeContext) -> list[Value | None]:
    """EmbedLayerNormalization: the result, how many ones each row of the mask has, and the sum before the norm.

    Inputs: input_ids, segment_ids, tables of words, positions and segments, gamma, beta, mask, position_ids.
    """
    ids = c.shape(0)
    if ids is None or len(ids) != 2:
        c.unsupported("the shape [batch, length] of input_ids is not known; state it with shapes={...}")
    total = c.add("gather", c.required(2), c.required(0), axis=0)
    places = c.optional(8)
    if places is None:
        ends = (c.add("dims", values=(d,), shape=()) for d in (0, ids[1]))
        places = c.add("range", *ends, c.constant(np.asarray(1, np.int64)))
    total = c.add("add", total, c.add("gather", c.required(3), places, axis=0))
    if c.optional(1) is not None:
        total = c.add("add", total, c.add("gather", c.required(4), c.required(1), axis=0))
    count = None
    if c.wants(1):
        count = c.add("expand", c.constant(np.zeros(1, np.int32)), shape=(ids[0],))
        if c.optional(7) is not None:
            ones = c.add("equal", c.required(7), c.constant(np.asarray(1, np.int32)))
            count = c.add("reduce_sum", c.add("cast", ones, dtype=DType.I32), axes=(1,), keepdims=False)
    return [_layer(c, total, c.required(5), c.required(6)), count, total]


@onnx_op("FastGelu", domain=_DOMAIN)
def fast_gelu(c: NodeContext) -> Value:
    """FastGelu: X, a bias; the approximation by tanh."""
    return c.add("gelu", _plus(c, c.required(0), c.optional(1)), approximate="tanh")


@onnx_op("Gelu", "BiasGelu", domain=_DOMAIN)
def bias_gelu(c: NodeContext) -> Value:
    """Gelu: X. BiasGelu: A, B. Both by erf."""
    return c.add("gelu", _plus(c, c.required(0), c.optional(1)), approximate="none")


@onnx_op("QuickGelu", domain=_DOMAIN)
def quick_gelu(c: NodeContext) -> Value:
    """QuickGelu: x sigmoid(alpha x)."""
    return c.add("swish", c.required(0), alpha=c.attr_float("alpha", 1.702))


@onnx_op("FusedMatMul", "TransposeMatMul", domain=_DOMAIN)
def fused_matmul(c: NodeContext) -> Value:
    """FusedMatMul: alpha A' B'; transBatchA, transBatchB: the first dimension goes behind those of the batch."""
    y = c.add("matmul", _operand(c, 0, "A"), _operand(c, 1, "B"))
    alpha = c.attr_float("alpha", 1.0)
    return y if alpha == 1 else c.add("mul", y, c.scalar_like(y, alpha))


def _operand(c: NodeContext, index: int, name: str) -> Value:
    value, rank = c.required(index), c.known_rank(index)
    axes = list(range(rank))
    if c.attr_int(f"transBatch{name}", 0):
        if rank < 3:
            c.invalid(f"transBatch{name} needs an operand of rank 3 or more, got {rank}")
        axes = [*axes[1:-1], 0, axes[-1]]
    if c.attr_int(f"trans{name}", 0) and rank > 1:
        axes[-2:] = reversed(axes[-2:])
    return value if axes == sorted(axes) else c.add("transpose", value, perm=tuple(axes))


def _skipped(c: NodeContext, bias: int) -> Value:
    return _plus(c, c.add("add", c.required(0), c.required(1)), c.optional(bias))


def _plus(c: NodeContext, x: Value, bias: Value | None) -> Value:
    return x if bias is None else c.add("add", x, bias)


def _rms(c: NodeContext, x: Value, scale: Value, axis: int, epsilon: float) -> Value:
    stated = c.attr_float("epsilon", epsilon)
    return c.add("rms_normalization", x, scale, axis=axis, epsilon=stated, stash_dtype=DType.F32)


def _layer(c: NodeContext, x: Value, scale: Value, bias: Value | None) -> Value:
    epsilon = c.attr_float("epsilon", 1e-12)
    return c.add("layer_normalization", x, scale, bias, axis=-1, epsilon=epsilon, stash_dtype=DType.F32)


def _without(c: NodeContext, results: dict[int, str]) -> Sequence[str]:
    """UnsupportedOp for results that only training asks for."""
    asked = [name for index, name in results.items() if c.wants(index)]
    if asked:
        c.unsupported(f"its result {asked[0]}, which training alone needs, is read")
    return asked
