"""Reductions, running sums and positions of extremes against float64, exact integers and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy import reduce, scan
from tests.kernels.kernel_calls import agrees, call, integers, normal, same_bits
from tests.kernels.single_node import run_node
from tests.tolerance import assert_same_indices

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int32, np.int64, np.uint32, np.uint64]
CASES: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = [
    ((3, 4, 5), None),
    ((3, 4, 5), (1,)),
    ((3, 4, 5), (-1, 0)),
    ((3, 4, 5), ()),
    ((7,), (0,)),
    ((), None),
    ((2, 0, 3), (0,)),
    ((2, 1, 3, 1), (1, 3)),
]


def log_sum_exp(x: Any, **how: Any) -> Any:
    return np.log(np.sum(np.exp(x), **how))


REFERENCES: dict[str, tuple[str, Callable[..., Any]]] = {
    "reduce_sum": ("ReduceSum", np.sum),
    "reduce_mean": ("ReduceMean", np.mean),
    "reduce_prod": ("ReduceProd", np.prod),
    "reduce_max": ("ReduceMax", np.max),
    "reduce_min": ("ReduceMin", np.min),
    "reduce_l1": ("ReduceL1", lambda x, **how: np.sum(np.abs(x), **how)),
    "reduce_l2": ("ReduceL2", lambda x, **how: np.sqrt(np.sum(x * x, **how))),
    "reduce_log_sum": ("ReduceLogSum", lambda x, **how: np.log(np.sum(x, **how))),
    "reduce_log_sum_exp": ("ReduceLogSumExp", log_sum_exp),
    "reduce_sum_square": ("ReduceSumSquare", lambda x, **how: np.sum(x * x, **how)),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("keepdims", [True, False])
def test_float_reductions(name: str, dtype: Any, keepdims: bool) -> None:
    kernel, function = reduce.REDUCTIONS[name], REFERENCES[name][1]
    for shape, axes in CASES:
        x = normal(*shape, dtype=dtype)
        if name == "reduce_log_sum":
            x = np.abs(x)
        if name == "reduce_prod":  # near 1, or the product of many leaves the range of a half
            x = (1 + normal(*shape, scale=0.1)).astype(dtype)
        got = call(kernel, x, axes=axes, keepdims=keepdims)
        assert got.dtype == dtype
        agrees(got, [x], lambda a, axes=axes: function(a, axis=axes, keepdims=keepdims), accumulation=64)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integer_reductions_as_in_onnx_runtime(name: str, dtype: Any) -> None:
    x = integers(3, 4, dtype=dtype, low=1, high=9)
    if name not in ("reduce_log_sum", "reduce_log_sum_exp"):
        x = x - 5 + (x == 5)
    for axes in ((0,), (1,), (0, 1)):
        if name == "reduce_log_sum_exp":  # ONNX Runtime truncates the exponentials, too
            got = call(reduce.reduce_log_sum_exp, x, axes=axes, keepdims=False)
            assert np.array_equal(got, log_sum_exp(x.astype(np.float64), axis=axes).astype(dtype))
            continue
        expected = run_node(REFERENCES[name][0], [x, np.array(axes, np.int64)], opset=18, keepdims=0)[0]
        assert same_bits(call(reduce.REDUCTIONS[name], x, axes=axes, keepdims=False), expected)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_sums_and_products_wrap(dtype: Any) -> None:
    x = integers(9, dtype=dtype)
    total, product = 0, 1
    for value in x.tolist():
        total, product = total + value, product * value
    bits = 8 * x.itemsize
    assert int(call(reduce.reduce_sum, x, keepdims=False)) % (1 << bits) == total % (1 << bits)
    assert int(call(reduce.reduce_prod, x, keepdims=False)) % (1 << bits) == product % (1 << bits)
    assert call(reduce.reduce_sum, x).dtype == dtype


def test_integer_means_neither_wrap_nor_floor() -> None:
    big = np.full(4, 2**31 - 1, np.int32)
    assert call(reduce.reduce_mean, big).tolist() == [2**31 - 1]
    assert call(reduce.reduce_mean, np.array([-7, 2, 2], np.int32)).tolist() == [-1]
    assert call(reduce.reduce_mean, np.array([-8, 1], np.int64)).tolist() == [-3]
    assert call(reduce.reduce_mean, np.array([250, 255], np.uint8)).tolist() == [252]


NEUTRAL = {
    "reduce_sum": 0,
    "reduce_prod": 1,
    "reduce_max": -np.inf,
    "reduce_min": np.inf,
    "reduce_l1": 0,
    "reduce_l2": 0,
    "reduce_log_sum": -np.inf,
    "reduce_log_sum_exp": -np.inf,
    "reduce_sum_square": 0,
}


@pytest.mark.parametrize("name", NEUTRAL)
@pytest.mark.parametrize("dtype", FLOATS)
def test_reducing_nothing_gives_the_neutral_element(name: str, dtype: Any) -> None:
    got = call(reduce.REDUCTIONS[name], np.empty((2, 0, 3), dtype), axes=(1,), keepdims=True)
    assert got.shape == (2, 1, 3)
    assert (got.astype(np.float64) == NEUTRAL[name]).all()


def test_extremes_of_no_integers_and_of_bools() -> None:
    nothing = np.empty((0, 2), np.uint8)
    assert call(reduce.reduce_max, nothing, axes=(0,)).tolist() == [[0, 0]]
    assert call(reduce.reduce_min, nothing, axes=(0,)).tolist() == [[255, 255]]
    x = np.array([[True, False], [False, False]])
    assert call(reduce.reduce_max, x, axes=(1,), keepdims=False).tolist() == [True, False]
    assert call(reduce.reduce_min, ~x, axes=(1,), keepdims=False).tolist() == [False, True]
    assert call(reduce.reduce_max, x[:0], axes=(0,), keepdims=False).tolist() == [False, False]
    assert call(reduce.reduce_min, x[:0], axes=(0,), keepdims=False).tolist() == [True, True]


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_wins_and_infinities_do_not_become_nan(dtype: Any) -> None:
    x = np.array([[1, np.nan, 3], [np.inf, 0, 1], [-np.inf, -np.inf, -np.inf]]).astype(dtype)
    for kernel in (reduce.reduce_max, reduce.reduce_min):
        assert np.isnan(call(kernel, x, axes=(1,))).ravel().tolist() == [True, False, False]
    got = call(reduce.reduce_log_sum_exp, x, axes=(1,), keepdims=False).astype(np.float64)
    assert np.array_equal(got, [np.nan, np.inf, -np.inf], equal_nan=True)


def test_log_sum_exp_does_not_overflow() -> None:
    x = np.array([1000, 1000, -1000], np.float32)
    agrees(call(reduce.reduce_log_sum_exp, x), [x[:1]], lambda a: a + np.log(2))


def test_half_sums_are_added_in_float32() -> None:
    """In float16 the sum would stop growing at 2048."""
    assert call(reduce.reduce_sum, np.ones(5000, np.float16), keepdims=False) == 5000
    assert call(reduce.reduce_mean, np.full(5000, 30, np.float16), keepdims=False) == 30


@pytest.mark.parametrize("axes", [(0, 0), (0, -2), (2,), (-3,)])
def test_wrong_axes_are_refused(axes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ax"):
        reduce.reduce_sum(normal(2, 3), axes=axes)


def test_axes_at_run_time() -> None:
    x = normal(2, 3, 4)
    empty = np.empty(0, np.int64)
    for axes, noop in ((np.array([1]), False), (empty, False), (empty, True), (None, False), (None, True)):
        for name in reduce.REDUCTIONS:
            got = call(reduce.reduce_dynamic, np.abs(x), axes, reduction=name, noop_with_empty_axes=noop)
            static = (1,) if axes is not None and axes.size else () if noop else None
            assert same_bits(got, reduce.REDUCTIONS[name](np.abs(x), axes=static, keepdims=True))
    with pytest.raises(ValueError, match="reduction"):
        reduce.reduce_dynamic(x, None, reduction="reduce_median")


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums_and_products(dtype: Any, exclusive: bool, reverse: bool) -> None:
    for shape, axis in (((5,), 0), ((3, 4), -1), ((2, 5, 3), 1), ((2, 0, 3), 1), ((0, 2), 1)):
        x = normal(*shape, dtype=np.float64).astype(dtype) if dtype in FLOATS else integers(*shape, dtype=dtype)
        wide = x.astype(np.float64) if dtype in FLOATS else x
        for kernel, accumulate, neutral in (
            (scan.cum_sum, np.add.accumulate, 0),
            (scan.cum_prod, np.multiply.accumulate, 1),
        ):
            got = call(kernel, x, axis=axis, exclusive=exclusive, reverse=reverse)
            lane = np.flip(wide, axis) if reverse else wide
            expected = accumulate(lane, axis=axis)
            if exclusive:
                expected = np.roll(expected, 1, axis)
                np.moveaxis(expected, axis, 0)[:1] = neutral
            expected = np.flip(expected, axis) if reverse else expected
            assert got.dtype == dtype
            if dtype in FLOATS:
                agrees(got, [expected], lambda e: e, accumulation=5)
            else:
                assert np.array_equal(got, expected.astype(dtype))


def test_running_sum_with_the_axis_at_run_time() -> None:
    x = normal(3, 4)
    for axis in (np.array(1), np.array([-1], np.int32)):
        assert same_bits(call(scan.cum_sum_dynamic, x, axis), scan.cum_sum(x, axis=1))
        assert same_bits(call(scan.cum_prod_dynamic, x, axis, reverse=True), scan.cum_prod(x, axis=1, reverse=True))
    with pytest.raises(ValueError, match="axis"):
        scan.cum_sum_dynamic(x, np.array([0, 1]))
    with pytest.raises(ValueError, match="axis"):
        scan.cum_sum(x, axis=2)


@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("keepdims", [True, False])
def test_positions_of_extremes(dtype: Any, keepdims: bool) -> None:
    x = np.random.default_rng(5).integers(0, 4, (3, 5, 2)).astype(dtype)
    wide = x.astype(np.float64)
    for axis in (0, 1, -1):
        for kernel, extreme in ((scan.arg_max, np.max), (scan.arg_min, np.min)):
            hit = wide == extreme(wide, axis=axis, keepdims=True)
            for last in (False, True):
                got = call(kernel, x, axis=axis, keepdims=keepdims, select_last_index=last)
                assert got.dtype == np.int64
                positions = np.arange(x.shape[axis]).reshape([-1 if a == axis % 3 else 1 for a in range(3)])
                ranked = np.where(hit, positions, -1 if last else 99)
                expected = (np.max if last else np.min)(ranked, axis=axis, keepdims=keepdims)
                assert np.array_equal(got, expected)


def test_positions_as_in_onnx_runtime() -> None:
    x = normal(4, 7)
    for name, kernel in (("ArgMax", scan.arg_max), ("ArgMin", scan.arg_min)):
        assert_same_indices(call(kernel, x, axis=1), run_node(name, [x], axis=1)[0], x, 1)
    assert call(scan.arg_max, np.empty((0, 3), np.float32), axis=1).shape == (0, 1)
    with pytest.raises(ValueError, match="empty"):
        scan.arg_max(np.empty((3, 0), np.float32), axis=1)
