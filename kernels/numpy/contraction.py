"""Matrix products: MatMul and Gemm. Floats by BLAS, halves in float32, integers exactly (they wrap like C)."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened, workspace

Array = np.ndarray[Any, Any]


def matmul(A: Array, B: Array, /, *, out: Array | None = None) -> Array:
    """A @ B: the last two axes are matrices, those before broadcast; a vector is a row of A or a column of B.

    A [..., M, K] or [K], B [..., K, N] or [K], of one type. Raises ValueError where the depths or batches do not fit.
    """
    shape = matmul_shape(A.shape, B.shape)
    return delivered(product(widened(A), widened(B), workspace(out, shape, A.dtype)), A.dtype, out)


def matmul_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a product of arrays of these shapes. Raises ValueError if there is none."""
    if not a or not b:
        raise ValueError(f"MatMul takes arrays of rank 1 or more, got shapes {a} and {b}")
    if a[-1] != b[-2 if len(b) > 1 else -1]:
        raise ValueError(f"MatMul needs as many columns of A as rows of B, got shapes {a} and {b}")
    batches = np.broadcast_shapes(a[:-2], b[:-2])
    return (*batches, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def gemm(
    A: Array, B: Array, C: Array | None = None, /, *, alpha: float = 1.0, beta: float = 1.0, transA: bool = False,
    transB: bool = False, out: Array | None = None,
) -> Array:  # fmt: skip
    """alpha * A' @ B' + beta * C, where A' is A [M, K], or A [K, M] transposed if transA; B' [K, N] likewise.

    C broadcasts to [M, N]. Integers are exact while alpha and beta are whole numbers.
    """
    left, right = (A.T if transA else A), (B.T if transB else B)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"Gemm needs matrices [M, K] and [K, N], got {left.shape} and {right.shape}")
    shape = (left.shape[0], right.shape[1])
    result = product(widened(left), widened(right), workspace(out, shape, A.dtype))
    result = _scaled(result, alpha)
    if C is not None and beta:
        with np.errstate(all="ignore"):
            np.add(result, _scaled(widened(C), beta), out=result)
    return delivered(result, A.dtype, out)


def _scaled(x: Array, factor: float) -> Array:
    """x * factor in the type of x."""
    if factor == 1:
        return x
    with np.errstate(all="ignore"):
        if x.dtype.kind == "f":
            return np.asarray(x * x.dtype.type(factor))
        if float(factor).is_integer():
            return np.asarray(x * np.asarray(int(factor)).astype(x.dtype))
        return np.asarray(x * float(factor)).astype(x.dtype)


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """np.matmul that hands BLAS one large product where it can, and never operands that BLAS does not take."""
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and (out is None or out.flags.c_contiguous):
        # One product of many rows instead of a small one for each batch.
        rows = prod(a.shape[:-1])
        flat = None if out is None else out.reshape(rows, b.shape[1])
        return product(a.reshape(rows, a.shape[-1]), b, flat).reshape(*a.shape[:-1], b.shape[1])
    with np.errstate(all="ignore"):
        return np.asarray(np.matmul(for_blas(a), for_blas(b), out=out))


def for_blas(x: Array) -> Array:
    """x, or a contiguous copy if its last two axes are strided in a way that BLAS has no words for."""
    if x.ndim < 2 or x.dtype.kind != "f":
        return x
    size = x.itemsize
    rows, columns = x.shape[-2:]
    row, column = x.strides[-2:]
    if column == size and row >= columns * size and row % size == 0:
        return x
    if row == size and column >= rows * size and column % size == 0:
        return x
    return np.ascontiguousarray(x)
