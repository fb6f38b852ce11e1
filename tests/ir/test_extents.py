"""Extents with symbolic operands: for every value of the symbols they are what ONNX says of numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.extents import is_negative, range_extent, resolve_reshape, slice_extent, split_extents, wrapped
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, minimum
from fusible.kernels.numpy.movement import slice_bounds, split_sizes

N, S = SymInt.of(Symbol("n")), SymInt.of(Symbol("s", lower=-99))


def at(value: Dim, **env: int) -> int:
    return int(evaluate(value, env))


@given(st.integers(-9, 9))
def test_is_negative(s: int) -> None:
    assert at(is_negative(S), s=s) == int(s < 0)
    assert is_negative(s) == int(s < 0)


@given(s=st.integers(-5, 5), n=st.integers(0, 5))
def test_wrapped(s: int, n: int) -> None:
    assert at(wrapped(S, N), s=s, n=n) == (s + n if s < 0 else s)
    assert wrapped(N, 7) == N


BOUND = st.one_of(st.integers(-9, 9), st.sampled_from([-(2**63), 2**63 - 1, -(2**31), 2**31 - 1]))
STEP = st.integers(-3, 3).filter(bool)


@given(start=BOUND, end=BOUND, step=STEP, n=st.integers(0, 8))
def test_slice_of_a_symbolic_axis(start: int, end: int, step: int, n: int) -> None:
    first, count = slice_extent(start, end, step, N)
    expected_first, _, expected_count = slice_bounds(start, end, step, n)
    assert at(count, n=n) == expected_count
    if expected_count:
        assert at(first, n=n) == expected_first


@settings(max_examples=60)
@given(s=st.integers(-9, 9), shift=st.integers(-2, 2), end=BOUND, step=STEP, n=st.integers(0, 8))
def test_slice_at_symbolic_bounds(s: int, shift: int, end: int, step: int, n: int) -> None:
    for start, stop in ((S + shift, end), (end, S + shift), (S, S + shift)):
        first, count = slice_extent(start, stop, step, N)
        numbers = [v if isinstance(v, int) else at(v, s=s) for v in (start, stop)]
        expected_first, _, expected_count = slice_bounds(*numbers, step, n)
        assert at(count, s=s, n=n) == expected_count
        if expected_count:
            assert at(first, s=s, n=n) == expected_first


def test_plain_slices_have_plain_extents() -> None:
    batch = SymInt.of(Symbol("batch", lower=1))
    assert slice_extent(0, 2**63 - 1, 1, N) == (0, N)
    assert slice_extent(1, 2**63 - 1, 1, batch) == (1, batch - 1)
    assert slice_extent(0, -1, 1, batch)[1] == batch - 1
    assert slice_extent(-1, 2**63 - 1, 1, batch)[1] == 1
    assert slice_extent(-1, -(2**63), -1, N) == (N - 1, N)
    assert slice_extent(0, N, 1, N)[1] == N
    assert slice_extent(0, N, 1, 512)[1] != 512


@given(size=st.integers(0, 20), parts=st.integers(1, 6))
def test_split(size: int, parts: int) -> None:
    assert split_extents(size, parts) == split_sizes(size, parts)
    assert tuple(at(d, n=size) for d in split_extents(N, parts)) == split_sizes(size, parts)
    assert split_extents(N * parts, parts) == (N,) * parts


@given(start=st.integers(-9, 9), limit=st.integers(-9, 9), delta=STEP)
def test_range(start: int, limit: int, delta: int) -> None:
    expected = len(range(start, limit, delta))
    assert range_extent(start, limit, delta) == expected
    assert at(range_extent(S, limit, delta), s=start) == expected
    assert at(range_extent(start, S, delta), s=limit) == expected
    assert range_extent(0, N, 1) == N


@pytest.mark.parametrize(
    ("old", "target", "expected"),
    [
        ((N, 3, 4), (0, -1), (N, 12)),
        ((N, 3, 4), (-1, 4), (N * 3, 4)),
        ((N, 3, 4), (N, -1), (N, 12)),
        ((N, S, 768), (N, S, 12, -1), (N, S, 12, 64)),
        ((N, S, 768), (N * S, -1), (N * S, 768)),
        ((2, N, 6), (-1, 2, N), (6, 2, N)),
        ((N, 4), (2, -1), (2, 2 * N)),
        ((4, N), (-1,), (4 * N,)),
        ((0, 3), (3, -1), (3, 0)),
        (None, (2, N), (2, N)),
        (None, (2, -1), None),
        (None, (0, 2), None),
    ],
)
def test_reshape(old: tuple[Dim, ...] | None, target: tuple[Dim, ...], expected: tuple[Dim, ...] | None) -> None:
    assert resolve_reshape(old, target, False) == expected


def test_reshape_that_divides_only_for_some_sizes() -> None:
    shape = resolve_reshape((N, 3), (-1, 2), False)
    assert shape is not None
    assert at(shape[0], n=4) == 6


@pytest.mark.parametrize(
    ("old", "target"), [((2, 3), (-1, -1)), ((2, 3), (-2,)), ((2, 3), (0, 0, 0)), ((2, 3), (4, -1))]
)
def test_reshape_without_meaning(old: tuple[Dim, ...], target: tuple[Dim, ...]) -> None:
    with pytest.raises(ValueError, match=r"reshape"):
        resolve_reshape(old, target, False)


def test_allowzero() -> None:
    assert resolve_reshape((0, 5), (3, 0), True) == (3, 0)
    assert np.empty((0, 5)).reshape(3, 0).shape == (3, 0)


@given(n=st.integers(0, 9), k=st.integers(2, 5))
def test_a_dimension_cut_at_a_literal_broadcasts_with_itself_only(n: int, k: int) -> None:
    """min(n, k) and n broadcast where they are equal, so their broadcast is n; min(n, 1) may be 1 beside any n."""
    capped = minimum(N, k)
    assert bcast(N, capped) == bcast(capped, N) == N
    assert bcast(N, minimum(N, 1)) != N
    if n <= k:
        assert np.broadcast_shapes((n,), (at(capped, n=n),)) == (n,)
    else:
        with pytest.raises(ValueError, match="broadcast"):
            np.broadcast_shapes((n,), (at(capped, n=n),))
