"""`fusible bench` from outside: rows, reasons, exit codes, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusible.benchmarks.records import load_results
from tests.benchmarks.peers.small import small_model

SECONDS = 120


def bench(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fusible", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bench")
    small_model(made)
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["small.onnx", "--against", "onnxruntime", "--shape", "n=3", "--seconds", "1", "--precision", "1"]
    return bench(*words, "-o", "old.json", "--html", "page.html", "--history", "history", cwd=folder)


def test_a_run_prints_a_table_and_keeps_results_page_and_history(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stdout and "fusible" in done.stdout and "small" in done.stdout
    assert done.stderr == ""  # no progress off a terminal
    results = load_results(folder / "old.json")
    assert results.complete
    assert [(r.peer, r.status, r.batch) for r in results.models] == [("fusible", "ok", 3), ("onnxruntime", "ok", 3)]
    assert results.models[1].ratio is not None
    assert results.versions["onnxruntime"] and results.machine.cores
    assert (folder / "page.html").read_text().startswith("<!doctype html>")
    assert "small" in (folder / "history" / "models.csv").read_text()


def test_a_slower_subject_is_named_and_exits_with_1(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    words = ["small.onnx", "--against", "onnxruntime", "--shape", "n=3", "--seconds", "1", "--precision", "1"]
    text = (folder / "old.json").read_text()
    data = json.loads(text)
    data["models"][1]["ratio"] = {"low": 99.0, "middle": 100.0, "high": 101.0}  # as if it had been so much faster
    (folder / "faster.json").write_text(json.dumps(data))
    slower = bench(*words, "--compare", "faster.json", cwd=folder)
    assert slower.returncode == 1, slower.stdout
    assert "slower" in slower.stdout


def test_what_is_unknown_has_a_line_and_the_rest_goes_on(folder: Path) -> None:
    words = ["resnet", "small.onnx", "--against", "tvm,onnxruntime,onnxruntime:x", "--seconds", "1", "--precision", "1"]
    found = bench(*words, "--json", cwd=folder)
    assert found.returncode == 2
    assert "no peer is called 'tvm'" in found.stderr
    assert "no model of the zoo is called 'resnet'" in found.stderr and "resnet-18" in found.stderr
    rows = {(r["model"], r["peer"]): r["status"] for r in json.loads(found.stdout)["models"]}
    assert rows == {
        ("resnet", "fusible"): "absent",
        ("small", "fusible"): "ok",
        ("small", "onnxruntime"): "ok",
        ("small", "onnxruntime:x"): "failed",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a model"),
        (["m.onnx", "--subject", "tvm"], "no peer is called 'tvm'"),
        (["m.onnx", "--threads", "0"], "--threads takes numbers"),
        (["m.onnx", "--threads", "9999"], "this process may use"),
        (["m.onnx", "--exporter", "tf2onnx"], "exporter must be one of"),
        (["m.onnx", "--compare", "missing.json"], "missing.json"),
        (["m.onnx", "--shape", "n=1:4"], "give a number"),
    ],
)
def test_wrong_usage_is_refused_at_once(words: list[str], said: str, tmp_path: Path) -> None:
    refused = bench(*words, cwd=tmp_path)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_list_names_models_and_peers(tmp_path: Path) -> None:
    listed = bench("--list", cwd=tmp_path)
    assert listed.returncode == 0
    for name in ("mobilenet-v2", "silero-vad", "onnxruntime", "openvino", "torch-inductor"):
        assert name in listed.stdout


def test_ctrl_c_keeps_finished_rows_and_ends_the_workers(folder: Path) -> None:
    words = ["small.onnx"] * 40 + ["--against", "onnxruntime", "--seconds", "1", "--precision", "1", "-o", "cut.json"]
    command = [sys.executable, "-m", "fusible", "bench", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    deadline = time.monotonic() + SECONDS
    while not (folder / "cut.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    results = load_results(folder / "cut.json")
    assert not results.complete
    assert results.models and all(r.status == "ok" for r in results.models)
    assert "small" in out
    children = Path(f"/proc/{process.pid}/task").exists()
    assert not children and not _workers_of(process.pid)


def _workers_of(parent: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended since
        if int(fields[1]) == parent:
            found.append(stat.parent.name)
    return found


def test_a_killed_run_leaves_no_worker_behind(folder: Path) -> None:
    command = [sys.executable, "-m", "fusible", "bench", "small.onnx", "--against", "onnxruntime", "--seconds", "60"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    deadline = time.monotonic() + SECONDS
    workers: list[str] = []
    while not workers and time.monotonic() < deadline:
        time.sleep(0.05)
        workers = [p for p in _workers_of(process.pid) if _serves(p)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while workers and time.monotonic() < deadline:
        workers = [p for p in workers if _serves(p)]
        time.sleep(0.05)
    assert not workers


def _serves(pid: str) -> bool:
    try:
        return b"benchmarks.peers.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
