"""`fusible ops` and `fusible doctor`."""

from __future__ import annotations

from fusible.cli.ops import coverage
from fusible.compiler.ir.ops import OPS
from fusible.compiler.targets import TARGETS
from tests.cli.conftest import Command


def test_ops_lists_every_op(command: Command) -> None:
    facts = command("ops", "--json").json
    assert [op["name"] for op in facts["ops"]] == [op.name for op in OPS]
    ways = {(row["domain"], row["name"]): row["way"] for row in facts["onnx"]}
    assert ways["ai.onnx", "Relu"] == "handler"
    assert ways["com.microsoft", "DynamicQuantizeLSTM"] == "handler"


def test_ops_filters(command: Command) -> None:
    result = command("ops", "lstm")
    assert result.code == 0
    assert "lstm" in result.out
    assert "relu" not in result.out
    assert command("ops", "no such op").out.strip().endswith("0 ops; 0 ONNX operators: none")


def test_lines_end_where_their_text_ends(command: Command) -> None:
    assert not [line for line in command("ops").out.split("\n") if line != line.rstrip()]


def test_every_operator_once() -> None:
    names = [(row.domain, row.name) for row in coverage()]
    assert len(names) == len(set(names))


def test_doctor(command: Command) -> None:
    facts = command("doctor", "--json").json
    assert set(facts) >= {"fusible", "python", "packages", "processor", "c_compiler", "gpus", "targets"}
    assert facts["processors"]["usable"] >= 1
    assert facts["targets"]["auto"] == "cpu" and list(facts["targets"]) == list(TARGETS)
    assert all(said == "usable" for target, said in facts["targets"].items() if ":" not in target and target != "auto")
    assert facts["targets"]["cuda:sm_90"] == "can be built"
    text = command("doctor").out
    assert [line.split()[0] for line in text.split("\n") if line] == list(facts)
