"""Blocks of two works alternate in random order, each with its own number of iterations."""

from __future__ import annotations

from fusible.benchmarks.measure.interleave import iterations_for, time_block, time_pair


def test_a_block_times_each_call_after_one_that_does_not_count() -> None:
    calls: list[int] = []
    seconds = time_block(lambda: calls.append(1), 5)
    assert len(seconds) == 5 and len(calls) == 6
    assert all(s >= 0 for s in seconds)


def test_iterations_fill_a_block_and_are_bounded() -> None:
    assert iterations_for(0.001, 0.02) == 20
    assert iterations_for(1.0, 0.02) == 1
    assert iterations_for(0.0, 0.02) == 100_000


def test_every_round_has_one_block_of_each_in_an_order_that_changes() -> None:
    order: list[str] = []
    first, second = time_pair(
        lambda: order.append("a"), lambda: order.append("b"), rounds=12, block_seconds=1e-9, seed=1
    )
    assert len(first) == len(second) == 12
    assert all(len(block) == 1 for block in (*first, *second))
    rounds = ["".join(order[8 + i : 12 + i]) for i in range(0, 48, 4)]
    assert set(rounds) == {"aabb", "bbaa"}
