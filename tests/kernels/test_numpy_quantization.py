"""Quantisation and quantised products against ONNX Runtime (exactly) and plain integer arithmetic."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fusible.kernels.numpy.integer_matmul import integer_matmul
from fusible.kernels.numpy.quantization import dequantize_linear, dynamic_quantize_linear, quantize_linear
from fusible.kernels.numpy.quantized_products import (
    conv_bytes,
    conv_integer,
    matmul_integer,
    qlinear_conv,
    qlinear_matmul,
)
from tests.kernels.single_node import run_node

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)
INTEGERS = [np.dtype(t) for t in (np.uint8, np.int8, np.uint16, np.int16)]


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(got.astype(np.float64), expected.astype(np.float64), equal_nan=True)


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Normal numbers times 100, with ties, infinities and NaN in front."""
    x = (np.random.default_rng(seed).standard_normal(shape) * 100).astype(np.float32)
    x.flat[:8] = [np.nan, np.inf, -np.inf, 0.25, 0.75, 1.25, -0.25, -0.75]
    return x


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("form", ["tensor", "axis", "blocks"])
def test_quantize_and_back(dtype: np.dtype, form: str) -> None:
    random = np.random.default_rng(1)
    x = numbers((3, 5, 7))
    shape = {"tensor": (), "axis": (5,), "blocks": (3, 3, 7)}[form]
    scale = np.asarray(random.uniform(0.3, 2, shape), np.float32) if form != "tensor" else np.array(0.5, np.float32)
    zero_point = np.asarray(random.integers(0, 100, shape), dtype)
    attributes = {"axis": 1, "block_size": 2} if form == "blocks" else {"axis": 1}
    expected = run_node("QuantizeLinear", [x, scale, zero_point], opset=21, **attributes)[0]
    assert_same(quantize_linear(x, scale, zero_point, output_dtype=dtype, **attributes), expected)
    restored = run_node("DequantizeLinear", [expected, scale, zero_point], opset=21, **attributes)[0]
    assert_same(dequantize_linear(expected, scale, zero_point, output_dtype=F32, **attributes), restored)


def test_axis_of_vectors_and_negative_axes() -> None:
    x, scale = np.array([1.0, 2.0, 3.0], np.float32), np.array([1.0, 0.5, 0.25], np.float32)
    assert quantize_linear(x, scale, output_dtype=np.dtype(np.uint8)).tolist() == [1, 4, 12]
    matrix = quantize_linear(x[:, None], scale, output_dtype=np.dtype(np.uint8), axis=-2)
    assert matrix.ravel().tolist() == [1, 4, 12]


def test_half_precision_rounds_the_quotient() -> None:
    x, scale = np.linspace(0, 200, 5000).astype(F16), np.array(1.7, F16)
    quotient = x.astype(np.float32) / scale.astype(np.float32)
    rounded = np.rint(quotient.astype(F16)).astype(np.uint8)
    assert not np.array_equal(rounded, np.rint(quotient))
    assert_same(quantize_linear(x, scale, output_dtype=np.dtype(np.uint8)), rounded)
    wide = quantize_linear(x, scale, output_dtype=np.dtype(np.uint8), precision=F32)
    assert_same(wide, np.rint(quotient).astype(np.uint8))


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(ml_dtypes.int4, -8, 7), (ml_dtypes.uint4, 0, 15), (ml_dtypes.int2, -2, 1), (ml_dtypes.uint2, 0, 3)],
)
def test_narrow_integers(dtype: Any, low: int, high: int) -> None:
    x = np.arange(-20, 20, 0.5, np.float32)
    zero_point = np.array(1, dtype)
    got = quantize_linear(x, np.array(2, np.float32), zero_point, output_dtype=np.dtype(dtype))
    assert got.dtype == dtype
    expected = np.clip(np.rint(x / 2) + 1, low, high)
    assert np.array_equal(got.astype(np.float32), expected)
    back = dequantize_linear(got, np.array(2, np.float32), zero_point, output_dtype=F32)
    assert np.array_equal(back, (expected - 1) * 2)


@pytest.mark.parametrize(
    ("name", "beyond"),
    [
        ("float8_e4m3fn", np.nan),
        ("float8_e4m3fnuz", np.nan),
        ("float8_e5m2", np.inf),
        ("float8_e5m2fnuz", np.nan),
        ("float4_e2m1fn", None),
    ],
)
def test_small_floats_are_the_nearest(name: str, beyond: float | None) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    x = np.concatenate([np.linspace(-20, 20, 801), [1e6, -1e6, np.inf]]).astype(np.float32)
    codes = np.arange(16 if beyond is None else 256, dtype=np.uint8).view(dtype).astype(np.float64)
    codes = codes[np.isfinite(codes)]
    got = quantize_linear(x, np.array(0.3, F32), np.array(0, dtype), output_dtype=dtype).astype(np.float64)
    quotient = (x / np.float32(0.3)).astype(np.float64)
    nearest = np.abs(quotient[:-1, None] - codes).min(axis=1)
    assert np.array_equal(np.abs(quotient[:-1] - got[:-1]), nearest)
    assert got[-1] == codes.max()
    if beyond is not None:
        loose = quantize_linear(x, np.array(0.3, F32), output_dtype=dtype, saturate=False).astype(np.float64)
        assert np.array_equal(loose[:801], got[:801])
        assert np.array_equal(loose[801:], np.array([beyond, -beyond, beyond]), equal_nan=True)


def test_bfloat16_output_and_int32_input() -> None:
    x = np.array([2**31 - 1, -(2**31), 7], np.int32)
    got = dequantize_linear(x, np.array(0.5, F32), output_dtype=np.dtype(ml_dtypes.bfloat16))
    assert got.dtype == ml_dtypes.bfloat16
    assert_same(got, (x.astype(np.float32) * np.float32(0.5)).astype(ml_dtypes.bfloat16))


# Where the 255th part of a range is no float any more, ONNX Runtime divides by 0; we take 1 as for a range of nothing.
SPREADS = st.floats(0, 9, width=32, allow_subnormal=False)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), shift=st.floats(-9, 9), spread=SPREADS)
def test_dynamic_quantize_linear(seed: int, shift: float, spread: float) -> None:
    x = (np.random.default_rng(seed).standard_normal((3, 7)) * spread + shift).astype(np.float32)
    width = x.max(initial=0) - x.min(initial=0)
    assume(width == 0 or width / np.float32(255) > 0)  # ONNX Runtime divides by a scale that became 0
    expected = run_node("DynamicQuantizeLinear", [x], 3)
    for got, reference in zip(dynamic_quantize_linear(x), expected, strict=True):
        assert_same(got, reference)


@pytest.mark.parametrize("x", [np.zeros(3, np.float32), np.zeros((0, 2), np.float32)])
def test_dynamic_quantize_nothing(x: np.ndarray) -> None:
    for got, reference in zip(dynamic_quantize_linear(x), run_node("DynamicQuantizeLinear", [x], 3), strict=True):
        assert_same(got, reference)


def test_dynamic_range_ignores_nan() -> None:
    y, *parameters = dynamic_quantize_linear(np.array([1, np.nan, -1.25], np.float32))
    expected, *others = dynamic_quantize_linear(np.array([1, -1.25], np.float32))
    assert y.tolist() == [expected[0], 0, expected[1]]
    assert parameters == others


@pytest.mark.parametrize(
    ("scale", "axis", "block_size"), [(np.ones(4), 1, 0), (np.ones((3, 2)), 1, 2), (np.ones(5), 2, 0)]
)
def test_parameters_that_do_not_fit(scale: np.ndarray, axis: int, block_size: int) -> None:
    with pytest.raises(ValueError, match=r"scale|axis"):
        quantize_linear(
            numbers((3, 5)), scale.astype(np.float32), output_dtype=INTEGERS[0], axis=axis, block_size=block_size
        )


def integers(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


@settings(max_examples=25)
@given(
    depth=st.sampled_from([0, 1, 257, 258, 259, 700]),
    types=st.tuples(st.sampled_from([np.uint8, np.int8]), st.sampled_from([np.uint8, np.int8])),
    extreme=st.booleans(),
)
def test_matmul_integer_is_exact(depth: int, types: tuple[Any, Any], extreme: bool) -> None:
    a, b = integers((2, 3, depth), types[0]), integers((2, depth, 5), types[1], 1)
    a_zero, b_zero = np.array(3, types[0]), integers((2, 1, 5), types[1], 2)
    if extreme:  # the largest magnitudes that there are
        a[...], b[...] = np.iinfo(types[0]).max, np.iinfo(types[1]).max
        a_zero, b_zero = np.array(np.iinfo(types[0]).min, types[0]), np.full_like(b_zero, np.iinfo(types[1]).min)
    expected = (a.astype(np.int64) - a_zero) @ (b.astype(np.int64) - b_zero)
    assert_same(matmul_integer(a, b, a_zero, b_zero), expected.astype(np.int32))


def test_matmul_integer_rows_columns_and_vectors() -> None:
    a, b = integers((3, 4), np.uint8), integers((4, 5), np.int8)
    rows, columns = np.array([1, 2, 3], np.uint8), np.array([1, 2, 3, 4, 5], np.int8)
    expected = (a.astype(np.int32) - rows[:, None]) @ (b.astype(np.int32) - columns)
    assert_same(matmul_integer(a, b, rows, columns), expected)
    assert_same(matmul_integer(a[0], b[:, 0]), np.asarray(a[0].astype(np.int32) @ b[:, 0].astype(np.int32)))


def test_integer_matmul_wraps() -> None:
    depth = 40_000  # 255 * 255 * 40,000 exceeds 2**31
    a = np.full((1, depth), 255, np.float32)
    assert integer_matmul(a, a.T)[0, 0] == np.int64(255 * 255 * depth).astype(np.int32)


@pytest.mark.parametrize(
    ("image", "kernel", "attributes"),
    [
        ((2, 3, 9, 10), (8, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 4, 9, 10), (8, 1, 3, 2), {"strides": [2, 1], "pads": [0, 1, 2, 1], "dilations": [1, 2], "group": 4}),
        ((2, 64, 5, 5), (8, 32, 1, 1), {"strides": [2, 2], "group": 2}),
        ((1, 64, 6, 6), (4, 64, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((2, 3, 11), (4, 3, 5), {"pads": [2, 0]}),
    ],
)
def test_integer_convolutions(image: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, Any]) -> None:
    x, w = integers(image, np.uint8), integers(kernel, np.uint8, 1)
    zeros = [np.array(9, np.uint8), np.array(7, np.uint8)]
    assert_same(conv_integer(x, w, *zeros, **attributes), run_node("ConvInteger", [x, w, *zeros], **attributes)[0])
    signed = (w // 4).astype(np.int8)  # 7 bits: see the recurrent tests
    random = np.random.default_rng(2)
    scale = random.uniform(0.001, 0.01, kernel[0]).astype(np.float32)
    bias = random.integers(-3000, 3000, kernel[0]).astype(np.int32)
    inputs = [x, np.array(0.02, F32), zeros[0], signed, scale, np.zeros(kernel[0], np.int8)]
    inputs += [np.array(0.3, F32), np.array(100, np.uint8), bias]
    assert_same(qlinear_conv(*inputs, **attributes), run_node("QLinearConv", inputs, **attributes)[0])


@pytest.mark.parametrize("fill", [0, 3, 255])
def test_convolutions_of_bytes_are_padded_with_a_byte(fill: int) -> None:
    x, w, bias = integers((2, 4, 5, 6), np.uint8), integers((6, 2, 3, 2), np.int8, 1), np.arange(6, dtype=np.int32)
    sizes = {"strides": (2, 1), "dilations": (1, 2), "group": 2}
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)), constant_values=fill)
    expected = conv_integer(padded, w, **sizes) + bias.reshape(-1, 1, 1)
    np.testing.assert_array_equal(conv_bytes(x, w, bias, **sizes, pads=(1, 2, 0, 1), fill=fill), expected)


def test_deep_convolution_by_groups_is_exact() -> None:
    x, w = np.full((1, 600, 2, 2), 255, np.uint8), np.full((2, 300, 2, 2), 255, np.uint8)
    assert conv_integer(x, w, group=2).ravel().tolist() == [255 * 255 * 1200] * 2


@pytest.mark.parametrize("b_type", [np.uint8, np.int8])
def test_qlinear_matmul(b_type: Any) -> None:
    a, b = integers((2, 3, 40), np.uint8), (integers((40, 5), b_type) // 2).astype(b_type)
    columns = np.random.default_rng(0).uniform(0.005, 0.02, 5).astype(np.float32)
    inputs = [a, np.array(0.02, F32), np.array(9, np.uint8), b, columns, np.zeros(5, b_type)]
    inputs += [np.array(0.05, F32), np.array(99, np.uint8)]
    assert_same(qlinear_matmul(*inputs), run_node("QLinearMatMul", inputs, opset=21)[0])


def test_qlinear_matmul_of_float8() -> None:
    e4m3 = ml_dtypes.float8_e4m3fn
    a, b = (np.random.default_rng(k).standard_normal(s).astype(e4m3) for k, s in enumerate([(3, 8), (8, 5)]))
    zero, one = np.array(0, e4m3), np.array(1, np.float32)
    got = qlinear_matmul(a, one, zero, b, one, zero, np.array(2, np.float32), zero)
    expected = (a.astype(np.float64) @ b.astype(np.float64) / 2).astype(np.float32).astype(e4m3)
    assert_same(got, expected)


def test_a_block_longer_than_the_axis() -> None:
    x, scale = numbers((3, 5)), np.array([[0.5], [1], [2]], np.float32)
    expected = quantize_linear(x, scale.ravel(), output_dtype=INTEGERS[0], axis=0)
    assert_same(quantize_linear(x, scale, output_dtype=INTEGERS[0], axis=1, block_size=10**15), expected)
