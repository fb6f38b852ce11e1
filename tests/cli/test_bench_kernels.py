"""`fusible bench-kernels`: rows on the terminal, as JSON and on a page; wrong usage is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusible.benchmarks.kernels import bench
from fusible.benchmarks.kernels.cases import parse_case, save_cases
from fusible.benchmarks.measure import roof
from fusible.benchmarks.records import KernelRow, Roof, load_results
from fusible.kernels.registry import KERNELS
from tests.cli.conftest import Command

QUICK = ("--rounds", "2", "--block", "0.0001", "--against", "numpy,onnxruntime")


@pytest.fixture(autouse=True)
def _roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "measure_roof", lambda threads: Roof(threads, 1e12, 1e11, "made up"))


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    lstm = "lstm(f32[2, 1, 3], f32[1, 4, 3], f32[1, 4, 1])"
    texts = ("relu(f32[4, 8])", "relu(f32[40, 80])", "softmax(f32[4, 8])", lstm)
    save_cases([parse_case(text, ["mine"]) for text in texts], tmp_path / "shapes.json")
    return tmp_path / "shapes.json"


def test_a_table_for_people(command: Command, shapes: Path) -> None:
    result = command("bench-kernels", "--shapes", shapes, *QUICK)
    assert result.code == 0
    for word in ("relu", "softmax", "lstm", "against onnxruntime", "no plain NumPy expression"):
        assert word in result.out
    assert result.err == ""


def test_json_for_scripts(command: Command, shapes: Path) -> None:
    result = command("bench-kernels", "--shapes", shapes, "--op", "relu", "--limit", "1", "--json", *QUICK)
    rows = result.json["kernels"]
    assert [(row["op"], row["baseline"], row["signature"]) for row in rows] == [
        ("relu", "numpy", "f32[40, 80]"),
        ("relu", "onnxruntime", "f32[40, 80]"),
    ]
    assert result.json["settings"] == {
        "rounds": 2, "block_seconds": 0.0001, "seed": 0, "limit": 1, "shapes": [str(shapes)],
    }  # fmt: skip
    assert result.json["complete"] is True


def test_results_and_page_are_written(command: Command, shapes: Path, tmp_path: Path) -> None:
    saved, page = tmp_path / "r.json", tmp_path / "r.html"
    assert command("bench-kernels", "--shapes", shapes, "-o", saved, "--html", page, *QUICK).code == 0
    results = load_results(saved)
    assert [row.op for row in results.kernels] == ["lstm"] * 2 + ["relu"] * 4 + ["softmax"] * 2
    assert results.roofs[0].threads == 1
    assert "softmax" in page.read_text()


def test_the_built_in_list_and_models(command: Command, model: Path) -> None:
    built_in = command("bench-kernels", "--op", "gemm", "--limit", "1", "--json", *QUICK)
    assert built_in.json["kernels"][0]["op"] == "gemm"
    found = command("bench-kernels", "--shapes", model, "--op", "conv", "--json", *QUICK).json["kernels"]
    assert found[0]["signature"] == "f32[1, 3, 5, 7], f32[4, 3, 3, 3], f32[4]"
    assert found[0]["origin"] == ["small"]


def test_kernels_of_a_file_are_timed(command: Command, shapes: Path, tmp_path: Path) -> None:
    file = tmp_path / "my_kernels_for_bench.py"
    file.write_text(
        "import numpy as np\nimport fusible\n\n\ndef mine(x):\n    return np.maximum(x, np.float32(0))\n\n\n"
        "def register(pipeline):\n    fusible.register_kernel('relu', function=mine)\n    return pipeline\n"
    )
    try:
        words = ("--shapes", shapes, "--op", "relu", "--limit", "1", "--passes", file, "--json")
        rows = command("bench-kernels", *words, *QUICK).json["kernels"]
    finally:
        for kernel in KERNELS.for_op("relu"):
            KERNELS.unregister(kernel)
    assert [row["kernel"] for row in rows] == ["generated"] * 2 + ["my_kernels_for_bench:mine"] * 2


def test_wrong_numbers_end_with_1(command: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "agree", lambda *_: _Wrong())
    result = command("bench-kernels", "--shapes", shapes, "--op", "softmax", *QUICK)
    assert result.code == 1
    assert "planted" in result.out


class _Wrong:
    reason, max_error = "planted", np.inf

    def __bool__(self) -> bool:
        return False


def test_an_interruption_keeps_finished_rows(
    command: Command, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.bench_kernels

    def interrupted(*args: Any, **more: Any) -> Iterator[KernelRow]:
        rows = real(*args, **more)
        yield next(rows)
        yield next(rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "bench_kernels", interrupted)
    result = command("bench-kernels", "--shapes", shapes, "-o", tmp_path / "r.json", *QUICK)
    assert result.code == 130
    assert "2 finished rows are kept" in result.err
    results = load_results(tmp_path / "r.json")
    assert (len(results.kernels), results.complete) == (2, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--against", "nobody"), "the baselines are numpy, torch, onnxruntime"),
        (("--against", ","), "the baselines are"),
        (("--op", "nonsense"), "no op 'nonsense'"),
        (("--op", "adam"), "no shape is of op 'adam'"),
        (("--threads", "100000"), "this process may use"),
        (("--shapes", "no-such-model"), "neither a file nor a model of the zoo"),
        (("--shapes", "none.json"), "cannot be read"),
        (("--passes", "none.py"), "no file"),
    ],
)
def test_wrong_usage(command: Command, words: tuple[str, ...], message: str) -> None:
    result = command("bench-kernels", *words)
    assert result.code == 2
    assert message in result.err
