"""Pools against ONNX Runtime over combinations of windows, and their invariants."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import pooling
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close, poisoned

Attributes = dict[str, Any]


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(np.random.default_rng(shape).standard_normal(shape)).astype(dtype)


WINDOWS = [
    {"kernel_shape": k, "strides": s, "dilations": d, "pads": p, "ceil_mode": c}
    for k, s, d, p, c in product(
        ((3, 2), (2, 3)), ((2, 2), (1, 3)), ((1, 1), (2, 1)), ((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1)), (0, 1)
    )
]


@pytest.mark.parametrize("attributes", WINDOWS)
def test_window_pools(attributes: Attributes) -> None:
    x = normal(2, 3, 7, 8)
    ours = attributes | {"ceil_mode": bool(attributes["ceil_mode"])}
    values, indices = run_node("MaxPool", [x], 2, **attributes)
    assert_close(pooling.max_pool(x, **ours), values)
    found, places = pooling.max_pool_with_indices(x, **ours)
    assert np.array_equal(found, values)
    assert np.array_equal(places, indices)
    for include in (0, 1):
        (expected,) = run_node("AveragePool", [x], count_include_pad=include, **attributes)
        assert_close(pooling.average_pool(x, count_include_pad=bool(include), **ours), expected, accumulation=6)
    for p in (1, 2, 3):
        (expected,) = run_node("LpPool", [x], p=p, **attributes)
        assert_close(pooling.lp_pool(x, p=p, **ours), expected, accumulation=64)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize(("kernel", "strides"), [((3, 3), (2, 2)), ((4, 3), (1, 2))])
def test_auto_pad(auto_pad: str, ceil_mode: int, kernel: tuple[int, int], strides: tuple[int, int]) -> None:
    x = normal(2, 3, 9, 6)
    attributes: Attributes = {"kernel_shape": kernel, "strides": strides, "auto_pad": auto_pad, "ceil_mode": ceil_mode}
    (expected,) = run_node("MaxPool", [x], **attributes)
    assert_close(pooling.max_pool(x, **attributes), expected)
    (expected,) = run_node("AveragePool", [x], **attributes)
    assert_close(pooling.average_pool(x, **attributes), expected, accumulation=12)


@pytest.mark.parametrize("shape", [(1, 2, 9), (1, 2, 5, 4, 6), (0, 2, 9), (1, 0, 9)])
def test_other_ranks(shape: tuple[int, ...]) -> None:
    x, rank = normal(*shape), len(shape) - 2
    attributes: Attributes = {"kernel_shape": (3,) * rank, "strides": (2,) * rank, "pads": (1,) * (2 * rank)}
    for order in (0, 1):
        values, indices = pooling.max_pool_with_indices(x, storage_order=order, **attributes)
        if x.size:
            expected = run_node("MaxPool", [x], 2, storage_order=order, **attributes)
            assert np.array_equal(values, expected[0])
            assert np.array_equal(indices, expected[1])
    if x.size:
        (expected_mean,) = run_node("AveragePool", [x], **attributes)
        assert_close(pooling.average_pool(x, **attributes), expected_mean, accumulation=27)
    assert pooling.average_pool(x, **attributes).shape == values.shape


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, ml_dtypes.bfloat16, np.float64])
def test_types(dtype: Any) -> None:
    x = (normal(1, 2, 6, 5) * 30).astype(dtype)
    attributes: Attributes = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)}
    got = pooling.max_pool(x, **attributes)
    assert got.dtype == dtype
    assert np.array_equal(got.astype(np.float64), pooling.max_pool(x.astype(np.float64), **attributes))
    if np.dtype(dtype).kind not in "iu":
        for kernel in (pooling.average_pool, pooling.lp_pool):
            found = kernel(x, **attributes)  # type: ignore[operator]
            assert found.dtype == dtype
            assert_close(found, kernel(x.astype(np.float64), **attributes), accumulation=9)  # type: ignore[operator]


def test_outputs_are_written_in_place() -> None:
    x = normal(1, 2, 6, 5)
    for kernel in (pooling.max_pool, pooling.average_pool, pooling.lp_pool):
        expected = kernel(x, kernel_shape=(2, 2))  # type: ignore[operator]
        out = poisoned(expected.shape, np.float32)
        assert kernel(x, kernel_shape=(2, 2), out=out) is out  # type: ignore[operator]
        assert np.array_equal(out, expected)
        one = kernel(x, kernel_shape=(1, 1))  # type: ignore[operator]
        assert not np.shares_memory(one, x)


def test_first_of_equal_maxima_and_infinities() -> None:
    x = np.full((1, 1, 3, 3), -np.inf, np.float32)
    values, indices = pooling.max_pool_with_indices(x, kernel_shape=(3, 3))
    assert values.item() == -np.inf
    assert indices.item() == 0
    x[0, 0, 1, 1] = np.nan
    values, indices = pooling.max_pool_with_indices(x, kernel_shape=(3, 3))
    assert np.isnan(values.item())
    assert indices.item() == 4
    assert np.isnan(pooling.max_pool(x, kernel_shape=(2, 2))).all()


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 7), (1, 2, 3, 2, 4)])
def test_global_pools(shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    assert_close(pooling.global_max_pool(x), run_node("GlobalMaxPool", [x])[0])
    assert_close(pooling.global_average_pool(x), run_node("GlobalAveragePool", [x])[0], accumulation=24)
    for p in (1, 2, 3):
        assert_close(pooling.global_lp_pool(x, p=p), run_node("GlobalLpPool", [x], opset=21, p=p)[0], accumulation=64)
    half = x.astype(np.float16)
    assert_close(
        pooling.global_average_pool(half), half.astype(np.float64).mean(axis=tuple(range(2, x.ndim)), keepdims=True)
    )
    with pytest.raises(ValueError, match="pixel"):
        pooling.global_max_pool(np.zeros((1, 2, 0), np.float32))


def test_unpool_puts_maxima_back() -> None:
    x = normal(2, 3, 6, 8)
    attributes: Attributes = {"kernel_shape": (2, 2), "strides": (2, 2)}
    values, indices = pooling.max_pool_with_indices(x, **attributes)
    back = pooling.max_unpool(values, indices, **attributes)
    assert np.array_equal(back, np.where(np.isin(np.arange(x.size).reshape(x.shape), indices), x, 0))
    (expected,) = run_node("MaxUnpool", [values, indices], **attributes)
    assert np.array_equal(back, expected)
    larger = pooling.max_unpool_dynamic(values, indices, np.array([2, 3, 7, 9]), **attributes)
    assert np.array_equal(larger[:, :, :6, :8], back)
    assert not larger[:, :, 6:].any()
    smaller = pooling.max_unpool(values, indices, output_shape=(2, 3, 5, 8), **attributes)
    assert np.array_equal(smaller, back[:, :, :5])
    huge = pooling.max_unpool(
        values, np.zeros_like(indices), kernel_shape=(2, 2), strides=(10**8, 10**8), output_shape=(1, 1, 2, 2)
    )
    assert huge.shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match="index"):
        pooling.max_unpool(values, indices + x.size, **attributes)


def test_window_far_longer_than_the_image_costs_no_time() -> None:
    x = normal(1, 1, 3)
    attributes: Attributes = {"kernel_shape": (10**9,), "pads": (10**9 - 2, 2)}
    expected = [x[0, 0, :2].max(), x.max(), x.max(), x.max()]
    assert np.array_equal(pooling.max_pool(x, **attributes)[0, 0], expected)
    assert pooling.average_pool(x, **attributes).shape == (1, 1, 4)
