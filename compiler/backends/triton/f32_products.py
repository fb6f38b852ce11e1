"""How products of f32 are multiplied: exactly, by one product of tf32, or by three of them.

Matrix units read 11 bits of a float's significand. Three products bring back what one loses: with hi = tf32(x), to
nearest, and lo = x - hi, which is exact,

    x y = hi(x) hi(y) + hi(x) lo(y) + lo(x) hi(y)    up to lo(x) lo(y), which is below 2^-22 |x y|.

Sums of the small products come first, those of each step of the depth are added to the others by f32 additions, as
matrix units do not round sums to nearest: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores
while surpassing the FP32 theoretical peak performance", 2022. Triton's `tf32x3` is this, and makes zeros of small sums
that are NaN, so that an infinity is what it is in the exact product.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType

__all__ = ["IEEE", "TF32", "TF32X3", "multiplied_as"]

IEEE, TF32, TF32X3 = "ieee", "tf32", "tf32x3"
"""As Triton calls them. IEEE: fused multiplications and additions of the vector units (AMD's matrix units take f32)."""

_FEWEST = 16  # rows, columns or terms of a product that is worth splitting its operands for: what a tile has at least


def multiplied_as(precision: str, kind: DType, sides: Sequence[Dim]) -> str:
    """How one product is multiplied where f32 is multiplied by `precision`.

    kind: of its operands; sides: its rows, columns and terms. Few of any stay exact. `tf32` holds for all products.
    """
    if precision != TF32X3:
        return precision
    few = any(isinstance(side, int) and side < _FEWEST for side in sides)
    return IEEE if few or kind is not DType.F32 else TF32X3
