"""The arena planner, checked by an oracle that looks at every pair of buffers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fusible.kernels.aligned import ALIGNMENT
from fusible.runtime import memory
from fusible.runtime.memory import are_apart, least_peak, overlaps, place

_BUFFERS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10)).map(lambda t: (t[0], (t[1], t[1] + t[2]))),
    max_size=40,
)


@given(_BUFFERS)
def test_no_two_live_buffers_share_a_byte(buffers: list[tuple[int, tuple[int, int]]]) -> None:
    sizes, lifetimes = [b[0] for b in buffers], [b[1] for b in buffers]
    placement = place(sizes, lifetimes)
    assert overlaps(sizes, lifetimes, placement.offsets) == []
    assert all(o % ALIGNMENT == 0 for o in placement.offsets)
    assert placement.peak >= max((o + s for o, s in zip(placement.offsets, sizes, strict=True)), default=0)


@given(_BUFFERS)
def test_the_peak_is_at_most_the_sum_and_at_least_what_lives_at_once(
    buffers: list[tuple[int, tuple[int, int]]],
) -> None:
    sizes, lifetimes = [b[0] for b in buffers], [b[1] for b in buffers]
    peak = place(sizes, lifetimes).peak
    rounded = [-(-max(s, 1) // ALIGNMENT) * ALIGNMENT for s in sizes]
    assert peak <= sum(rounded)
    spans = list(zip(rounded, lifetimes, strict=True))
    alive = [sum(r for r, (first, last) in spans if first <= step <= last) for step in range(41)]
    assert least_peak(sizes, lifetimes) == max(alive) <= peak


def test_the_oracle_sees_an_overlap() -> None:
    assert overlaps([100, 100], [(0, 2), (2, 3)], [0, 64]) == [(0, 1)]
    assert overlaps([100, 100], [(0, 1), (2, 3)], [0, 64]) == []


def test_a_chain_needs_two_buffers() -> None:
    # Value n lives from step n to step n + 1: however long the chain, two buffers do.
    assert place([640] * 50, [(n, n + 1) for n in range(50)]).peak == 2 * 640


def test_a_large_buffer_after_small_ones_finds_its_place() -> None:
    # In the order of time the two small buffers take the bottom, and the large one that follows lies above them.
    sizes, lifetimes = [64, 640, 64, 1280], [(0, 2), (1, 2), (2, 4), (3, 4)]
    assert place(sizes, lifetimes).peak == least_peak(sizes, lifetimes) == 1344


def test_long_lives_go_before_large_ones_where_that_is_better() -> None:
    # By size the large buffers cut the range in two in which the long one would have to lie.
    random = np.random.default_rng(0)
    gained = 0
    for _ in range(200):
        firsts = random.integers(0, 12, 10)
        lifetimes = [(int(f), int(f + n)) for f, n in zip(firsts, random.integers(0, 8, 10), strict=True)]
        sizes = [64 * int(n) for n in random.integers(1, 30, 10)]
        placement = place(sizes, lifetimes)
        assert overlaps(sizes, lifetimes, placement.offsets) == []
        ways = [memory._in_time(sizes, lifetimes), memory._by_weight(sizes, lifetimes, sizes)]
        assert placement.peak <= min(way.peak for way in ways)
        gained += placement.peak < min(way.peak for way in ways)
    assert gained > 5


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=5),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=5),
)
def test_ranges_that_are_written_are_apart_from_all_others(
    read: list[tuple[int, int]], written: list[tuple[int, int]]
) -> None:
    bytes_of = [set(range(*each)) for each in written]
    others = [set(range(*each)) for each in read]
    meet = any(one & two for n, one in enumerate(bytes_of) for two in [*others, *bytes_of[n + 1 :]])
    assert are_apart(read, written) is not meet
