"""Sequences and optionals against Python lists and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusible.kernels.numpy import sequence as s

TENSORS = [np.full((n, 2), n, np.float32) for n in range(4)]


def scalar(n: int) -> np.ndarray:
    return np.array(n, np.int64)


@given(position=st.one_of(st.none(), st.integers(-6, 6)), count=st.integers(0, 4))
def test_insert_erase_at_behave_like_a_list(position: int | None, count: int) -> None:
    items = TENSORS[:count]
    before = list(items)
    at = None if position is None else scalar(position)
    new = np.full((1, 2), 9, np.float32)
    if position is None or -count <= position <= count:
        expected = list(items)
        expected.insert(count if position is None else position, new)
        inserted = s.sequence_insert(items, new, at)
        assert [x.tolist() for x in inserted] == [x.tolist() for x in expected]
        assert not any(np.shares_memory(x, new) for x in inserted)
    else:
        with pytest.raises(ValueError, match="outside"):
            s.sequence_insert(items, new, at)
    place = -1 if position is None else position
    if -count <= place < count:
        expected = list(items)
        found = expected.pop(place)
        assert list(map(id, s.sequence_erase(items, at))) == list(map(id, expected))
        assert s.sequence_at(items, scalar(place)) is found
    else:
        with pytest.raises(ValueError, match="outside"):
            s.sequence_erase(items, at)
        with pytest.raises(ValueError, match="outside"):
            s.sequence_at(items, scalar(place))
    assert list(map(id, items)) == list(map(id, before))


def test_length_and_construction() -> None:
    length = s.sequence_length(s.sequence_construct(*TENSORS))
    assert isinstance(length, np.ndarray)
    assert (length.dtype, length.shape, int(length)) == (np.int64, (), 4)
    dtype = np.dtype(np.float32)
    assert s.sequence_empty(dtype=dtype) == []
    assert s.sequence_empty(dtype=dtype) is not s.sequence_empty(dtype=dtype)


@given(extent=st.integers(0, 7), step=st.integers(1, 4), axis=st.sampled_from([0, 1, -1]))
def test_split_and_concat_undo_each_other(extent: int, step: int, axis: int) -> None:
    x = np.arange(extent * extent).reshape(extent, extent)
    pieces = s.split_to_sequence(x, axis=axis, split=step)
    assert [piece.shape[axis] for piece in pieces[:-1]] == [step] * (len(pieces) - 1)
    assert len(pieces) == -(-extent // step)
    if pieces:
        assert np.array_equal(s.concat_from_sequence(pieces, axis=axis), x)


def test_split_by_lengths_and_without_keeping_the_axis() -> None:
    x = np.arange(12).reshape(2, 6)
    pieces = s.split_to_sequence_dynamic(x, np.array([1, 0, 5]), axis=1)
    assert [p.shape for p in pieces] == [(2, 1), (2, 0), (2, 5)]
    assert np.array_equal(s.concat_from_sequence(pieces, axis=-1), x)
    columns = s.split_to_sequence(x, axis=1, keepdims=0)
    assert [c.shape for c in columns] == [(2,)] * 6
    assert np.array_equal(s.concat_from_sequence(columns, axis=1, new_axis=1), x)
    assert [p.shape for p in s.split_to_sequence_dynamic(x, np.array(4), axis=1)] == [(2, 4), (2, 2)]


@pytest.mark.parametrize("split", [(1, 2), (7, -1), 0, -1])
def test_bad_splits(split: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="split_to_sequence"):
        s.split_to_sequence(np.zeros((2, 6)), axis=1, split=split)


def test_nothing_to_concatenate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        s.concat_from_sequence([], axis=0)


def test_optionals() -> None:
    x = TENSORS[0]
    assert s.optional(x) is x
    assert s.optional() is None
    assert bool(s.optional_has_element(x))
    assert not bool(s.optional_has_element(None))
    assert s.optional_has_element().dtype == np.bool_
    assert s.optional_get_element(TENSORS) is TENSORS
    with pytest.raises(ValueError, match="empty"):
        s.optional_get_element(None)
