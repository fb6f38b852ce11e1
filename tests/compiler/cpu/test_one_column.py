"""Products and convolutions with one output: sums for which nothing is packed, whatever is known of their sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import fusible
from tests.tolerance import assert_outputs_close

SIZES = ({"n": 2, "h": 9, "w": 21}, {"n": 1, "h": 1, "w": 1}, {"n": 3, "h": 40, "w": 37}, {"n": 0, "h": 8, "w": 8})


def model(op: str, shape: list[object], weights: tuple[int, ...], before: str, **attributes: Any) -> ModelProto:
    """before -> op with constant weights -> Sigmoid."""
    w = np.random.default_rng(1).standard_normal(weights) / np.sqrt(np.prod(weights))
    nodes = [
        helper.make_node(before, ["x"], ["a"]),
        helper.make_node(op, ["a", "w"], ["b"], **attributes),
        helper.make_node("Sigmoid", ["b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def check(onnx: ModelProto, shape: list[object]) -> fusible.Executable:
    """Compare with NumPy for several sizes; all steps must be native kernels."""
    exe = fusible.compile(onnx, target="cpu", options=fusible.Options(threads=2))
    assert not [step for step in exe.plan.steps if not getattr(step, "kernel", "").startswith("k")]
    oracle = fusible.compile(onnx, target="numpy")
    for sizes in SIZES:
        actual = [sizes.get(d, d) if isinstance(d, str) else d for d in shape]
        x = np.random.default_rng(2).standard_normal(actual).astype(np.float32)  # type: ignore[arg-type]
        assert_outputs_close(exe.run({"x": x}), oracle.run({"x": x}))
    return exe


IMAGES = [
    ((1, 40, 1, 1), ["n", 40, "h", "w"], {}),
    ((1, 40, 1, 1), [2, 40, 70, 60], {}),
    ((1, 40, 1, 1), ["n", 40, 1, 1], {}),
    ((1, 3, 1, 1), ["n", 3, 12, "w"], {"strides": [2, 2]}),
    ((1, 40, 3, 3), ["n", 40, "h", "w"], {"pads": [1, 1, 1, 1]}),
    ((1, 40, 3, 3), ["n", 40, 30, "w"], {"pads": [1, 0, 1, 2], "strides": [1, 2]}),
    ((1, 40, 3, 3), ["n", 40, 30, 9], {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ((1, 1, 5, 5), ["n", 1, "h", "w"], {"pads": [2, 2, 2, 2]}),
    ((1, 1, 3, 3), [2, 1, 50, 50], {}),
    ((1, 2, 1, 17), ["n", 2, "h", "w"], {"pads": [0, 8, 0, 8]}),
]


@pytest.mark.parametrize(("weights", "shape", "attributes"), IMAGES)
def test_convolutions_with_one_output_channel(
    weights: tuple[int, ...], shape: list[object], attributes: dict[str, Any]
) -> None:
    check(model("Conv", shape, weights, "Tanh", **attributes), shape)


@pytest.mark.parametrize("shape", [["n", 72], ["n", "h", 72], [700, 72], [1, 72]])
@pytest.mark.parametrize("weights", [(72,), (72, 1)])
def test_products_with_one_column(shape: list[object], weights: tuple[int, ...]) -> None:
    check(model("MatMul", shape, weights, "Tanh"), shape)


def test_what_is_read_once_is_computed_on_the_way() -> None:
    exe = check(model("Conv", ["n", 40, "h", "w"], (1, 40, 1, 1), "Tanh"), ["n", 40, "h", "w"])
    assert len(exe.plan.steps) == 1
    windows = check(model("Conv", [2, 40, 30, 9], (1, 40, 3, 3), "Tanh"), [2, 40, 30, 9])
    assert len(windows.plan.steps) == 2


def test_neighbours_become_channels_where_the_width_is_a_symbol() -> None:
    onnx = model("Conv", ["n", 40, "h", "w"], (1, 40, 3, 3), "Tanh", pads=[1, 1, 1, 1])
    exe = check(onnx, ["n", 40, "h", "w"])
    assert any("transpose" in row["kernel"] for row in exe.report.kernels)
    few = check(model("Conv", ["n", 1, "h", "w"], (1, 1, 3, 3), "Tanh", pads=[1, 1, 1, 1]), ["n", 1, "h", "w"])
    assert not any("transpose" in row["kernel"] for row in few.report.kernels)


def test_an_operand_that_is_the_second_result_of_a_fold() -> None:
    graph = helper.make_graph(
        [helper.make_node("ArgMax", ["x"], ["a"], axis=2, keepdims=0), helper.make_node("MatMul", ["a", "w"], ["y"])],
        "positions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 30, 20])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
        [numpy_helper.from_array(np.arange(30).reshape(30, 1), "w")],
    )
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    x = np.random.default_rng(3).standard_normal((4, 30, 20)).astype(np.float32)
    found, expected = (fusible.compile(onnx, target=target).run({"x": x})["y"] for target in ("cpu", "numpy"))
    assert np.array_equal(found, expected)
