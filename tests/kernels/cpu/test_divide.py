"""vf_divide: the bits of a division by the same constant, whatever is divided."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.kernels.cpu.harness import pointer
from tests.kernels.cpu.variants import VARIANTS, compile_variant

_SOURCE = """
#include "vector.h"
void run(const float *x, float *y, long count, float divisor, float reciprocal) {
    for (long i = 0; i < count; i += VL) vf_store(y + i, vf_divide(vf_load(x + i), divisor, reciprocal));
}
"""
_COUNT = 1 << 14


def _dividends(divisor: np.float32) -> np.ndarray:
    """Of every size, quotients near halves among them, and what is no number."""
    rng = np.random.default_rng(5)
    wide = rng.standard_normal(_COUNT) * np.exp2(rng.integers(-60, 60, _COUNT))
    levels = (rng.integers(-300, 300, _COUNT) + 0.5).astype(np.float32) * divisor
    near = np.nextafter(levels, rng.choice([-np.inf, np.inf], _COUNT).astype(np.float32))
    odd = np.resize(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-30], np.float32), 64)
    return np.concatenate([wide.astype(np.float32), levels, near, odd])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "divisor", [0.078204684, 0.0039215689, 3.0, -0.7, 1.0000001, 1.9999999, 12345.678, 2.0**-59 * 1.3]
)
def test_quotients_have_the_bits_of_a_division(divisor: float, variant: str) -> None:
    by = np.float32(divisor)
    x = _dividends(by)
    y = np.empty_like(x)
    library = compile_variant(_SOURCE, variant)
    numbers = (ctypes.c_float(float(v)) for v in (by, np.float32(1) / by))
    library.run(pointer(x), pointer(y), ctypes.c_long(x.size), *numbers)
    with np.errstate(all="ignore"):
        expected = x / by
    normal = (np.abs(expected) >= np.float32(2.0**-100)) | ~np.isfinite(x) | (x == 0)
    np.testing.assert_array_equal(y[normal], expected[normal])
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
