"""What functions that users registered give back, before it is stored."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["fitting"]


def fitting(given: Any, *outs: np.ndarray) -> Any:
    """The results of a registered function as they were given, if each has the shape of the array it is stored in.

    NumPy would repeat smaller ones and make NaN of None. given: an array, or for several `outs` a sequence of them.
    Raises ValueError for other shapes, None, or another number of results.
    """
    results = (given,) if len(outs) == 1 else given
    if not isinstance(results, (tuple, list)) or len(results) != len(outs):
        count = len(results) if isinstance(results, (tuple, list)) else type(given).__name__
        raise ValueError(f"the registered function must return {len(outs)} arrays, got {count}")
    for number, (result, out) in enumerate(zip(results, outs, strict=True)):
        if result is None or np.shape(result) != out.shape:
            found = "None" if result is None else f"shape {np.shape(result)}"
            raise ValueError(f"the registered function must return shape {out.shape} as result {number}, got {found}")
    return given
