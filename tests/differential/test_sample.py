"""A short sample of the search (all of it: `python -m tests.differential`), and that it finds what is planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.differential import judge, run
from tests.differential.builder import Sample
from tests.differential.generate import generate
from tests.differential.shrink import shrink
from tests.differential.worker import made

pytestmark = pytest.mark.filterwarnings("ignore")


def test_random_graphs_agree() -> None:
    result = run.search(seed=1, count=32, seconds=600.0)
    assert [f"seed {f.seed}: {f.reason}" for f in result.found] == []
    assert result.graphs == 32 and result.nodes > 120
    assert sum(result.refused.values()) <= 2 and result.ill <= 2


def test_random_graphs_agree_as_triton_kernels() -> None:
    result = run.search(seed=1, count=4, seconds=600.0, target="triton-cpu", batch=2)  # checked, then not
    assert [f"seed {f.seed}: {f.reason}" for f in result.found] == []
    assert result.graphs == 4


def test_the_same_seed_gives_the_same_graph() -> None:
    for seed in range(20):
        one, other = generate(seed), generate(seed)
        assert one.model.SerializeToString(deterministic=True) == other.model.SerializeToString(deterministic=True)
        assert all(array.tobytes() == other.feeds[name].tobytes() for name, array in one.feeds.items())


def test_most_graphs_run_on_numpy_and_without_passes_too() -> None:
    for seed in range(100, 130):
        sample = made(seed)
        assert judge.judge(sample, judge.plain(sample), judge.reference(sample)).reason == ""


def _spoilt(sample: Sample) -> dict[str, np.ndarray]:
    """Answers with one element of every output that has some off by a twentieth, or turned around."""
    outputs = {name: np.array(value) for name, value in judge.reference(sample).items()}
    for value in outputs.values():
        if value.size:
            first = value.reshape(-1)[:1]
            whole = value.dtype.kind in "iu"
            first[...] = ~first if value.dtype == bool else first + (1 if whole else 1 + abs(first) / 20)
    return outputs


def test_planted_errors_are_told() -> None:
    told = 0
    for seed in range(40):
        sample = made(seed)
        spoilt = _spoilt(sample)
        if any(value.size and np.isfinite(value.astype(np.float64)).all() for value in spoilt.values()):
            told += judge.judge(sample, judge.reference(sample), spoilt).reason != ""
    assert told >= 35


def test_a_failure_shrinks_to_one_node() -> None:
    """Whatever fails because there is a Relu in it ends as that node over small operands."""
    sample = next(s for s in map(made, range(200)) if len(s.model.graph.node) > 6 and "Relu" in _ops(s))

    def fails(candidate: Sample) -> bool:
        judge.reference(candidate)
        return "Relu" in _ops(candidate)

    assert _ops(shrink(sample, fails, seconds=20.0)) == ["Relu"]


def _ops(sample: Sample) -> list[str]:
    return [node.op_type for node in sample.model.graph.node]


def test_a_crash_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that cannot be run stands for whatever goes wrong on the target cpu only."""
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    settings = judge.Settings(tmp_path / "cache")
    worker = run.Worker()
    try:
        verdict = worker.check(made(3), settings)
        assert verdict.reason.startswith("cpu: DeviceError")
        assert worker.check(replace(made(3), feeds={}), settings).refused.startswith("SignatureError")
    finally:
        worker.stop()
