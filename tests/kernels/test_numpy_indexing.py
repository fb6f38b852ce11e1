"""Gather, scatter, OneHot and Compress against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.kernels.numpy import indexing
from tests.kernels.single_node import run_node

I64 = np.int64
DTYPES = [np.float32, np.float16, np.int8, np.uint64, np.bool_, ml_dtypes.bfloat16, ml_dtypes.int4]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=I64)


def some_indices(size: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-size, size, shape)


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert isinstance(got, np.ndarray)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
@pytest.mark.parametrize("indices", [(), (4,), (0,), (2, 3)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int, indices: tuple[int, ...], index_type: Any) -> None:
    x = random(3, 5, 2)
    chosen = some_indices(x.shape[axis], *indices).astype(index_type)
    assert_same(indexing.gather(x, chosen, axis=axis), run_node("Gather", [x, chosen], axis=axis)[0])


def test_gather_of_a_vector_by_a_scalar_is_an_array() -> None:
    assert_same(indexing.gather(random(3), np.array(-1, I64)), random(3)[2:].reshape(()))


@pytest.mark.parametrize("wrong", [5, -6, 2**63 - 1, -(2**63)])
def test_indices_out_of_range_are_named(wrong: int) -> None:
    x, one = random(5), np.ones(1, np.float32)
    message = f"index {wrong} is out of range for axis 0 of size 5"
    with pytest.raises(ValueError, match=message):
        indexing.gather(x, ints(0, wrong))
    with pytest.raises(ValueError, match=message):
        indexing.gather_elements(x, ints(wrong))
    with pytest.raises(ValueError, match=message):
        indexing.gather_nd(x, ints(wrong))
    with pytest.raises(ValueError, match=message):
        indexing.scatter_elements(x, ints(wrong), one)
    with pytest.raises(ValueError, match=message):
        indexing.scatter_nd(x, ints(wrong)[:, None], one)
    with pytest.raises(ValueError, match="axis 0 of size 0"):
        indexing.gather(random(0), ints(0))


@settings(max_examples=40)
@given(axis=st.integers(-3, 2), sizes=st.tuples(*[st.integers(0, 3)] * 3))
def test_gather_elements(axis: int, sizes: tuple[int, ...]) -> None:
    x = random(3, 4, 5)
    indices = some_indices(x.shape[axis], *sizes)
    assert_same(indexing.gather_elements(x, indices, axis=axis), run_node("GatherElements", [x, indices], axis=axis)[0])


def test_gather_elements_checks_shapes() -> None:
    with pytest.raises(ValueError, match="must have the rank"):
        indexing.gather_elements(random(3, 4), ints(1), axis=0)
    with pytest.raises(ValueError, match="fit it off axis 1"):
        indexing.gather_elements(random(3, 4), np.zeros((4, 1), I64), axis=1)


@pytest.mark.parametrize("batch_dims", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("places", [(), (4,), (0,), (2, 2)])
def test_gather_nd(batch_dims: int, depth: int, places: tuple[int, ...]) -> None:
    x = random(2, 3, 4, 2)
    shape = x.shape[:batch_dims] + places
    columns = [some_indices(x.shape[batch_dims + d], *shape, seed=d) for d in range(depth)]
    indices = np.stack(columns, axis=-1)
    assert_same(
        indexing.gather_nd(x, indices, batch_dims=batch_dims),
        run_node("GatherND", [x, indices], batch_dims=batch_dims)[0],
    )


def test_gather_nd_checks_shapes() -> None:
    with pytest.raises(ValueError, match="too long"):
        indexing.gather_nd(random(3), np.zeros((1, 2), I64))
    with pytest.raises(ValueError, match="must agree"):
        indexing.gather_nd(random(3, 2), np.zeros((2, 1), I64), batch_dims=1)


REDUCTIONS = ["none", "add", "mul", "max", "min"]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("axis", [0, -1])
def test_scatter_elements(axis: int, reduction: str, dtype: Any) -> None:
    x, updates = (10 * random(4, 5)).astype(dtype), (10 * random(3, 4, seed=1)).astype(dtype)
    # Unique positions for "none": which of two updates wins is the implementation's choice.
    indices = np.argsort(random(*x.shape, seed=2), axis=axis)[:3, :4]
    if reduction != "none":
        indices = some_indices(x.shape[axis], 3, 4)
    expected = run_node("ScatterElements", [x, indices, updates], axis=axis, reduction=reduction)[0]
    got = indexing.scatter_elements(x, indices, updates, axis=axis, reduction=reduction)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_scatter_nd(depth: int, reduction: str, dtype: Any) -> None:
    x = (10 * random(4, 3, 5)).astype(dtype)
    columns = [some_indices(x.shape[d], 2, 3, seed=d) for d in range(depth)]
    indices = np.stack(columns, axis=-1)
    if reduction == "none":
        places = np.random.default_rng(0).permutation(int(np.prod(x.shape[:depth])))[:4]
        indices = np.stack(np.unravel_index(places, x.shape[:depth]), axis=-1).astype(I64)
    updates = (10 * random(*indices.shape[:-1], *x.shape[depth:], seed=7)).astype(dtype)
    expected = run_node("ScatterND", [x, indices, updates], reduction=reduction)[0]
    got = indexing.scatter_nd(x, indices, updates, reduction=reduction)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_last_of_several_updates_wins() -> None:
    got = indexing.scatter_elements(np.zeros(3, I64), ints(1, 1, -2), ints(5, 6, 7))
    assert got.tolist() == [0, 7, 0]


def test_scatter_keeps_its_input_and_accepts_nothing_to_write() -> None:
    x = random(3, 4)
    before = x.copy()
    empty = np.empty((0, 4), I64)
    assert_same(indexing.scatter_elements(x, empty, empty.astype(np.float32)), x)
    indexing.scatter_nd(x, ints(0)[:, None], np.zeros((1, 4), np.float32))
    assert_same(x, before)
    # A transposed input is no obstacle to flat positions.
    got = indexing.scatter_elements(x.T, np.zeros((1, 3), I64), np.zeros((1, 3), np.float32))
    assert not got[0].any()
    assert_same(got[1:], x.T[1:])


def test_scatter_names_what_does_not_fit() -> None:
    x = random(3)
    with pytest.raises(ValueError, match="one shape"):
        indexing.scatter_elements(x, ints(0, 1), random(1))
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        indexing.scatter_nd(x, ints(0)[:, None], random(2))
    with pytest.raises(ValueError, match="reduction must be"):
        indexing.scatter_elements(x, ints(0), random(1), reduction="sum")
    with pytest.raises(ValueError, match="type float32"):
        indexing.scatter_elements(x, ints(0), ints(1))
    with pytest.raises(ValueError, match="strings"):
        indexing.scatter_elements(np.array(["a"], object), ints(0), np.array(["b"], object), reduction="add")


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_nan_wins_a_scattered_extremum(reduction: str) -> None:
    got = indexing.scatter_elements(
        np.ones(2, np.float32), ints(0, 0), np.array([np.nan, 3], np.float32), reduction=reduction
    )
    assert np.isnan(got[0])
    assert got[1] == 1


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("index_type", [np.int64, np.int32, np.float32])
def test_one_hot(axis: int, index_type: Any) -> None:
    indices = np.array([[0, 3, -1], [-4, 4, 9]]).astype(index_type)
    values, depth = np.array([2, 5], np.float32), np.array(4, I64)
    expected = run_node("OneHot", [indices.astype(I64), depth, values], axis=axis)[0]
    assert_same(indexing.one_hot_dynamic(indices, depth, values, axis=axis), expected)


def test_one_hot_of_odd_indices() -> None:
    values = np.array(["off", "on"], object)
    odd = np.array([np.nan, np.inf, -np.inf, 1e30, 1.7], np.float64)
    assert indexing.one_hot(odd, values, depth=2).tolist() == [["off", "off"]] * 4 + [["off", "on"]]
    huge = np.array([2**64 - 1, 1], np.uint64)
    assert indexing.one_hot(huge, ints(0, 1), depth=2).tolist() == [[0, 0], [0, 1]]
    assert indexing.one_hot(ints(), ints(0, 1), depth=3).shape == (0, 3)
    assert indexing.one_hot(ints(1), ints(0, 1), depth=0).shape == (1, 0)


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("length", [0, 2, 3])
def test_compress(axis: int | None, length: int) -> None:
    x, condition = random(3, 4), np.array([True, False, True])[:length]
    attributes = {} if axis is None else {"axis": axis}
    assert_same(indexing.compress(x, condition, axis=axis), run_node("Compress", [x, condition], **attributes)[0])


def test_compress_refuses_to_select_past_the_end() -> None:
    assert indexing.compress(random(2), np.array([True, False, False])).size == 1
    with pytest.raises(ValueError, match="index 2 is out of range"):
        indexing.compress(random(2), np.array([True, False, True]))


def write_naively(past: np.ndarray, update: np.ndarray, starts: np.ndarray, axis: int, circular: bool) -> np.ndarray:
    result, axis = past.copy(), axis % past.ndim
    for prefix in np.ndindex(past.shape[:axis]):
        for step in range(update.shape[axis]):
            place = starts[prefix[0]] + step
            result[(*prefix, place % past.shape[axis] if circular else place)] = update[(*prefix, step)]
    return result


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("axis", [-2, 1, 3])
def test_tensor_scatter_follows_the_written_definition(axis: int, circular: bool) -> None:
    past = random(2, 5, 6, 7)
    shape = list(past.shape)
    shape[axis] = 3
    update, starts = random(*shape, seed=1), ints(2, 4 if circular else 1)
    got = indexing.tensor_scatter(past, update, starts, axis=axis, mode="circular" if circular else "linear")
    assert_same(got, write_naively(past, update, starts, axis, circular))
    if not circular:
        assert_same(
            indexing.tensor_scatter(past, update, axis=axis), write_naively(past, update, ints(0, 0), axis, circular)
        )
        with pytest.raises(ValueError, match="outside the cache"):
            indexing.tensor_scatter(past, update, ints(0, 9), axis=axis)


@pytest.mark.parametrize("dtype", DTYPES)
def test_element_types_survive(dtype: Any) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    index = np.array([[1, -1, 0]])
    results = [
        indexing.gather(x, ints(1)),
        indexing.gather_elements(x, index, axis=1),
        indexing.gather_nd(x, index[:, :2]),
        indexing.scatter_elements(x, index, x[:1], axis=1),
        indexing.scatter_nd(x, ints(1)[:, None], x[:1]),
        indexing.one_hot(ints(1), x[0, :2], depth=2),
        indexing.compress(x, np.array([True]), axis=1),
        indexing.tensor_scatter(x, x[:, :1], axis=1),
    ]
    assert all(r.dtype == x.dtype for r in results)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("reduction", REDUCTIONS[1:])
def test_small_floats_reduce_and_round_after_each_update(reduction: str, dtype: Any) -> None:
    x, updates = np.array([1, 2], dtype), np.array([1.001, 3.003, 5.005], dtype)
    got = indexing.scatter_elements(x, ints(0, 0, 1), updates, reduction=reduction)
    function = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]
    expected = x.astype(np.float32)
    for place, update in zip((0, 0, 1), updates.astype(np.float32), strict=True):
        expected[place] = function(expected[place], update).astype(dtype)
    assert got.dtype == dtype
    assert got.astype(np.float32).tolist() == expected.tolist()


def test_strings_are_gathered_and_scattered() -> None:
    x = np.array(["a", "b", "c"], object)
    assert list(indexing.gather(x, ints(-1, 0))) == ["c", "a"]
    assert list(indexing.scatter_elements(x, ints(1), np.array(["z"], object))) == ["a", "z", "c"]
    assert list(indexing.compress(x, np.array([False, True]))) == ["b"]
