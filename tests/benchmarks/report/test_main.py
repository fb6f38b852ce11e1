"""`python -m fusible.benchmarks.report`: tables, page, history, comparison, exit codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fusible.benchmarks.records import Results, save_results
from fusible.benchmarks.report.__main__ import main
from fusible.benchmarks.report.history import read_model_history
from tests.benchmarks.report.made_up import interval, model_row, results, small


def saved(made: Results, path: Path) -> str:
    """The path of saved results."""
    save_results(made, path)
    return str(path)


def test_it_prints_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([saved(small(), tmp_path / "r.json")]) == 0
    assert "mobilenet_v2 fp32, batch 1, 1 thread" in capsys.readouterr().out


def test_it_writes_the_page_with_the_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = saved(replace(small(), created="2026-11-01T00:00:00+00:00"), tmp_path / "a.json")
    second = saved(small(), tmp_path / "b.json")
    folder, page = str(tmp_path / "history"), str(tmp_path / "page.html")
    assert main([first, "--history", folder]) == 0
    assert "2 rows added" in capsys.readouterr().out
    assert main([second, "--history", folder, "--html", page]) == 0
    assert len(read_model_history(tmp_path / "history")) == 4
    assert all(date in (tmp_path / "page.html").read_text() for date in (">2026-11-01<", ">2026-11-25<"))
    assert main([second, "--html", page]) == 0
    assert "no history of this machine" in (tmp_path / "page.html").read_text()


def test_it_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = saved(small(), tmp_path / "old.json")
    slow = saved(results([model_row(), model_row(peer="onnxruntime", ratio=interval(1.1))]), tmp_path / "slow.json")
    assert main([slow, "--compare", old]) == 1
    assert "slower (1)" in capsys.readouterr().out
    assert main([old, "--compare", slow]) == 0
    assert main([old, "--compare", old]) == 0


def test_errors_are_one_line_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.startswith("report: results cannot be read from")
    (tmp_path / "bad").write_text("{}")
    assert main([str(tmp_path / "bad")]) == 1
    assert "schema None" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([])
