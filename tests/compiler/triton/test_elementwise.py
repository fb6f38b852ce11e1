"""Element-wise kernels, reductions by rows, scans: odd sizes, every element type."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compiler.triton import kernels
from tests.compiler.triton.harness import BF16, run
from tests.tolerance import assert_close, poisoned

FLOATS = [np.dtype(np.float32), np.dtype(np.float16), BF16]
TYPED = pytest.mark.parametrize(
    ("dtype", "checked"),
    [
        pytest.param(dtype, checked, id=f"{dtype}-{'checked' if checked else 'plain'}")
        for dtype, checked in zip([*FLOATS, FLOATS[0]], (False, False, True, True), strict=True)
    ],
)
CHECKED = pytest.mark.parametrize("checked", [False, True], ids=["plain", "checked"])


def random(*shape: int, dtype: np.dtype = FLOATS[0], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


@TYPED
@pytest.mark.parametrize("n", [1, 127, 1001])
def test_elementwise(n: int, dtype: np.dtype, checked: bool) -> None:
    x, y, out = random(n, dtype=dtype), random(n, dtype=dtype, seed=1), poisoned((n,), dtype)
    arguments = {"x": x, "y": y, "out": out, "n": n, "scale": 0.75}
    run(kernels.scale_and_add, (-(-n // 128),), arguments, {"BLOCK": 128}, checked=checked)
    assert_close(out, wide(x) * 0.75 + wide(y), accumulation=2)


def test_empty_grid() -> None:
    out = poisoned((4,), np.float32)
    run(kernels.scale_and_add, (0,), {"x": out, "y": out, "out": out, "n": 0, "scale": 1.0}, {"BLOCK": 128})
    assert np.isnan(out).all()


@CHECKED
def test_broadcast(checked: bool) -> None:
    x, y, out = random(13), random(37, seed=1), poisoned((13, 37), np.float32)
    arguments = {"x": x, "y": y, "out": out, "rows": 13, "columns": 37}
    run(kernels.outer_sum, (2, 3), arguments, {"R": 8, "C": 16}, checked=checked)
    assert_close(out, np.exp(wide(x))[:, None] + wide(y)[None] * wide(x)[:, None], accumulation=2)


@TYPED
def test_softmax(dtype: np.dtype, checked: bool) -> None:
    x, out = random(5, 77, dtype=dtype), poisoned((5, 77), dtype)
    run(kernels.softmax_rows, (5,), {"x": x, "out": out, "columns": 77}, {"BLOCK": 128}, checked=checked)
    e = np.exp(wide(x) - wide(x).max(1, keepdims=True))
    assert_close(out, e / e.sum(1, keepdims=True), accumulation=77)


@TYPED
def test_layer_norm(dtype: np.dtype, checked: bool) -> None:
    x, gain, bias = random(3, 333, dtype=dtype), random(333, dtype=dtype, seed=1), random(333, dtype=dtype, seed=2)
    out = poisoned((3, 333), dtype)
    arguments = {"x": x, "gain": gain, "bias": bias, "out": out, "columns": 333, "epsilon": 1e-5}
    run(kernels.layer_norm, (3,), arguments, {"BLOCK": 128}, checked=checked)
    centred = wide(x) - wide(x).mean(1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    assert_close(out, centred * scale * wide(gain) + wide(bias), accumulation=333)


@CHECKED
@pytest.mark.parametrize("axis", [0, 1])
def test_arg_max_takes_the_first_of_equals(axis: int, checked: bool) -> None:
    x = np.random.default_rng(0).integers(-3, 4, (13, 29)).astype(np.float32)
    size = x.shape[1 - axis]
    values, indices = poisoned((size,), np.float32), poisoned((size,), np.int32)
    arguments = {"x": x, "values": values, "indices": indices, "rows": 13, "columns": 29}
    run(kernels.arg_max, (1,), arguments, {"R": 16, "C": 32, "AXIS": axis}, checked=checked)
    np.testing.assert_array_equal(values, x.max(axis))
    np.testing.assert_array_equal(indices, x.argmax(axis))


@CHECKED
@pytest.mark.parametrize("axis", [0, 1])
def test_scans(axis: int, checked: bool) -> None:
    x = random(7, 13)
    sums, products, states = (poisoned(x.shape, np.float32) for _ in range(3))
    arguments = {"x": x, "sums": sums, "products": products, "states": states, "rows": 7, "columns": 13}
    run(kernels.scans, (1,), arguments, {"R": 8, "C": 16, "AXIS": axis}, checked=checked)
    assert_close(sums, np.flip(np.cumsum(np.flip(wide(x), axis), axis), axis), accumulation=13)
    assert_close(products, np.cumprod(wide(x), axis), accumulation=13)
    rows = np.moveaxis(wide(x), axis, 0)
    state = np.zeros_like(rows)
    for k in range(len(rows)):
        state[k] = rows[k] + (0.5 * rows[k] * state[k - 1] if k else 0)
    assert_close(states, np.moveaxis(state, 0, axis), accumulation=13)


def test_functions() -> None:
    x = np.concatenate([random(59), np.float32([2.5, -2.5])])
    n = len(x)
    out, v = poisoned((8, n), np.float32), wide(x)
    run(kernels.functions, (1,), {"x": x, "out": out, "n": n}, {"BLOCK": 64})
    erf = np.array([__import__("math").erf(each) for each in v])
    away = np.sign(v) * np.floor(np.abs(v) + 0.5)
    expected = [
        np.tanh(v), np.abs(v) ** 1.5, np.log1p(np.abs(v)), np.rint(v) + away, erf + np.sin(v) * np.cos(v),
        np.clip(v, -0.5, 0.5) + np.floor(v) + np.ceil(v), v * v + v + np.sqrt(np.abs(v)) + np.exp2(v), np.minimum(v, 1),
    ]  # fmt: skip
    for got, reference in zip(out, expected, strict=True):
        assert_close(got, reference, accumulation=4)


@CHECKED
def test_integers(checked: bool) -> None:
    rng = np.random.default_rng(0)
    n = 61
    x = rng.integers(-(2**31), 2**31, n).astype(np.int32)
    y = (rng.integers(1, 1000, n) * rng.choice([-1, 1], n)).astype(np.int32)
    out = poisoned((7 * n + 8,), np.int32)
    run(kernels.integers, (1,), {"x": x, "y": y, "out": out, "n": n}, {"BLOCK": 64}, checked=checked)
    a, b, ua, ub = x.astype(np.int64), y.astype(np.int64), x.view(np.uint32), y.view(np.uint32)
    quotient = (np.abs(a) // np.abs(b)) * np.sign(a) * np.sign(b)
    high = (ua.astype(np.uint64) * ub.astype(np.uint64)) >> np.uint64(32)
    expected = [
        quotient * 3 + (a - quotient * b), ua // ub + ua % ub, (a >> 3) + (ua >> 5) + (a << 2), high,
        np.minimum(a, b) ^ np.maximum(a, b) | (a & b), (ua > ub) + 2 * (a > b) + ~a, a * 1103515245 + b,
    ]  # fmt: skip
    for got, reference in zip(out[: 7 * n].reshape(7, n), expected, strict=True):
        np.testing.assert_array_equal(got, reference.astype(np.int64).astype(np.uint32).view(np.int32))
    bins = np.bincount(x & 7, minlength=8)
    bins[0] += 64 - n
    np.testing.assert_array_equal(out[7 * n :], bins)


@CHECKED
def test_moves(checked: bool) -> None:
    x, out = random(4, 32), poisoned((8 * 32 + 16,), np.float32)
    run(kernels.moves, (1,), {"x": x, "out": out}, {"BLOCK": 32}, checked=checked)
    np.testing.assert_array_equal(out[:128].reshape(32, 4), x.T * 2)
    np.testing.assert_array_equal(out[128:256].reshape(32, 2, 2), (x.reshape(2, 2, 32) + 1).transpose(2, 0, 1))
    np.testing.assert_array_equal(out[256:], np.sort(x[:2, :8].ravel()))


@CHECKED
def test_int4(checked: bool) -> None:
    n = 101
    packed = np.random.default_rng(0).integers(0, 256, n).astype(np.uint8)
    table, out, plain = random(16), poisoned((2 * n,), np.float32), poisoned((n,), np.int32)
    arguments = {"packed": packed, "table": table, "out": out, "plain": plain, "n": n}
    run(kernels.unpack_int4, (2,), arguments, {"BLOCK": 64}, checked=checked)
    both = np.stack([packed & 15, packed >> 4], 1)
    np.testing.assert_array_equal(out, table[both.ravel()])
    np.testing.assert_array_equal(plain, both[:, 0].astype(np.int32) - both[:, 1])


@CHECKED
def test_branches_and_while(checked: bool) -> None:
    x, steps = np.array([1, 2, 3, 7, 27, 0, -5], np.int32), poisoned((7,), np.int32)
    run(kernels.collatz, (9,), {"x": x, "steps": steps, "n": 7}, checked=checked)
    np.testing.assert_array_equal(steps, [0, 1, 7, 16, 111, 0, -5])


@CHECKED
def test_loop_values_change_places(checked: bool) -> None:
    out = poisoned((17,), np.int32)
    run(kernels.fibonacci, (1,), {"out": out, "n": 10}, {"BLOCK": 16}, checked=checked)
    np.testing.assert_array_equal(out, np.full(17, 55))
