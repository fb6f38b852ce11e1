"""The verdict on a system against itself."""

from __future__ import annotations

from fusible.benchmarks.records import Interval
from fusible.benchmarks.selfcheck import verdict_of

SAME, OFF = Interval(0.98, 1.0, 1.02), Interval(1.01, 1.02, 1.03)
FOUND, MISSED = Interval(1.02, 1.05, 1.08), Interval(0.99, 1.05, 1.11)


def test_the_verdict_counts_covered_and_found() -> None:
    good = verdict_of([(SAME, FOUND)] * 90 + [(OFF, MISSED)] * 10)
    assert (good.runs, good.covered, good.found) == (100, 0.9, 0.9)
    assert good
    assert not verdict_of([(SAME, FOUND)] * 87 + [(OFF, FOUND)] * 13)
    assert not verdict_of([(SAME, FOUND)] * 89 + [(SAME, MISSED)] * 11)
