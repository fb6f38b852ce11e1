"""Where weights of few bits are dequantised: by each tile of the product that reads them, or once, by their own kernel.

A tile dequantises in registers what it multiplies, which no copy on the way hides: a step of 64 terms takes 1.7 us
beside its product, as measured on an H200 (512 x 4096 x 4096 with 4-bit weights in blocks of 32: 235 us, where a
product of fp16 takes 25), and all tiles of a column dequantise the same. With more than a few rows it is cheaper to
write the numbers out once.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.roofline import LAUNCH, reached
from fusible.compiler.backends.triton.schedule_contraction import matrix_unit
from fusible.compiler.ir.types import DType

__all__ = ["dequantising_seconds"]

_STEP, _TERMS = 1.7e-6, 64  # seconds of a step of a program beside its product, and its terms: measured
_ROWS, _COLUMNS = 64, 128  # of the tile that was measured; with fewer rows other tiles and kernels are there


def dequantising_seconds(
    products: Sequence[tuple[int, int, int]], stored: int, dtype: DType, *, target: GpuTarget, precision: str = "ieee"
) -> tuple[float, float] | None:
    """Predicted seconds of products with one weight if they dequantise it, and if a kernel does before them.

    products: (rows, columns, terms) of each, rows at least. stored: bytes of the weight as it is stored; dtype: of its
    numbers; precision: how f32 is multiplied. None where a product has fewer than 64 rows: nothing is known of those.
    """
    if not products or any(rows < _ROWS for rows, _, _ in products):
        return None
    tiles = [-(-rows // _ROWS) * -(-columns // _COLUMNS) * -(-terms // _TERMS) for rows, columns, terms in products]
    inside = sum(-(-steps // target.multiprocessors) * _STEP for steps in tiles)
    rates = reached(target)
    unit = matrix_unit(dtype, precision, target)
    peak = None if unit is None else target.matrix_peak(unit)
    rate = target.fp32 * rates.vector if peak is None else peak * rates.matrix
    numbers = products[0][1] * products[0][2] * dtype.numpy.itemsize
    moved = stored + numbers * (1 + len(products))
    multiplied = sum(2.0 * rows * columns * terms for rows, columns, terms in products) / rate
    written = moved / (target.bandwidth * rates.memory)
    return inside + multiplied, rates.start + LAUNCH.gap + written + multiplied
