"""Intervals hold the truth as often as they say, and are narrow enough to find a small difference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusible.benchmarks.measure.statistics import _student_quantile as student_quantile
from fusible.benchmarks.measure.statistics import half_width, latency_of, log_ratios, ratio_interval
from fusible.benchmarks.records import Interval


def launches(generator: np.random.Generator, shift: float, count: int = 8) -> list[list[float]]:
    """Log ratios as a busy machine gives them: heavy tails within a launch, launches that differ."""
    groups = []
    for _ in range(count):
        offset = 0.01 * generator.standard_normal()
        groups.append([shift + offset + 0.02 * float(generator.standard_t(2)) for _ in range(12)])
    return groups


def test_the_interval_of_equals_holds_one_in_about_95_of_100() -> None:
    generator = np.random.default_rng(3)
    inside = sum(i.low <= 1.0 <= i.high for i in (ratio_interval(launches(generator, 0.0)) for _ in range(400)))
    assert 0.92 <= inside / 400 <= 0.985


def test_five_percent_are_found() -> None:
    generator = np.random.default_rng(4)
    found = sum(ratio_interval(launches(generator, math.log(1.05))).low > 1.0 for _ in range(200))
    assert found / 200 >= 0.95


def test_one_launch_that_went_astray_moves_little() -> None:
    groups = launches(np.random.default_rng(5), 0.0)
    groups[3] = [0.3 + x for x in groups[3]]
    interval = ratio_interval(groups)
    assert 0.99 < interval.middle < 1.02
    assert interval.low < 1.0 < interval.high


def test_rounds_of_a_single_group_count_one_by_one() -> None:
    interval = ratio_interval([list(np.log(np.linspace(1.95, 2.05, 21)))])
    assert interval.middle == pytest.approx(2.0, rel=1e-3)
    assert 1.9 < interval.low < 2.0 < interval.high < 2.1


def test_fewer_launches_give_wider_intervals() -> None:
    widths = [
        np.mean([half_width(ratio_interval(launches(np.random.default_rng(s), 0.0, count))) for s in range(20)])
        for count in (3, 8, 24)
    ]
    assert widths[0] > widths[1] > widths[2]


def test_one_round_says_nothing_of_its_spread_and_none_is_refused() -> None:
    interval = ratio_interval([[math.log(1.5)]])
    assert (interval.low, interval.high) == (0.0, math.inf)
    assert interval.middle == pytest.approx(1.5)
    with pytest.raises(ValueError, match="at least one round"):
        ratio_interval([])


def test_the_same_seed_gives_the_same_interval() -> None:
    groups = launches(np.random.default_rng(6), 0.1)
    assert ratio_interval(groups, seed=1) == ratio_interval(groups, seed=1)


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (5, 2.571), (7, 2.365), (23, 2.069), (1000, 1.962)])
def test_the_quantile_of_students_t(freedom: int, expected: float) -> None:
    assert student_quantile(freedom) == pytest.approx(expected, abs=5e-3)


def test_latency_takes_means_of_blocks_and_quantiles_over_blocks() -> None:
    blocks = [[1.0, 3.0], [4.0, 4.0], [2.0, 4.0], [5.0, 5.0], [60.0, 0.5]]
    latency = latency_of(blocks)
    assert latency.p50 == 4.0
    assert latency.least == 0.5
    assert (latency.blocks, latency.iterations) == (5, 10)
    assert latency.p20 <= latency.p50 <= latency.p80


def test_log_ratios_pair_blocks_of_one_round() -> None:
    assert log_ratios([[2.0, 4.0], [1.0]], [[1.0, 2.0], [1.0]]) == pytest.approx([math.log(2), 0.0])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        log_ratios([[1.0]], [[1.0], [2.0]])


def test_half_width_is_relative() -> None:
    assert half_width(Interval(0.98, 1.0, 1.02)) == pytest.approx(0.02, rel=1e-3)
