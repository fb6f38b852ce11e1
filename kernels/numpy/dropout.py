"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.kernels.numpy.halves import delivered, widened

Array = np.ndarray[Any, Any]


@np.errstate(all="ignore")
def dropout(
    x: Array, ratio: Array | None = None, training_mode: Array | None = None, /, *, seed: int | None = None
) -> tuple[Array, Array]:
    """In training y = x * mask / (1 - ratio), where the mask (bool) is True with probability 1 - ratio; else y = x.

    ratio: one number in [0, 1), by default 0.5; training_mode: one bool, by default False. A given seed gives the mask
    of NumPy's MT19937 uniform numbers, as in the standard's own examples; without one every call differs. Raises
    ValueError for a ratio out of range. Srivastava et al., "Dropout" (2014).
    """
    probability = 0.5 if ratio is None else float(ratio.reshape(()))
    training = training_mode is not None and bool(training_mode.reshape(()))
    if not training or probability == 0:
        return x, np.ones(x.shape, np.bool_)
    if not 0 <= probability < 1:
        raise ValueError(f"dropout: the ratio must lie in [0, 1), got {probability}")
    generator = np.random.RandomState(None if seed is None else seed % 2**32)
    mask = np.asarray(generator.uniform(size=x.shape) >= probability)
    wide = widened(x)
    if wide.dtype.isbuiltin != 1:
        wide = x.astype(np.float32)
    return delivered(wide * mask * np.asarray(1 / (1 - probability), wide.dtype), x.dtype), mask
