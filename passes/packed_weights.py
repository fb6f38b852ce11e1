"""Which dequantised weights should stay packed: those that products read, where kernels unpack what they read."""

from __future__ import annotations

import math

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.types import DType, TensorType

__all__ = ["READS_PACKED", "packed_saving"]

READS_PACKED = "reads_packed"
"""The fact of a target by that name: its kernels unpack and scale weights where they read them."""

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
