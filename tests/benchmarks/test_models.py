"""Rows of whole models: numbers, wrong outputs, contestants that fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusible.benchmarks.models import Settings, bench_model
from fusible.benchmarks.peers.protocol import Contestant
from fusible.benchmarks.records import Roof
from tests import oracle
from tests.benchmarks.peers.small import INPUTS, small_model, small_work

QUICK = Settings(rounds=4, block_seconds=0.001, precision=0.5, launches=(2, 3), seconds=10.0, plain=True)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return oracle.run(small_model(tmp_path_factory.mktemp("model")), INPUTS)


def test_rows_hold_everything_that_was_measured(tmp_path: Path, expected: dict[str, np.ndarray]) -> None:
    contestants = [Contestant("fusible", "numpy"), Contestant("onnxruntime"), Contestant("onnxruntime", "x")]
    said: list[str] = []
    rows = bench_model(
        small_work(tmp_path, expected),
        contestants,
        threads=1,
        settings=QUICK,
        roof=Roof(1, 1e11, 1e10, "made up"),
        progress=said.append,
    )
    subject, peer, broken = rows
    assert [r.role for r in rows] == ["subject", "peer", "peer"]
    assert [r.status for r in rows] == ["ok", "ok", "failed"]
    assert "has the option ort" in broken.reason and broken.latency is None
    for row in (subject, peer):
        assert row.latency is not None and row.latency.blocks >= 8
        assert row.throughput == pytest.approx(3 / row.latency.p50)
        assert row.flops_share == pytest.approx(768 / row.latency.p50 / 1e11)
        assert row.cold is not None and row.cold.process > row.cold.load > 0
        assert row.peak_memory and row.kernels and row.version
        assert row.max_error is not None and row.max_error < 1e-5
        assert row.plain is not None and row.plain.low <= row.plain.middle <= row.plain.high
        assert row.sentinel is not None
    assert subject.ratio is None
    assert peer.ratio is not None and peer.ratio.low <= peer.ratio.middle <= peer.ratio.high
    assert any("loads" in line for line in said)


def test_nobody_wins_by_computing_something_else(tmp_path: Path, expected: dict[str, np.ndarray]) -> None:
    work = small_work(tmp_path, {"y": expected["y"] * 1.05})
    rows = bench_model(work, [Contestant("fusible", "numpy"), Contestant("onnxruntime")], threads=1, settings=QUICK)
    assert [r.status for r in rows] == ["wrong", "wrong"]
    assert all("y: " in r.reason for r in rows)


def test_without_a_subject_there_are_no_ratios(tmp_path: Path) -> None:
    contestants = [Contestant("onnxruntime", "x"), Contestant("onnxruntime")]
    rows = bench_model(small_work(tmp_path, None), contestants, threads=1, settings=QUICK)
    assert [r.status for r in rows] == ["failed", "ok"]
    assert rows[1].ratio is None and rows[1].latency is not None and rows[1].max_error is None
