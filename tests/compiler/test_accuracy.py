"""The tolerance is itself tested: planted errors must be rejected, mere rounding accepted."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fusible.compiler.accuracy import (
    Bound,
    StepBound,
    compare,
    compare_indices,
    compare_outputs,
    compare_selection,
    kernel_bound,
    model_bound,
)
from fusible.errors import UsageError
from tests.tolerance import assert_close, assert_outputs_close, assert_same_indices, poisoned

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
LENGTHS = [1, 64, 4096, 10**6]


def _reference(seed: int = 0, shape: tuple[int, ...] = (7, 37)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _drop_last_element(x: np.ndarray) -> np.ndarray:
    got = x.copy()
    got[-1, -1] = 0
    return got


def _drop_last_row(x: np.ndarray) -> np.ndarray:
    got = x.copy()
    got[-1] = 0
    return got


def _forget_bias(x: np.ndarray) -> np.ndarray:
    return x - 0.1 * np.random.default_rng(1).standard_normal(x.shape[-1])


def _shift_block(x: np.ndarray) -> np.ndarray:
    got = x.copy()
    got[2:5, 8:24] = np.roll(got[2:5, 8:24], 1, axis=1)
    return got


def _scale(x: np.ndarray) -> np.ndarray:
    return x * 1.05


PLANTED = [_drop_last_element, _drop_last_row, _forget_bias, _shift_block, _scale]


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accumulation", LENGTHS)
def test_kernel_rows_reject_planted_errors(plant, dtype, accumulation):
    reference = _reference()
    bound = kernel_bound(dtype, accumulation)
    assert compare(reference, reference.astype(dtype), bound), "rounding alone must pass"
    assert not compare(reference, plant(reference).astype(dtype), bound)


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_model_rows_reject_planted_errors(plant, precision):
    reference = _reference().astype(np.float32)
    assert compare(reference, reference, model_bound(precision))
    assert not compare(reference, plant(reference).astype(np.float32), model_bound(precision))


@pytest.mark.parametrize("plant", PLANTED)
def test_quantised_row_rejects_planted_errors(plant):
    reference = _reference(seed=2).astype(np.float32)
    bound = model_bound(quantised=True)
    step = (reference.max() - reference.min()) / 255
    jitter = np.random.default_rng(3).uniform(-1, 1, reference.shape) * step
    assert compare(reference, (reference + jitter).astype(np.float32), bound), "a step is no error"
    assert not compare(reference, plant(reference).astype(np.float32), bound)


@pytest.mark.parametrize("length", [3, 64, 1000, 20000])
def test_a_matmul_in_float32_passes_and_without_its_last_term_fails(length):
    generator = np.random.default_rng(length)
    a, b = generator.standard_normal((5, length)), generator.standard_normal((length, 9))
    a[:, -1] += 2  # a last term of ordinary size
    small = (a.astype(np.float32), b.astype(np.float32))
    exact = small[0].astype(np.float64) @ small[1].astype(np.float64)
    bound = kernel_bound(np.float32, length)
    assert compare(exact, small[0] @ small[1], bound)
    assert not compare(exact, small[0][:, :-1] @ small[1][:-1], bound)


def test_rows_grow_with_the_accumulation_length():
    for dtype in DTYPES:
        rows = [kernel_bound(dtype, length) for length in LENGTHS]
        assert rows == sorted(rows, key=lambda row: row.max) == sorted(rows, key=lambda row: row.rms)


def test_dtypes_without_rows_are_exact():
    for dtype in (np.int8, np.bool_, np.uint64, ml_dtypes.float8_e4m3fn, ml_dtypes.int4):
        assert kernel_bound(dtype, 10**6) == Bound(0.0, 0.0)
    assert kernel_bound(np.complex64) == kernel_bound(np.float32)


@given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, min_side=0), elements=st.integers(-5, 5)), st.data())
def test_integers_are_exact(reference, data):
    assert compare(reference, reference.copy(), kernel_bound(np.int64))
    if reference.size:
        got = reference.copy()
        got.flat[data.draw(st.integers(0, reference.size - 1))] += 1
        assert not compare(reference, got, Bound(1.0, 1.0))


def test_large_integers_are_not_compared_as_floats():
    reference = np.array([2**62], np.int64)
    assert not compare(reference, reference + 1, Bound(1.0, 1.0))


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [*DTYPES, ml_dtypes.float8_e5m2])
def test_special_values_must_stand_in_the_same_places(special, dtype):
    reference = np.array([1.0, special, 2.0], dtype)
    assert compare(reference, reference.copy(), kernel_bound(dtype))
    for wrong in ([1.0, 0.0, 2.0], [1.0, special, special], [special, 1.0, 2.0], [1.0, 6e4, 2.0]):
        assert not compare(reference, np.array(wrong, dtype), kernel_bound(dtype))
    if special == math.inf:
        assert not compare(reference, -reference, Bound(9.0, 9.0))


@pytest.mark.parametrize("mask", [np.finfo(np.float32).min, -math.inf])
def test_a_mask_of_the_lowest_number_hides_no_error(mask):
    reference = np.array([1.0, mask, 2.0], np.float32)
    assert not compare(reference, np.array([1.01, mask, 2.0], np.float32), kernel_bound(np.float32))


def test_huge_and_tiny_references_are_scaled_rightly():
    for size in (1e300, 1e-300):
        reference = np.array([1.0, -2.0, 3.0]) * size
        assert compare(reference, reference * (1 + 1e-15), kernel_bound(np.float64))
        assert not compare(reference, reference * 1.05, kernel_bound(np.float64))


def test_a_zero_reference_wants_exact_zeros():
    reference = np.zeros((3, 3), np.float32)
    assert compare(reference, -reference, model_bound())
    assert not compare(reference, reference + np.float32(1e-30), model_bound())
    assert not compare(reference, reference + np.float32(1e-30), model_bound(quantised=True))


def test_shape_dtype_and_kind_must_match():
    reference = np.zeros((2, 1), np.float32)
    for got in (np.zeros((2,), np.float32), np.zeros((2, 1), np.float64), np.zeros((2, 1), np.int32)):
        assert not compare(reference, got, model_bound())
    assert compare(np.zeros((0, 3)), np.zeros((0, 3), np.float16), model_bound())
    assert compare(np.array(["a", "b"], object), np.array(["a", "b"], object), model_bound())
    assert not compare(np.array(["a", "b"], object), np.array(["a", "c"], object), model_bound())


def test_outputs_by_name_sequences_and_optionals():
    one, two = np.float32([1, 2]), np.float32([3])
    reference = {"x": one, "s": [one, two], "o": None}
    assert all(compare_outputs(reference, {"x": one, "s": [one, two], "o": None}, model_bound()).values())
    for name, wrong in (("x", None), ("x", [one]), ("s", [one]), ("s", [two, one]), ("s", one), ("o", one)):
        outcomes = compare_outputs(reference, {**reference, name: wrong}, model_bound())
        assert [key for key, outcome in outcomes.items() if not outcome] == [name]
    assert not compare_outputs({"x": one}, {}, model_bound())["x"]
    assert not compare_outputs({}, {"x": one}, model_bound())["x"]


def test_quantised_integers_count_in_steps():
    reference = np.arange(200, dtype=np.uint8)
    near = reference.copy()
    near[:50] += 1
    assert compare(reference, near, StepBound(0.01, 16))
    near[:2] += 5
    assert compare(reference, near, StepBound(0.01, 16)), "two of 200 elements are 1 %"
    near[2] += 5
    assert not compare(reference, near, StepBound(0.01, 16))
    far = reference.copy()
    far[-1] -= 17
    assert not compare(reference, far, StepBound(0.01, 16))
    assert not compare(np.uint8([0]), np.uint8([255]), StepBound(0.01, 16)), "steps do not wrap"


def test_indices_may_differ_only_at_ties():
    scores = np.float32([[1.0, 5.0, 5.0, 2.0], [9.0, 0.0, 1.0, 3.0]])
    expected = scores.argmax(1, keepdims=True)
    assert compare_indices(expected, np.array([[2], [0]]), scores, 1, kernel_bound(np.float32))
    for wrong in ([[3], [0]], [[1], [3]], [[1], [4]], [[1], [-5]]):
        assert not compare_indices(expected, np.array(wrong), scores, 1, kernel_bound(np.float32))
    assert not compare_indices(expected, np.array([2, 0]), scores, 1, kernel_bound(np.float32))
    assert not compare_indices(expected, np.array([[1], [0]], np.int32), scores, 1, kernel_bound(np.float32))


def test_selections_may_differ_in_order_and_at_ties():
    scores = np.float32([[[0.9, 0.5, 0.5, 0.1]]])
    expected = np.array([[0, 0, 0], [0, 0, 1]])
    assert compare_selection(expected, expected[::-1], scores, kernel_bound(np.float32))
    assert compare_selection(expected, np.array([[0, 0, 0], [0, 0, 2]]), scores, kernel_bound(np.float32))
    for wrong in ([[0, 0, 0], [0, 0, 3]], [[0, 0, 0]], [[0, 0, 0], [0, 0, 4]]):
        assert not compare_selection(expected, np.array(wrong), scores, kernel_bound(np.float32))


def test_the_worst_element_is_named():
    reference = np.ones((3, 5), np.float32)
    got = reference.copy()
    got[1, 4] = 1.5
    outcome = compare(reference, got, model_bound())
    assert outcome.worst == (1, 4)
    assert outcome.max_error == pytest.approx(0.5)
    assert "largest error 0.5 exceeds 0.001" in outcome.reason


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="fp32, fp16, bf16"):
        model_bound("fp8")


def test_the_assertions_fail_when_they_should():
    x = np.float32([1, 2, 3])
    assert_close(x, x.astype(np.float64))
    assert_outputs_close({"y": x}, {"y": x})
    assert_same_indices(np.array([2]), np.array([2]), x, 0)
    with pytest.raises(AssertionError, match="largest error"):
        assert_close(x * np.float32(1.05), x)
    with pytest.raises(AssertionError, match="y: largest error"):
        assert_outputs_close({"y": x * np.float32(1.05)}, {"y": x})
    with pytest.raises(AssertionError):
        assert_same_indices(np.array([1]), np.array([2]), x, 0)
    with pytest.raises(AssertionError, match="looser"):
        assert_close(x, x, bound=Bound(1.0, 1.0))


@pytest.mark.parametrize("dtype", [*DTYPES, ml_dtypes.float8_e4m3fn, np.complex64, np.int8, np.uint64, np.bool_])
def test_poison_agrees_with_nothing(dtype):
    poison = poisoned((2, 3), dtype)
    assert poison.dtype == dtype and poison.shape == (2, 3)
    assert not compare(np.zeros((2, 3), dtype), poison, kernel_bound(dtype))
