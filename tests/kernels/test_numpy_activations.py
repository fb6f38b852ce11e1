"""Activation functions against float64 formulas and ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import activations
from tests.kernels.kernel_calls import SHAPES, agrees, call, normal
from tests.kernels.single_node import run_node

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
erf = np.vectorize(math.erf, otypes=[np.float64])


def below(x: Any, then: Any, otherwise: Any) -> Any:
    return np.where(x < 0, then, otherwise)


def sigmoid(x: Any) -> Any:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


Attributes = dict[str, Any]
# kernel, ONNX name and opset, attributes, the float64 formula
CASES: list[tuple[str, str, int, Attributes, Callable[..., Any]]] = [
    ("relu", "Relu", 14, {}, lambda x: np.maximum(x, 0)),
    ("leaky_relu", "LeakyRelu", 16, {"alpha": 0.125}, lambda x: below(x, 0.125 * x, x)),
    ("leaky_relu", "LeakyRelu", 16, {"alpha": 2.0}, lambda x: below(x, 2 * x, x)),
    ("thresholded_relu", "ThresholdedRelu", 10, {"alpha": 0.5}, lambda x: np.where(x > 0.5, x, 0)),
    ("elu", "Elu", 6, {"alpha": 1.5}, lambda x: below(x, 1.5 * np.expm1(np.minimum(x, 0)), x)),
    (
        "selu",
        "Selu",
        6,
        {"alpha": 1.25, "gamma": 2.0},
        lambda x: 2 * np.where(x > 0, x, 1.25 * np.expm1(np.minimum(x, 0))),
    ),
    ("celu", "Celu", 12, {"alpha": 0.5}, lambda x: np.maximum(x, 0) + np.minimum(0, 0.5 * np.expm1(x / 0.5))),
    ("hard_sigmoid", "HardSigmoid", 6, {"alpha": 0.25, "beta": 0.625}, lambda x: np.clip(x / 4 + 0.625, 0, 1)),
    ("hard_swish", "HardSwish", 14, {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("sigmoid", "Sigmoid", 13, {}, sigmoid),
    ("softplus", "Softplus", 1, {}, lambda x: np.logaddexp(x, 0)),
    ("softsign", "Softsign", 1, {}, lambda x: x / (1 + np.abs(x))),
    ("mish", "Mish", 18, {}, lambda x: x * np.tanh(np.logaddexp(x, 0))),
    ("gelu", "Gelu", 20, {}, lambda x: x / 2 * (1 + erf(x / math.sqrt(2)))),
    (
        "gelu",
        "Gelu",
        20,
        {"approximate": "tanh"},
        lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    ("swish", "Swish", 24, {"alpha": 1.5}, lambda x: x * sigmoid(1.5 * x)),
    (
        "shrink",
        "Shrink",
        9,
        {"bias": 0.25, "lambd": 0.5},
        lambda x: np.where(x < -0.5, x + 0.25, np.where(x > 0.5, x - 0.25, 0)),
    ),
]
IDS = [f"{c[0]}-{n}" for n, c in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_activation_against_float64(case: Any, dtype: Any) -> None:
    name, _, _, attributes, formula = case
    kernel = getattr(activations, name)
    for shape in SHAPES:
        x = normal(*shape, dtype=dtype, scale=3)
        got = call(kernel, x, **attributes)
        assert (got.dtype, got.shape) == (x.dtype, x.shape)
        agrees(got, [x], formula)
    strided = normal(8, 9, dtype=dtype)[::2, ::-2]
    agrees(call(kernel, strided, **attributes), [strided], formula)


@pytest.mark.parametrize("case", [c for c in CASES if c[1] not in ("Swish", "Shrink")], ids=lambda c: str(c[0]))
def test_special_values_as_in_onnx_runtime(case: Any) -> None:
    name, onnx_name, opset, attributes, _ = case
    x = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-4, -1e-4, 90, -90, 1e30, -1e30, 20, -20], np.float32)
    got = call(getattr(activations, name), x, **attributes)
    expected = run_node(onnx_name, [x], opset=opset, **attributes)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_shrink_of_nan_is_zero() -> None:
    assert call(activations.shrink, np.array([np.nan], np.float32)).tolist() == [0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturation_is_exact_and_silent(dtype: Any) -> None:
    x = np.array([-1e4, 1e4], dtype)
    assert call(activations.sigmoid, x).tolist() == [0, 1]
    assert call(activations.softplus, x).tolist() == [0, 1e4]
    assert call(activations.mish, x).tolist() == [0, 1e4]
    assert call(activations.gelu, x).tolist() == [0, 1e4]
    assert call(activations.swish, x).tolist() == [0, 1e4]
    assert call(activations.elu, x).tolist() == [-1, 1e4]
    assert call(activations.celu, x).tolist() == [-1, 1e4]


def test_defaults_of_selu_are_the_standards() -> None:
    x = normal(31)
    assert np.allclose(call(activations.selu, x), run_node("Selu", [x])[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int32, np.int64, np.uint32])
def test_prelu(dtype: Any) -> None:
    x = (normal(2, 3, 5, dtype=np.float64) * 3).astype(np.int64).astype(dtype)
    for slope in (np.array(2), np.array([[2], [0], [3]]), np.arange(30).reshape(2, 3, 5)):
        typed = slope.astype(dtype)
        got = call(activations.prelu, x, typed)
        assert got.dtype == dtype
        if np.dtype(dtype).kind in "iu":
            assert np.array_equal(got, np.where(x < 0, x * typed, x))
        else:
            agrees(got, [x, typed], lambda a, b: np.where(a < 0, a * b, a))
    with pytest.raises(ValueError, match="slope"):
        activations.prelu(x[:1], np.ones((2, 3, 5)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_integer_relu(dtype: Any) -> None:
    x = np.array([np.iinfo(dtype).min, -1, 0, 1, np.iinfo(dtype).max], dtype)
    assert call(activations.relu, x).tolist() == [0, 0, 0, 1, np.iinfo(dtype).max]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32])
def test_integer_shrink_as_in_onnx_runtime(dtype: Any) -> None:
    x = np.arange(0, 9).astype(dtype) if np.dtype(dtype).kind == "u" else np.arange(-5, 6).astype(dtype)
    got = call(activations.shrink, x, bias=1.5, lambd=1.5)
    assert np.array_equal(got, run_node("Shrink", [x], bias=1.5, lambd=1.5)[0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_swiglu(dtype: Any) -> None:
    for shape in SHAPES:
        a, b = normal(*shape, dtype=dtype), normal(*shape, 2, dtype=dtype)[..., 1]
        got = call(activations.swiglu, a, np.ascontiguousarray(b).reshape(shape), alpha=1.5)
        agrees(got, [a, b], lambda x, y: x * sigmoid(1.5 * x) * y)
    with pytest.raises(ValueError, match="one shape"):
        activations.swiglu(normal(2, 3), normal(3))


def test_unknown_approximation_is_refused() -> None:
    with pytest.raises(ValueError, match="approximate"):
        activations.gelu(normal(3), approximate="sigmoid")
