"""Comparing two runs: a planted slowdown is found, noise is not, and nothing is compared that does not compare."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from fusible.benchmarks.records import Interval, Machine, ModelRow, Results, ResultsError, Sentinel
from fusible.benchmarks.report.compare import THRESHOLD, Change, ChangeKind, compare, exit_code
from tests.benchmarks.report.made_up import (
    MACHINE,
    SENTINEL,
    interval,
    kernel_row,
    large,
    latency,
    model_row,
    results,
)

QUIET = Sentinel(1.2e-4, 1.01, 1.015, 1.2, 20)


def pair(ratio: Interval | None, **changes: object) -> Results:
    """The subject and one peer with this ratio."""
    return results([model_row(), model_row(peer="torch", ratio=ratio, **changes)])


def only(changes: tuple[Change, ...]) -> Change:
    """The only change."""
    assert len(changes) == 1, changes
    return changes[0]


def kinds(changes: tuple[Change, ...]) -> set[ChangeKind]:
    """The kinds that occur."""
    return {change.kind for change in changes}


def test_a_planted_slowdown_of_5_percent_is_found() -> None:
    change = only(compare(pair(interval(1.20, 0.008)), pair(interval(1.20 / 1.05, 0.008))))
    assert change.kind is ChangeKind.SLOWER
    assert (change.what, change.against, change.note) == ("mobilenet_v2 fp32, batch 1, 1 thread", "torch", "")
    assert change.factor is not None
    assert change.factor.middle == pytest.approx(1.05)
    half = math.hypot(0.008, 0.008)
    assert change.factor.low == pytest.approx(1.05 * math.exp(-half))
    assert change.factor.high == pytest.approx(1.05 * math.exp(half))
    assert exit_code((change,)) == 1


def test_a_speed_up_is_found_and_is_not_an_error() -> None:
    change = only(compare(pair(interval(1.0, 0.005)), pair(interval(1.10, 0.005))))
    assert change.kind is ChangeKind.FASTER
    assert exit_code((change,)) == 0


@pytest.mark.parametrize("half", [0.05, 0.2])
def test_a_slowdown_within_wide_intervals_is_noise(half: float) -> None:
    assert only(compare(pair(interval(1.2, half)), pair(interval(1.2 / 1.05, half)))).kind is ChangeKind.SAME


def test_a_sure_but_tiny_slowdown_is_not_worth_a_word() -> None:
    change = only(compare(pair(interval(1.0, 1e-4)), pair(interval(1 / 1.019, 1e-4))))
    assert THRESHOLD == 1.02
    assert change.kind is ChangeKind.SAME
    assert change.factor is not None
    assert change.factor.low > 1


def test_noise_of_the_stated_width_is_rarely_flagged() -> None:
    """Each run draws its ratio from the distribution that its 95 % interval describes."""
    chance = random.Random(3)
    half = 0.03
    runs = [
        results(
            row
            for model in range(300)
            for row in (
                model_row(f"m{model}"),
                model_row(f"m{model}", "torch", ratio=interval(math.exp(chance.gauss(0.2, half / 1.96)), half)),
            )
        )
        for _ in range(2)
    ]
    changes = compare(*runs)
    flagged = sum(change.kind is not ChangeKind.SAME for change in changes)
    assert len(changes) == 300
    assert 0 < flagged < 30  # 5 % expected


def test_the_same_run_twice_shows_nothing() -> None:
    changes = compare(large(), large())
    assert kinds(changes) == {ChangeKind.SAME}
    assert len(changes) > 100
    assert exit_code(changes) == 0


def test_rows_that_vanish_appear_break_and_recover() -> None:
    failed = {"status": "failed", "reason": "no kernel", "latency": None, "ratio": None}
    old = results(
        [model_row(), model_row("gone"), model_row("breaks"), model_row("heals", **failed), model_row("ill", **failed)]
    )
    new = results(
        [model_row(), model_row("breaks", **failed), model_row("heals"), model_row("ill", **failed), model_row("new")]
    )
    found = {change.what.split()[0]: change for change in compare(old, new) if change.factor is None}
    assert {name: change.kind for name, change in found.items()} == {
        "gone": ChangeKind.VANISHED,
        "breaks": ChangeKind.BROKEN,
        "heals": ChangeKind.FIXED,
        "new": ChangeKind.NEW,
    }
    assert found["breaks"].note == "failed: no kernel"
    assert found["heals"].note == "was failed"
    assert exit_code(compare(old, new)) == 1
    assert exit_code(found[name] for name in ("gone", "heals", "new")) == 0


@pytest.mark.parametrize("status", ["wrong", "absent", "failed"])
def test_a_peer_that_breaks_counts_as_worse(status: str) -> None:
    changes = compare(pair(interval(1.2)), pair(None, status=status))
    assert ChangeKind.BROKEN in kinds(changes)
    assert exit_code(changes) == 1


def test_an_interrupted_run_explains_what_vanished() -> None:
    change = only(compare(results([model_row()]), results(complete=False)))
    assert (change.kind, change.note) == (ChangeKind.VANISHED, "the new run was interrupted")


def test_each_common_peer_is_a_measure() -> None:
    old = results([model_row(), model_row(peer="torch"), model_row(peer="openvino"), model_row(peer="gone")])
    new = results([model_row(), model_row(peer="torch", ratio=interval(1.0)), model_row(peer="openvino")])
    found = {change.against: change.kind for change in compare(old, new)}
    assert found == {"torch": ChangeKind.SLOWER, "openvino": ChangeKind.SAME, "gone": ChangeKind.VANISHED}


@pytest.mark.parametrize("field", [{"threads": 2}, {"batch": 8}, {"variant": "int8"}, {"model": "other"}])
def test_rows_match_by_model_variant_threads_and_batch(field: dict[str, object]) -> None:
    def run(**changes: object) -> Results:
        rows = (model_row(), model_row(peer="torch", ratio=interval(1.5)))
        return results([replace(row, **changes) for row in rows])  # type: ignore[arg-type]

    assert kinds(compare(run(), run(**field))) == {ChangeKind.VANISHED, ChangeKind.NEW}


def test_another_version_of_the_peer_is_noted() -> None:
    change = only(compare(pair(interval(1.2), version="2.10"), pair(interval(1.2), version="2.11")))
    assert change.note == "torch 2.10 -> 2.11"


@pytest.mark.parametrize(
    ("machine", "note"),
    [
        (replace(MACHINE, processor="Xeon"), "other machine: AMD EPYC 7B13 -> Xeon"),
        (replace(MACHINE, features=("avx512f",)), "other machine: other processor features"),
        (replace(MACHINE, cores=8), "other machine: 2 -> 8 cores"),
    ],
)
def test_other_machines_are_marked_and_absolute_times_refused(machine: Machine, note: str) -> None:
    old, new = pair(interval(1.2)), pair(interval(1.0))
    change = only(compare(old, replace(new, machine=machine)))
    assert (change.kind, change.note) == (ChangeKind.SLOWER, note)
    alone = results([model_row()])
    change = only(compare(alone, replace(alone, machine=machine)))
    assert (change.kind, change.factor) == (ChangeKind.REFUSED, None)
    assert note in change.note


def alone(p50: float, sentinel: Sentinel | None = QUIET, spread: float = 0.005) -> Results:
    """A subject without peers."""
    return results([model_row(latency=latency(p50, spread), sentinel=sentinel)])


def test_without_a_common_peer_times_are_compared_within_the_noise() -> None:
    change = only(compare(alone(0.010), alone(0.0115)))
    assert (change.kind, change.against) == (ChangeKind.SLOWER, "(absolute)")
    assert "absolute" in change.note
    assert change.factor is not None
    assert change.factor.middle == pytest.approx(1.15)
    assert change.factor.low == pytest.approx(1.15 / 1.0236, abs=2e-3)
    assert only(compare(alone(0.0115), alone(0.010))).kind is ChangeKind.FASTER


def test_absolute_times_within_the_noise_are_the_same() -> None:
    assert only(compare(alone(0.010, SENTINEL), alone(0.0115, SENTINEL))).kind is ChangeKind.SAME
    assert only(compare(alone(0.010, spread=0.1), alone(0.0115))).kind is ChangeKind.SAME


def test_a_peer_without_a_ratio_is_no_measure() -> None:
    change = next(c for c in compare(pair(None), pair(None)))
    assert change.against == "(absolute)"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (alone(0.01, None), alone(0.01), "the old run has no sentinel"),
        (alone(0.01), alone(0.01, None), "the new run has no sentinel"),
        (alone(0.01), results([model_row(latency=None)]), "a run has no time"),
        (alone(0.01), alone(0.0), "a run has no time"),
        (pair(Interval(0, 1, 2)), pair(interval(1.0)), "the interval of the old run is none"),
        (pair(interval(1.0)), pair(Interval(1, math.nan, 2)), "the interval of the new run is none"),
    ],
)
def test_what_does_not_compare_is_refused_with_a_reason(old: Results, new: Results, said: str) -> None:
    changes = compare(old, new)
    change = only(changes)
    assert change.kind is ChangeKind.REFUSED
    assert said in change.note
    assert exit_code(changes) == 0


def test_other_subjects_do_not_compare() -> None:
    new = results([model_row(peer="other", role="subject", ratio=None), model_row(peer="torch")])
    changes = compare(pair(interval(1.2)), new)
    assert kinds(changes) == {ChangeKind.REFUSED, ChangeKind.VANISHED, ChangeKind.NEW}
    assert "the subject was fusible and is other" in next(c for c in changes if c.kind is ChangeKind.REFUSED).note


def test_rows_without_a_subject_are_left_alone() -> None:
    peers = results([model_row(peer="torch")])
    assert compare(peers, peers) == ()


def test_two_rows_of_one_name_are_an_error() -> None:
    twice = results([model_row(), model_row()])
    with pytest.raises(ResultsError, match=r"the new run holds two rows .*mobilenet_v2.*; measure it again"):
        compare(results([model_row()]), twice)
    with pytest.raises(ResultsError, match="the old run"):
        compare(results((), [kernel_row(), kernel_row()]), results())


def test_kernels_are_compared_by_their_baselines() -> None:
    old = results((), [kernel_row(), kernel_row("softmax"), kernel_row("gone"), kernel_row("none", ratio=None)])
    new = results(
        (),
        [
            kernel_row(ratio=interval(1.22 / 1.05)),
            kernel_row("softmax", status="failed", reason="no"),
            kernel_row("new"),
            kernel_row("none"),
        ],
    )
    found = {change.what.split()[0]: change for change in compare(old, new)}
    assert {name: change.kind for name, change in found.items()} == {
        "conv": ChangeKind.SLOWER,
        "softmax": ChangeKind.BROKEN,
        "gone": ChangeKind.VANISHED,
        "new": ChangeKind.NEW,
        "none": ChangeKind.REFUSED,
    }
    assert found["conv"].against == "onnxruntime"
    assert found["conv"].what.endswith("strides=(1, 1), conv_blocked, cpu, 1 thread")
    assert found["none"].note == "the old run has no ratio"


def test_kernels_of_other_shapes_do_not_match() -> None:
    old, new = results((), [kernel_row()]), results((), [kernel_row(attributes="strides=(2, 2)")])
    assert kinds(compare(old, new)) == {ChangeKind.VANISHED, ChangeKind.NEW}


def test_a_row_whose_variant_is_empty_has_a_clean_name() -> None:
    row: ModelRow = model_row(variant="")
    assert only(compare(results([row]), results())).what == "mobilenet_v2, batch 1, 1 thread"
