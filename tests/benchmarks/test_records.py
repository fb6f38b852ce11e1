"""Files of results: what is saved is read back equal; what is damaged or of another version is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusible.benchmarks.records import SCHEMA, Results, ResultsError, load_results, save_results
from fusible.errors import UsageError
from tests.benchmarks.report.made_up import HOSTILE, kernel_row, large, model_row, results, small


@pytest.mark.parametrize(
    "made",
    [
        results(),
        small(),
        large(),
        results([model_row(HOSTILE, plain=None, cold=None, sentinel=None)], [kernel_row(HOSTILE, origin=())]),
        replace(small(), complete=False, notes=(), roofs=(), settings={"threads": [1, 2], "seed": None}),
    ],
)
def test_what_is_saved_is_read_back_equal(made: Results, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    save_results(made, path)
    assert load_results(path) == made
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_results(large(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    made = results([model_row(flops=math.pi, max_error=5e-324)])
    save_results(made, tmp_path / "r.json")
    assert load_results(tmp_path / "r.json").models[0].flops == math.pi


def damaged(path: Path, **changes: Any) -> Path:
    """Save a run with some values of its JSON replaced."""
    save_results(small(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, None, "1"])
def test_another_schema_is_refused(tmp_path: Path, schema: object) -> None:
    with pytest.raises(ResultsError, match=rf"r\.json holds results of schema {schema}, this release reads {SCHEMA}"):
        load_results(damaged(tmp_path / "r.json", schema=schema))


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"'])
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ResultsError, match="schema None"):
        load_results(tmp_path / "r.json")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"schema": 1,}'])
def test_what_is_no_json_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    with pytest.raises(ResultsError, match=r"r\.json is no file of results"):
        load_results(tmp_path / "r.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"machine": None},
        {"machine": {"processor": "x"}},
        {"models": [{"model": "m"}]},
        {"models": [3]},
        {"models": None},
        {"kernels": [{}]},
        {"roofs": [[1, 2]]},
        {"notes": 5},
        {"surprise": 1},
    ],
)
def test_damaged_records_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ResultsError, match=r"r\.json is damaged"):
        load_results(damaged(tmp_path / "r.json", **changes))


def test_a_damaged_part_of_a_row_is_refused(tmp_path: Path) -> None:
    save_results(small(), tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    del data["models"][0]["latency"]["p50"]
    with pytest.raises(ResultsError, match=r"damaged: .*p50"):
        load_results(damaged(tmp_path / "r.json", models=data["models"]))


@pytest.mark.parametrize("missing", ["machine", "models", "kernels", "roofs", "notes", "created"])
def test_missing_parts_are_refused(tmp_path: Path, missing: str) -> None:
    save_results(small(), tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    del data[missing]
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(ResultsError, match=rf"damaged: .*{missing}"):
        load_results(tmp_path / "r.json")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing"):
        load_results(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=r"written to .*folder"):
        save_results(small(), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_path_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        save_results(small(), tmp_path / "file" / "results.json")
