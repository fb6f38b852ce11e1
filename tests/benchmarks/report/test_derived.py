"""Rates, groups, means and noise that follow from the records."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fusible.benchmarks.records import Interval, Sentinel
from fusible.benchmarks.report.derived import (
    PeerSummary,
    byte_rate,
    comparable,
    flop_rate,
    geometric_mean,
    groups,
    intensity,
    is_usable,
    noise,
    roof_of,
    subject_name,
    summaries,
)
from tests.benchmarks.report.made_up import SENTINEL, interval, kernel_row, latency, model_row, results


def test_rates_are_work_divided_by_the_median() -> None:
    row = model_row(flops=1e9, bytes=2e7, latency=latency(0.5))
    assert flop_rate(row) == 2e9
    assert byte_rate(row) == 4e7
    assert intensity(row) == 50
    assert flop_rate(kernel_row(flops=None)) is None
    assert byte_rate(model_row(latency=None)) is None
    assert byte_rate(model_row(latency=latency(0.0))) is None
    assert intensity(kernel_row(bytes=0.0)) is None
    assert intensity(kernel_row(flops=None)) is None


def test_the_roof_is_that_of_the_threads() -> None:
    found = roof_of(results(), 2)
    assert found is not None
    assert found.threads == 2
    assert roof_of(results(), 3) is None


def test_intervals_without_a_place_on_a_log_axis() -> None:
    assert is_usable(interval(1.2))
    assert is_usable(Interval(1.0, 1.0, 1.0))
    for broken in (None, Interval(0, 1, 2), Interval(1, math.nan, 2), Interval(1, 2, math.inf), Interval(2, 1, 3)):
        assert not is_usable(broken)


def test_the_geometric_mean_turns_over_with_its_ratios() -> None:
    ratios = [0.5, 1.3, 4.0]
    assert geometric_mean(ratios) == pytest.approx(1 / geometric_mean(1 / r for r in ratios))
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)


def test_groups_put_the_subject_first() -> None:
    rows = [model_row(peer="torch"), model_row("b"), model_row(), model_row(peer="openvino"), model_row(threads=2)]
    found = groups(results(rows))
    assert [(g.name, g.threads, [r.peer for r in g.rows]) for g in found] == [
        ("mobilenet_v2 fp32", 1, ["fusible", "torch", "openvino"]),
        ("b fp32", 1, ["fusible"]),
        ("mobilenet_v2 fp32", 2, ["fusible"]),
    ]


def test_the_subject_has_a_name() -> None:
    assert subject_name(results([model_row(peer="torch"), model_row()])) == "fusible"
    assert subject_name(results()) == "subject"
    assert subject_name(results([model_row(), model_row(peer="x", role="subject")])) == "fusible / x"


def test_summaries_count_what_is_sure() -> None:
    ratios = {"a": interval(1.5), "b": interval(0.8), "c": interval(1.001), "d": None}
    rows = [model_row(name, "torch", ratio=ratio) for name, ratio in ratios.items()]
    rows += [model_row("e", "torch", status="wrong"), model_row("a", "torch", threads=2, ratio=None), model_row("a")]
    first, second = summaries(results(rows))
    assert first == PeerSummary("torch", 1, pytest.approx((1.5 * 0.8 * 1.001) ** (1 / 3)), 1, 1, 1, 2)
    assert second == PeerSummary("torch", 2, None, 0, 0, 0, 1)


@pytest.mark.parametrize("status", ["wrong", "failed", "absent"])
def test_ratios_to_a_subject_that_is_wrong_do_not_count(status: str) -> None:
    rows = [model_row(status=status), model_row(peer="torch"), model_row("b"), model_row("b", "torch")]
    assert comparable(results(rows)) == (rows[3],)
    (summary,) = summaries(results(rows))
    assert (summary.slower, summary.missing) == (1, 1)


def test_noise_is_that_of_all_rows() -> None:
    other = Sentinel(1.0e-4, 1.10, 1.30, 2.5, 10)
    rows = [model_row(sentinel=SENTINEL), model_row("b", sentinel=other), model_row("c", sentinel=None)]
    assert noise(results(rows)) == Sentinel(1.0e-4, pytest.approx(1.06), pytest.approx(1.19), 2.5, 30)
    assert noise(replace(results(rows), models=())) is None
