"""What is met in a model becomes cases: each once, with sizes that only a run tells, spread over costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from fusible.benchmarks.kernels.cases import Case, load_cases, parse_case, save_cases
from fusible.benchmarks.kernels.harvest import (
    estimated_cost,
    harvest_model,
    main,
    select_cases,
    shapes_of,
    with_written,
)
from fusible.benchmarks.kernels.written import ORIGIN, written_cases
from fusible.errors import UsageError

F32 = TensorProto.FLOAT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two equal products, a scale, and a selection of a size that the data decide."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["b"]),
        helper.make_node("Clip", ["b", "low", "high"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["d"]),
        helper.make_node("NonZero", ["x"], ["p"]),
        helper.make_node("Cast", ["p"], ["q"], to=F32),
        helper.make_node("Exp", ["q"], ["e"]),
    ]
    weights = {
        "w": np.ones((8, 8), np.float32),
        "v": np.full((8, 8), 2, np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "scale": np.full((8,), 0.5, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F32, ["n", 8])],
        [ValueInfoProto(name="d"), ValueInfoProto(name="e")],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_a_model_gives_its_distinct_cases(model: Path) -> None:
    x = np.zeros((5, 8), np.float32)
    x[:3, 2] = 1
    texts = [case.text for case in harvest_model(model, {"x": x}, "small")]
    assert texts == [
        "cast(i64[2, 3]) {dtype=f32}",
        "clip(f32[5, 8], const f32[] = [0.0], const f32[] = [6.0])",
        "exp(f32[2, 3])",
        "matmul(f32[5, 8], const f32[8, 8])",
        "mul(f32[5, 8], const f32[8])",
        "non_zero(f32[5, 8])",
    ]


def test_nothing_is_fused_in_what_is_harvested(model: Path) -> None:
    cases = harvest_model(model, {"x": np.ones((5, 8), np.float32)}, "small")
    assert "fused" not in {case.op for case in cases}
    assert all(case.origin == ("small",) for case in cases)


def _products(*sizes: int) -> list[Case]:
    return [parse_case(f"matmul(f32[{n}, {n}], f32[{n}, {n}])") for n in sizes]


def test_cases_are_ranked_by_cost_and_spread() -> None:
    cases = _products(64, 2, 128, 8, 32, 4, 16)
    sizes = [case.operands[0].type.static_shape[0] for case in select_cases(cases, 4)]  # type: ignore[union-attr, index]
    assert sizes == [2, 8, 32, 128]
    assert [estimated_cost(c) for c in select_cases(cases, None)] == sorted(estimated_cost(c) for c in cases)
    (largest,) = select_cases(cases, 1)
    assert largest.text == "matmul(f32[128, 128], f32[128, 128])"


def test_only_the_ops_asked_for() -> None:
    cases = [*_products(4), parse_case("abs(f32[3])")]
    assert [case.op for case in select_cases(cases, None, ["abs"])] == ["abs"]
    with pytest.raises(UsageError, match="no shape is of op 'relu'; there are shapes of abs, matmul"):
        select_cases(cases, None, ["relu"])


def test_written_cases_fill_the_gaps_and_no_more() -> None:
    filled = with_written([parse_case("abs(f32[3])", ["m"])])
    assert [case.origin for case in filled if case.op == "abs"] == [("m",)]
    assert {case.op for case in filled} == {case.op for case in written_cases()}
    assert all(case.origin == (ORIGIN,) for case in filled if case.op != "abs")


def test_shapes_come_from_files_of_both_kinds(model: Path, tmp_path: Path) -> None:
    assert {case.op for case in shapes_of(str(model))} >= {"matmul", "clip"}
    save_cases(_products(4), tmp_path / "s.json")
    assert [case.text for case in shapes_of(str(tmp_path / "s.json"))] == ["matmul(f32[4, 4], f32[4, 4])"]
    with pytest.raises(UsageError, match="neither a file nor a model of the zoo"):
        shapes_of("no-such-model")
    with pytest.raises(UsageError, match="no file"):
        shapes_of(str(tmp_path / "none.onnx"))


def test_the_command_writes_the_same_file_every_time(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.json", "b.json"):
        assert main(["--out", str(tmp_path / name), "--limit", "3", str(model)]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert {case.op for case in load_cases(tmp_path / "a.json")} == {case.op for case in written_cases()}
    assert "small.onnx: 6 cases of 6 ops" in capsys.readouterr().out


def test_the_command_says_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "a.json"), "no-such-model"]) == 2
    assert "neither a file nor a model" in capsys.readouterr().err


@pytest.mark.network
def test_a_model_with_loops_and_branches_is_harvested() -> None:
    cases = shapes_of("silero-vad")
    assert {"conv", "lstm", "pad", "sigmoid"} <= {case.op for case in cases}
    assert {case.origin for case in cases} == {("silero-vad",)}
