"""Zero points of quantised products, written so that matrix units multiply int8 as it is stored.

    dequantize(x, s, 0)            ->  dequantize(x, s)
    qlinear_matmul(a, ..., b, ...) ->  matmul_integer and its requantisation
    sum (a - z) (b - y)            ->  sum (a - 128) c + (128 - z) * sum c      for a: uint8, c = b - y
                                   ->  sum a c - z * sum c                      for a: int8
                                   ->  sum (a - z) d + (128 - y) sum (a - z)    for b: uint8, where c does not fit int8
                                   ->  sum (a - z) b - y * sum (a - z)          for b: int8, where c does not fit int8

c is a constant that int8 holds, and so is its sum over each column; d = b - 128; a - 128 is the int8 number with
the same bits but the highest. The sums are those of int32, which wraps: the same to the bit (Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 2.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.opset.quantized_products import requantised
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op
from fusible.passes.rewrite import Reject, attributes, rule

__all__ = ["BYTES", "RULES", "dtype_of", "is_single"]

BYTES = (DType.I8, DType.U8)
_FLOATS8 = (DType.F8E4M3FN, DType.F8E5M2)
_CENTRE = 128  # of uint8


@rule(exactness=Exactness.EXACT)
def zero_of_dequantised(x: Any, scale: Any, zero: Any, node: Any) -> Any:
    """dequantize(x, s, 0)  ->  dequantize(x, s)."""

    def build(graph: Graph, x: Value, scale: Value, zero: Value, node: Node) -> Value | Reject:
        if not _is_zero(zero):
            return Reject("its zero point is not known to be 0", zero)
        return graph.add("dequantize_linear", x, scale, **attributes(node))

    return op.dequantize_linear(x, scale, zero).named(node), build


@rule(exactness=Exactness.EXACT)
def product_and_requantisation(node: Any) -> Any:
    """qlinear_matmul, one scale for all rows  ->  matmul_integer (8-bit floats: matmul) and what quantises its sums."""

    def build(graph: Graph, node: Node) -> Value | Reject:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
        assert a is not None and b is not None and a_scale is not None and b_scale is not None
        assert y_scale is not None and y_zero is not None
        if not all(is_single(v) for v in (a_scale, a_zero, y_scale, y_zero)):
            return Reject("it has a scale for each row", a_scale)
        if dtype_of(a) in BYTES and dtype_of(b) in BYTES and dtype_of(y_zero) in BYTES:
            total = graph.add("matmul_integer", a, b, a_zero, b_zero)
        elif dtype_of(a) in _FLOATS8 and dtype_of(b) in _FLOATS8 and _is_zero(a_zero) and _is_zero(b_zero):
            one = graph.constant(np.asarray(1, np.float32))
            left, right = (graph.add("dequantize_linear", v, one, output_dtype=DType.F32) for v in (a, b))
            total = graph.add("matmul", left, right)
        else:
            return Reject("it multiplies neither bytes nor 8-bit floats without zero points", a, b)
        return requantised(graph, total, a_scale, b_scale, y_scale, y_zero)

    return op.qlinear_matmul(...).named(node), build


@rule(exactness=Exactness.EXACT)
def centred_product(node: Any) -> Any:
    """A product of bytes with zero points as one of int8 and what is the same in each column."""

    def build(graph: Graph, node: Node) -> Value | Reject:
        a, b, a_zero, b_zero = (*node.inputs, None, None)[:4]
        assert a is not None and b is not None
        offset = _CENTRE if dtype_of(a) is DType.U8 else 0
        if a_zero is None and b_zero is None and offset == 0:
            return Reject("it has no zero point", a)
        if (
            a_zero is not None
            and a_zero.constant is not None
            and np.all(a_zero.constant.array == offset)
            and b_zero is None
        ):
            return Reject("its operand is centred", a)
        if a_zero is not None and not is_single(a_zero):
            return Reject("each row has a zero point", a_zero)
        weight = _centred_weight(b, b_zero)
        if isinstance(weight, Reject):
            return weight if b_zero is None else _by_rows(graph, a, b, a_zero, b_zero)
        sums = weight.astype(np.int32).sum(axis=-2, dtype=np.int32)
        if sums.ndim > 1 and not _is_vector(a):  # one vector has no rows to repeat the sums for
            sums = sums[..., None, :]
        centre = None if offset == 0 else graph.constant(np.asarray(offset, np.uint8))
        total = graph.add("matmul_integer", a, graph.constant(weight, b.name), centre, None)
        if a_zero is None and offset == 0:
            return total
        shift = graph.constant(np.asarray(offset, np.int32))
        if a_zero is not None:
            zero = graph.add("cast", graph.add("reshape", a_zero, shape=()), dtype=DType.I32)
            shift = graph.add("sub", shift, zero)
        return graph.add("add", total, graph.add("mul", shift, graph.constant(sums)))

    return op.matmul_integer(...).named(node), build


RULES = (zero_of_dequantised, product_and_requantisation, centred_product)


def _centred_weight(b: Value, b_zero: Value | None) -> np.ndarray | Reject:
    """A constant matrix less its zero points, as int8."""
    if b.constant is None or b.constant.array.ndim < 2 or (b_zero is not None and b_zero.constant is None):
        return Reject("the right operand is not a constant matrix", b)
    zero = np.zeros((), np.int32) if b_zero is None else b_zero.constant.array.astype(np.int32)  # type: ignore[union-attr]
    weight = b.constant.array.astype(np.int32) - (zero.reshape(()) if zero.size == 1 else zero)
    if weight.size and (weight.min() < -128 or weight.max() > 127):
        return Reject("less its zero point it does not fit int8", b)
    return weight.astype(np.int8)


def _by_rows(graph: Graph, a: Value, b: Value, a_zero: Value | None, b_zero: Value) -> Value | Reject:
    """The product by weights less 128 (int8: as they are), and what the sums of rows add for their zero points."""
    if b.constant is None or b.constant.array.ndim != 2 or b_zero.constant is None or _is_vector(a):
        return Reject("the right operand is not a constant matrix", b)
    if not isinstance(a.type, TensorType) or a.type.rank is None:
        return Reject("the rank of the left operand is not known", a)
    centre = _CENTRE if dtype_of(b) is DType.U8 else 0
    weight = (b.constant.array.astype(np.int16) - centre).astype(np.int8)
    rest = centre - b_zero.constant.array.astype(np.int32)
    rest = rest.reshape(()) if rest.size == 1 else rest
    rows = graph.add("cast", a, dtype=DType.I32)
    if a_zero is not None:
        rows = graph.add("sub", rows, graph.add("cast", graph.add("reshape", a_zero, shape=()), dtype=DType.I32))
    rows = graph.add("reduce_sum", rows, axes=(a.type.rank - 1,), keepdims=True)
    total = graph.add("matmul_integer", a, graph.constant(weight, b.name), a_zero, None)
    return graph.add("add", total, graph.add("mul", rows, graph.constant(rest)))


def dtype_of(value: Value) -> DType:
    """The element type of a tensor."""
    assert isinstance(value.type, TensorType)
    return value.type.dtype


def _is_vector(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.rank == 1


def _is_zero(value: Value | None) -> bool:
    return value is not None and value.constant is not None and not np.any(value.constant.array.astype(np.float32))


def is_single(value: Value | None) -> bool:
    """True for a tensor of one element."""
    return value is not None and isinstance(value.type, TensorType) and value.type.elements == 1
