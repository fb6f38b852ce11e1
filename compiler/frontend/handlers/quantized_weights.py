"""Products with quantised weights (com.microsoft MatMulNBits), written out in standard operators.

    Y = A @ dequantize(B)'    B [N, K] in 4 or 8 bits, a scale and perhaps a zero point for each `block_size` of K

Weights come as bytes [N, blocks, block_size * bits / 8], of two 4-bit elements the first in the lower bits. With g_idx
(the group of each of the K terms, as GPTQ has it), terms are put into the order of their groups where those are as long
as blocks, and A with them. Zero points that are floats, and groups of other lengths, are no form of the standard's
DequantizeLinear: such a weight is the difference times the scale, which constant folding makes a matrix of floats.
"""

from __future__ import annotations

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.contrib_shapes import check_shape
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
    if block_size < 1 or n < 1 or k < 1:
        c.invalid(f"N, K and block_size must be positive, got {n}, {k} and {block_size}")
    if block_size * bits % 8:
        c.invalid(f"a block must be whole bytes, got block_size {block_size} with elements of {bits} bits")
    blocks = -(-k // block_size)
    _check_shapes(c, n, k, blocks)
    packed = _constant(c, 1, "its weight")
    if packed.dtype != np.uint8 or packed.size != n * blocks * block_size * bits // 8:
        c.invalid(f"a weight of {n * blocks * block_size * bits // 8} bytes was expected, got {packed.size}")
    check_shape(c, 1, (n, blocks, block_size * bits // 8))
    codes = _codes(packed.reshape(n, -1), bits)[:, :k]
    zero_points = _zero_points(c, n, blocks, bits)
    groups = _groups(c, k, blocks, block_size)
    order = _in_blocks(groups, block_size)
    if (zero_points is not None and zero_points.dtype != np.uint8) or (groups is not None and order is None):
        return _as_floats(c, codes, zero_points, groups, bits, block_size)
    a = c.required(0)
    if order is not None:
        codes, a = codes[:, order], c.add("gather", a, c.ints_constant(order.tolist()), axis=c.known_rank(0) - 1)
    weight, zero = _stored(codes, zero_points, bits)
    scale = c.add("reshape", c.required(2), shape=(n, blocks))
    dequantised = c.add(
        "dequantize_linear", c.constant(weight), scale, None if zero is None else c.constant(zero),
        output_dtype=c.tensor_type(2).dtype, axis=1, block_size=block_size,
    )  # fmt: skip
    return _product(c, a, dequantised)


def _product(c: NodeContext, a: Value, weight: Value) -> Value:
    """a @ weight', and the bias."""
    y = c.add("matmul", a, c.add("transpose", weight, perm=(1, 0)))
    bias = c.optional(5)
    return y if bias is None else c.add("add", y, bias)


def _check_shapes(c: NodeContext, n: int, k: int, blocks: int) -> None:
    """A [..., K], one scale for each block of each row, a bias [N]."""
    a = c.shape(0)
    if a is not None and (not a or (isinstance(a[-1], int) and a[-1] != k)):
        c.invalid(f"A must have K = {k} columns, got {c.tensor_type(0)}; check A and the attribute K")
    check_shape(c, 2, (n, blocks), (n * blocks,))
    check_shape(c, 5, (n,))


def _zero_points(c: NodeContext, n: int, blocks: int, bits: int) -> np.ndarray | None:
    """The zero point of each block, [N, blocks], as bytes or floats; None where none is given.

    Those that are integers come packed as the weight is, each row in whole bytes.
    """
    if c.optional(3) is None:
        return None
    found = _constant(c, 3, "its zero points")
    packed = found.dtype == np.uint8
    if not packed and not c.tensor_type(3).dtype.is_float:
        c.invalid(f"zero points must be bytes or floats, got {c.tensor_type(3)}; store them in one of these types")
    row = -(-blocks * bits // 8) if packed else blocks
    if found.size != n * row:
        unit = "bytes" if packed else "floats"
        c.invalid(
            f"zero points must be {n} rows (N) of {row} {unit}, got {c.tensor_type(3)}; check them and the attributes "
            "N, K, bits and block_size"
        )
    check_shape(c, 3, (n, row), (n * row,))
    found = found.reshape(n, row)
    return _codes(found, bits)[:, :blocks] if packed else found


def _groups(c: NodeContext, k: int, blocks: int, block_size: int) -> np.ndarray | None:
    """g_idx: the group of each term, [K], perhaps padded to whole blocks; None where terms lie block after block."""
    if c.optional(4) is None:
        return None
    groups = _constant(c, 4, "its g_idx")
    if groups.dtype.kind not in "iu" or groups.size not in (k, blocks * block_size):
        c.invalid(
            f"g_idx must be {k} integers (K), got {c.tensor_type(4)}; store the group of each term, or leave g_idx out "
            "where they lie block after block"
        )
    check_shape(c, 4, (groups.size,))
    if groups.min() < 0 or groups.max() >= blocks:
        c.invalid(
            f"g_idx must name groups from 0 to {blocks - 1}, got {groups.min()} to {groups.max()}; check it and the "
            "attributes K and block_size"
        )
    return groups[:k]


def _in_blocks(groups: np.ndarray | None, block_size: int) -> np.ndarray | None:
    """The order in which terms lie block after block, if there is one."""
    if groups is None:
        return None
    order = np.argsort(groups, kind="stable")
    fits = np.array_equal(groups[order], np.arange(len(groups)) // block_size)
    return order if fits else None


def _as_floats(
    c: NodeContext, codes: np.ndarray, zero_points: np.ndarray | None, groups: np.ndarray | None, bits: int, size: int
) -> Value:
    """The product with (code - zero point) * scale, group by group."""
    n, k = codes.shape
    scale, dtype = c.required(2), c.tensor_type(2).dtype
    groups = np.arange(k) // size if groups is None else groups
    blocks = -(-k // size)
    if zero_points is None:
        zero_points = np.full((n, blocks), _MIDDLE[bits])
    zeros = zero_points.astype(np.float32)[:, groups]
    moved = c.constant((codes.astype(np.float32) - zeros).astype(dtype.numpy))
    spread = c.add("gather", c.add("reshape", scale, shape=(n, blocks)), c.ints_constant(groups.tolist()), axis=1)
    return _product(c, c.required(0), c.add("mul", moved, spread))


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
