"""Range, EyeLike and the random ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fusible.kernels.numpy import creation, random
from tests.kernels.single_node import run_node

I64, F32 = np.dtype(np.int64), np.dtype(np.float32)
BF16 = np.dtype(ml_dtypes.bfloat16)


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert isinstance(got, np.ndarray)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


SMALL = st.integers(-9, 9)


@settings(max_examples=40)
@given(
    start=SMALL,
    limit=SMALL,
    delta=st.integers(-3, 3).filter(bool),
    dtype=st.sampled_from([np.int32, np.int64, np.int16]),
)
def test_integer_ranges(start: int, limit: int, delta: int, dtype: Any) -> None:
    inputs = [np.array(v, dtype) for v in (start, limit, delta)]
    assert_same(creation.range_(*inputs), np.arange(start, limit, delta, dtype=dtype))
    assert_same(creation.range_(*inputs), run_node("Range", inputs)[0])


@given(start=SMALL, limit=SMALL, delta=st.integers(-6, 6).filter(bool), dtype=st.sampled_from([np.float32, np.float64]))
def test_float_ranges_multiply_rather_than_accumulate(start: int, limit: int, delta: int, dtype: Any) -> None:
    # Quarters are exact, so that the count is not a matter of rounding.
    inputs = [np.array(v / 4, dtype) for v in (start, limit, delta)]
    assert_same(creation.range_(*inputs), np.arange(start, limit, delta).astype(dtype) / dtype(4))
    inputs[2] = np.array(delta / 10, dtype)
    got = creation.range_(*inputs)
    assert got.tolist() == [inputs[0] + dtype(i) * inputs[2] for i in range(got.size)]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_small_floats_count_beyond_their_precision(dtype: Any) -> None:
    got = creation.range_(*(np.array(v, dtype) for v in (0, 4096, 1)))
    assert got.dtype == dtype
    assert_same(got, np.arange(4096, dtype=np.float32).astype(dtype))


def test_ranges_at_the_edge_of_int64() -> None:
    low, high = np.iinfo(I64).min, np.iinfo(I64).max
    got = creation.range_(np.array(low), np.array(high), np.array(2**62))
    assert got.tolist() == [low, low + 2**62, low + 2**63, low + 3 * 2**62]


@pytest.mark.parametrize("bounds", [(0, 1, 0), (0, np.inf, 1), (np.nan, 1, 1), (-3e38, 3e38, 1e-30)])
def test_endless_ranges_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="range"):
        creation.range_(*(np.array(v, np.float32) for v in bounds))


@pytest.mark.parametrize("k", [0, 2, -1, 99, -99, 2**63 - 1])
def test_eye_like(k: int) -> None:
    x = np.zeros((3, 5), np.int32)
    expected = run_node("EyeLike", [x], dtype=helper.np_dtype_to_tensor_dtype(F32), k=min(k, 99))[0]
    assert_same(creation.eye_like(x, dtype=F32, k=k), expected)


def draw_normal(seed: float | None, dtype: np.dtype = F32) -> np.ndarray:
    return random.random_normal(shape=(200, 300), dtype=dtype, mean=3.0, scale=2.0, seed=seed)


def draw_uniform(seed: float | None, dtype: np.dtype = F32) -> np.ndarray:
    return random.random_uniform(shape=(200, 300), dtype=dtype, low=-1.0, high=2.0, seed=seed)


@pytest.mark.parametrize("draw", [draw_normal, draw_uniform])
@pytest.mark.parametrize("dtype", [F32, np.dtype(np.float64), np.dtype(np.float16), BF16])
def test_a_seed_determines_the_numbers(draw: Callable[..., np.ndarray], dtype: np.dtype) -> None:
    first = draw(0.25, dtype)
    assert first.dtype == dtype
    assert np.array_equal(first, draw(0.25, dtype))
    assert not np.array_equal(first, draw(0.5, dtype))
    assert not np.array_equal(draw(None, dtype), draw(None, dtype))


def test_moments_of_normal_and_uniform_variates() -> None:
    normal, uniform = draw_normal(1.0), draw_uniform(1.0)
    assert abs(normal.mean() - 3) < 0.05
    assert abs(normal.std() - 2) < 0.05
    assert abs(uniform.mean() - 0.5) < 0.02
    assert uniform.min() >= -1
    assert uniform.max() <= 2
    assert random.random_normal_like(uniform, dtype=F32, seed=1.0).shape == uniform.shape
    assert random.random_uniform_like(np.zeros(()), dtype=F32, seed=1.0).shape == ()


def test_bernoulli_follows_its_probabilities() -> None:
    x = np.broadcast_to(np.array([0, 0.25, 1], np.float32), (20000, 3))
    got = random.bernoulli(x, dtype=np.dtype(np.int8), seed=3.0)
    assert got.dtype == np.int8
    assert set(np.unique(got)) == {0, 1}
    means = got.mean(axis=0)
    assert (means[0], means[2]) == (0, 1)
    assert abs(means[1] - 0.25) < 0.02


def test_multinomial_follows_its_log_probabilities() -> None:
    weights = np.array([[1, 0, 3, 0], [0, 1, 1, 2]], np.float32)
    with np.errstate(divide="ignore"):
        logits = np.log(weights) + np.array([[1000], [-1000]], np.float32)
    got = random.multinomial(logits, dtype=np.dtype(np.int32), sample_size=20000, seed=1.0)
    assert got.dtype == np.int32
    for row, weight in zip(got, weights, strict=True):
        shares = np.bincount(row, minlength=4) / row.size
        assert np.abs(shares - weight / weight.sum()).max() < 0.02
        assert not shares[weight == 0].any()


def test_multinomial_refuses_rows_without_a_distribution() -> None:
    with pytest.raises(ValueError, match="finite"):
        random.multinomial(np.full((1, 2), -np.inf), dtype=I64)
    with pytest.raises(ValueError, match="classes >= 1"):
        random.multinomial(np.zeros((1, 0)), dtype=I64)
    assert random.multinomial(np.zeros((0, 2)), dtype=I64, sample_size=3).shape == (0, 3)
