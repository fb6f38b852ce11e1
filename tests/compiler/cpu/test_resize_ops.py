"""Resize on the target cpu, against the target numpy: native in every layout that the compiler stores images in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import fusible
from fusible.errors import ExecutionError
from tests.tolerance import assert_outputs_close


def model(
    shape: list[Any], scales: list[float], before: bool = False, after: bool = False, **attributes: Any
) -> ModelProto:
    """Resize by constant scales, perhaps with a 1x1 convolution to 24 channels before or after it."""
    rng = np.random.default_rng(2)
    constants = {"scales": np.asarray(scales, np.float32)}
    nodes = []
    if before:
        constants["w"] = rng.standard_normal((24, shape[1], 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Conv", ["x", "w"], ["a"]))
    ends = "a" if before else "x", "b" if after else "y"
    nodes.append(helper.make_node("Resize", [ends[0], "", "scales"], [ends[1]], **attributes))
    if after:
        constants["v"] = rng.standard_normal((24, 24 if before else shape[1], 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Conv", ["b", "v"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def check(onnx: ModelProto, *shapes: tuple[int, ...], native: bool = True) -> None:
    """Compare for some shapes of x, with one thread and three."""
    oracle = fusible.compile(onnx, target="numpy")
    for threads in (1, 3):
        exe = fusible.compile(onnx, target="cpu", options=fusible.Options(threads=threads))
        calls = [s for s in exe.plan.steps if not getattr(s, "kernel", "").startswith("k")]
        assert bool(calls) is not native
        for shape in shapes:
            x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
            assert_outputs_close(exe.run({"x": x}), oracle.run({"x": x}))


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
@pytest.mark.parametrize(("before", "after"), [(False, False), (True, False), (False, True), (True, True)])
def test_between_convolutions(before: bool, after: bool, mode: str) -> None:
    onnx = model([2, 5, 40, 30], [1, 1, 1.7, 2.5], before, after, mode=mode)
    check(onnx, (2, 5, 40, 30))


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_sizes_known_at_the_call(mode: str) -> None:
    onnx = model(["n", 5, "h", "w"], [1, 1, 2, 0.5], True, True, mode=mode)
    check(onnx, (1, 5, 20, 31), (3, 5, 1, 2), (0, 5, 4, 4))


@pytest.mark.parametrize("shape", [[6, 20, 30], [2, 9, 11, 4, 3], [7, 12]])
def test_other_ranks(shape: list[int]) -> None:
    scales = [1.0] * len(shape)
    scales[1 if len(shape) > 2 else 0], scales[2 if len(shape) > 2 else 1] = 1.5, 0.8
    check(model(shape, scales, mode="linear", coordinate_transformation_mode="asymmetric"), tuple(shape))


def test_one_axis() -> None:
    check(model([3, 10, 8], [1, 2.5, 1], mode="linear"), (3, 10, 8))


def test_to_the_size_of_another() -> None:
    nodes = [
        helper.make_node("Shape", ["other"], ["size"]),
        helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="linear"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"]),
        helper.make_tensor_value_info("other", TensorProto.FLOAT, [1, 3, "a", "b"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "sizes", inputs, outputs)
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    exe = fusible.compile(onnx, target="cpu")
    assert all(getattr(s, "kernel", "").startswith("k") for s in exe.plan.steps)
    x, other = np.random.default_rng(0).random((1, 3, 9, 7), np.float32), np.zeros((1, 3, 13, 21), np.float32)
    feeds = {"x": x, "other": other}
    assert_outputs_close(exe.run(feeds), fusible.compile(onnx, target="numpy").run(feeds))


@pytest.mark.parametrize("attributes", [{"antialias": 1}, {"exclude_outside": 1}])
def test_refused(attributes: dict[str, Any]) -> None:
    check(model([1, 2, 9, 9], [1, 1, 0.5, 0.5], mode="cubic", **attributes), (1, 2, 9, 9), native=False)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_nothing_cannot_become_something(mode: str) -> None:
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode)],
        "empty",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, "h", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray([1, 2, 5, 8]), "sizes")],
    )
    exe = fusible.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), target="cpu")
    assert exe.run({"x": np.ones((1, 2, 3, 4), np.float32)})["y"].shape == (1, 2, 5, 8)
    with pytest.raises(ExecutionError):
        exe.run({"x": np.zeros((1, 2, 0, 4), np.float32)})
