"""Softmax and its like against float64 and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import softmax
from tests.kernels.kernel_calls import agrees, call, normal
from tests.kernels.single_node import run_node

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
CASES = [
    ((7,), 0),
    ((3, 5), -1),
    ((3, 5), 0),
    ((2, 3, 4, 5), 1),
    ((2, 0, 3), 2),
    ((2, 3, 0), 2),
    ((0, 3), 1),
    ((4, 1), 1),
]


def reference(x: Any, axis: int) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return e / np.sum(e, axis=axis, keepdims=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_softmax_and_its_logarithm(dtype: Any, shape: tuple[int, ...], axis: int) -> None:
    x = normal(*shape, dtype=dtype, scale=4)
    got = call(softmax.softmax, x, axis=axis)
    assert got.dtype == dtype
    agrees(got, [x], lambda a: reference(a, axis), accumulation=7)
    agrees(call(softmax.log_softmax, x, axis=axis), [x], lambda a: np.log(reference(a, axis)), accumulation=7)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_add_up_to_one_however_large(dtype: Any) -> None:
    x = normal(50, 33, dtype=np.float64, scale=1e4).astype(dtype)
    total = call(softmax.softmax, x).astype(np.float64).sum(axis=-1)
    assert np.abs(total - 1).max() < {2: 0.05, 4: 1e-5, 8: 1e-12}[x.itemsize]


def test_masks_of_minus_infinity() -> None:
    x = np.array([[0, -np.inf, 0], [-np.inf, -np.inf, -np.inf], [np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    got = call(softmax.softmax, x)
    assert got[0].tolist() == [0.5, 0, 0.5]
    np.testing.assert_array_equal(got[1:], run_node("Softmax", [x])[0][1:])
    logarithms = call(softmax.log_softmax, x)
    np.testing.assert_allclose(logarithms, run_node("LogSoftmax", [x])[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axis"), CASES)
def test_hardmax_marks_the_first_maximum(dtype: Any, shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(2).integers(0, 3, shape).astype(dtype)
    got = call(softmax.hardmax, x, axis=axis)
    assert got.dtype == dtype
    expected = np.zeros(shape)
    if x.size:
        first = np.argmax(x.astype(np.float64), axis=axis, keepdims=True)
        np.put_along_axis(expected, first, 1, axis)
    assert np.array_equal(got.astype(np.float64), expected)


@pytest.mark.parametrize("kernel", [softmax.softmax, softmax.log_softmax, softmax.hardmax])
def test_axis_out_of_range_is_refused(kernel: Any) -> None:
    for axis in (2, -3):
        with pytest.raises(ValueError, match="axis"):
            kernel(normal(2, 3), axis=axis)


def test_strided_operands() -> None:
    x = normal(6, 10)[::2, ::-3]
    agrees(call(softmax.softmax, x, axis=0), [x], lambda a: reference(a, 0), accumulation=3)
