"""Products of dequantised operands as products of the bytes that they were, in int32, where those are fast:

    dequantize(a, s, z) @ dequantize(b, t, y)  ->  float(matmul_integer(a, b, z, y)) * (s * t)

b is a constant matrix with one scale, or one for each column; a has one scale. The sum of integers is exact, where that
of floats rounds at each step (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, section 2.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op, optional
from fusible.passes.rewrite import Reject, rule
from fusible.passes.rules.zero_points import BYTES, dtype_of, is_single

__all__ = ["RULES"]

_DEEPEST = 1 << 15  # terms of less than 2**16 each, whose sum int32 holds


@rule(exactness=Exactness.REASSOCIATING)
def product_of_dequantised(a: Any, b: Any, l: Any, r: Any) -> Any:  # noqa: E741 - the left and the right operand
    """matmul(dequantize(a), dequantize(b))  ->  mul(cast(matmul_integer(a, b)), scales)."""

    def build(graph: Graph, a: Value, b: Value, l: Node, r: Node) -> Value | Reject:  # noqa: E741
        return _integer_product(graph, l, r, a, b, transposed=False)

    left, right = (op.dequantize_linear(v, ...).named(n).shared() for v, n in ((a, l), (b, r)))
    return op.matmul(left, right), build


@rule(exactness=Exactness.REASSOCIATING)
def gemm_of_dequantised(a: Any, b: Any, c: Any, l: Any, r: Any, g: Any) -> Any:  # noqa: E741
    """gemm(dequantize(a), dequantize(b), c)  ->  mul(cast(matmul_integer(a, b)), scales) + c."""

    def build(
        graph: Graph, a: Value, b: Value, c: Value | None, l: Node, r: Node, g: Node  # noqa: E741
    ) -> Value | Reject:
        if g.attrs.transA or g.attrs.alpha != 1 or (c is not None and g.attrs.beta != 1):
            return Reject("its left operand is transposed, or something is scaled", g)
        made = _integer_product(graph, l, r, a, b, transposed=bool(g.attrs.transB))
        return made if c is None or isinstance(made, Reject) else graph.add("add", made, c)

    left, right = (op.dequantize_linear(v, ...).named(n).shared() for v, n in ((a, l), (b, r)))
    return op.gemm(left, right, optional(c)).named(g), build


RULES = (product_of_dequantised, gemm_of_dequantised)


def _integer_product(
    graph: Graph, left: Node, right: Node, a: Value, b: Value, *, transposed: bool
) -> Value | Reject:
    """The product of what two nodes `dequantize_linear` read, by their scales."""
    scale, zero = (*left.inputs, None)[1:3]
    if not {dtype_of(a), dtype_of(b)}.issubset(BYTES) or left.attrs.output_dtype is not DType.F32:
        return Reject("it multiplies no bytes into float32", a, b)
    if not isinstance(a.type, TensorType) or (a.type.rank or 0) < 2:
        return Reject("its left operand is not known to be a matrix", a)
    if scale is None or not is_single(scale) or left.attrs.block_size or dtype_of(scale) is not DType.F32:
        return Reject("its left operand has more than one scale", a)
    if zero is not None and not is_single(zero):
        return Reject("its left operand has more than one zero point", a)
    matrix = _columns(right, b, transposed=transposed)
    if isinstance(matrix, Reject):
        return matrix
    weight, scales, zeros = matrix
    if weight.shape[0] > _DEEPEST:
        return Reject("int32 may not hold its sums", b)
    one = None if zero is None else graph.add("reshape", zero, shape=())
    total = graph.add("matmul_integer", a, graph.constant(weight, b.name), one, graph.constant(zeros))
    factor = graph.add("mul", graph.add("reshape", scale, shape=()), graph.constant(scales))
    return graph.add("mul", graph.add("cast", total, dtype=DType.F32), factor)


def _columns(node: Node, b: Value, *, transposed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray] | Reject:
    """The matrix [K, N], its scales and its zero points, each one number or [N]."""
    scale, zero = (*node.inputs, None)[1:3]
    known = all(v is None or v.constant is not None for v in (b, scale, zero))
    if not known or b.constant is None or scale is None or scale.constant is None or len(b.constant.shape) != 2:
        return Reject("its right operand is no constant matrix with known scales", b)
    column = 0 if transposed else 1
    weight = b.constant.array.T if transposed else b.constant.array
    zeros = np.zeros((), weight.dtype) if zero is None or zero.constant is None else zero.constant.array
    whole = [b.constant.shape[d] if d == column else 1 for d in range(2)]
    one_each = [whole, *([whole[column : column + 1]] if node.attrs.axis % 2 == column else [])]
    fit = all(x.size == 1 or list(x.shape) in one_each for x in (scale.constant.array, zeros))
    if node.attrs.block_size or scale.constant.dtype != np.float32 or not fit:
        return Reject("its right operand has not one scale and zero point for each column", b)
    flat = [x.reshape(()) if x.size == 1 else x.reshape(-1) for x in (scale.constant.array, zeros)]
    return np.ascontiguousarray(weight), flat[0], flat[1]
