"""Files that are no models, or models that contradict themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from tests.robustness.bounds import FLOAT, INT64, model, refused


def small() -> onnx.ModelProto:
    w = np.arange(12, dtype=np.float32).reshape(4, 3)
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm"), helper.make_node("Relu", ["y"], ["z"], name="relu")],
        {"x": (FLOAT, ["n", 4])},
        ["z"],
        {"w": w},
    )


def test_the_small_model_itself_is_fine() -> None:
    x = np.ones((2, 4), np.float32)
    (z,) = fusible.compile(small())(x)
    assert np.array_equal(z, x @ np.arange(12, dtype=np.float32).reshape(4, 3))


def test_missing_and_empty_files(tmp_path: Path) -> None:
    refused(lambda: fusible.compile(tmp_path / "none.onnx"), fusible.InvalidModel, "cannot be read")
    (tmp_path / "empty.onnx").write_bytes(b"")
    refused(lambda: fusible.compile(tmp_path / "empty.onnx"), fusible.InvalidModel, "is empty")
    refused(lambda: fusible.compile(b""), fusible.InvalidModel, "is empty")
    refused(lambda: fusible.compile(tmp_path), fusible.InvalidModel, "cannot be read")


def test_truncated_files() -> None:
    data = small().SerializeToString()
    for length in range(0, len(data), 7):
        try:
            fusible.compile(data[:length])
        except fusible.FusibleError:
            continue
        # A prefix may happen to be a whole message; then it must be a model of its own.


def test_other_files() -> None:
    for data in (b"\x00" * 100, b"PK\x03\x04" + b"x" * 50, b"{}", b"\xff" * 1000, bytes(range(256))):
        refused(lambda data=data: fusible.compile(data))


def test_model_bytes_limit() -> None:
    options = fusible.Options(limits=fusible.Limits(model_bytes=10))
    refused(lambda: fusible.compile(small().SerializeToString(), options=options), fusible.LimitExceeded, "model_bytes")


def test_wrong_inputs_of_a_run() -> None:
    exe = fusible.compile(small())
    x = np.ones((2, 4), np.float32)
    for bad, text in (
        ({}, "missing"),
        ({"x": x.astype(np.float64)}, "float64"),
        ({"x": x[0]}, "rank 2"),
        ({"x": np.ones((2, 5), np.float32)}, "dimension 1"),
        ({"x": x, "y": x}, "unknown name"),
        ({"x": None}, "NoneType"),
        ({"x": [1.0]}, "list"),
        ({"x": "text"}, "str"),
    ):
        assert text in refused(lambda bad=bad: exe.run(bad), fusible.SignatureError)
    refused(lambda: exe(x, x), fusible.UsageError, "takes 1 inputs")


def test_bounds_of_a_symbol() -> None:
    exe = fusible.compile(small(), shapes={"n": (2, 8)})
    exe(np.ones((2, 4), np.float32))
    refused(lambda: exe(np.ones((1, 4), np.float32)), fusible.BoundsError, "outside the bounds")
    refused(lambda: exe(np.ones((9, 4), np.float32)), fusible.BoundsError, "outside the bounds")
    refused(lambda: fusible.compile(small(), shapes={"q": 3}), fusible.UsageError, "'q'")
    refused(lambda: fusible.compile(small(), shapes={"n": -3}), fusible.UsageError, "'n'")
    refused(lambda: fusible.compile(small(), shapes={"x": (1, 5)}), fusible.UsageError, "fixed to 4")


def test_unknown_op_domain_and_opset() -> None:
    unknown = model([helper.make_node("Nonsense", ["x"], ["y"], name="node7")], {"x": (FLOAT, [1])}, ["y"])
    assert "node7" in refused(lambda: fusible.compile(unknown), fusible.UnsupportedOp, "Nonsense")
    foreign = model([helper.make_node("Op", ["x"], ["y"], domain="a.b")], {"x": (FLOAT, [1])}, ["y"])
    refused(lambda: fusible.compile(foreign), fusible.InvalidModel, "imports no opset")
    foreign.opset_import.append(helper.make_opsetid("a.b", 1))
    refused(lambda: fusible.compile(foreign), fusible.UnsupportedOp, "a.b")
    ancient = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1])}, ["y"], opset=0)
    refused(lambda: fusible.compile(ancient), fusible.InvalidModel, "opset 0")


def test_cycle_undefined_and_duplicate_names() -> None:
    add = [helper.make_node("Add", ["x", "b"], ["a"], name="one"), helper.make_node("Relu", ["a"], ["b"], name="two")]
    message = refused(lambda: fusible.compile(model(add, {"x": (FLOAT, [1])}, ["b"])), fusible.InvalidModel, "cycle")
    assert "one" in message and "two" in message
    lost = [helper.make_node("Add", ["x", "ghost"], ["a"], name="one")]
    refused(lambda: fusible.compile(model(lost, {"x": (FLOAT, [1])}, ["a"])), fusible.InvalidModel, "ghost")
    twice = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["a"])]
    refused(lambda: fusible.compile(model(twice, {"x": (FLOAT, [1])}, ["a"])), fusible.InvalidModel, "twice")
    shadow = [helper.make_node("Relu", ["x"], ["x"])]
    refused(lambda: fusible.compile(model(shadow, {"x": (FLOAT, [1])}, ["x"])), fusible.InvalidModel)
    nothing = model([helper.make_node("Relu", ["x"], ["a"])], {"x": (FLOAT, [1])}, ["b"])
    refused(lambda: fusible.compile(nothing), fusible.InvalidModel, "'b'")


@pytest.mark.parametrize("dims", [[-1, 3], [3, -(2**40)], [2**62, 2**62], [2**40], [0, -1]])
def test_initialisers_that_lie(dims: list[int]) -> None:
    bad = small()
    del bad.graph.initializer[0].dims[:]
    bad.graph.initializer[0].dims.extend(dims)
    refused(lambda: fusible.compile(bad))


def test_raw_data_and_float_data() -> None:
    bad = small()
    bad.graph.initializer[0].float_data.extend([1.0] * 12)
    refused(lambda: fusible.compile(bad), fusible.InvalidModel, "raw_data and float_data")
    bad.graph.initializer[0].ClearField("raw_data")
    bad.graph.initializer[0].int64_data.extend([1] * 12)
    refused(lambda: fusible.compile(bad), fusible.InvalidModel, "only one")


def test_negative_and_huge_input_dims() -> None:
    for dim in (-5, 2**62):
        bad = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [dim, 3])}, ["y"])
        refused(lambda bad=bad: fusible.compile(bad), fusible.InvalidModel, "out of range")


def test_wrong_dtypes_inside() -> None:
    node = [helper.make_node("Add", ["x", "i"], ["y"], name="mixed")]
    bad = model(node, {"x": (FLOAT, [1]), "i": (INT64, [1])}, ["y"])
    assert "mixed" in refused(lambda: fusible.compile(bad), fusible.InvalidModel)
    strings = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.STRING, [1])}, ["y"])
    refused(lambda: fusible.compile(strings), fusible.InvalidModel)
    numbered = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (99, [1])}, ["y"])
    refused(lambda: fusible.compile(numbered), fusible.InvalidModel, "no ONNX data type")


def test_shapes_that_do_not_fit() -> None:
    bad = model([helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": (FLOAT, [2, 5])}, ["y"],
                {"w": np.zeros((4, 3), np.float32)})  # fmt: skip
    assert "mm" in refused(lambda: fusible.compile(bad), fusible.InvalidModel)


def test_deep_nesting() -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["o0"])], "b", [], [onnx.ValueInfoProto(name="o0")])
    for level in range(1, 60):
        node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "b", [], [onnx.ValueInfoProto(name=f"o{level}")])
        if level > 9:
            break
    deep = helper.make_graph(
        list(inner.node),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [onnx.ValueInfoProto(name=inner.output[0].name)],
    )
    bad = helper.make_model(deep, opset_imports=[helper.make_opsetid("", 21)])
    options = fusible.Options(limits=fusible.Limits(depth=8))
    refused(lambda: fusible.compile(bad, options=options), fusible.LimitExceeded, "depth")
