"""Results that are put together from pieces: one kernel and one run of the pool, whatever the number of threads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from tests.tolerance import assert_outputs_close


def shuffle(channels: int, height: int, width: int, groups: int) -> onnx.ModelProto:
    """Two inputs joined along their channels, which are then interleaved."""
    node = helper.make_node
    whole = 2 * channels
    shapes = {
        "apart": [1, groups, whole // groups, height, width],
        "together": [1, whole, height, width],
    }
    constants = [helper.make_tensor(n, TensorProto.INT64, [len(s)], s) for n, s in shapes.items()]
    nodes = [
        node("Relu", ["a"], ["positive"]),
        node("Concat", ["positive", "b"], ["joined"], axis=1),
        node("Reshape", ["joined", "apart"], ["grouped"]),
        node("Transpose", ["grouped"], ["turned"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["turned", "together"], ["y"]),
    ]
    operands = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, channels, height, width]) for n in "ab"]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "shuffle", operands, [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "size", [(58, 28, 28, 2), (116, 14, 14, 2), (6, 40, 41, 4), (2, 1, 1, 2), (33, 19, 3, 2)], ids=str
)
def test_a_shuffle_of_channels(size: tuple[int, int, int, int], threads: int) -> None:
    model = shuffle(*size)
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
    assert len(exe.report.kernels) == 1
    random = np.random.default_rng(sum(size))
    feed = {n: random.standard_normal((1, *size[:3])).astype(np.float32) for n in "ab"}
    assert_outputs_close(exe.run(feed), fusible.compile(model, target="numpy").run(feed))


def convolved_shuffle() -> onnx.ModelProto:
    """A shuffle of images that lie channels last, as a network has it."""
    model = shuffle(48, 20, 20, 2)
    weights = np.random.default_rng(1).standard_normal((48, 48, 1, 1)).astype(np.float32) / 7
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    for n in "ab":
        model.graph.node.insert(0, helper.make_node("Conv", [n, "w"], [f"{n}_conv"]))
    for node in list(model.graph.node)[2:4]:
        node.input[:] = [f"{i}_conv" if i in ("a", "b") else i for i in node.input]
    return model


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_shuffle_channels_last(threads: int) -> None:
    model = convolved_shuffle()
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
    random = np.random.default_rng(5)
    feed = {n: random.standard_normal((1, 48, 20, 20)).astype(np.float32) for n in "ab"}
    assert_outputs_close(exe.run(feed), fusible.compile(model, target="numpy").run(feed))


@pytest.mark.parametrize("points", [1, 15, 17, 8192, 40007])
def test_points_of_one_axis_are_cut_anywhere(points: int) -> None:
    node = helper.make_node("Sigmoid", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [points]) for n in "xy")
    model = helper.make_model(helper.make_graph([node], "line", [x], [y]), opset_imports=[helper.make_opsetid("", 20)])
    feed = {"x": np.linspace(-4, 4, points, dtype=np.float32)}
    for threads in (1, 3):
        exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
        assert_outputs_close(exe.run(feed), fusible.compile(model, target="numpy").run(feed))


@pytest.mark.parametrize("size", [13, 14])
def test_rows_that_lie_apart_read_their_weights_once(size: int) -> None:
    """A strided 1x1 convolution is one of a single image, not a product for each of its rows."""
    weights = np.random.default_rng(2).standard_normal((72, 40, 1, 1)).astype(np.float32) / 6
    nodes = [
        helper.make_node("MaxPool", ["x"], ["r"], kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Conv", ["r", "w"], ["c"], strides=[2, 2]),
        helper.make_node("Sigmoid", ["c"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 40, size, size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "strided", [x], [y], [onnx.numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=2))
    text = "".join(exe.sources.values())
    assert "convolution_item(" in text and "gemm_item(" not in text
    feed = {"x": np.random.default_rng(3).standard_normal((1, 40, size, size)).astype(np.float32)}
    assert_outputs_close(exe.run(feed), fusible.compile(model, target="numpy").run(feed))
