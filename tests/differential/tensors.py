"""What the generator knows of a tensor: type, shape, the interval its elements lie in, and how exactly they are known.

A tensor is *exact* if every target must give the same bits: inputs, what only moves them, and arithmetic on a *grid*.
Elements on grid g are multiples of 2**-g; while interval and grid fit the type's significand, sums and products in any
order and grouping are exact. Only exact tensors are rounded, compared, sorted or cast to integers, for there the
smallest difference grows to a large one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from fusible.compiler import accuracy

__all__ = [
    "BF16",
    "BOOL",
    "F16",
    "F32",
    "F64",
    "FLOATS",
    "I32",
    "I64",
    "INTEGERS",
    "U8",
    "DType",
    "Tensor",
    "bound_of",
    "is_float",
]

DType = np.dtype
F64, F32, F16 = (np.dtype(t) for t in (np.float64, np.float32, np.float16))
BF16 = np.dtype(ml_dtypes.bfloat16)
I64, I32, U8, BOOL = (np.dtype(t) for t in (np.int64, np.int32, np.uint8, np.bool_))
FLOATS, INTEGERS = (F64, F32, F16, BF16), (I64, I32, U8)
_SIGNIFICANDS = {F64: 53, F32: 24, F16: 11, BF16: 8}
_MOST_TERMS = 10**9


def is_float(dtype: DType) -> bool:
    """True for the four floating-point types."""
    return dtype in _SIGNIFICANDS


@dataclass(frozen=True)
class Tensor:
    """low, high: of all elements. grid: see above, None off every grid. terms: roundings that lead to an element.

    rounded: the types in which an inexact tensor's ancestors were rounded. wild: NaN and infinities may occur.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    low: float
    high: float
    exact: bool = True
    grid: int | None = 0
    terms: int = 0
    rounded: frozenset[DType] = frozenset()
    wild: bool = False

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def magnitude(self) -> float:
        """The largest magnitude of an element."""
        return max(abs(self.low), abs(self.high))

    def fitting(self) -> Tensor:
        """The tensor without a claim to exactness that its type's significand cannot hold."""
        if not is_float(self.dtype) or not self.exact or self.grid is None:
            return self
        if self.magnitude * 2.0**self.grid <= 2.0 ** _SIGNIFICANDS[self.dtype]:
            return self
        return self.inexact(1)

    def inexact(self, terms: int) -> Tensor:
        """The tensor after that many more roundings."""
        total = min(self.terms + terms, _MOST_TERMS)
        return replace(self, exact=False, grid=None, terms=total, rounded=self.rounded | {self.dtype})


def bound_of(tensor: Tensor) -> accuracy.Bound:
    """How much two targets may differ: nothing where the tensor is exact, else the loosest row that applies."""
    if tensor.exact or not is_float(tensor.dtype):
        return accuracy.Bound(0.0, 0.0)
    rows = [accuracy.kernel_bound(dtype, max(tensor.terms, 64)) for dtype in (tensor.dtype, *tensor.rounded)]
    return accuracy.Bound(max(row.max for row in rows), max(row.rms for row in rows))
