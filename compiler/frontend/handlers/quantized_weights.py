"""Products with quantised weights (com.microsoft MatMulNBits), written out in standard operators.

    Y = A @ dequantize(B)'    B [N, K] in 4 or 8 bits, a scale and perhaps a zero point for each `block_size` of K

Weights come as bytes [N, blocks, block_size * bits / 8], of two 4-bit elements the first in the lower bits.
"""

from __future__ import annotations

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType

_MIDDLE = {4: 8, 8: 128}  # the zero point where none is given, by bits


@onnx_op("MatMulNBits", domain="com.microsoft")
def matmul_n_bits(c: NodeContext) -> Value:
    """MatMulNBits: A, the packed B, scales, zero points, g_idx (none), a bias."""
    bits, block_size = c.attr_int("bits", 4), c.attr_int("block_size")
    n, k = c.attr_int("N"), c.attr_int("K")
    if bits not in _MIDDLE:
        c.unsupported(f"weights of {bits} bits; those of 4 and 8 bits are known")
    if c.optional(4) is not None:
        c.unsupported("it has g_idx, an order of the rows of its weight")
    if block_size < 1 or n < 1 or k < 1:
        c.invalid(f"N, K and block_size must be positive, got {n}, {k} and {block_size}")
    if block_size * bits % 8:
        c.invalid(f"a block must be whole bytes, got block_size {block_size} with elements of {bits} bits")
    blocks = -(-k // block_size)
    packed = _constant(c, 1, "its weight")
    if packed.dtype != np.uint8 or packed.size != n * blocks * block_size * bits // 8:
        c.invalid(f"a weight of {n * blocks * block_size * bits // 8} bytes was expected, got {packed.size}")
    codes = _codes(packed.reshape(n, -1), bits)[:, :k]
    zero_points = None if c.optional(3) is None else _constant(c, 3, "its zero points")
    if zero_points is not None and zero_points.dtype != np.uint8:
        c.unsupported("its zero points are floats")
    if zero_points is not None:
        row = -(-blocks * bits // 8)
        if zero_points.size != n * row:
            c.invalid(f"zero points of {n} x {row} bytes were expected, got {zero_points.size}")
        zero_points = _codes(zero_points.reshape(n, row), bits)[:, :blocks]
    weight, zero = _stored(codes, zero_points, bits)
    scale = c.add("reshape", c.required(2), shape=(n, blocks))
    dequantised = c.add(
        "dequantize_linear", c.constant(weight), scale, None if zero is None else c.constant(zero),
        output_dtype=c.tensor_type(2).dtype, axis=1, block_size=block_size,
    )  # fmt: skip
    y = c.add("matmul", c.required(0), c.add("transpose", dequantised, perm=(1, 0)))
    bias = c.optional(5)
    return y if bias is None else c.add("add", y, bias)


def _constant(c: NodeContext, index: int, what: str) -> np.ndarray:
    value = c.required(index)
    if value.constant is None:
        c.unsupported(f"{what} is computed in each run")
    return np.asarray(value.constant.array)


def _codes(packed: np.ndarray, bits: int) -> np.ndarray:
    """The elements of each row, one a byte."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _stored(codes: np.ndarray, zero_points: np.ndarray | None, bits: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes and zero points in the standard's types; without zero points signed numbers, less the middle."""
    signed, unsigned = (DType.I4, DType.U4) if bits == 4 else (DType.I8, DType.U8)
    if zero_points is None:
        return (codes.astype(np.int16) - _MIDDLE[bits]).astype(signed.numpy), None
    return codes.astype(unsigned.numpy), zero_points.astype(unsigned.numpy)
