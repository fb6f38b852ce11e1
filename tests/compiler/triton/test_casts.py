"""Every pattern of 16 and 8 bits, and every float32 between two of them, is rounded as ml_dtypes rounds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compiler.triton import kernels
from tests.compiler.triton.harness import BF16, F8E4M3, F8E5M2, run
from tests.compiler.triton.test_elementwise import random, wide

SMALL = [np.dtype(np.float16), BF16, F8E5M2, F8E4M3]
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def patterns(dtype: np.dtype) -> np.ndarray:
    """All values of a type."""
    bits = 8 * dtype.itemsize
    return np.arange(2**bits, dtype=np.uint64).astype(f"u{dtype.itemsize}").view(dtype)


def near_ties(dtype: np.dtype) -> np.ndarray:
    """All values of a type as float32, what lies half-way to the next, and the float32 on both sides of that."""
    values = patterns(dtype).astype(F32)
    finite = np.sort(values[np.isfinite(values)])
    ties = finite[:-1] / 2 + finite[1:] / 2
    ties = np.concatenate([ties, np.float32([1.03125, 1.25]) * finite[-1], np.float32([0.96875]) * finite[0]])
    around = [ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))]
    special = np.float32([np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 3.4e38])
    return np.concatenate([values, *around, special])


def cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    out = np.zeros(x.shape, dtype)
    run(kernels.cast, (-(-len(x) // 1024),), {"x": x, "out": out, "n": len(x)}, {"BLOCK": 1024})
    return out


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """Bit for bit; of a NaN only that it is one, and its sign."""
    got_f32, expected_f32 = got.astype(F32), expected.astype(F32)
    np.testing.assert_array_equal(np.isnan(got_f32), np.isnan(expected_f32))
    np.testing.assert_array_equal(np.signbit(got_f32), np.signbit(expected_f32))
    number = ~np.isnan(expected_f32)
    kind = f"u{expected.dtype.itemsize}"
    np.testing.assert_array_equal(got.view(kind)[number], expected.view(kind)[number])


@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_widening(dtype: np.dtype) -> None:
    x = patterns(dtype)
    assert_same(cast(x, F32), x.astype(F32))


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_narrowing(dtype: np.dtype) -> None:
    x = near_ties(dtype)
    assert_same(cast(x, dtype), x.astype(dtype))


@pytest.mark.filterwarnings("ignore:overflow")
def test_from_float64_rounds_once() -> None:
    """A float64 just beside a tie of fp16, which float32 cannot tell from the tie."""
    ties = near_ties(SMALL[0])
    ties = ties[np.isfinite(ties)].astype(F64)
    x = np.concatenate([ties, ties * (1 + 2.0**-40), ties * (1 - 2.0**-40)])
    assert_same(cast(x, SMALL[0]), x.astype(SMALL[0]))


@pytest.mark.parametrize("dtype", SMALL[:2], ids=str)
def test_arithmetic_rounds_after_each_operation(dtype: np.dtype) -> None:
    x, y = random(1000, dtype=dtype), random(1000, dtype=dtype, seed=1)
    out = np.zeros(1000, dtype)
    run(kernels.low_precision_chain, (1,), {"x": x, "y": y, "out": out, "n": 1000}, {"BLOCK": 1024})
    product = (wide(x) * wide(y)).astype(dtype)
    expected = (wide((wide(product) + wide(x)).astype(dtype)) - wide(y)).astype(dtype)
    np.testing.assert_array_equal(out.view(np.uint16), expected.view(np.uint16))
