"""Tiny models that ask for petabytes, run for ever, or carry code in their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from tests.robustness.bounds import BOOL, FLOAT, INT64, bounded, model, refused

HUGE = 2**50


def i64(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def _node(op: str, *inputs: str, **attributes: Any) -> list[onnx.NodeProto]:
    return [helper.make_node(op, list(inputs), ["y"], name="greedy", **attributes)]


CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    "constant-of-shape": (_node("ConstantOfShape", "n"), {"n": i64(HUGE)}),
    "expand": (_node("Expand", "x", "n"), {"n": i64(HUGE, 1)}),
    "tile": (_node("Tile", "x", "n"), {"n": i64(HUGE)}),
    "range": (_node("Range", "a", "n", "d"), {"a": np.int64(0), "n": np.int64(HUGE), "d": np.int64(1)}),
    "pad": (_node("Pad", "x", "n"), {"n": i64(0, HUGE)}),
    "resize": (_node("Resize", "x", "", "", "n", mode="nearest"), {"n": i64(HUGE)}),
    "resize-scales": (_node("Resize", "x", "", "n", mode="nearest"), {"n": np.asarray([1e15], np.float32)}),
    "one-hot": (_node("OneHot", "i", "d", "v"), {"i": i64(0), "d": np.int64(HUGE), "v": np.zeros(2, np.float32)}),
    "eye": (_node("EyeLike", "e"), {}),
    "overflow": (_node("ConstantOfShape", "n"), {"n": i64(2**32, 2**32, 2**32)}),
    "negative": (_node("ConstantOfShape", "n"), {"n": i64(-1)}),
}


@pytest.mark.parametrize("name", CASES)
def test_petabytes_from_constants(name: str) -> None:
    nodes, constants = CASES[name]
    inputs: dict[str, tuple[int, Any]] = {"x": (FLOAT, [1])}
    if name == "eye":
        inputs["e"] = (FLOAT, [2**30, 2**30])
    bad = model(nodes, inputs, ["y"], constants)
    refused(lambda: fusible.compile(bad, target="numpy"))


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("eye", "overflow")])
def test_petabytes_from_inputs(name: str) -> None:
    """The same sizes as run-time inputs: refused when they arrive."""
    nodes, constants = CASES[name]
    types = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}
    inputs: dict[str, tuple[int, Any]] = {"x": (FLOAT, [1])}
    inputs |= {k: (types[v.dtype], list(v.shape)) for k, v in constants.items()}
    exe = None
    try:
        exe = fusible.compile(model(nodes, inputs, ["y"]), target="numpy")
    except fusible.FusibleError:
        return
    given = {"x": np.zeros(1, np.float32), **constants}
    refused(lambda: exe.run({s.name: given[s.name] for s in exe.inputs}))


def test_petabytes_by_doubling() -> None:
    nodes, name = [], "x"
    for level in range(60):
        nodes.append(helper.make_node("Concat", [name, name], [f"d{level}"], axis=0, name=f"double{level}"))
        name = f"d{level}"
    doubled = model(nodes, {"x": (FLOAT, [1024])}, [name])
    refused(lambda: fusible.compile(doubled, target="numpy"), fusible.LimitExceeded)


def _endless(condition: str, trip: str) -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "one"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [1]),
        ],
        [onnx.ValueInfoProto(name="c2"), onnx.ValueInfoProto(name="v2")],
    )
    node = helper.make_node("Loop", [trip, condition, "x"], ["y"], body=body, name="endless")
    constants = {"yes": np.asarray(True), "one": np.ones(1, np.float32), "many": np.asarray(2**62, np.int64)}
    return model([node], {"x": (FLOAT, [1])}, ["y"], constants)


@pytest.mark.parametrize(("condition", "trip"), [("yes", ""), ("", ""), ("yes", "many"), ("", "many")])
def test_a_loop_that_never_ends(condition: str, trip: str) -> None:
    def act() -> None:
        fusible.compile(_endless(condition, trip), target="numpy")(np.zeros(1, np.float32))

    assert "endless" in refused(act, fusible.LimitExceeded, "unbounded_iterations")


EVIL = '"""\nimport os; os.system("touch OWNED")\n"""; x = __import__("os") #\n\' \\ {x!r} \x00 \u2028'


def test_names_that_are_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = EVIL.replace("\x00", "")
    bad = model(
        [
            helper.make_node("Relu", [evil + "in"], [evil + "mid"], name=evil),
            helper.make_node("MatMul", [evil + "mid", evil + "w"], [evil + "out"], name=evil + "2"),
        ],
        {evil + "in": (FLOAT, [evil, 2])},
        [evil + "out"],
        {evil + "w": np.eye(2, dtype=np.float32)},
    )
    bad.graph.name = evil
    with bounded():
        exe = fusible.compile(bad, options=fusible.Options(verify="passes"), target="numpy")
        (y,) = exe(np.asarray([[1.0, -1.0]], np.float32))
        exe.save(tmp_path / "evil.fusible")
        (again,) = fusible.load(tmp_path / "evil.fusible")(np.asarray([[1.0, -1.0]], np.float32))
        exe.report.to_html(tmp_path / "report.html")
    assert np.array_equal(y, [[1.0, 0.0]]) and np.array_equal(again, y)
    assert not (tmp_path / "OWNED").exists()
    assert exe.outputs[0].name == evil + "out"
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_many_nodes_limit() -> None:
    nodes = [helper.make_node("Relu", ["x" if n == 0 else f"v{n - 1}"], [f"v{n}"]) for n in range(200)]
    options = fusible.Options(limits=fusible.Limits(nodes=100))
    bad = model(nodes, {"x": (FLOAT, [1])}, ["v199"])
    refused(lambda: fusible.compile(bad, options=options, target="numpy"), fusible.LimitExceeded, "nodes")


def test_recursive_functions() -> None:
    call = helper.make_node("F", ["a"], ["b"], domain="me", name="again")
    function = helper.make_function("me", "F", ["a"], ["b"], [call], [helper.make_opsetid("me", 1)])
    bad = model([helper.make_node("F", ["x"], ["y"], domain="me")], {"x": (FLOAT, [1])}, ["y"])
    bad.opset_import.append(helper.make_opsetid("me", 1))
    bad.functions.append(function)
    refused(lambda: fusible.compile(bad, target="numpy"), fusible.InvalidModel, "calls itself: me::F -> me::F")


def test_exponential_functions() -> None:
    """Thirty functions, each calling the one before twice: a billion nodes if inlined."""
    functions = []
    for level in range(30):
        below = "Base" if level == 0 else f"F{level - 1}"
        nodes = [helper.make_node(below, ["a"], ["m"], domain="me"), helper.make_node(below, ["m"], ["b"], domain="me")]
        functions.append(helper.make_function("me", f"F{level}", ["a"], ["b"], nodes, [helper.make_opsetid("me", 1)]))
    opsets = [helper.make_opsetid("", 21)]
    functions.append(helper.make_function("me", "Base", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets))
    bad = model([helper.make_node("F29", ["x"], ["y"], domain="me")], {"x": (FLOAT, [1])}, ["y"])
    bad.opset_import.append(helper.make_opsetid("me", 1))
    bad.functions.extend(functions)
    refused(lambda: fusible.compile(bad, target="numpy"), fusible.LimitExceeded, "nodes")


def test_rank_limit() -> None:
    bad = model(_node("Reshape", "x", "n"), {"x": (FLOAT, [1])}, ["y"], {"n": np.ones(100, np.int64)})
    refused(lambda: fusible.compile(bad, target="numpy"))


def test_a_string_tensor_as_weights() -> None:
    bad = model(_node("Relu", "w"), {"x": (FLOAT, [1])}, ["y"])
    bad.graph.initializer.append(
        onnx.TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], raw_data=b"12345678")
    )
    refused(lambda: fusible.compile(bad, target="numpy"))
