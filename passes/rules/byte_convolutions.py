"""Convolutions of quantised images as sums of products of bytes, in int32:

    conv(dequantize(x, s, z), dequantize(w, t), b)  ->  float(conv_bytes(x, w, -z sum w)) * (s t) + b
    qlinear_conv(x, s, z, w, t, ..., b)             ->  conv_bytes(x, w, b - z sum w) and its requantisation
    dequantize(quantize(v, s, z), s, z) in int8     ->  the same in uint8, with z + 128

w is a constant less its zero points, which int8 must hold; the image has one scale and one constant zero point z, which
is what stands in the padding. The sum of integers is exact (Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", CVPR 2018). Convolutions of few channels, depthwise ones above all,
stay what they are, or become convolutions of floats: words of four channels would be mostly zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.opset.quantized_products import requantised
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op, optional
from fusible.passes.rewrite import Reject, attributes, rule
from fusible.passes.rules.zero_points import BYTES, dtype_of, is_single

__all__ = ["CONVOLUTIONS", "DEQUANTISED"]

_LEAST_CHANNELS = 8  # of a group: below, floats are as fast
_DEEPEST = 1 << 16  # terms of less than 2**15 each, whose sum int32 holds
_CENTRE = 128  # from int8 to uint8


@dataclass(frozen=True)
class _Filters:
    """weights: int8 [O, C / group, KH, KW]; scales: float32, one number or [O, 1, 1]."""

    weights: np.ndarray
    scales: np.ndarray


@dataclass(frozen=True)
class _Operands:
    """What a convolution of bytes reads: an image of uint8, its zero point, filters."""

    image: Value
    zero: int
    filters: _Filters


@rule(exactness=Exactness.REASSOCIATING)
def convolution_of_dequantised(x: Any, w: Any, b: Any, l: Any, r: Any, c: Any) -> Any:  # noqa: E741 - left and right
    """conv(dequantize(x), dequantize(w), b)  ->  cast(conv_bytes(x, w)) * scales + b."""

    def build(
        graph: Graph, x: Value, w: Value, b: Value | None, l: Node, r: Node, c: Node  # noqa: E741
    ) -> Value | Reject:
        scale, zero = (*l.inputs, None)[1:3]
        if l.attrs.output_dtype is not DType.F32 or l.attrs.block_size or r.attrs.block_size or scale is None:
            return Reject("its operands are not dequantised to float32 with one scale for each filter", c)
        scales, zeros = (*r.inputs, None)[1:3]
        found = _operands(graph, x, scale, zero, c, _filters(w, scales, zeros, r.attrs.axis))
        if isinstance(found, Reject):
            return found
        total = _sums(graph, found, None, c)
        factor = graph.add("mul", graph.add("reshape", scale, shape=()), graph.constant(found.filters.scales))
        levels = graph.add("mul", graph.add("cast", total, dtype=DType.F32), factor)
        if b is None:
            return levels
        assert isinstance(b.type, TensorType) and b.type.shape is not None
        return graph.add("add", levels, graph.add("reshape", b, shape=(b.type.shape[0], 1, 1)))

    image, filters = (op.dequantize_linear(v, ...).named(n).shared() for v, n in ((x, l), (w, r)))
    return op.conv(image, filters, optional(b)).named(c), build


@rule(exactness=Exactness.EXACT)
def bytes_without_sign(v: Any, s: Any, z: Any, q: Any, d: Any) -> Any:
    """dequantize(quantize(v, s, z), s, z) in int8  ->  the same in uint8."""

    def build(graph: Graph, v: Value, s: Value, z: Value, q: Node, d: Node) -> Value | Reject:
        again, zero = (*d.inputs, None)[1:3]
        if dtype_of(q.output) is not DType.I8 or not _is_number(z) or not is_single(s) or again is not s:
            return Reject("it is not quantised to int8 with one scale and zero point, or dequantised with others", d)
        if zero is not z and not (_is_number(zero) and _number(zero) == _number(z)):
            return Reject("it is dequantised with another zero point", d)
        if not any(user.op.name == "conv" for user in d.output.users):
            return Reject("no convolution reads it", d)
        assert isinstance(z.type, TensorType)
        shifted = graph.constant(np.full(z.type.static_shape or (), _number(z) + _CENTRE, np.uint8))
        made = graph.add("quantize_linear", v, s, shifted, **attributes(q) | {"output_dtype": DType.U8})
        return graph.add("dequantize_linear", made, s, shifted, **attributes(d))

    return op.dequantize_linear(op.quantize_linear(v, s, z).named(q).shared(), ...).named(d), build


@rule(exactness=Exactness.REASSOCIATING)
def convolution_and_requantisation(node: Any) -> Any:
    """qlinear_conv  ->  conv_bytes and its requantisation, or the convolution of what was quantised."""

    def build(graph: Graph, node: Node) -> Value | Reject:
        x, scale, zero, w, w_scale, w_zero, y_scale, y_zero, bias = (*node.inputs, None)[:9]
        assert x is not None and scale is not None and zero is not None and w is not None
        assert w_scale is not None and w_zero is not None and y_scale is not None and y_zero is not None
        found = _operands(graph, x, scale, zero, node, _filters(w, w_scale, w_zero, 0))
        if not isinstance(w.type, TensorType) or w.type.shape is None:
            return Reject("the rank of its filters is not known", node)
        if isinstance(found, Reject):
            return _of_floats(graph, node)
        known = None if bias is None or bias.constant is None else bias.constant.array
        total = _sums(graph, found, known, node)
        if bias is not None and known is None:
            total = graph.add("add", total, graph.add("reshape", bias, shape=(w.type.shape[0], 1, 1)))
        return requantised(graph, total, scale, graph.constant(found.filters.scales), y_scale, y_zero)

    return op.qlinear_conv(...).named(node), build


DEQUANTISED = (bytes_without_sign, convolution_of_dequantised)
CONVOLUTIONS = (convolution_and_requantisation,)


def _of_floats(graph: Graph, node: Node) -> Value:
    """qlinear_conv as what it means: its operands dequantised, convolved and quantised."""
    (x, _, _, w), y_zero, bias = node.inputs[:4], node.inputs[7], (*node.inputs, None)[8]
    flat = [v if v is None or not is_single(v) else graph.add("reshape", v, shape=()) for v in node.inputs[:8]]
    image = graph.add("dequantize_linear", x, flat[1], flat[2], output_dtype=DType.F32)
    filters = graph.add("dequantize_linear", w, flat[4], flat[5], axis=0, output_dtype=DType.F32)
    added = None
    if bias is not None:
        step = graph.add("mul", *(graph.add("cast", flat[n], dtype=DType.F32) for n in (1, 4)))
        added = graph.add("mul", graph.add("cast", bias, dtype=DType.F32), step)
    made = graph.add("conv", image, filters, added, **attributes(node))
    assert y_zero is not None
    return graph.add("quantize_linear", made, flat[6], flat[7], output_dtype=dtype_of(y_zero))


def _filters(w: Value, scale: Value | None, zero: Value | None, axis: int) -> _Filters | Reject:
    """Constant filters less their zero points, and their scales."""
    known = all(v is None or v.constant is not None for v in (w, scale, zero))
    if not known or w.constant is None or scale is None or scale.constant is None or dtype_of(w) not in BYTES:
        return Reject("its filters are no constant bytes with known scales", w)
    array, scales = w.constant.array, scale.constant.array
    zeros = np.zeros((), array.dtype) if zero is None or zero.constant is None else zero.constant.array
    fit = all(p.size == 1 or (p.shape == array.shape[:1] and axis % array.ndim == 0) for p in (scales, zeros))
    if array.ndim != 4 or scales.dtype != np.float32 or not fit:
        return Reject("it has not filters of four dimensions with one scale and zero point for each", w)
    shape = (-1, 1, 1, 1)
    centred = array.astype(np.int32) - (zeros.reshape(()) if zeros.size == 1 else zeros.reshape(shape)).astype(np.int32)
    if centred.size and (centred.min() < -128 or centred.max() > 127):
        return Reject("less their zero points its filters do not fit int8", w)
    return _Filters(centred.astype(np.int8), scales.reshape(()) if scales.size == 1 else scales.reshape(shape[:3]))


def _operands(
    graph: Graph, x: Value, scale: Value, zero: Value | None, node: Node, filters: _Filters | Reject
) -> _Operands | Reject:
    """The operands, the image as uint8, if the convolution pays as one of bytes."""
    if isinstance(filters, Reject):
        return filters
    if not isinstance(x.type, TensorType) or x.type.rank != 4 or dtype_of(x) not in BYTES:
        return Reject("it convolves no image of bytes", x)
    if not is_single(scale) or dtype_of(scale) is not DType.F32 or (zero is not None and not _is_number(zero)):
        return Reject("its image has not one scale in float32 and one known zero point", x)
    channels, depth = filters.weights.shape[1], prod(filters.weights.shape[1:])
    if filters.weights.shape[0] == node.attrs.group:
        return Reject("it has one filter a group, which floats have kernels for", x)
    if node.attrs.auto_pad != "NOTSET" or channels < _LEAST_CHANNELS or depth > _DEEPEST:
        return Reject(f"{channels} channels a group, {depth} terms or pads that are not known are no case for bytes", x)
    number = 0 if zero is None else _number(zero)
    if dtype_of(x) is DType.U8:
        return _Operands(x, number, filters)
    wide = graph.add("add", graph.add("cast", x, dtype=DType.I32), graph.constant(np.asarray(_CENTRE, np.int32)))
    return _Operands(graph.add("cast", wide, dtype=DType.U8), number + _CENTRE, filters)


def _sums(graph: Graph, operands: _Operands, bias: np.ndarray | None, node: Node) -> Value:
    """conv_bytes; bias: int32 [O], of the sums."""
    weights, zero = operands.filters.weights, operands.zero
    start = -zero * weights.astype(np.int64).sum(axis=(1, 2, 3)) + (0 if bias is None else bias)
    wrapped = start.astype(np.int64).astype(np.int32)
    kept = {name: value for name, value in attributes(node).items() if name != "auto_pad"}
    constants = graph.constant(weights), graph.constant(wrapped)
    return graph.add("conv_bytes", operands.image, *constants, **kept, fill=zero)


def _is_number(value: Value | None) -> bool:
    return value is not None and value.constant is not None and is_single(value)


def _number(value: Value | None) -> int:
    assert value is not None and value.constant is not None
    return int(value.constant.array.reshape(-1)[0])
