"""Schemas of ONNX Runtime's operators around transformers (com.microsoft), which the onnx package does not know.

Names, element types and attributes are those of docs/ContribOperators.md of ONNX Runtime 1.32. Shapes are the handlers'
to check.
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
    "int32": ("int32",),
    "int64": ("int64",),
    "uint8": ("uint8",),
}
_NORM = "epsilon: FLOAT"
_PRODUCT = "alpha: FLOAT, transA: INT, transB: INT"

# Inputs (name: T/types, the letter common to those of one type; ? where they may be absent), attributes (! where they
# must be given), and the number of results.
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
        outputs=[_parameter(f"y{n}", formal[0].type_str, optional=n > 0) for n in range(results)],
        type_constraints=[(letter, [f"tensor({t})" for t in types], "") for letter, types in allowed.items()],
        attributes=[_attribute(text) for text in attributes.split(", ") if text],
    )  # fmt: skip


def _inputs(texts: Sequence[str]) -> tuple[list[defs.OpSchema.FormalParameter], dict[str, tuple[str, ...]]]:
    formal, allowed = [], {}
    for text in texts:
        name, _, type_ = text.partition(": ")
        letter, _, group = type_.partition("/")
        allowed[letter] = _TYPES[group]
        formal.append(_parameter(name.removesuffix("?"), letter, optional=name.endswith("?")))
    return formal, allowed


def _parameter(name: str, letter: str, *, optional: bool) -> defs.OpSchema.FormalParameter:
    options = defs.OpSchema.FormalParameterOption
    return defs.OpSchema.FormalParameter(name, letter, param_option=options.Optional if optional else options.Single)


def _attribute(text: str) -> defs.OpSchema.Attribute:
    name, _, kind = text.partition(": ")
    return defs.OpSchema.Attribute(
        name.removesuffix("!"), getattr(defs.OpSchema.AttrType, kind), required=name[-1] == "!"
    )
