"""The CSV files of the history: what is added is read back, twice adds nothing, other files are refused by name."""

from __future__ import annotations

import subprocess
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fusible.benchmarks.records import ResultsError
from fusible.benchmarks.report.history import (
    KERNELS_FILE,
    MODELS_FILE,
    ModelHistory,
    append_history,
    current_commit,
    read_kernel_history,
    read_model_history,
)
from fusible.errors import UsageError
from tests.benchmarks.report.made_up import HOSTILE, interval, kernel_row, large, latency, model_row, results, small

MODEL_COLUMNS = (
    "date,fusible,commit,processor,cores,model,variant,batch,threads,peer,peer_version,p20_s,p50_s,p80_s,"
    "ratio_low,ratio,ratio_high,gflop_per_s,peak_memory_bytes"
)
KERNEL_COLUMNS = (
    "date,fusible,commit,processor,cores,device,op,kernel,signature,attributes,threads,baseline,baseline_version,"
    "p20_s,p50_s,p80_s,baseline_p50_s,ratio_low,ratio,ratio_high,gflop_per_s,gbyte_per_s"
)


def test_a_row_is_written_and_read_back(tmp_path: Path) -> None:
    row = model_row(peer="torch", ratio=interval(1.23456789), flops=None, peak_memory=None, threads=2, batch=4)
    assert append_history(results([row]), tmp_path / "new", commit="abc123") == 1
    (line,) = read_model_history(tmp_path / "new")
    assert line == ModelHistory(
        date="2026-11-25T13:00:00+00:00",
        fusible="0.1.0",
        commit="abc123",
        processor="AMD EPYC 7B13",
        cores=2,
        model="mobilenet_v2",
        variant="fp32",
        batch=4,
        threads=2,
        peer="torch",
        peer_version="2.11.0",
        p20_s=0.012028,
        p50_s=0.0124,
        p80_s=0.012772,
        ratio_low=1.22228,
        ratio=1.23457,
        ratio_high=1.24698,
        gflop_per_s=None,
        peak_memory_bytes=None,
    )
    assert line.moment == datetime(2026, 11, 25, 13, tzinfo=UTC)


def test_the_columns_stay_in_their_order(tmp_path: Path) -> None:
    append_history(large(), tmp_path, commit="")
    assert (tmp_path / MODELS_FILE).read_text().splitlines()[0] == MODEL_COLUMNS
    assert (tmp_path / KERNELS_FILE).read_text().splitlines()[0] == KERNEL_COLUMNS


def test_only_rows_with_a_time_that_are_right_are_kept(tmp_path: Path) -> None:
    rows = [model_row(), model_row("a", status="wrong"), model_row("b", status="ok", latency=None)]
    append_history(results(rows, [kernel_row(), kernel_row("x", status="failed")]), tmp_path, commit="")
    assert [line.model for line in read_model_history(tmp_path)] == ["mobilenet_v2"]
    assert [line.op for line in read_kernel_history(tmp_path)] == ["conv"]


def test_runs_follow_each_other_and_the_same_run_is_added_once(tmp_path: Path) -> None:
    first, second = large(), replace(large(seed=1), created="2026-11-26T08:00:00+00:00")
    added = append_history(first, tmp_path, commit="a")
    text = (tmp_path / MODELS_FILE).read_text()
    assert append_history(first, tmp_path, commit="b") == 0
    assert (tmp_path / MODELS_FILE).read_text() == text
    append_history(second, tmp_path, commit="b")
    assert (tmp_path / MODELS_FILE).read_text().startswith(text)
    assert len(read_model_history(tmp_path)) + len(read_kernel_history(tmp_path)) > added
    assert {line.date[:10] for line in read_model_history(tmp_path)} == {"2026-11-25", "2026-11-26"}


def test_a_row_that_was_missing_is_added_to_its_run(tmp_path: Path) -> None:
    append_history(results([model_row()]), tmp_path, commit="")
    assert append_history(results([model_row(), model_row("b")]), tmp_path, commit="") == 1


def test_hostile_names_are_read_back(tmp_path: Path) -> None:
    row = model_row(HOSTILE + '"a","b"\n', variant="", latency=latency(1.0))
    append_history(results([row]), tmp_path, commit="")
    assert read_model_history(tmp_path)[0].model == row.model


def test_the_version_of_a_peer_falls_back_to_that_of_the_run(tmp_path: Path) -> None:
    append_history(results([model_row(peer="torch", version=""), model_row(peer="x", version="")]), tmp_path, commit="")
    assert [line.peer_version for line in read_model_history(tmp_path)] == ["2.11.0", ""]


def test_a_ratio_to_a_wrong_subject_is_not_kept(tmp_path: Path) -> None:
    append_history(results([model_row(status="wrong"), model_row(peer="torch")]), tmp_path, commit="")
    (line,) = read_model_history(tmp_path)
    assert (line.peer, line.p50_s, line.ratio) == ("torch", 0.0124, None)


def test_kernels_have_their_baseline(tmp_path: Path) -> None:
    append_history(results((), [kernel_row(baseline_latency=None)]), tmp_path, commit="")
    (line,) = read_kernel_history(tmp_path)
    assert (line.baseline, line.baseline_version, line.baseline_p50_s) == ("onnxruntime", "1.32.0", None)
    assert (line.gflop_per_s, line.gbyte_per_s) == (74.5161, 0.564516)
    assert not (tmp_path / MODELS_FILE).exists()


def test_no_files_are_no_history(tmp_path: Path) -> None:
    assert read_model_history(tmp_path) == ()
    assert read_kernel_history(tmp_path / "missing") == ()


@pytest.mark.parametrize("text", ["", "date,model\n2026-11-25,m\n", MODEL_COLUMNS.replace("p20_s", "p10_s") + "\n"])
def test_other_columns_are_refused_and_nothing_is_written(tmp_path: Path, text: str) -> None:
    (tmp_path / MODELS_FILE).write_text(text)
    with pytest.raises(ResultsError, match=r"models\.csv has other columns .*\nfound: .*\nexpected: date,fusible"):
        append_history(large(), tmp_path, commit="")
    assert (tmp_path / MODELS_FILE).read_text() == text
    assert not (tmp_path / KERNELS_FILE).exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("0.0124", "fast"), r"models\.csv:2: p50_s is 'fast', expected float \| None"),
        ((",2,mobile", ",two,mobile"), r"models\.csv:2: cores is 'two', expected int"),
        ((",fp32,", ","), r"models\.csv:2: 18 columns, expected 19; repair or remove the line"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    append_history(results([model_row()]), tmp_path, commit="")
    path = tmp_path / MODELS_FILE
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ResultsError, match=said):
        read_model_history(tmp_path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b'date,"fus'])
def test_what_is_no_csv_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MODELS_FILE).write_bytes(data)
    with pytest.raises(ResultsError, match="is no CSV file"):
        read_model_history(tmp_path)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be"):
        append_history(small(), tmp_path / "file", commit="")
    (tmp_path / MODELS_FILE).mkdir()
    with pytest.raises(UsageError, match=r"read from .*models\.csv"):
        read_model_history(tmp_path)


def test_dates_are_dates(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="'yesterday' is no date of a run"):
        append_history(replace(small(), created="yesterday"), tmp_path, commit="")
    append_history(replace(small(), created="2026-11-24"), tmp_path, commit="")
    assert read_model_history(tmp_path)[0].moment == datetime(2026, 11, 24, tzinfo=UTC)


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder, with an identity of its own."""
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_that_of_the_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert current_commit(tmp_path) == ""  # nothing is committed yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    git(tmp_path, "tag", "v1")
    commit = current_commit(tmp_path)
    assert len(commit) == 12
    assert int(commit, 16) >= 0
    (tmp_path / "a").write_text("2")
    assert current_commit(tmp_path) == f"{commit}-dirty"


def test_there_is_no_commit_outside_a_checkout_or_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert current_commit(tmp_path) == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert current_commit(tmp_path) == ""


def test_the_working_folder_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "first")
    monkeypatch.chdir(tmp_path)
    append_history(small(), tmp_path / "history")
    assert {line.commit for line in read_model_history(tmp_path / "history")} == {current_commit(tmp_path)}


def test_every_column_has_a_parser() -> None:
    assert {str(field.type) for field in fields(ModelHistory)} == {"str", "int", "float | None", "int | None"}
