"""Constants in the order and packing in which kernels read them."""

from __future__ import annotations

import numpy as np

from fusible.compiler.backends.base import Pending
from fusible.compiler.ir.constant import Constant
from fusible.compiler.region.halves import packed_in_halves
from fusible.compiler.region.reorder import Order

__all__ = ["pending", "stored", "transposed"]

_TILE = 64, 512  # elements along the result's last axis, and along the operand's: reads and writes stay in the caches


def pending(constant: Constant, order: Order | None, packed: int | None) -> Pending:
    """What `stored` makes of a constant, to be made later.

    order: of dimensions, None for the constant's own. packed: the dimension along which two elements become a byte,
    None for none; its extent is even.
    """
    shape, dtype = list(constant.shape), constant.dtype
    if packed is not None:
        shape[packed], dtype = shape[packed] // 2, np.dtype(np.uint8)
    shape = [shape[d] for d in order or range(len(shape))]
    return Pending(tuple(shape), dtype, lambda: stored(constant.content, order, packed))


def stored(array: np.ndarray, order: Order | None, packed: int | None) -> np.ndarray:
    """An array, contiguous and aligned, with its elements packed and its dimensions in another order."""
    if packed is not None:
        array = packed_in_halves(array, packed)
    return transposed(array, order or tuple(range(array.ndim)))


def transposed(array: np.ndarray, order: Order) -> np.ndarray:
    """The array, contiguous and aligned, with the dimensions in this order: a copy made a tile at a time, or itself."""
    view = array.transpose(order)
    if view.flags.c_contiguous and view.flags.aligned:  # a transpose undone: tied embeddings are one memory
        return view
    made = np.empty(view.shape, view.dtype)
    if not order or order[-1] == array.ndim - 1:
        made[...] = view
        return made
    across = order.index(array.ndim - 1)
    last, inner = _TILE
    for first in range(0, view.shape[across], inner):
        there = (slice(None),) * across + (slice(first, first + inner),)
        for start in range(0, view.shape[-1], last):
            at = (*there, Ellipsis, slice(start, start + last))
            made[at] = view[at]
    return made
