"""Arithmetic, comparison, logic and selection against exact integers, float64 and ONNX Runtime."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.kernels.numpy import arithmetic, comparison
from tests.kernels.kernel_calls import agrees, call, integers, normal
from tests.kernels.single_node import run_node

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
PAIRS = [((3, 5), (3, 5)), ((3, 5), ()), ((4, 1, 3), (2, 1)), ((1,), (2, 3)), ((0, 3), (3,)), ((), ())]
I8 = np.arange(-128, 128).astype(np.int8)
ALL_A, ALL_B = np.meshgrid(I8, I8)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5], np.float32)
SPECIAL_A, SPECIAL_B = (np.ascontiguousarray(m) for m in np.meshgrid(SPECIAL, SPECIAL))


def wrapped(value: int, dtype: Any) -> int:
    info = np.iinfo(dtype)
    return (value - int(info.min)) % (1 << info.bits) + int(info.min)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_float_arithmetic_broadcasts(name: str, dtype: Any) -> None:
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name]
    for left, right in PAIRS:
        a, b = normal(*left, dtype=dtype), normal(*right, 1, dtype=dtype).reshape(right)
        got = call(getattr(arithmetic, name), a, b)
        assert got.dtype == dtype
        assert got.shape == np.broadcast_shapes(left, right)
        agrees(got, [a, b], function)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_arithmetic_wraps(dtype: Any) -> None:
    a, b = integers(40, dtype=dtype), integers(1, 40, dtype=dtype).ravel()
    for name, function in (
        ("add", lambda x, y: x + y),
        ("sub", lambda x, y: x - y),
        ("mul", lambda x, y: x * y),
    ):
        expected = [wrapped(function(int(x), int(y)), dtype) for x, y in zip(a, b, strict=True)]
        got = call(getattr(arithmetic, name), a, b)
        assert got.dtype == dtype
        assert got.tolist() == expected


def truncated(x: int, y: int) -> int:
    return wrapped(abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1), np.int8) if y else 0


def test_every_quotient_and_remainder_of_bytes() -> None:
    flat = list(zip(ALL_A.ravel().tolist(), ALL_B.ravel().tolist(), strict=True))
    assert call(arithmetic.div, ALL_A, ALL_B).ravel().tolist() == [truncated(x, y) for x, y in flat]
    assert call(arithmetic.mod, ALL_A, ALL_B).ravel().tolist() == [x % y if y else 0 for x, y in flat]
    floored = [int(math.fmod(x, y)) if y else 0 for x, y in flat]
    assert call(arithmetic.mod, ALL_A, ALL_B, fmod=True).ravel().tolist() == floored


@pytest.mark.parametrize("fmod", [False, True])
def test_float_mod_of_special_values(fmod: bool) -> None:
    got = call(arithmetic.mod, SPECIAL_A, SPECIAL_B, fmod=fmod)
    for x, y, z in zip(SPECIAL_A.ravel(), SPECIAL_B.ravel(), got.ravel(), strict=True):
        if math.isnan(x) or math.isnan(y) or math.isinf(x) or y == 0:
            assert math.isnan(z), (x, y, z)
        elif fmod:
            assert z == math.fmod(x, y), (x, y, z)
        elif x == 0:
            assert z == 0 and np.signbit(z) == np.signbit(y), (x, y, z)
        elif math.isinf(y):
            assert z == (x if (x < 0) == (y < 0) else y), (x, y, z)
        else:
            assert z == x - math.floor(x / y) * y, (x, y, z)


@pytest.mark.parametrize("base", [np.int32, np.int64])
@pytest.mark.parametrize("exponent", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_integer_powers_are_exact(base: Any, exponent: Any) -> None:
    a = np.array([0, 1, -1, 2, -3, 10, 46341, np.iinfo(base).min], base)[:, None]
    powers = [0, 1, 2, 3, 5, 31, 64, 127] + ([-1, -2, -3] if np.iinfo(exponent).min < 0 else [])
    b = np.array(powers, exponent)
    got = call(arithmetic.pow, a, b)
    assert got.dtype == base
    for row, x in enumerate(a.ravel().tolist()):
        for column, y in enumerate(powers):
            expected = x**y if y >= 0 else (x ** (y % 2) if abs(x) == 1 else 0)
            assert got[row, column] == wrapped(expected, base), (x, y)


@pytest.mark.parametrize(
    ("base", "exponent"),
    [
        (np.float32, np.float32),
        (np.float64, np.float32),
        (np.float32, np.int64),
        (np.float32, np.uint8),
        (np.int32, np.float32),
        (np.int64, np.float64),
        (np.float16, np.float16),
        (ml_dtypes.bfloat16, np.int32),
    ],
)
def test_powers_of_mixed_types(base: Any, exponent: Any) -> None:
    a = np.abs(normal(3, 4, dtype=np.float64, scale=3)).astype(base)
    b = np.array([0, 1, 2, 3]).astype(exponent)
    got = call(arithmetic.pow, a, b)
    assert got.dtype == base
    if got.dtype.kind == "i":
        assert got.tolist() == [[int(x) ** int(y) for x, y in zip(row, b, strict=True)] for row in a]
    else:
        agrees(got, [a, b], np.power)
    for single in (b[1:2], b[2:3], b[3].reshape(())):
        if got.dtype.kind != "i":
            agrees(call(arithmetic.pow, a, single), [a, single], np.power)


def test_float_powers_of_special_values_as_in_onnx_runtime() -> None:
    got = call(arithmetic.pow, SPECIAL_A, SPECIAL_B)
    np.testing.assert_allclose(got, run_node("Pow", [SPECIAL_A, SPECIAL_B])[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.uint8, np.int64, np.uint32])
def test_clip(dtype: Any) -> None:
    x = normal(5, 7, dtype=np.float64, scale=4).astype(np.int64).astype(dtype)
    low, high = (np.asarray(v).astype(dtype) for v in (1, 3))
    for bounds in ((low, high), (low, None), (None, high), (None, None), (high, low), (low.reshape(1), None)):
        expected = x
        if bounds[0] is not None:
            expected = np.where(expected < bounds[0], bounds[0], expected)
        if bounds[1] is not None:
            expected = np.where(expected > bounds[1], bounds[1], expected)
        assert np.array_equal(call(arithmetic.clip, x, *bounds), expected)


def test_clip_keeps_nan_and_infinity() -> None:
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    got = call(arithmetic.clip, x, np.asarray(-1, np.float32), None)
    assert np.isnan(got[0]) and got[1:].tolist() == [math.inf, -1]


@pytest.mark.parametrize("name", ["max", "min", "sum", "mean"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_lists_of_tensors(name: str, dtype: Any) -> None:
    shapes = [(3, 1, 5), (4, 1), (), (1, 5)]
    inputs = [normal(*s, n, dtype=dtype)[..., 0] for n, s in enumerate(shapes, start=1)]
    inputs = [x.reshape(s) for x, s in zip(inputs, shapes, strict=True)]
    for count in (1, 2, 4):
        given_ = inputs[:count]
        with np.errstate(all="ignore"):
            full = np.stack(np.broadcast_arrays(*(x.astype(np.float64) for x in given_)))
        got = call(getattr(arithmetic, name), *given_)
        assert got.dtype == dtype
        agrees(got, [full], lambda x: getattr(np, name)(x, axis=0), accumulation=count)


def test_largest_of_integers_and_nan() -> None:
    for dtype in INTEGERS:
        a, b = integers(30, dtype=dtype), integers(1, 30, dtype=dtype)
        pairs = list(zip(a.tolist(), b[0].tolist(), strict=True))
        assert call(arithmetic.max, a, b).tolist() == [[max(pair) for pair in pairs]]
        assert call(arithmetic.min, a, b).tolist() == [[min(pair) for pair in pairs]]
    for kernel in (arithmetic.max, arithmetic.min):
        for dtype in FLOATS:
            pair = [np.array([np.nan, 1]).astype(dtype), np.array([1, np.nan]).astype(dtype)]
            assert np.isnan(call(kernel, *pair)).all()


def test_a_list_of_no_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        arithmetic.max()


def test_half_sums_round_once() -> None:
    """1 + 3 * 2^-12 has no float16 between its partial sums: rounding each would give 1."""
    one, small = np.ones(1, np.float16), np.full(1, 2.0**-12, np.float16)
    assert call(arithmetic.sum, one, small, small, small)[0] == np.float16(1 + 2.0**-10)


COMPARISONS = {
    "equal": ("Equal", np.equal),
    "greater": ("Greater", np.greater),
    "greater_or_equal": ("GreaterOrEqual", np.greater_equal),
    "less": ("Less", np.less),
    "less_or_equal": ("LessOrEqual", np.less_equal),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name: str) -> None:
    onnx_name, function = COMPARISONS[name]
    kernel = getattr(comparison, name)
    assert np.array_equal(call(kernel, SPECIAL_A, SPECIAL_B), run_node(onnx_name, [SPECIAL_A, SPECIAL_B])[0])
    for dtype in (*INTEGERS, np.float16, ml_dtypes.bfloat16, np.float64):
        a, b = np.arange(6).astype(dtype)[:, None], np.arange(3, 9).astype(dtype)
        got = call(kernel, a, b)
        assert got.dtype == np.bool_
        assert np.array_equal(got, function(np.arange(6)[:, None], np.arange(3, 9)))


def test_equal_of_strings_and_bools() -> None:
    a = np.array([["a"], ["bc"]], object)
    b = np.array(["a", "bc", ""], object)
    assert call(comparison.equal, a, b).tolist() == [[True, False, False], [False, True, False]]
    assert call(comparison.equal, a[0, 0:1].reshape(()), b[0:1].reshape(())).tolist() is True
    assert call(comparison.equal, np.array([True, False]), np.array([True, True])).tolist() == [True, False]


def test_logic() -> None:
    a, b = np.array([[True], [False]]), np.array([True, False])
    assert call(comparison.and_, a, b).tolist() == [[True, False], [False, False]]
    assert call(comparison.or_, a, b).tolist() == [[True, True], [True, False]]
    assert call(comparison.xor, a, b).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("name", ["and", "or", "xor"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_bits(name: str, dtype: Any) -> None:
    a, b = integers(4, 3, dtype=dtype), integers(3, dtype=dtype)
    got = call(getattr(comparison, f"bitwise_{name}"), a, b)
    assert np.array_equal(got, run_node(f"Bitwise{name.title()}", [a, b])[0])


def shifted(x: int, y: int, direction: str) -> int:
    if not 0 <= y < 8:
        return -1 if direction == "RIGHT" and x < 0 else 0
    return wrapped(x << y if direction == "LEFT" else x >> y, np.int8)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_every_shift_of_bytes(direction: str) -> None:
    got = call(comparison.bit_shift, ALL_A, ALL_B, direction=direction)
    flat = zip(ALL_A.ravel().tolist(), ALL_B.ravel().tolist(), strict=True)
    assert got.ravel().tolist() == [shifted(x, y, direction) for x, y in flat]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_unsigned_shifts(dtype: Any) -> None:
    bits = np.iinfo(dtype).bits
    x, y = integers(20, dtype=dtype), np.arange(0, 2 * bits, bits // 8).astype(dtype)[:, None]
    left = call(comparison.bit_shift, x, y, direction="LEFT")
    right = call(comparison.bit_shift, x, y, direction="RIGHT")
    for row, shift in enumerate(y.ravel().tolist()):
        assert left[row].tolist() == [(int(v) << shift) % (1 << bits) for v in x]
        assert right[row].tolist() == [int(v) >> shift for v in x]
    with pytest.raises(ValueError, match="direction"):
        comparison.bit_shift(x, x, direction="UP")


@pytest.mark.parametrize("dtype", [*FLOATS, np.int64, np.bool_, np.complex64, ml_dtypes.float8_e5m2, object])
def test_where(dtype: Any) -> None:
    condition = np.array([[True], [False], [True]])
    if dtype is object:
        x, y = np.array(["p", "q"], object), np.array("z", object)
    else:
        x, y = np.array([1, 0]).astype(dtype), np.asarray(1).astype(dtype)
    got = call(comparison.where, condition, x, y)
    assert got.dtype == x.dtype
    assert got.tolist() == [[(x if c else np.broadcast_to(y, (2,)))[i] for i in range(2)] for c in condition[:, 0]]


@settings(max_examples=40)
@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_integer_division_identity(x: int, y: int) -> None:
    """(x / y) * y + fmod(x, y) == x, modulo the width."""
    a, b = np.array([x], np.int32), np.array([y], np.int32)
    if y:
        whole = arithmetic.mul(arithmetic.div(a, b), b)
        assert arithmetic.add(whole, arithmetic.mod(a, b, fmod=True))[0] == x
