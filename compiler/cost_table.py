"""How many operations the ops take that no definition describes, or whose definition says more than is done.

Each entry gets a node and returns a number of operations, an expression over symbols, or None where it cannot say: a
rank that is unknown, a size that the data decide, a length under a logarithm that is not literal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, log2
from types import MappingProxyType
from typing import TypeAlias

from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbols import Dim, floordiv, product
from fusible.compiler.ir.types import DType, Shape, TensorType

__all__ = ["MOVES_NOTHING", "NOT_AS_DEFINED", "OPAQUE_FLOPS", "READS_NO_ELEMENT"]

_Entry: TypeAlias = Callable[[Node], "Dim | None"]

READS_NO_ELEMENT = frozenset(
    {
        "shape", "size", "eye_like", "random_normal_like", "random_uniform_like", "sequence_length",
        "optional_has_element",
    }
)  # fmt: skip
MOVES_NOTHING = frozenset(
    {
        "reshape", "reshape_dynamic", "flatten", "squeeze", "squeeze_dynamic", "unsqueeze", "unsqueeze_dynamic",
        "identity", "bit_cast", "fail", "optional", "optional_get_element", "require",
    }
)  # fmt: skip
_MOVEMENTS = (
    "array_feature_extractor", "bit_cast", "cast", "compress", "concat", "concat_from_sequence", "dims", "expand",
    "expand_dynamic", "eye_like", "fail", "flatten", "gather", "gather_elements", "gather_nd", "identity",
    "label_encoder", "max_unpool", "max_unpool_dynamic", "non_zero", "one_hot", "one_hot_dynamic", "one_hot_encoder",
    "optional", "optional_get_element", "optional_has_element", "pad", "pad_dynamic", "require", "reshape",
    "reshape_dynamic", "sequence_at", "sequence_construct", "sequence_empty", "sequence_erase", "sequence_insert",
    "sequence_length", "shape", "size", "slice", "slice_dynamic", "split", "split_dynamic", "split_to_sequence",
    "split_to_sequence_dynamic", "squeeze", "squeeze_dynamic", "tile", "tile_dynamic", "transpose", "trilu",
    "trilu_dynamic", "unsqueeze", "unsqueeze_dynamic",
)  # fmt: skip
# One operation for each element of the result, or of the first operand.
_BY_RESULT = ("add", "sub", "mul", "div", "mod", "pow", "erf", "min", "max", "shrink", "range", "range_dynamic")
_BY_OPERAND = (
    "arg_max", "arg_min", "cum_sum", "cum_sum_dynamic", "cum_prod", "cum_prod_dynamic", "top_k", "top_k_dynamic",
    "hardmax", "reduce_dynamic", "reduce_sum", "reduce_mean", "reduce_prod", "reduce_max", "reduce_min", "reduce_l1",
    "reduce_l2", "reduce_log_sum", "reduce_log_sum_exp", "reduce_sum_square",
)  # fmt: skip
_GATES = {"rnn": 1, "gru": 3, "lstm": 4, "dynamic_quantize_lstm": 4}


def _shape(node: Node, index: int) -> Shape | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value.type.shape if value is not None and isinstance(value.type, TensorType) else None


def _result(node: Node) -> Shape | None:
    type_ = node.outputs[0].type
    return type_.shape if isinstance(type_, TensorType) and type_.dtype is not DType.STRING else None


def _has(node: Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _per_result(count: int) -> _Entry:
    def entry(node: Node) -> Dim | None:
        shape = _result(node)
        return None if shape is None else product(shape) * count

    return entry


def _per_operand(count: int) -> _Entry:
    def entry(node: Node) -> Dim | None:
        shape = _shape(node, 0)
        return None if shape is None else product(shape) * count

    return entry


def _nothing(node: Node) -> Dim | None:
    return 0


# Products


def _transposed_convolution(node: Node) -> Dim | None:
    """Two for each product of an input element with its part of the kernel: most terms of the definition are zero."""
    x, w, y = _shape(node, 0), _shape(node, 1), _result(node)
    if x is None or w is None or y is None:
        return None
    return product(x) * product(w[1:]) * 2 + (product(y) if _has(node, 2) else 0)


def _columns_to_image(node: Node) -> Dim | None:
    shape = _shape(node, 0)
    return None if shape is None else product(shape)


def _matrix_product(node: Node) -> Dim | None:
    """For operands of which one may be broadcast when it runs."""
    a, y = _shape(node, 0), _result(node)
    return None if not a or y is None else product(y) * a[-1] * 2


def _deformable_convolution(node: Node) -> Dim | None:
    """A convolution of columns, each element of which is the bilinear mean of four pixels (seven operations)."""
    x, w, y = _shape(node, 0), _shape(node, 1), _result(node)
    if x is None or w is None or y is None:
        return None
    columns = x[0] * x[1] * product(w[2:]) * product(y[2:])
    return product(y) * product(w[1:]) * 2 + columns * 7 + (product(y) if _has(node, 3) else 0)


def _attention(node: Node) -> Dim | None:
    """Two products with the scores, and five operations for each score: scale, maximum, exponential, sum, quotient."""
    q, k, v, y = (_shape(node, 0), _shape(node, 1), _shape(node, 2), _result(node))
    if q is None or k is None or v is None or y is None:
        return None
    past = _shape(node, 4)
    if _has(node, 4) and past is None:
        return None
    heads = q[1] if len(q) == 4 else node.attrs.q_num_heads
    length, keys = q[-2], k[-2] + (past[2] if past is not None else 0)
    # All heads together; those of keys may be fewer than those of queries.
    depth = heads * q[-1] if len(q) == 4 else q[-1]
    values = heads * v[-1] if len(v) == 4 else y[-1]
    return q[0] * length * keys * ((depth + values) * 2 + heads * 5)


def _linear_attention(node: Node) -> Dim | None:
    """Each step adds an outer product to the state and reads it; gates scale it, the delta rule reads it once more."""
    q, k, v = _shape(node, 0), _shape(node, 1), _shape(node, 2)
    if q is None or k is None or v is None:
        return None
    rule, heads = str(node.attrs.update_rule), node.attrs.kv_num_heads
    state = floordiv(k[2] * v[2], heads)
    update = 2 + rule.startswith("gated") + 2 * rule.endswith("delta")
    count: Dim = q[0] * q[1] * state * (update + 2 * (node.attrs.q_num_heads // heads))
    return count


def _causal_convolution(node: Node) -> Dim | None:
    y, w = _result(node), _shape(node, 1)
    if y is None or w is None:
        return None
    return product(y) * (w[2] * 2 + int(_has(node, 2)) + (5 if node.attrs.activation != "none" else 0))


def _recurrent(node: Node) -> Dim | None:
    """Two for each weight a step, and four for each element of a gate (bias, activation, update of the state)."""
    x, w, y = _shape(node, 0), _shape(node, 1), _result(node)
    if x is None or w is None or y is None:
        return None
    steps, directions, hidden = x[0] * x[1], w[0], y[-1]
    return steps * directions * hidden * _GATES[node.op.name] * ((x[2] + hidden) * 2 + 4)


def _determinant(node: Node) -> Dim | None:
    shape = _shape(node, 0)
    return None if shape is None else product(shape[:-2]) * floordiv(shape[-1] * shape[-1] * shape[-1] * 2, 3)


# Images and signals


def _windows(finish: int) -> _Entry:
    def entry(node: Node) -> Dim | None:
        shape = _result(node)
        return None if shape is None else product(shape) * (product(node.attrs.kernel_shape) + finish)

    return entry


def _interpolation(mode: str, axes: int) -> int:
    """Weighted sums of two or four neighbours along each axis; the nearest one costs nothing."""
    taps: int = {"nearest": 0, "linear": 2, "cubic": 4}[mode] ** axes
    return max(0, 2 * taps - 1)


def _resize(node: Node) -> Dim | None:
    old, new = _shape(node, 0), _result(node)
    if old is None or new is None:
        return None
    axes = sum(a != b for a, b in zip(old, new, strict=True))
    return product(new) * _interpolation(node.attrs.mode, axes) if axes else 0


def _grid_sample(node: Node) -> Dim | None:
    shape = _result(node)
    return None if shape is None else product(shape) * _interpolation(node.attrs.mode, len(shape) - 2)


def _affine_grid(node: Node) -> Dim | None:
    shape = _result(node)
    return None if shape is None else product(shape) * ((len(shape) - 2) * 2)


def _roi_align(node: Node) -> Dim | None:
    """Bilinear means at `sampling_ratio` squared places of a bin; with a ratio of 0 the regions decide."""
    shape, ratio = _result(node), node.attrs.sampling_ratio
    return None if shape is None or ratio == 0 else product(shape) * (ratio * ratio * 8)


def _transform(length: Dim, count: Dim, real: bool) -> Dim | None:
    """5 n log2 n for a complex transform of n points, half for a real one (the convention of FFTW's benchmark)."""
    if not isinstance(length, int):
        return None
    points = 5 * length * (log2(length) if length > 1 else 0)
    return count * ceil(points / 2 if real else points)


def _fourier(node: Node) -> Dim | None:
    x, y = _shape(node, 0), _result(node)
    if x is None or y is None:
        return None
    place, attrs = node.attrs.axis % len(x), node.attrs
    length = x[place] if attrs.dft_length is None else attrs.dft_length
    if attrs.dft_length is None and attrs.inverse and attrs.onesided:
        length = (x[place] - 1) * 2
    others = product(d for a, d in enumerate(x[:-1]) if a != place)
    return _transform(length, others, attrs.onesided)


def _short_time_fourier(node: Node) -> Dim | None:
    x, y, window = _shape(node, 0), _result(node), _shape(node, 1)
    if x is None or y is None:
        return None
    length = node.attrs.frame_length
    if length is None:
        length = x[1] if window is None else window[0]
    spectra = _transform(length, y[0] * y[1], node.attrs.onesided)
    return None if spectra is None else spectra + (y[0] * y[1] * length if _has(node, 1) else 0)


def _local_response(node: Node) -> Dim | None:
    """A square, the sum over the window (the definition has a node for each of its places), scale, bias, power."""
    elements = _elements(node)
    return None if elements is None else elements * (node.attrs.size + 4)


def _elements(node: Node) -> Dim | None:
    shape = _result(node)
    return None if shape is None else product(shape)


NOT_AS_DEFINED: Mapping[str, _Entry] = MappingProxyType(
    {"conv_transpose": _transposed_convolution, "col2im": _columns_to_image, "lrn": _local_response}
)
"""Ops whose definition visits more terms than there are, or as many nodes as a model's file says: this table first."""

OPAQUE_FLOPS: Mapping[str, _Entry] = MappingProxyType(
    {
        **dict.fromkeys(_MOVEMENTS, _nothing),
        **dict.fromkeys(_BY_RESULT, _per_result(1)),
        **dict.fromkeys(_BY_OPERAND, _per_operand(1)),
        **dict.fromkeys(_GATES, _recurrent),
        **dict.fromkeys(("attention", "attention_with_cache", "attention_with_scores"), _attention),
        **dict.fromkeys(("matmul", "matmul_integer", "qlinear_matmul"), _matrix_product),
        **dict.fromkeys(("hann_window", "hamming_window"), _per_result(4)),
        "affine_grid": _affine_grid,
        "average_pool": _windows(1),
        "batch_normalization_training": _per_operand(8),  # mean 1, variance 3, as in a run 4
        "blackman_window": _per_result(7),
        "causal_conv_with_state": _causal_convolution,
        "clip": _per_result(2),
        "deform_conv": _deformable_convolution,
        "det": _determinant,
        "dft": _fourier,
        "grid_sample": _grid_sample,
        "linear_attention": _linear_attention,
        "max_pool_with_indices": _windows(0),
        "resize": _resize,
        "roi_align": _roi_align,
        "scatter_elements": lambda node: _scattered(node, 2),
        "scatter_nd": lambda node: _scattered(node, 2),
        "stft": _short_time_fourier,
    }
)
"""Opaque ops. An op that stands in neither table and is opaque has no known number of operations."""


def _scattered(node: Node, updates: int) -> Dim | None:
    shape = _shape(node, updates)
    if node.attrs.reduction == "none":
        return 0
    return None if shape is None else product(shape)
