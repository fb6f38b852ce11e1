"""Regions of products whose operands were dequantised, and the region that is made of them compared with the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.build import Built, build_region
from fusible.compiler.region.group import home_of
from fusible.compiler.region.region import Region

__all__ = ["arrays_for", "product"]


def product(
    left: DType,
    right: DType,
    sizes: tuple[int, int, int] = (6, 8, 5),
    *,
    real: DType = DType.F32,
    block: int = 0,
    zeros: Sequence[bool] = (True, True),
) -> Built:
    """dequantize(x) @ dequantize(w), scales of w by column or by blocks of `block` rows; a float x is taken as it is.

    zeros: which of the two have zero points. Inputs: x, its zero point, w, its scales, its zero points.
    """
    rows, terms, columns = sizes
    g = Graph("product")
    x = g.input(TensorType(left, (rows, terms)), "x")
    if not left.is_float or left.value.startswith("f8"):
        zero = g.input(TensorType(left, ()), "xz") if zeros[0] else None
        x = g.add("dequantize_linear", x, g.constant(np.asarray(0.25, real.numpy)), zero, output_dtype=real)
    w = g.input(TensorType(right, (terms, columns)), "w")
    shape = (-(-terms // block), columns) if block else (columns,)
    scales = g.input(TensorType(real, shape), "s")
    offsets: Value | None = g.input(TensorType(right, shape), "z") if zeros[1] else None
    axis = 0 if block else 1
    w = g.add("dequantize_linear", w, scales, offsets, output_dtype=real, axis=axis, block_size=block)
    y = g.add("matmul", x, w)
    nodes = list(g)
    return build_region(nodes, [y], home=home_of(nodes, [y]), inline_scalars=True)


def arrays_for(region: Region, seed: int = 0) -> list[np.ndarray]:
    """Random contents of a region's inputs: any codes, scales near one."""
    random = np.random.default_rng(seed)
    limits = {DType.I4: (-8, 8), DType.U4: (0, 16), DType.I8: (-128, 128), DType.U8: (0, 256)}
    found = []
    for buffer in region.inputs:
        shape = tuple(int(d) for d in buffer.shape)  # type: ignore[arg-type]
        if buffer.dtype in limits:
            array: np.ndarray = np.asarray(random.integers(*limits[buffer.dtype], shape))
        else:
            array = random.uniform(0.5, 1.5, shape) * random.choice([-1, 1], shape)
        found.append(np.asarray(array).astype(buffer.dtype.numpy))
    return found
