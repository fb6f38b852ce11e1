"""A case and its text are one: what is printed parses back, equal work is one case, bad files say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusible.benchmarks.kernels.cases import BUILT_IN, Case, Operand, load_cases, merge_cases, parse_case, save_cases
from fusible.benchmarks.kernels.written import written_cases
from fusible.compiler.ir.ops import OPS
from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import InvalidModel, UsageError

CONV = "conv(f32[1, 3, 9, 9], const f32[4, 3, 3, 3], none) {strides=(2, 2)}"


def test_every_case_parses_back() -> None:
    for case in [*load_cases(BUILT_IN), *written_cases()]:
        assert parse_case(case.text, case.origin) == case


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=2),
    st.booleans(),
    st.sampled_from([d for d in DType if d is not DType.STRING]),
)
def test_operands_of_every_kind_parse_back(shapes: list[list[int]], constant: bool, dtype: DType) -> None:
    types = [TensorType(dtype, tuple(s)) for s in shapes]
    case = Case("concat", tuple(Operand(t, constant) for t in types), OPS["concat"].attrs(axis=1))
    assert parse_case(case.text) == case


@pytest.mark.parametrize("array", [np.float32([0.1, np.nan, -np.inf]), np.array(["a, b]", '"'], object), np.int8(-3)])
def test_elements_come_back_to_the_bit(array: np.ndarray) -> None:
    array = np.asarray(array)
    operand = Operand.of(array, TensorType(DType.of(array.dtype), array.shape))
    back = parse_case(f"max({operand.text})").operands[0]
    assert back is not None
    assert back.array is not None
    assert back.array.dtype == array.dtype
    assert back.array.tobytes() == array.tobytes() if array.dtype != object else list(back.array) == list(array)


def test_a_case_says_what_chose_the_work() -> None:
    case = parse_case("clip(f32[1, 8], const f32[] = [0.0], f32[] = [6.0])")
    assert case.signature == "f32[1, 8], f32[], f32[]"
    assert case.choice == "x1 const = [0.0], x2 = [6.0]"
    assert parse_case(CONV).choice == "strides=(2, 2), x1 const"
    assert parse_case("split(f32[4, 6]) {axis=1, split=(3, 3)} -> 2").choice == "axis=1, split=(3, 3), 2 results"


def test_a_default_that_is_written_out_is_the_same_case() -> None:
    assert parse_case("softmax(f32[2, 3]) {axis=-1}").text == "softmax(f32[2, 3])"


def test_the_graph_of_a_case() -> None:
    case = parse_case(CONV)
    graph = case.graph([np.ones((1, 3, 9, 9), np.float32), np.ones((4, 3, 3, 3), np.float32), None])
    (node,) = graph
    assert [v.name for v in graph.inputs] == ["x0"]
    assert node.inputs[1] is not None
    assert node.inputs[1].constant is not None
    assert str(graph.outputs[0].type) == "f32[1, 4, 4, 4]"


def test_equal_cases_are_one_and_keep_both_origins() -> None:
    merged = merge_cases([parse_case(CONV, ["b"]), parse_case("abs(f32[3])", ["a"]), parse_case(CONV, ["a", "b"])])
    assert [(c.op, c.origin) for c in merged] == [("abs", ("a",)), ("conv", ("a", "b"))]


def test_a_file_of_shapes_reads_back_and_is_the_same_every_time(tmp_path: Path) -> None:
    cases = merge_cases(written_cases())
    save_cases(reversed(cases), tmp_path / "a.json")
    save_cases(cases, tmp_path / "b.json")
    assert load_cases(tmp_path / "a.json") == cases
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_built_in_file_is_as_it_would_be_written(tmp_path: Path) -> None:
    cases = load_cases(BUILT_IN)
    assert len(cases) >= 200
    save_cases(cases, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == BUILT_IN.read_text()


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("nonsense(f32[3])", UsageError, "no op 'nonsense'"),
        ("abs(f32[3]", InvalidModel, "column"),
        ("abs(q9[3])", InvalidModel, "'q9' is no element type"),
        ("abs(f32[n])", InvalidModel, "column"),
        ("abs(f32[3] = [1.0])", InvalidModel, "needs 3 elements, got 1"),
        ("abs(f32[3]) {slope=1}", UsageError, "slope"),
        ("softmax(f32[3]) {axis=0.5}", UsageError, "axis"),
        ("abs(f32[3]) more", InvalidModel, "unexpected"),
    ],
)
def test_malformed_cases(text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse_case(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "no file of shapes"),
        (json.dumps({"schema": 9, "cases": []}), "no file of shapes"),
        (json.dumps({"schema": 1, "cases": [3]}), "case 1 must be"),
        (json.dumps({"schema": 1, "cases": [{"case": "abs(", "origin": []}]}), "case 1 is malformed"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_cases(tmp_path / "f.json")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_cases(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot be written"):
        save_cases([], tmp_path / "none" / "f.json")
