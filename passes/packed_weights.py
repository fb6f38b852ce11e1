"""Which dequantised weights should stay packed: those that products read, where kernels unpack what they read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import bounds_of, product
from fusible.compiler.ir.types import DType, TensorType

__all__ = [
    "DEQUANTISING", "READS_PACKED", "Dequantising", "PackedMatrix", "joined", "packed_matrix", "packed_saving",
    "why_apart",
]  # fmt: skip

READS_PACKED = "reads_packed"
"""The fact of a target by that name: its kernels unpack and scale weights where they read them."""

DEQUANTISING = "dequantising_seconds"
"""The fact of a target by that name: a `Dequantising`."""

Dequantising = Callable[[Sequence[tuple[int, int, int]], int, DType], "tuple[float, float] | None"]
"""(rows, columns and terms of the products with one weight, its stored bytes, the type of its numbers) -> predicted
seconds if they dequantise it, and if a kernel of its own does; None if that is no question."""

_PRODUCTS = frozenset({"matmul", "gemm", "conv"})
_THROUGH = frozenset({"transpose", "reshape", "squeeze", "unsqueeze", "cast", "identity"})
_FOUR_BITS = frozenset({DType.I4, DType.U4})
_LEAST = 4096  # bytes that are worth a thought


def packed_saving(node: Node) -> tuple[int, int] | None:
    """(bytes of a dequantised weight, bytes that are read instead), if these are fewer and only products read it."""
    if node.op.name != "dequantize_linear" or node.graph is None or node.output in node.graph.outputs:
        return None
    size, packed = _bytes(node.output), sum(_bytes(v) for v in node.inputs if v is not None)
    if size < _LEAST or packed >= size or not _products_read(node.output):
        return None
    return size, packed


def _products_read(value: Value) -> bool:
    if not value.users:
        return False
    return all(
        user.op.name in _PRODUCTS or (user.op.name in _THROUGH and _is_inside(user) and _products_read(user.output))
        for user in value.users
    )


def _is_inside(node: Node) -> bool:
    return node.graph is not None and node.output not in node.graph.outputs


def _bytes(value: Value) -> int:
    """Bytes as kernels store them: two elements of 4 bits in one."""
    assert isinstance(value.type, TensorType)
    count = math.prod(value.type.static_shape or (0,))
    return -(-count // 2) if value.type.dtype in _FOUR_BITS else count * value.type.dtype.numpy.itemsize


def why_apart(node: Node, target: Mapping[str, object]) -> str | None:
    """Why a dequantisation should be a kernel of its own rather than a part of the products that read it, or None.

    It is for matrices of 4 bits or with scales by blocks that are the right operands of products with floats, where
    the least number of rows that those have is large enough.
    """
    seconds = target.get(DEQUANTISING)
    if not callable(seconds) or packed_saving(node) is None or node.inputs[0] is None:
        return None
    type_, codes = node.output.type, node.inputs[0].type
    assert isinstance(type_, TensorType) and isinstance(codes, TensorType)
    products = _sizes(node.output)
    if products is None or type_.rank != 2 or not (codes.dtype in _FOUR_BITS or node.attrs.block_size):
        return None
    stored = sum(_bytes(v) for v in node.inputs if v is not None)
    found = seconds(products, stored, type_.dtype)
    if found is None or found[0] <= found[1]:
        return None
    inside, apart = (f"{s * 1e6:.1f} us" for s in found)
    return f"dequantised by each tile of its products it takes {inside}, by a kernel of its own before them {apart}"


def _sizes(value: Value) -> list[tuple[int, int, int]] | None:
    """Rows (at least), columns and terms of the products that a matrix is the right operand of; None if it is more."""
    found: list[tuple[int, int, int]] = []
    for user in value.users:
        if user.op.name == "transpose" and _is_inside(user):
            inner = _sizes(user.output)
        else:
            inner = _product_sizes(user, value)
        if inner is None:
            return None
        found += inner
    return found


def _product_sizes(user: Node, weight: Value) -> list[tuple[int, int, int]] | None:
    left = user.inputs[0]
    if user.op.name not in ("matmul", "gemm") or user.inputs[1] is not weight or list(user.inputs).count(weight) != 1:
        return None
    type_, matrix = user.output.type, weight.type
    assert isinstance(type_, TensorType) and isinstance(matrix, TensorType)
    if left is None or _is_quantised(left) or not type_.shape or not isinstance(columns := type_.shape[-1], int):
        return None
    elements = math.prod(matrix.static_shape or (0,))
    return [(bounds_of(product(type_.shape[:-1]))[0] or 0, columns, elements // max(columns, 1))]


def _is_quantised(value: Value) -> bool:
    """True for what is dequantised in each run, perhaps through views: products multiply it as it is stored."""
    node = value.producer
    while node is not None and node.op.name in _THROUGH and node.inputs[0] is not None:
        node = node.inputs[0].producer
    return node is not None and node.op.name == "dequantize_linear"


@dataclass(frozen=True)
class PackedMatrix:
    """A dequantised constant: codes [K, N], scales [N] or [blocks, N] and zero points like them, or None."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None
    block_size: int
    output_dtype: DType

    @property
    def kind(self) -> tuple[object, ...]:
        """What matrices have alike that can be put side by side."""
        return self.codes.dtype, self.scales.dtype, self.zeros is None, self.block_size, self.output_dtype


def packed_matrix(value: Value) -> PackedMatrix | None:
    """The constant that a value is dequantised from, if it has one scale, or one a column or a block of a column."""
    node = value.producer
    turned = node is not None and node.op.name == "transpose" and tuple(node.attrs.perm) == (1, 0)
    if turned:  # [N, K], as MatMulNBits has it
        assert node is not None and node.inputs[0] is not None
        node = node.inputs[0].producer
    if node is None or node.op.name != "dequantize_linear":
        return None
    constants = [None if v is None else v.constant for v in (*node.inputs, None)[:3]]
    if any(v is not None and c is None for v, c in zip(node.inputs, constants, strict=False)):
        return None
    codes, scales, zeros = (None if c is None else c.array for c in constants)
    assert codes is not None and scales is not None
    attrs = node.attrs
    along = attrs.axis % 2 == (bool(attrs.block_size) == turned) or scales.size == 1
    if turned:
        codes, scales, zeros = (None if a is None else a.T for a in (codes, scales, zeros))
        assert codes is not None and scales is not None
    if codes.ndim != 2 or not along:
        return None
    found = [None if p is None else _by_column(p, codes.shape[1], attrs.block_size) for p in (scales, zeros)]
    if found[0] is None or (zeros is not None and found[1] is None):
        return None
    return PackedMatrix(codes, found[0], found[1], attrs.block_size, attrs.output_dtype)


def _by_column(parameter: np.ndarray, columns: int, block_size: int) -> np.ndarray | None:
    if parameter.size == 1 and not block_size:
        return np.full(columns, parameter.reshape(()), parameter.dtype)
    return parameter if parameter.ndim == (2 if block_size else 1) and parameter.shape[-1] == columns else None


def joined(graph: Graph, weights: Sequence[PackedMatrix]) -> Value:
    """Matrices of one kind side by side, dequantised."""
    first = weights[0]
    zeros = [w.zeros for w in weights if w.zeros is not None]
    return graph.add(
        "dequantize_linear",
        graph.constant(np.concatenate([w.codes for w in weights], axis=1)),
        graph.constant(np.concatenate([w.scales for w in weights], axis=-1)),
        graph.constant(np.concatenate(zeros, axis=-1)) if zeros else None,
        output_dtype=first.output_dtype,
        axis=0 if first.block_size else 1,
        block_size=first.block_size,
    )
