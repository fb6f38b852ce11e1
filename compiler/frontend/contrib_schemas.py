"""Schemas of ONNX Runtime's operators (com.microsoft): those around transformers, and the quantised ones.

The onnx package does not know them. Names, element types and attributes are those of docs/ContribOperators.md of ONNX
Runtime 1.32. Shapes are the handlers' to check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from onnx import defs

__all__ = ["contrib_schema"]

_DOMAIN = "com.microsoft"
_TYPES: Mapping[str, tuple[str, ...]] = {
    "floats": ("float", "float16", "bfloat16"),
    "all_floats": ("float", "float16", "bfloat16", "double"),
    "narrow": ("float", "float16"),
    "cache": ("float", "float16", "bfloat16", "uint8", "int8", "float8e4m3fn"),
    "zeros": ("uint8", "float", "float16", "bfloat16"),
    "float": ("float",),
    "bytes": ("uint8", "int8"),
    "integers": ("uint8", "int8", "uint16", "int16", "uint4", "int4"),
    "all_integers": ("uint8", "int8", "uint16", "int16", "uint4", "int4", "int32"),
    "bytes_and_float": ("uint8", "int8", "float"),
    "bool": ("bool",),
    "int32": ("int32",),
    "int64": ("int64",),
    "uint8": ("uint8",),
}
_NORM = "epsilon: FLOAT"
_PRODUCT = "alpha: FLOAT, transA: INT, transB: INT"
_WINDOWS = "auto_pad: STRING, kernel_shape{}: INTS, pads: INTS, strides: INTS, channels_last: INT"
_UNARY = "X: T/bytes, X_scale: S/float, X_zero_point?: T/bytes, Y_scale: S/float, Y_zero_point?: T/bytes"
_BINARY = (
    "A: T/bytes, A_scale: S/float, A_zero_point?: T/bytes, B: T/bytes, B_scale: S/float, B_zero_point?: T/bytes, "
    "C_scale: S/float, C_zero_point?: T/bytes"
)

# Inputs (name: T/types, the letter common to those of one type; ? where they may be absent, * for any number of any of
# the types), attributes (! where they must be given), and the number of results.
_OPS: Mapping[str, tuple[str, str, int]] = {
    "SkipLayerNormalization": (
        "input: T/floats, skip: T/floats, gamma: T/floats, beta?: T/floats, bias?: T/floats", _NORM, 4,
    ),
    "SkipSimplifiedLayerNormalization": (
        "input: T/floats, skip: T/floats, gamma: T/floats, bias?: T/floats", _NORM, 4,
    ),
    "EmbedLayerNormalization": (
        ("input_ids: I/int32, segment_ids?: I/int32, word_embedding: T/narrow, position_embedding: T/narrow, "
        "segment_embedding?: T/narrow, gamma: T/narrow, beta: T/narrow, mask?: I/int32, position_ids?: I/int32"),
        _NORM + ", mask_index_type: INT", 3,
    ),
    "FastGelu": ("X: T/all_floats, bias?: T/all_floats", "", 1),
    "Gelu": ("X: T/all_floats", "", 1),
    "BiasGelu": ("A: T/all_floats, B: T/all_floats", "", 1),
    "QuickGelu": ("X: T/all_floats", "alpha: FLOAT", 1),
    "FusedMatMul": ("A: T/all_floats, B: T/all_floats", _PRODUCT + ", transBatchA: INT, transBatchB: INT", 1),
    "TransposeMatMul": ("A: T/all_floats, B: T/all_floats", _PRODUCT, 1),
    "RotaryEmbedding": (
        "input: T/floats, position_ids: M/int64, cos_cache: T/floats, sin_cache: T/floats",
        "num_heads: INT, rotary_embedding_dim: INT, interleaved: INT, is_packed_batching: INT, scale: FLOAT", 1,
    ),
    "MultiHeadAttention": (
        ("query: T/floats, key?: T/floats, value?: T/floats, bias?: T/floats, key_padding_mask?: M/int32, "
        "attention_bias?: T/floats, past_key?: T/floats, past_value?: T/floats, past_sequence_length?: M/int32, "
        "cache_indirection?: M/int32"),
        "num_heads!: INT, unidirectional: INT, scale: FLOAT, mask_filter_value: FLOAT", 4,
    ),
    "GroupQueryAttention": (
        ("query: T/floats, key?: T/floats, value?: T/floats, past_key?: C/cache, past_value?: C/cache, "
        "seqlens_k: M/int32, total_sequence_length: M/int32, cos_cache?: T/floats, sin_cache?: T/floats, "
        "position_ids?: P/int64, attention_bias?: T/floats, head_sink?: T/floats, k_scale?: S/float, "
        "v_scale?: S/float, q_norm_weight?: T/floats, k_norm_weight?: T/floats, query_seqlens?: M/int32"),
        ("num_heads!: INT, kv_num_heads!: INT, do_rotary: INT, rotary_interleaved: INT, scale: FLOAT, softcap: FLOAT, "
        "local_window_size: INT, smooth_softmax: INT, qk_output: INT, kv_cache_bit_width: INT, causal: INT, "
        "k_norm_epsilon: FLOAT, q_norm_epsilon: FLOAT, qk_norm_epsilon: FLOAT, sliding_window_cache: INT, "
        "k_quant_type: STRING, v_quant_type: STRING"), 4,
    ),
    "MatMulNBits": (
        "A: T/floats, B: B/uint8, scales: T/floats, zero_points?: Z/zeros, g_idx?: G/int32, bias?: T/floats",
        "K!: INT, N!: INT, bits: INT, block_size!: INT, accuracy_level: INT, weight_prepacked: INT", 1,
    ),
    "QuantizeLinear": ("x: T/narrow, y_scale: T/narrow, y_zero_point?: Q/integers", "axis: INT", 1),
    "DequantizeLinear": ("x: Q/all_integers, x_scale: T/narrow, x_zero_point?: Q/all_integers", "axis: INT", 1),
    "QLinearAdd": (_BINARY, "", 1),
    "QLinearMul": (_BINARY, "", 1),
    "QLinearSigmoid": (_UNARY, "", 1),
    "QLinearLeakyRelu": (_UNARY, "alpha: FLOAT", 1),
    "QLinearSoftmax": (
        "X: T/bytes, X_scale: S/float, x_zero_point?: T/bytes, y_scale: S/float, y_zero_point: T/bytes",
        "axis: INT, opset!: INT", 1,
    ),
    "QLinearConcat": ("Y_scale: S/float, Y_zero_point: T/bytes, inputs*: V/bytes_and_float", "axis!: INT", 1),
    "QLinearWhere": (
        ("condition: B/bool, X: T/bytes, x_scale: S/float, x_zero_point: T/bytes, Y: T/bytes, y_scale: S/float, "
        "y_zero_point: T/bytes, z_scale: S/float, z_zero_point: T/bytes"), "", 1,
    ),
    "QLinearReduceMean": (
        ("data: T/bytes, data_scale: S/float, data_zero_point?: T/bytes, reduced_scale: S/float, "
        "reduced_zero_point?: T/bytes"), "axes!: INTS, keepdims!: INT", 1,
    ),
    "QLinearGlobalAveragePool": (
        "X: T/bytes, x_scale: S/float, x_zero_point: T/bytes, y_scale: S/float, y_zero_point: T/bytes",
        "channels_last: INT", 1,
    ),
    "QLinearAveragePool": (
        "X: T/bytes, x_scale: S/float, x_zero_point?: T/bytes, y_scale: S/float, y_zero_point?: T/bytes",
        _WINDOWS.format("!") + ", ceil_mode: INT, count_include_pad: INT", 1,
    ),
    "QLinearConv": (
        ("x: X/bytes, x_scale: S/float, x_zero_point: X/bytes, w: W/bytes, w_scale: S/float, w_zero_point: W/bytes, "
        "y_scale: S/float, y_zero_point: Y/bytes, B?: B/int32"),
        _WINDOWS.format("") + ", dilations: INTS, group: INT", 1,
    ),
    "QGemm": (
        ("A: A/bytes, a_scale: S/float, a_zero_point: A/bytes, B: B/bytes, b_scale: S/float, b_zero_point: B/bytes, "
        "C?: C/int32, y_scale?: S/float, y_zero_point?: Y/bytes"), _PRODUCT, 1,
    ),
    "MatMulIntegerToFloat": (
        ("A: A/bytes, B: B/bytes, a_scale: T/narrow, b_scale: T/narrow, a_zero_point?: A/bytes, "
        "b_zero_point?: B/bytes, bias?: T/narrow"), "", 1,
    ),
    "DynamicQuantizeMatMul": (
        "A: T/float, B: B/bytes, b_scale: T/float, b_zero_point?: B/bytes, bias?: T/float", "", 1,
    ),
    "DynamicQuantizeLSTM": (
        ("X: T/float, W: Q/bytes, R: Q/bytes, B?: T/float, sequence_lens?: L/int32, initial_h?: T/float, "
        "initial_c?: T/float, P?: T/float, W_scale: T/float, W_zero_point: Q/bytes, R_scale: T/float, "
        "R_zero_point: Q/bytes"),
        ("activation_alpha: FLOATS, activation_beta: FLOATS, activations: STRINGS, clip: FLOAT, direction: STRING, "
        "hidden_size: INT, input_forget: INT"), 3,
    ),
}  # fmt: skip


@cache
def contrib_schema(domain: str, name: str) -> defs.OpSchema | None:
    """The schema of an operator of ONNX Runtime's, or None where there is none here."""
    if domain != _DOMAIN or name not in _OPS:
        return None
    inputs, attributes, results = _OPS[name]
    formal, allowed = _inputs(inputs.split(", "))
    return defs.OpSchema(
        name, domain, 1, inputs=formal,
        outputs=[_parameter(f"y{n}" + "?" * (n > 0), formal[0].type_str) for n in range(results)],
        type_constraints=[(letter, [f"tensor({t})" for t in types], "") for letter, types in allowed.items()],
        attributes=[_attribute(text) for text in attributes.split(", ") if text],
    )  # fmt: skip


def _inputs(texts: Sequence[str]) -> tuple[list[defs.OpSchema.FormalParameter], dict[str, tuple[str, ...]]]:
    formal, allowed = [], {}
    for text in texts:
        name, _, type_ = text.partition(": ")
        letter, _, group = type_.partition("/")
        allowed[letter] = _TYPES[group]
        formal.append(_parameter(name, letter))
    return formal, allowed


def _parameter(name: str, letter: str) -> defs.OpSchema.FormalParameter:
    options = defs.OpSchema.FormalParameterOption
    option = {"?": options.Optional, "*": options.Variadic}.get(name[-1], options.Single)
    # Of several types are only tensors beside their scales.
    return defs.OpSchema.FormalParameter(
        name.rstrip("?*"), letter, param_option=option, is_homogeneous=option is not options.Variadic
    )


def _attribute(text: str) -> defs.OpSchema.Attribute:
    name, _, kind = text.partition(": ")
    return defs.OpSchema.Attribute(
        name.removesuffix("!"), getattr(defs.OpSchema.AttrType, kind), required=name[-1] == "!"
    )
