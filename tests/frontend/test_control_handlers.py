"""Branches that contradict the types they capture: they fail when they are taken, and only then."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import fusible
from fusible.compiler.frontend.export import export_onnx
from fusible.compiler.ir.parse import parse_graph
from fusible.compiler.ir.text import print_graph
from fusible.compiler.ir.verify import verify
from fusible.errors import ExecutionError, InvalidModel, UnsupportedOp
from tests.frontend.imported import expected, imported, model_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)
FLAGS = {True: np.asarray(True), False: np.asarray(False)}


def branch(name: str, shape: str, source: str = "x") -> onnx.GraphProto:
    nodes = [
        helper.make_node("Reshape", [source, shape], [f"{name}_r"], name=f"{name}_reshape"),
        helper.make_node("Neg", [f"{name}_r"], [f"{name}_y"], name=f"{name}_neg"),
    ]
    return helper.make_graph(nodes, name, [], [onnx.ValueInfoProto(name=f"{name}_y")])


def model(then: onnx.GraphProto, otherwise: onnx.GraphProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("If", ["flag"], ["c"], name="choose", then_branch=then, else_branch=otherwise),
        helper.make_node("Abs", ["c"], ["y"], name="abs"),
    ]
    constants = {"good": np.asarray([3, 2], np.int64), "bad": np.asarray([7, 5], np.int64)}
    return model_of(nodes, {"x": X, "flag": FLAGS[True]}, ["y"], constants)


@pytest.mark.parametrize("good_flag", [True, False])
def test_the_sound_branch_runs_and_the_other_fails_when_it_is_taken(good_flag: bool, tmp_path) -> None:
    good, bad = branch("good_branch", "good"), branch("bad_branch", "bad")
    mixed = model(good, bad) if good_flag else model(bad, good)
    exe = fusible.compile(mixed, options=fusible.Options(verify="passes"), target="numpy")
    exe.save(tmp_path / "mixed.fusible")
    for runs in (exe, fusible.load(tmp_path / "mixed.fusible")):
        got = runs.run({"x": X, "flag": FLAGS[good_flag]})["y"]
        np.testing.assert_array_equal(got, expected(model(good, good), {"x": X, "flag": FLAGS[True]})[0])
        with pytest.raises(ExecutionError, match=r"'bad_branch_reshape'.*7"):
            runs.run({"x": X, "flag": FLAGS[not good_flag]})
    (note,) = [n for n in exe.report.notes if "branch" in n]
    assert "'choose' cannot run with these shapes" in note
    assert "'bad_branch_reshape'" in note


def test_the_graph_verifies_prints_and_parses_and_is_not_exported() -> None:
    graph = imported(model(branch("good_branch", "good"), branch("bad_branch", "bad")))
    verify(graph)
    text = print_graph(graph)
    assert "fail()" in text
    assert print_graph(parse_graph(text)) == text
    assert str(graph.outputs[0].type) == "f32[3, 2]"
    with pytest.raises(UnsupportedOp, match="contradicts"):
        export_onnx(graph)


def test_two_branches_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(InvalidModel, match="'one_reshape'"):
        fusible.compile(model(branch("one", "bad"), branch("two", "bad")), target="numpy")


def test_a_branch_that_breaks_the_standard_is_refused_even_if_it_may_not_be_taken() -> None:
    with pytest.raises(InvalidModel, match="'nowhere'"):
        fusible.compile(model(branch("one", "good"), branch("two", "good", source="nowhere")), target="numpy")


def test_a_known_condition_that_takes_the_bad_branch_is_refused() -> None:
    made = model(branch("one", "good"), branch("two", "bad"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(FLAGS[False], "flag"))
    with pytest.raises(InvalidModel, match="'two_reshape'"):
        fusible.compile(made, target="numpy")
