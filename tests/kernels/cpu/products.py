"""Shared by tests of products of matrices: hooks in C, operands in some layout, what must come out."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from tests.kernels.cpu.layers import guarded, random

__all__ = ["PRODUCT_HOOKS", "Gemm", "Operands", "gemm_arguments"]

# Start from a bias, end in a leaky ReLU: a forgotten or doubled hook changes every element.
PRODUCT_HOOKS = """
struct output { const float *bias; float *c; long row; };
INLINE vf start(const void *context, long row, long column, long lanes) {
    const struct output *o = context;
    (void)row;
    return vf_load_first(o->bias + column, lanes);
}
INLINE void finish(const void *context, vf value, long row, long column, long lanes) {
    const struct output *o = context;
    vf_store_first(o->c + row * o->row + column, vf_select(value < 0, value * 0.25f, value), lanes);
}
"""


class Gemm(ctypes.Structure):
    """`struct gemm` of gemm.h."""

    _fields_ = (
        [(name, ctypes.c_long) for name in ("batch", "rows", "columns", "depth")]
        + [("a", ctypes.c_void_p), *((name, ctypes.c_long) for name in ("a_batch", "a_row", "a_depth"))]
        + [("b", ctypes.c_void_p), ("b_batch", ctypes.c_long)]
    )


@dataclass(frozen=True)
class Operands:
    """[batch, M, K] A in some layout, one B or one for each of the batch, and what C must be."""

    a: np.ndarray
    b: np.ndarray
    bias: np.ndarray

    @staticmethod
    def random(batch: int, m: int, n: int, k: int, shared: bool = False) -> Operands:
        return Operands(random((batch, m, k)), random((1 if shared else batch, k, n)), random((n,)))

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """batch, M, N, K."""
        return (*self.a.shape[:2], self.b.shape[2], self.a.shape[2])

    def rounded(self, left: bool = True) -> Operands:
        """The same with B rounded to bf16 and, `left`, A too."""
        a = self.a.astype(ml_dtypes.bfloat16).astype(np.float32) if left else self.a
        return replace(self, a=a, b=self.b.astype(ml_dtypes.bfloat16).astype(np.float32))

    def reference(self) -> np.ndarray:
        """[batch, M, N] float64."""
        c = self.a.astype(np.float64) @ self.b.astype(np.float64) + self.bias.astype(np.float64)
        return np.where(c < 0, c * 0.25, c)

    def laid_out(self, strides: tuple[int, int, int]) -> np.ndarray:
        """A in guarded memory with these strides, in floats; NaN between the elements."""
        last = sum((size - 1) * stride for size, stride in zip(self.a.shape, strides, strict=True))
        held = np.full(last + 1, np.nan, dtype=np.float32)
        np.lib.stride_tricks.as_strided(held, self.a.shape, [4 * s for s in strides])[...] = self.a
        return guarded(held)


def gemm_arguments(operands: Operands, a: np.ndarray, b: np.ndarray, strides: tuple[int, int, int]) -> Gemm:
    """b: packed, [1 or batch, ...] of words."""
    batch, m, n, k = operands.sizes
    return Gemm(batch, m, n, k, a.ctypes.data, *strides, b.ctypes.data, b.shape[-1] if b.shape[0] > 1 else 0)
