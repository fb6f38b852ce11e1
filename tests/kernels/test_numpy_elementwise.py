"""Element-wise functions of one tensor against float64, Python's math and ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import elementwise, special
from tests.kernels.kernel_calls import SHAPES, agrees, call, integers, normal
from tests.kernels.single_node import run_node

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, 1e-3, 200.0]

# kernel, its float64 meaning, ONNX name, and how inputs are mapped into the interesting part of the domain
FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "abs": (np.abs, "Abs"),
    "neg": (np.negative, "Neg"),
    "sign": (np.sign, "Sign"),
    "ceil": (np.ceil, "Ceil"),
    "floor": (np.floor, "Floor"),
    "round": (np.rint, "Round"),
    "reciprocal": (lambda x: 1 / x, "Reciprocal"),
    "sqrt": (np.sqrt, "Sqrt"),
    "exp": (np.exp, "Exp"),
    "log": (np.log, "Log"),
    "erf": (np.vectorize(math.erf, otypes=[np.float64]), "Erf"),
    "sin": (np.sin, "Sin"),
    "cos": (np.cos, "Cos"),
    "tan": (np.tan, "Tan"),
    "asin": (np.arcsin, "Asin"),
    "acos": (np.arccos, "Acos"),
    "atan": (np.arctan, "Atan"),
    "sinh": (np.sinh, "Sinh"),
    "cosh": (np.cosh, "Cosh"),
    "tanh": (np.tanh, "Tanh"),
    "asinh": (np.arcsinh, "Asinh"),
    "acosh": (np.arccosh, "Acosh"),
    "atanh": (np.arctanh, "Atanh"),
}
UNIT_DOMAIN = {"asin", "acos", "atanh"}


def operand(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    x = normal(*shape, dtype=np.float64, scale=0.4 if name in UNIT_DOMAIN else 2.0)
    if name in UNIT_DOMAIN:
        x = np.clip(x, -1, 1)
    if name in {"sqrt", "log"}:
        x = np.abs(x)
    if name == "acosh":
        x = 1 + np.abs(x)
    return np.asarray(x).astype(dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_function_against_float64(name: str, dtype: Any) -> None:
    kernel = getattr(elementwise, name)
    for shape in SHAPES:
        x = operand(name, shape, dtype)
        got = call(kernel, x)
        assert (got.dtype, got.shape) == (x.dtype, x.shape)
        agrees(got, [x], FUNCTIONS[name][0])
    strided = operand(name, (6, 8), dtype)[::2, ::-3]
    agrees(call(kernel, strided), [strided], FUNCTIONS[name][0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_as_in_onnx_runtime(name: str) -> None:
    x = np.array(SPECIAL, np.float32)
    if name in {"sin", "cos", "tan"}:
        x = x[:-1]
    got, expected = call(getattr(elementwise, name), x), run_node(FUNCTIONS[name][1], [x])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    if name not in {"erf", "sign"}:  # ONNX Runtime gives 0 for -0
        zeros = expected == 0
        assert np.array_equal(np.signbit(got[zeros]), np.signbit(expected[zeros]))


@pytest.mark.parametrize("name", ["abs", "neg", "sign"])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_signed_integers_are_exact(name: str, dtype: Any) -> None:
    info = np.iinfo(dtype)
    x = np.concatenate([integers(9, dtype=dtype), np.array([info.min, info.max, 0, -1], dtype)])
    got = call(getattr(elementwise, name), x)
    exact = {"abs": abs, "neg": lambda v: -v, "sign": lambda v: (v > 0) - (v < 0)}[name]
    wrapped = [(exact(int(v)) - info.min) % 2 ** (8 * x.itemsize) + info.min for v in x]
    assert got.dtype == dtype
    assert got.tolist() == wrapped


def test_unsigned_integers() -> None:
    x = np.array([0, 1, 255], np.uint8)
    assert call(elementwise.sign, x).tolist() == [0, 1, 1]
    assert call(elementwise.abs, x).tolist() == [0, 1, 255]


def test_round_takes_halves_to_even() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997], np.float32)
    got = call(elementwise.round, x)
    assert got.tolist() == [0, 2, 2, 0, -2, -2, 0]
    assert np.signbit(got[3])


def test_erf_keeps_its_relative_accuracy_everywhere() -> None:
    x = np.concatenate([np.geomspace(1e-30, 1, 500), np.linspace(0, 7, 3000), [0.46875, 3.925, 4, 6]])
    exact = np.array([math.erf(v) for v in x])
    for dtype, bound in ((np.float64, 1.5e-15), (np.float32, 5e-7)):
        narrow = x.astype(dtype)
        exact = np.array([math.erf(float(v)) for v in narrow])
        error = np.abs(special.erf(narrow) - exact) / np.maximum(exact, 1e-300)
        assert error.max() < bound
        assert np.array_equal(special.erf(-narrow), -special.erf(narrow))
        assert np.abs(special.erf(narrow)).max() <= 1


def test_erf_of_integers_truncates() -> None:
    assert call(elementwise.erf, np.array([-3, 0, 1, 7], np.int32)).tolist() == [0, 0, 0, 1]


def test_erf_of_blocks_longer_than_the_cache_block() -> None:
    x = normal(20_011)
    agrees(call(elementwise.erf, x), [x], FUNCTIONS["erf"][0])


def test_logic_and_bits_of_one_tensor() -> None:
    assert call(elementwise.not_, np.array([[True], [False]])).tolist() == [[False], [True]]
    for dtype in (np.int8, np.uint16, np.int32, np.uint64):
        x = integers(3, 4, dtype=dtype)
        assert np.array_equal(call(elementwise.bitwise_not, x), run_node("BitwiseNot", [x])[0])


EIGHT_BITS = [
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e4m3fnuz,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e5m2fnuz,
]


@pytest.mark.parametrize("dtype", [*FLOATS, *EIGHT_BITS])
def test_is_nan_and_is_inf(dtype: Any) -> None:
    with np.errstate(all="ignore"):
        x = np.array([[np.nan, np.inf, -np.inf], [0, -1, 3]]).astype(dtype)
    values = x.astype(np.float64)
    assert np.array_equal(call(elementwise.is_nan, x), np.isnan(values))
    for negative in (False, True):
        for positive in (False, True):
            got = call(elementwise.is_inf, x, detect_negative=negative, detect_positive=positive)
            assert got.dtype == np.bool_
            expected = (values == np.inf) & positive | (values == -np.inf) & negative
            assert np.array_equal(got, expected)
