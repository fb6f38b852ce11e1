"""Reshape, transpose, broadcast, join, cut, slice and pad against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.kernels.numpy import movement, padding
from tests.kernels.single_node import run_node

I64 = np.int64


def numbered(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


def strings(*shape: int) -> np.ndarray:
    return np.array([f"s{i}" for i in range(int(np.prod(shape)))], dtype=object).reshape(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=I64)


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert isinstance(got, np.ndarray)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


DTYPES = [np.float32, np.float16, np.int8, np.uint64, np.bool_, ml_dtypes.bfloat16, ml_dtypes.int4]
RESHAPES = [
    ((2, 3, 5), (5, 6)),
    ((2, 3, 5), (0, -1)),
    ((2, 0, 5), (0, 0, 7)),
    ((1,), ()),
    ((), (1, -1)),
    ((0, 3), (3, -1)),
]


@pytest.mark.parametrize(("old", "new"), RESHAPES)
def test_reshape_dynamic(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    x, allowzero = numbered(*old), new == (0, 0, 7)
    if allowzero:
        assert movement.reshape_dynamic(x, ints(0, 5, 7), allowzero=True).shape == (0, 5, 7)
        return
    assert_same(movement.reshape_dynamic(x, ints(*new)), run_node("Reshape", [x, ints(*new)])[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [((2, 3), (4,)), ((2, 3), (-1, -1)), ((2, 3), (-2, 3)), ((2, 3), (3, 2, 0)), ((2, 3), (-1, 4)), ((0, 3), (0, -1))],
)
def test_reshape_refuses_what_does_not_fit(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="reshape"):
        movement.reshape_dynamic(numbered(*old), ints(*new))


@pytest.mark.parametrize("axis", range(-3, 4))
def test_flatten(axis: int) -> None:
    x = numbered(2, 3, 5)
    assert_same(movement.flatten(x, axis=axis), run_node("Flatten", [x], axis=axis)[0])


def test_flatten_of_a_scalar_is_one_by_one() -> None:
    assert movement.flatten(numbered(), axis=0).shape == (1, 1)


@pytest.mark.parametrize(
    ("shape", "axes"), [((1, 3, 1), None), ((1, 3, 1), (-1,)), ((1, 3, 1), (2, 0)), ((1,), None), ((2, 3), ())]
)
def test_squeeze(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> None:
    x = numbered(*shape)
    expected = run_node("Squeeze", [x] if axes is None else [x, ints(*axes)])[0] if axes != () else x
    assert_same(movement.squeeze(x, axes=axes), expected)


@pytest.mark.parametrize("axes", [(0,), (-1,), (2, 0), (-1, 1), (0, 1, 2, 3)])
def test_unsqueeze_inverts_squeeze(axes: tuple[int, ...]) -> None:
    x = numbered(2, 3)
    got = movement.unsqueeze(x, axes=axes)
    assert_same(got, run_node("Unsqueeze", [x, ints(*axes)])[0])
    assert_same(movement.squeeze_dynamic(movement.unsqueeze_dynamic(x, ints(*axes)), ints(*axes)), x)


def test_axes_are_checked() -> None:
    with pytest.raises(ValueError, match="size 1"):
        movement.squeeze(numbered(2, 1), axes=(0,))
    with pytest.raises(ValueError, match="differ"):
        movement.unsqueeze(numbered(2), axes=(0, 0))
    with pytest.raises(ValueError, match=r"\[-2, 2\)"):
        movement.concat(numbered(2, 1), axis=2)
    with pytest.raises(ValueError, match="perm"):
        movement.transpose(numbered(2, 1), perm=(0, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("perm", [None, (0, 2, 1), (2, 0, 1)])
def test_transpose(perm: tuple[int, ...] | None, dtype: Any) -> None:
    x = numbered(2, 3, 5).astype(dtype)
    got = movement.transpose(x, perm=perm)
    assert got.dtype == x.dtype
    assert np.array_equal(
        got, np.einsum("abc->cba" if perm is None else "abc->" + "".join("abc"[p] for p in perm), x.astype(np.float32))
    )


@pytest.mark.parametrize(
    ("old", "new"), [((3, 1), (2, 3, 4)), ((3, 4), (1, 1)), ((), (2, 2)), ((1, 0), (5, 1)), ((3,), ())]
)
def test_expand_broadcasts_both_ways(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    x = numbered(*old)
    assert_same(movement.expand_dynamic(x, ints(*new)), run_node("Expand", [x, ints(*new)])[0])


def test_expand_refuses_what_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        movement.expand(numbered(3), shape=(2,))


@pytest.mark.parametrize(
    ("shape", "repeats"), [((2, 3), (3, 2)), ((2, 3), (1, 1)), ((2, 3), (0, 2)), ((0, 3), (2, 2)), ((), ())]
)
def test_tile(shape: tuple[int, ...], repeats: tuple[int, ...]) -> None:
    x = numbered(*shape)
    expected = run_node("Tile", [x, ints(*repeats)])[0]
    assert_same(movement.tile_dynamic(x, ints(*repeats)), expected)


def test_tile_does_not_alias_its_input() -> None:
    x = numbered(2, 3)
    movement.tile(x, repeats=(2, 1))[...] = 0
    assert x.all()


@pytest.mark.parametrize("axis", [0, -1, 1])
def test_concat(axis: int) -> None:
    shapes = [[2, 3, 5], [2, 3, 5], [2, 3, 5]]
    for extra, shape in enumerate(shapes):
        shape[axis] = extra
    inputs = [numbered(*shape) for shape in shapes]
    assert_same(movement.concat(*inputs, axis=axis), run_node("Concat", inputs, axis=axis)[0])
    texts = [strings(2, 1), strings(2, 2)]
    assert_same(movement.concat(*texts, axis=1), run_node("Concat", texts, axis=1)[0])


def test_concat_names_the_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\), \(3, 3\)"):
        movement.concat(numbered(2, 3), numbered(3, 3), axis=1)


@pytest.mark.parametrize(("axis", "sizes"), [(1, (2, 0, 5)), (-1, (7,)), (0, (1, 1))])
def test_split(axis: int, sizes: tuple[int, ...]) -> None:
    x = numbered(2, 7)
    expected = run_node("Split", [x, ints(*sizes)], outputs=len(sizes), axis=axis)
    got = movement.split_dynamic(x, ints(*sizes), axis=axis, num_outputs=len(sizes))
    for part, reference in zip(got, expected, strict=True):
        assert_same(part, reference)


@given(size=st.integers(0, 20), number=st.integers(1, 9))
def test_split_sizes_fill_the_axis(size: int, number: int) -> None:
    sizes = movement.split_sizes(size, number)
    assert sum(sizes) == size
    assert len(sizes) == number
    assert len(set(sizes[:-1])) <= 1 or size < number * (number - 1)


def test_split_sizes_must_add_up() -> None:
    with pytest.raises(ValueError, match="add up to 7"):
        movement.split(numbered(7), axis=0, split=(3, 3))


BOUND = st.one_of(st.integers(-9, 9), st.sampled_from([-(2**63), 2**63 - 1, -(2**31), 2**31 - 1]))


@settings(max_examples=60)
@given(start=BOUND, end=BOUND, step=st.integers(-4, 4).filter(bool), size=st.integers(0, 7))
def test_slice_clamps_like_onnx(start: int, end: int, step: int, size: int) -> None:
    x = numbered(2, size)
    arguments = [ints(start), ints(end), ints(-1), ints(step)]
    got = movement.slice_dynamic(x, *arguments)
    # ONNX Runtime takes the greatest integers as "to the front" of a negative step; the standard clamps them.
    if step < 0 and end in (2**31 - 1, 2**63 - 1):
        assert got.size == 0
        return
    assert_same(got, run_node("Slice", [x, *arguments])[0])
    assert movement.slice_bounds(start, end, step, size)[2] == got.shape[1]


def test_slice_of_several_axes() -> None:
    x = numbered(5, 4, 6)
    arguments = [ints(1, -1), ints(5, -(10**9)), ints(2, 0), ints(2, -2)]
    assert_same(movement.slice_dynamic(x, *arguments), run_node("Slice", [x, *arguments])[0])
    assert_same(movement.slice_dynamic(x, ints(1, 1), ints(3, 9)), run_node("Slice", [x, ints(1, 1), ints(3, 9)])[0])
    assert_same(movement.slice_(x, starts=(), ends=()), x)


def test_slice_refuses_a_step_of_zero() -> None:
    with pytest.raises(ValueError, match="must not be 0"):
        movement.slice_(numbered(3), starts=(0,), ends=(3,), steps=(0,))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("k", [0, 1, -2, 9, -9])
def test_trilu(k: int, upper: bool, dtype: Any) -> None:
    x = np.ones((2, 3, 5)).astype(dtype)
    expected = run_node("Trilu", [x, np.array(k, I64)], upper=int(upper))[0]
    assert_same(movement.trilu_dynamic(x, np.array(k, I64), upper=upper), expected)


def test_trilu_of_extreme_diagonals_and_empty_matrices() -> None:
    x = numbered(2, 3)
    assert not movement.trilu(x, k=2**63 - 1, upper=True).any()
    assert_same(movement.trilu(x, k=-(2**63), upper=True), x)
    assert movement.trilu(numbered(0, 3), k=1).shape == (0, 3)


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_reverse_sequence(batch_axis: int) -> None:
    x = numbered(4, 3, 2) if batch_axis == 1 else numbered(3, 4, 2)
    lengths = ints(4, 0, 2)
    expected = run_node("ReverseSequence", [x, lengths], batch_axis=batch_axis, time_axis=1 - batch_axis)[0]
    assert_same(movement.reverse_sequence(x, lengths, batch_axis=batch_axis, time_axis=1 - batch_axis), expected)


def test_reverse_sequence_refuses_lengths_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"\[0, 4\]"):
        movement.reverse_sequence(numbered(4, 2), ints(1, 5))


@settings(max_examples=60)
@given(
    mode=st.sampled_from(["constant", "edge", "reflect", "wrap"]),
    pads=st.tuples(*[st.integers(-1, 2)] * 4),
)
def test_pad(mode: str, pads: tuple[int, ...]) -> None:
    x = numbered(5, 6)  # the runtime refuses to reflect more than once
    value = None if mode != "constant" else np.array(-7, np.float32)
    expected = run_node("Pad", [x, ints(*pads), value], mode=mode)[0]
    assert_same(padding.pad_dynamic(x, ints(*pads), value, mode=mode), expected)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_borders_wider_than_the_axis_go_round(mode: str, size: int) -> None:
    x = numbered(size)
    assert_same(padding.pad(x, pads=(5, 7), mode=mode), np.pad(x, (5, 7), mode=mode))


def test_pad_of_named_axes_and_other_types() -> None:
    x = numbered(2, 3, 2)
    pads, axes = ints(1, 0, 2, 1), ints(-1, 0)
    assert_same(padding.pad_dynamic(x, pads, None, axes), run_node("Pad", [x, pads, None, axes])[0])
    text = padding.pad(strings(2), pads=(1, 0))
    assert list(text) == ["", "s0", "s1"]
    assert padding.pad(np.ones(1, ml_dtypes.bfloat16), pads=(1, 1)).dtype == ml_dtypes.bfloat16
    assert padding.pad(numbered(0, 2), np.array(3, np.float32), pads=(1, 0, 1, 0)).tolist() == [[3, 3], [3, 3]]


def test_pad_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="negative size"):
        padding.pad(numbered(2), pads=(-2, -1))
    with pytest.raises(ValueError, match="empty axis"):
        padding.pad(numbered(0), pads=(1, 1), mode="edge")
    with pytest.raises(ValueError, match="one of constant"):
        padding.pad(numbered(2), pads=(1, 1), mode="mirror")
    with pytest.raises(ValueError, match="two amounts"):
        padding.pad(numbered(2), pads=(1,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_element_types_survive_every_move(dtype: Any) -> None:
    x = numbered(2, 3).astype(dtype)
    results = [
        movement.reshape(x, shape=(3, 2)),
        movement.concat(x, x, axis=0),
        movement.tile(x, repeats=(2, 1)),
        movement.slice_(x, starts=(0,), ends=(1,)),
        movement.trilu(x),
        padding.pad(x, pads=(0, 1, 0, 1)),
        padding.pad(x, pads=(0, 1, 0, 1), mode="reflect"),
        movement.reverse_sequence(x, ints(1, 2, 2)),
    ]
    assert all(r.dtype == x.dtype for r in results)


def test_scalar_results_are_arrays() -> None:
    assert isinstance(movement.reshape(numbered(1), shape=()), np.ndarray)
    assert isinstance(movement.squeeze(numbered(1)), np.ndarray)
