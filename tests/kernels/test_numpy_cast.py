"""Casts between every pair of element types, the tables of the 8-bit floats, text, and bit casts."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from fusible.kernels.numpy.cast import bit_cast, cast
from tests.kernels.kernel_calls import call, integers, normal
from tests.kernels.single_node import run_node

NUMPY = [np.float64, np.float32, np.float16, np.bool_] + [
    np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)
]
FLOATS8 = [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz]
NARROW = [*FLOATS8, ml_dtypes.float4_e2m1fn, ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2]
ALL = [*NUMPY, ml_dtypes.bfloat16, *NARROW, object]
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)


@pytest.mark.parametrize("source", ALL)
def test_zero_and_one_survive_every_conversion(source: Any) -> None:
    base = np.array([[0, 1], [1, 0]], np.float64)
    x = call(cast, base, dtype=np.dtype(source))
    for target in ALL:
        y = call(cast, x, dtype=np.dtype(target))
        assert y.dtype == np.dtype(target)
        assert np.array_equal(call(cast, y, dtype=np.dtype(np.float64)), base)
        assert call(cast, x[:0], dtype=np.dtype(target)).shape == (0, 2)
        assert call(cast, x[:1, 1].reshape(()), dtype=np.dtype(target)).shape == ()


@pytest.mark.parametrize(("source", "target"), list(product(NUMPY, NUMPY)))
def test_numpy_types_as_in_onnx_runtime(source: Any, target: Any) -> None:
    x = np.array([0, 1, 2.5, 3.5, 100, 77.99], np.float64).astype(source)
    if np.dtype(source).kind in "iu":
        x = np.concatenate([x, integers(5, dtype=source)])
    if np.dtype(source).kind == "f" and np.dtype(target).kind in "fb":
        x = np.concatenate(
            [x, np.array([np.nan, np.inf, -np.inf, -0.0, 1e300, 7e4, 1e-9]).clip(-6e4, 6e4).astype(source)]
        )
    expected = run_node("Cast", [x], to=helper.np_dtype_to_tensor_dtype(np.dtype(target)))[0]
    got = call(cast, x, dtype=np.dtype(target))
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected, equal_nan=got.dtype.kind == "f")


def test_floats_truncate_towards_zero() -> None:
    x = np.array([1.9, -1.9, 0.5, -0.5], np.float32)
    for dtype in (np.int8, np.int64):
        assert call(cast, x, dtype=np.dtype(dtype)).tolist() == [1, -1, 0, 0]


# value -> with saturation, without: the table of the standard. max stands for the type's largest number.
TABLE: list[tuple[float, dict[str, str]]] = [
    (np.nan, {"e4m3fn": "nan nan", "e4m3fnuz": "nan nan", "e5m2": "nan nan", "e5m2fnuz": "nan nan"}),
    (np.inf, {"e4m3fn": "max nan", "e4m3fnuz": "max nan", "e5m2": "max inf", "e5m2fnuz": "max nan"}),
    (-np.inf, {"e4m3fn": "-max nan", "e4m3fnuz": "-max nan", "e5m2": "-max -inf", "e5m2fnuz": "-max nan"}),
    (1e6, {"e4m3fn": "max nan", "e4m3fnuz": "max nan", "e5m2": "max inf", "e5m2fnuz": "max nan"}),
    (-1e6, {"e4m3fn": "-max nan", "e4m3fnuz": "-max nan", "e5m2": "-max -inf", "e5m2fnuz": "-max nan"}),
]


@pytest.mark.parametrize("dtype", FLOATS8)
@pytest.mark.parametrize("source", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_out_of_range_of_8_bit_floats(dtype: Any, source: Any) -> None:
    name, largest = dtype.__name__.removeprefix("float8_"), float(ml_dtypes.finfo(dtype).max)
    for value, rows in TABLE:
        for saturate, word in zip((True, False), rows[name].split(), strict=True):
            expected = largest * (-1 if word[0] == "-" else 1) if word.endswith("max") else float(word)
            got = call(cast, np.array([value], source), dtype=np.dtype(dtype), saturate=saturate)
            assert np.array_equal(got.astype(np.float64), [expected], equal_nan=True), (value, saturate)


@pytest.mark.parametrize("dtype", FLOATS8)
def test_8_bit_floats_round_to_the_nearest(dtype: Any) -> None:
    codes = np.arange(256).astype(np.uint8).view(dtype).astype(np.float64)
    values = np.unique(codes[np.isfinite(codes)])
    x = np.clip(normal(400, scale=8), values[0], values[-1])
    got = call(cast, x, dtype=np.dtype(dtype)).astype(np.float64)
    nearest = np.abs(x.astype(np.float64)[:, None] - values).min(axis=1)
    assert np.array_equal(np.abs(got - x), nearest)
    halves = (values[:-1] + values[1:]) / 2
    even = call(cast, halves.astype(np.float32), dtype=np.dtype(dtype))
    mantissa = even.view(np.uint8) & 1
    assert not mantissa[even.astype(np.float64) != 0].any()


def powers(code: np.ndarray) -> np.ndarray:
    return np.where(code == 255, np.nan, np.exp2(code.astype(np.float64) - 127))


@pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [True, False])
def test_exponent_only_floats(round_mode: str, saturate: bool) -> None:
    rng = np.random.default_rng(3)
    x = np.exp2(rng.uniform(-127, 127, 2000)).astype(np.float32)
    exact = np.exp2(np.arange(-127, 128).astype(np.float64)).astype(np.float32)
    got = call(cast, exact, dtype=E8M0, round_mode=round_mode, saturate=saturate).view(np.uint8)
    assert np.array_equal(got, np.arange(255))
    value = powers(call(cast, x, dtype=E8M0, round_mode=round_mode, saturate=saturate).view(np.uint8))
    ratio = value / x.astype(np.float64)
    low, high = {"up": (1, 2), "down": (0.5, 1), "nearest": (2 / 3, 4 / 3)}[round_mode]
    assert ratio.min() >= low and ratio.max() <= high
    extremes = np.array([0, np.nan, np.inf, 3.4e38, 1e-45], np.float32)
    codes = call(cast, extremes, dtype=E8M0, round_mode=round_mode, saturate=saturate).view(np.uint8).tolist()
    beyond = 254 if saturate or round_mode == "down" else 255
    assert codes == ([0, 255, 254, 254, 0] if saturate else [255, 255, 255, beyond, 255])


def test_unknown_rounding_is_refused() -> None:
    with pytest.raises(ValueError, match="round_mode"):
        cast(normal(2), dtype=E8M0, round_mode="even")


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2])
def test_narrow_integers(dtype: Any) -> None:
    info = ml_dtypes.iinfo(dtype)
    values = np.arange(info.min, info.max + 1)
    for wide in (np.int8, np.int64, np.float32, np.float16, ml_dtypes.bfloat16):
        narrow = call(cast, values.astype(wide), dtype=np.dtype(dtype))
        assert np.array_equal(call(cast, narrow, dtype=np.dtype(wide)).astype(np.int64), values)
    bits = info.bits
    dropped = call(cast, np.arange(40).astype(np.int32), dtype=np.dtype(dtype)).astype(np.int64)
    assert np.array_equal(dropped % (1 << bits), np.arange(40) % (1 << bits))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.uint64, np.bool_])
def test_numbers_print_as_in_onnx_runtime(dtype: Any) -> None:
    x = np.array([0.1, 1 / 3, 3.14159274, 1, 0, 100000, 2.5, 12345.678], np.float64)
    if np.dtype(dtype).kind == "f":
        x = np.concatenate([x, [np.nan, np.inf, -np.inf, -0.0, 1e-4, 6e4, 1e30, 1e-7]])
    with np.errstate(all="ignore"):
        typed = x.astype(dtype)
    assert np.array_equal(call(cast, typed, dtype=np.dtype(object)), run_node("Cast", [typed], to=8)[0])


def test_text_parses() -> None:
    texts = np.array([["1.5", "-INF", "inf"], ["NaN", "1e3", " 7 "]], object)
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        got = call(cast, texts, dtype=np.dtype(dtype)).astype(np.float64)
        assert np.array_equal(got, [[1.5, -np.inf, np.inf], [np.nan, 1000, 7]], equal_nan=True)
    whole = np.array(["9007199254740993", "-3", "100.5", "2e2"], object)
    assert call(cast, whole, dtype=np.dtype(np.int64)).tolist() == [9007199254740993, -3, 100, 200]
    assert call(cast, whole[1:], dtype=np.dtype(np.uint8)).tolist() == [253, 100, 200]
    assert call(cast, np.array(["0", "0.5"], object), dtype=np.dtype(np.bool_)).tolist() == [False, True]
    assert call(cast, np.array(["300"], object), dtype=np.dtype(ml_dtypes.float8_e5m2)).astype(float).tolist() == [320]


@pytest.mark.parametrize("text", ["", "hello", "1_000", "0x10"])
def test_text_that_is_no_number_is_refused(text: str) -> None:
    for dtype in (np.float32, np.int32):
        with pytest.raises(ValueError, match="number"):
            cast(np.array([text], object), dtype=np.dtype(dtype))


@pytest.mark.parametrize("text", ["inf", "nan"])
def test_infinite_text_is_no_integer(text: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        cast(np.array([text], object), dtype=np.dtype(np.int32))


@settings(max_examples=50)
@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_survive_text(value: int) -> None:
    x = np.array([value], np.int64)
    assert cast(cast(x, dtype=np.dtype(object)), dtype=np.dtype(np.int64)).tolist() == [value]


@pytest.mark.parametrize(
    ("source", "target"),
    [(np.float32, np.int32), (np.uint64, np.float64), (np.int8, np.uint8), (np.float16, np.uint16)],
)
def test_bit_casts_keep_the_bits(source: Any, target: Any) -> None:
    x = np.frombuffer(np.random.default_rng(1).bytes(24 * np.dtype(source).itemsize), source).reshape(4, 6)
    for given_ in (x, x[:, :1], x[0, 0:1].reshape(()), x[:0], x[:, ::2]):
        y = bit_cast(given_, dtype=np.dtype(target))
        assert y.shape == given_.shape
        assert y.tobytes() == given_.tobytes()


@pytest.mark.parametrize("bits", [4, 2])
def test_bit_casts_below_a_byte(bits: int) -> None:
    types = {4: [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn], 2: [ml_dtypes.int2, ml_dtypes.uint2]}[bits]
    codes = np.arange(1 << bits).astype(types[1])
    for first, second in product(types, types):
        start = bit_cast(codes, dtype=np.dtype(first))
        there = bit_cast(start, dtype=np.dtype(second))
        assert there.dtype == np.dtype(second)
        assert np.array_equal(bit_cast(there, dtype=np.dtype(types[1])), codes)
    signed = bit_cast(codes, dtype=np.dtype(types[0])).astype(np.int64)
    assert np.array_equal(signed, np.where(codes.astype(int) < 1 << (bits - 1), codes, codes.astype(int) - (1 << bits)))
    packed = numpy_helper.to_array(numpy_helper.from_array(bit_cast(codes, dtype=np.dtype(types[0]))))
    assert np.array_equal(packed, bit_cast(codes, dtype=np.dtype(types[0])))


def test_bit_cast_of_other_widths_is_refused() -> None:
    for x, dtype in (
        (normal(2), np.int64),
        (np.array(["a"], object), np.int64),
        (np.zeros(2, ml_dtypes.int4), np.int8),
    ):
        with pytest.raises(ValueError, match="equally wide"):
            bit_cast(x, dtype=np.dtype(dtype))
    assert bit_cast(np.array([True, False]), dtype=np.dtype(np.uint8)).tolist() == [1, 0]
    assert bit_cast(np.array([2, 0], np.uint8), dtype=np.dtype(np.bool_)).view(np.uint8).tolist() == [1, 0]
