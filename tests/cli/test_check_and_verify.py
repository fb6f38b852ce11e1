"""`fusible check` and `fusible verify`: what is supported, and whether the numbers agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import fusible
import fusible.compiler.accuracy
from fusible.cli.arrays import write_outputs
from fusible.compiler.ir.ops import OPS
from tests.cli.conftest import Command, save


def test_check_lists_the_operators_and_the_memory(command: Command, model: Path) -> None:
    result = command("check", model)
    assert result.code == 0
    assert [line.split()[:4] for line in result.out.split("\n")[1:4]] == [
        ["Add", "17", "1", "yes"],
        ["Conv", "17", "1", "yes"],
        ["Relu", "17", "1", "yes"],
    ]
    assert "constants" in result.out
    facts = command("check", model, "--json").json
    assert facts["supported"]
    assert facts["memory"]["constant_bytes"] == 4 * (4 * 3 * 3 * 3 + 4 + 4)
    assert {operator["way"] for operator in facts["operators"]} == {"handler"}


def test_memory_follows_the_shape(command: Command, model: Path) -> None:
    small, large = (
        command("check", model, "--json", "--shape", f"batch={n}").json["memory"]["arena_bytes"] for n in (1, 50)
    )
    assert large >= 40 * small


def test_check_names_every_unsupported_operator(command: Command, strange: Path) -> None:
    result = command("check", strange)
    assert result.code == 1
    assert "com.example::Frobnicate" in result.out
    assert "com.example::Twiddle" in result.out
    assert "2 of 4 operators" in result.out
    facts = command("check", strange, "--json").json
    assert not facts["supported"]
    assert facts["memory"] is None
    reasons = {o["name"]: [r["node"] for r in o["reasons"]] for o in facts["operators"]}
    assert reasons == {"Relu": [], "Frobnicate": ["first\x1b[31m"], "Abs": [], "Twiddle": ["second"]}


def test_verify_agrees(command: Command, model: Path) -> None:
    for reference in ("onnxruntime", "numpy"):
        result = command("verify", model, "--against", reference)
        assert result.code == 0, result.err
        assert f"against {reference}" in result.out
    facts = command("verify", model, "--json", "--seed", "3").json
    assert facts["against"] == "onnxruntime"
    assert facts["agrees"]
    assert facts["bound"] == {"max": 1e-3, "rms": 1e-4}
    assert facts["outputs"][0]["max_error"] < 1e-4


def test_verify_in_bf16_has_the_bound_of_that_precision(command: Command, model: Path) -> None:
    for reference in ("onnxruntime", "numpy"):
        result = command("verify", model, "--target", "cpu", "--precision", "bf16", "--against", reference, "--json")
        assert result.code == 0 and result.json["bound"] == {"max": 0.1, "rms": 0.02}, result.err
    refused = command("verify", model, "--target", "numpy", "--precision", "bf16")
    assert refused.code == 2 and "target numpy computes fp32" in refused.err


def test_verify_takes_inputs_and_shapes(command: Command, model: Path, tmp_path: Path) -> None:
    write_outputs(tmp_path / "x.npz", {"x": np.ones((2, 3, 5, 7), np.float32)})
    assert command("verify", model, "--inputs", tmp_path / "x.npz").code == 0
    assert command("verify", model, "--shape", "batch=3", "--against", "numpy").code == 0


def test_bad_numbers_are_1(command: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = fusible.compiler.accuracy.compare_outputs

    def planted(expected: dict[str, np.ndarray], got: dict[str, np.ndarray], bound: object) -> object:
        return right(expected, {name: value * np.float32(1.05) for name, value in got.items()}, bound)  # type: ignore[arg-type]

    monkeypatch.setattr(fusible.compiler.accuracy, "compare_outputs", planted)
    result = command("verify", model)
    assert result.code == 1
    assert "NO" in result.out
    assert not command("verify", model, "--json").json["agrees"]


def negated(x: np.ndarray) -> np.ndarray:
    """Return -x: the meaning of an operator that only Fusible knows."""
    return np.asarray(-x)


def test_a_model_that_the_reference_cannot_run(command: Command, tmp_path: Path) -> None:
    node = helper.make_node("Negated", ["x"], ["y"], "n", domain="com.example")
    path = save(tmp_path / "m.onnx", [node], {})
    fusible.register_op("com.example", "Negated", numpy=negated)
    try:
        assert command("check", path).code == 0
        assert command("verify", path, "--against", "numpy").code == 0
        result = command("verify", path, "--against", "onnxruntime")
    finally:
        OPS.unregister("com.example::Negated")
    assert result.code == 2
    assert "--against numpy" in result.err
