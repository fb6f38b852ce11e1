"""A worker serves one contestant from a process of its own; whatever happens to it becomes a reason."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from fusible.benchmarks.peers.client import Task, Worker, worker_environment
from fusible.benchmarks.peers.protocol import Contestant, PeerError
from fusible.benchmarks.reference import bf16_tolerance, judge
from fusible.compiler.accuracy import model_bound
from tests import oracle
from tests.benchmarks.peers.small import INPUTS, small_model


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("", small_model(tmp_path), INPUTS, tmp_path)


@pytest.mark.parametrize("peer", ["fusible", "onnxruntime", "onnxruntime-unoptimised"])
def test_a_peer_loads_runs_and_tells_about_itself(peer: str, task: Task) -> None:
    with Worker(Contestant(peer), threads=1) as worker:
        start = worker.load(task, cache=None)
        assert start["version"]
        assert all(start[key] > 0 for key in ("imports", "load", "first_run", "process"))
        assert len(worker.block(7)) == 7
        got = worker.outputs(task)
        np.testing.assert_allclose(got["y"], oracle.run(task.model, INPUTS)["y"], rtol=1e-5, atol=1e-6)
        facts = worker.facts()
        assert facts["kernels"] in (1, 2)
        assert 10e6 < facts["peak_memory"] < 4e9


@pytest.mark.parametrize(
    "who", [("fusible", "cpu:bf16"), pytest.param(("openvino", "bf16"), marks=pytest.mark.bench)], ids=str
)
def test_bf16_is_an_option_and_has_a_bound_of_its_own(task: Task, who: tuple[str, str]) -> None:
    expected = oracle.run(task.model, INPUTS)
    bound = bf16_tolerance(task.model, INPUTS, expected)
    assert bound == model_bound("bf16")  # one product amplifies nothing
    with Worker(Contestant(*who), threads=1) as worker:
        worker.load(task, cache=None)
        assert judge(expected, worker.outputs(task), bound)[2] == ""


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (("fusible", "cpu:fp8"), "unknown target 'cpu:fp8'"),
        pytest.param(
            ("openvino", "fp8"), "openvino has no option but bf16, got 'fp8'", marks=pytest.mark.bench, id="openvino"
        ),
    ],
)
def test_other_precisions_are_reasons(task: Task, who: tuple[str, str], reason: str) -> None:
    with Worker(Contestant(*who), threads=1) as worker, pytest.raises(PeerError, match=reason):
        worker.load(task, cache=None)


@pytest.mark.parametrize(
    ("who", "file"), [(("fusible", "numpy"), "numpy-1.fusible"), (("onnxruntime", "ort"), "model.ort")]
)
def test_what_an_earlier_launch_compiled_is_loaded(
    task: Task, tmp_path: Path, who: tuple[str, str], file: str
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for _ in range(2):
        with Worker(Contestant(*who), threads=1) as worker:
            worker.load(task, cache=cache)
            assert worker.outputs(task)["y"].shape == (3, 8)
    assert [p.name for p in cache.iterdir()] == [file]


def test_a_plain_loop_gives_the_mean_of_a_block(task: Task) -> None:
    with Worker(Contestant("onnxruntime", plain=True), threads=1) as worker:
        worker.load(task, cache=None)
        assert len(worker.block(5)) == 1


def test_a_slowed_run_takes_longer_than_it_would(task: Task) -> None:
    """Twenty times as long: no machine is so noisy that this is not seen."""
    with Worker(Contestant("onnxruntime"), 1) as plain, Worker(Contestant("onnxruntime", slowdown=20.0), 1) as slow:
        for worker in (plain, slow):
            worker.load(task, cache=None)
        assert np.median(slow.block(51)) > 5 * np.median(plain.block(51))


def test_errors_of_the_peer_become_reasons_and_it_serves_on(task: Task) -> None:
    with Worker(Contestant("onnxruntime", "fast"), threads=1) as worker:
        with pytest.raises(PeerError, match="has the option ort, got 'fast'"):
            worker.load(task, cache=None)
        with pytest.raises(PeerError, match="no model is loaded"):
            worker.block(1)


def test_a_model_that_cannot_be_loaded_is_a_reason(task: Task) -> None:
    task.model.write_bytes(b"no model")
    cannot = pytest.raises(PeerError, match="cannot load the model")
    with Worker(Contestant("onnxruntime"), threads=1) as worker, cannot:
        worker.load(task, cache=None)


def test_a_worker_that_is_killed_is_a_reason(task: Task) -> None:
    with Worker(Contestant("onnxruntime"), threads=1) as worker:
        worker.load(task, cache=None)
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(PeerError, match="was killed by SIGKILL"):
            worker.block(1)


def test_a_worker_that_is_killed_before_it_reads_is_closed(task: Task) -> None:
    worker = Worker(Contestant("onnxruntime"), threads=1)
    worker.load(task, cache=None)
    streams = (worker._process.stdin, worker._process.stdout, worker._log)
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    assert worker._process.stdin is not None
    worker._process.stdin.write(b"more than is flushed")
    worker.close()
    assert all(stream is not None and stream.closed for stream in streams)


def test_an_unforeseen_error_ends_the_worker_with_its_last_words(task: Task) -> None:
    task.inputs.unlink()
    ended = pytest.raises(PeerError, match=r"ended with status 1; it said: FileNotFoundError: .*inputs\.npz")
    with Worker(Contestant("onnxruntime"), threads=1) as worker, ended:
        worker.load(task, cache=None)


def test_a_worker_is_stopped_when_it_has_answered(task: Task) -> None:
    with Worker(Contestant("onnxruntime"), threads=2) as worker:
        worker.load(task, cache=None)
        state = Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T"


def test_environment() -> None:
    """Fusible is not compiled to byte code in each process, whatever the caller has set."""
    given = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "7", "HOME": "/h"}
    found = worker_environment(given, 2)
    assert found["HOME"] == "/h" and found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "2"
    assert "PYTHONDONTWRITEBYTECODE" not in found and given["OMP_NUM_THREADS"] == "7"
