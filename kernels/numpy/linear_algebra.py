"""Linear algebra on stacks of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened

__all__ = ["det"]

Array = np.ndarray[Any, Any]


def det(x: Array, /) -> Array:
    """The determinant of each matrix of x: [..., M, M] -> [...]; LU with partial pivoting, small floats in fp32."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"det needs square matrices, got shape {x.shape}")
    return delivered(np.asarray(np.linalg.det(widened(x))), x.dtype, None)
