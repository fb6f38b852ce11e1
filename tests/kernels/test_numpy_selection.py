"""TopK, NonZero and Unique against ONNX Runtime and NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.kernels.numpy import selection
from tests.kernels.single_node import run_node

I64 = np.int64


def with_ties(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 9, shape).astype(dtype)


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert isinstance(got, np.ndarray)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, np.uint64])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis", "k"), [((3, 7), -1, 7), ((5, 40), 1, 3), ((40, 5), 0, 9), ((2, 30, 3), -2, 1), ((4,), 0, 0)]
)
def test_top_k_breaks_ties_by_index(shape: tuple[int, ...], axis: int, k: int, largest: bool, dtype: Any) -> None:
    x = with_ties(*shape, dtype=np.float32)
    # The runtime has no kernels for the small integers; the values are small enough for float32.
    expected = run_node("TopK", [x, np.array([k], I64)], outputs=2, axis=axis, largest=int(largest))
    values, indices = selection.top_k_dynamic(x.astype(dtype), np.array([k], I64), axis=axis, largest=largest)
    assert_same(values, expected[0].astype(dtype))
    assert_same(indices, expected[1])


@settings(max_examples=60)
@given(size=st.integers(1, 60), data=st.data(), largest=st.booleans())
def test_partition_and_full_sort_agree(size: int, data: st.DataObject, largest: bool) -> None:
    k = data.draw(st.integers(0, size))
    x = with_ties(3, size, seed=size)
    order = np.argsort(-x if largest else x, axis=1, kind="stable")[:, :k]
    values, indices = selection.top_k(x, k=k, largest=largest)
    assert_same(indices, order)
    assert_same(values, np.take_along_axis(x, order, axis=1))


@pytest.mark.parametrize("largest", [True, False])
def test_top_k_of_extremes(largest: bool) -> None:
    info = np.iinfo(I64)
    x = np.array([0, info.min, info.max, info.min, -1] * 5, I64)
    values, indices = selection.top_k(x, k=3, largest=largest)
    assert values.tolist() == ([info.max] * 3 if largest else [info.min] * 3)
    assert indices.tolist() == ([2, 7, 12] if largest else [1, 3, 6])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_nan_counts_as_the_greatest(dtype: Any) -> None:
    x = np.array([1, np.nan, np.inf, -np.inf, 2] + [0] * 20, dtype)
    assert selection.top_k(x, k=2)[1].tolist() == [1, 2]
    assert selection.top_k(x, k=25, largest=False)[1][-2:].tolist() == [2, 1]
    assert selection.top_k(x, k=2)[0].dtype == dtype


def test_top_k_of_empty_tensors_and_bad_k() -> None:
    assert selection.top_k(np.empty((0, 4)), k=2)[1].shape == (0, 2)
    assert selection.top_k(np.empty((4, 0)), k=0)[0].shape == (4, 0)
    with pytest.raises(ValueError, match=r"\[0, 4\]"):
        selection.top_k(np.zeros(4), k=5)


@pytest.mark.parametrize("shape", [(3, 4), (7,), (0, 3), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_non_zero(shape: tuple[int, ...], dtype: Any) -> None:
    x = (with_ties(*shape) % 3).astype(dtype)
    assert_same(selection.non_zero(x), run_node("NonZero", [x])[0])


def test_non_zero_of_a_scalar_has_no_rows() -> None:
    assert selection.non_zero(np.array(3.0)).shape == (0, 1)
    assert selection.non_zero(np.array(0.0)).shape == (0, 0)
    assert selection.non_zero(np.array([0, 1], ml_dtypes.bfloat16)).tolist() == [[1]]


@pytest.mark.parametrize("sorted_", [True, False])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("shape", [(5, 4), (9, 1), (1, 9), (2, 3, 4)])
def test_unique(shape: tuple[int, ...], axis: int | None, sorted_: bool) -> None:
    x = with_ties(*shape) % 2
    attributes = {} if axis is None else {"axis": axis}
    expected = run_node("Unique", [x], outputs=4, sorted=int(sorted_), **attributes)
    for got, reference in zip(selection.unique(x, axis=axis, sorted=sorted_), expected, strict=True):
        assert_same(got, reference)


@given(values=st.lists(st.sampled_from(["", "a", "b", "é", "ab", "𝄞", "a\0"])), sorted_=st.booleans())
def test_unique_strings(values: list[str], sorted_: bool) -> None:
    x = np.array(values, dtype=object)
    found, first, inverse, counts = selection.unique(x, sorted=sorted_)
    assert list(found) == (sorted(set(values)) if sorted_ else list(dict.fromkeys(values)))
    assert list(found[inverse]) == values
    assert list(x[first]) == list(found)
    assert [values.count(v) for v in found] == counts.tolist()


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.uint64, np.complex64, np.bool_]
)
def test_unique_of_other_types(dtype: Any) -> None:
    x = np.array([1, 0, 1, 0, 1]).astype(dtype)
    found, first, inverse, counts = selection.unique(x)
    assert found.dtype == dtype
    assert found.astype(np.complex64).tolist() == [0, 1]
    assert (first.tolist(), inverse.tolist(), counts.tolist()) == ([1, 0], [1, 0, 1, 0, 1], [2, 3])
    assert {a.dtype for a in (first, inverse, counts)} == {np.dtype(I64)}


def test_unique_takes_nan_as_one_value() -> None:
    x = np.array([[np.nan, 1], [0, 2], [np.nan, 1]], np.float32)
    assert selection.unique(x)[3].tolist() == [1, 2, 1, 2]
    assert selection.unique(x, axis=0)[2].tolist() == [1, 0, 1]


def test_unique_of_nothing() -> None:
    for axis, shape in [(None, (0,)), (0, (0, 3)), (None, (3, 0))]:
        found, *rest = selection.unique(np.empty(shape, np.float32), axis=axis)
        assert found.shape == ((0,) if axis is None else shape)
        assert all(r.shape == (0,) for r in rest)
    # Empty slices are all equal.
    found, first, inverse, counts = selection.unique(np.empty((3, 0), np.float32), axis=0)
    assert found.shape == (1, 0)
    assert (first.tolist(), inverse.tolist(), counts.tolist()) == ([0], [0, 0, 0], [3])
