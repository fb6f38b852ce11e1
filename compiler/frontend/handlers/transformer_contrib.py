"""ONNX Runtime's operators around transformers' products (com.microsoft), written out in canonical ops.

Norms with residuals, activations with biases, products with transposed operands: what ONNX Runtime's model optimiser
and its model builder write. Attention is with `attention_contrib`. Semantics: docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.contrib_shapes import check_shape, flag
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType, Shape

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
    total = _skipped(c, vectors=(2, 3))
    return [_rms(c, total, c.required(2), -1, 1e-12), None, None, total]


@onnx_op("SkipLayerNormalization", domain=_DOMAIN)
def skip_layer_normalization(c: NodeContext) -> list[Value | None]:
    """SkipLayerNormalization: input, skip, gamma, beta, a bias; the result, and the sum that was normalised."""
    _without(c, {1: "mean", 2: "inv_std_var"})
    total = _skipped(c, vectors=(2, 3, 4))
    return [_layer(c, total, c.required(2), c.optional(3)), None, None, total]


@onnx_op("EmbedLayerNormalization", domain=_DOMAIN)
def embed_layer_normalization(c: NodeContext) -> list[Value | None]:
    """EmbedLayerNormalization: the result, how many ones each row of the mask has, and the sum before the norm.

    Inputs: input_ids, segment_ids, tables of words, positions and segments, gamma, beta, mask, position_ids.
    """
    ids = c.shape(0)
    if ids is None or len(ids) != 2:
        c.unsupported("the shape [batch, length] of input_ids is not known; state it with shapes={...}")
    _check_tables(c, ids)
    total = c.add("gather", c.required(2), c.required(0), axis=0)
    places = c.optional(8)
    if places is None:
        ends = (c.add("dims", values=(d,), shape=()) for d in (0, ids[1]))
        places = c.add("range", *ends, c.constant(np.asarray(1, np.int64)))
    total = c.add("add", total, c.add("gather", c.required(3), places, axis=0))
    if c.optional(1) is not None or c.optional(4) is not None:
        segments = c.optional(1) or c.constant(np.zeros((1, 1), np.int32))  # as ONNX Runtime reads it: all the first
        total = c.add("add", total, c.add("gather", c.required(4), segments, axis=0))
    count = None
    if c.wants(1):
        count = c.add("expand", c.constant(np.zeros(1, np.int32)), shape=(ids[0],))
        if c.optional(7) is not None:
            ones = c.add("equal", c.required(7), c.constant(np.asarray(1, np.int32)))
            count = c.add("reduce_sum", c.add("cast", ones, dtype=DType.I32), axes=(1,), keepdims=False)
    return [_layer(c, total, c.required(5), c.required(6)), count, total]


def _check_tables(c: NodeContext, ids: Shape) -> None:
    """Tables of rows of one length, a mask and numbers of rows for each of the ids."""
    table = c.shape(2)
    width = None if table is None or not table else table[-1]
    for index in (2, 3, 4):
        check_shape(c, index, (None, width))
    for index in (5, 6):
        check_shape(c, index, (width,))
    for index in (1, 7):
        check_shape(c, index, ids)
    check_shape(c, 8, ids, (1, ids[1]))


@onnx_op("FastGelu", domain=_DOMAIN)
def fast_gelu(c: NodeContext) -> Value:
    """FastGelu: X, a bias; the approximation by tanh."""
    return c.add("gelu", _biased(c), approximate="tanh")


@onnx_op("Gelu", "BiasGelu", domain=_DOMAIN)
def bias_gelu(c: NodeContext) -> Value:
    """Gelu: X. BiasGelu: A, B. Both by erf."""
    return c.add("gelu", _biased(c), approximate="none")


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
    if flag(c, f"transBatch{name}"):
        if rank < 3:
            c.invalid(f"transBatch{name} needs an operand of rank 3 or more, got {rank}")
        axes = [*axes[1:-1], 0, axes[-1]]
    if flag(c, f"trans{name}") and rank > 1:
        axes[-2:] = reversed(axes[-2:])
    return value if axes == sorted(axes) else c.add("transpose", value, perm=tuple(axes))


def _skipped(c: NodeContext, vectors: Sequence[int]) -> Value:
    """input + skip, and the bias, the last of the inputs that have an element for each column."""
    shape = c.shape(0)
    if shape is not None:
        check_shape(c, 0, (None,) * 2, (None,) * 3)
        check_shape(c, 1, shape, *([(1, *shape[1:]), shape[1:]] if len(shape) == 3 else []))
        for index in vectors:
            check_shape(c, index, shape[-1:])
    return _plus(c, c.add("add", c.required(0), c.required(1)), c.optional(vectors[-1]))


def _biased(c: NodeContext) -> Value:
    """An input, and the bias of its columns if there is one."""
    shape = c.shape(0)
    if shape is not None and c.optional(1) is not None:
        check_shape(c, 1, shape[-1:] or (None,))
        if not shape:
            c.invalid(f"input 0 must have columns for the bias, got {c.tensor_type(0)}")
    return _plus(c, c.required(0), c.optional(1))


def _plus(c: NodeContext, x: Value, bias: Value | None) -> Value:
    return x if bias is None else c.add("add", x, bias)


def _rms(c: NodeContext, x: Value, scale: Value, axis: int, epsilon: float) -> Value:
    return c.add("rms_normalization", x, scale, axis=axis, epsilon=_epsilon(c, epsilon), stash_dtype=DType.F32)


def _layer(c: NodeContext, x: Value, scale: Value, bias: Value | None) -> Value:
    epsilon = _epsilon(c, 1e-12)
    return c.add("layer_normalization", x, scale, bias, axis=-1, epsilon=epsilon, stash_dtype=DType.F32)


def _epsilon(c: NodeContext, default: float) -> float:
    found = c.attr_float("epsilon", default)
    if not found >= 0:
        c.invalid(f"attribute 'epsilon' must be 0 or more, got {found}")
    return found


def _without(c: NodeContext, results: dict[int, str]) -> Sequence[str]:
    """UnsupportedOp for results that only training asks for."""
    asked = [name for index, name in results.items() if c.wants(index)]
    if asked:
        c.unsupported(f"its result {asked[0]}, which training alone needs, is read")
    return asked
