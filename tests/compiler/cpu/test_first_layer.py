"""A model's image comes channels first: convolutions of few channels read its planes, others get a copy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from tests.tolerance import assert_outputs_close


def first_layer(image: list[int | str], outputs: int, kernel: tuple[int, int], **attrs: Any) -> onnx.ModelProto:
    """conv -> bias -> relu of the model's input."""
    random = np.random.default_rng(5)
    channels = image[1]
    assert isinstance(channels, int)
    shape = (outputs, channels // attrs.get("group", 1), *kernel)
    w = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    weights = {"w": w.astype(np.float32), "b": random.standard_normal(outputs).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], **attrs), helper.make_node("Relu", ["c"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "first",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


# The last is how many kernels there are; results of many channels and pixels are copied into planes by one.
CASES = (
    ([2, 3, 19, 23], 32, (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 2),
    (["n", 3, 32, 31], 24, (7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}, 2),
    (["n", 4, "h", "w"], 17, (2, 5), {"pads": [0, 2, 1, 2]}, 2),
    ([1, 3, 5, 9], 8, (5, 9), {}, 1),  # a single window
    ([1, 2, 3, 16], 8, (3, 3), {"group": 2, "pads": [0, 1, 0, 1]}, 3),
    ([1, 5, 12, 12], 8, (3, 3), {}, 3),
    ([1, 3, 12, 12], 8, (1, 1), {}, 3),
)


@pytest.mark.parametrize(("image", "outputs", "kernel", "attrs", "kernels"), CASES, ids=str)
def test_first_layer(
    image: list[int | str], outputs: int, kernel: tuple[int, int], attrs: dict[str, Any], kernels: int
) -> None:
    model = first_layer(image, outputs, kernel, **attrs)
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=2))
    assert exe.report.host == () and len(exe.report.kernels) == kernels
    sizes = {"n": 2, "h": 13, "w": 22}
    x = np.random.default_rng(6).standard_normal([sizes.get(d, d) for d in image]).astype(np.float32)  # type: ignore[call-overload]
    assert_outputs_close(exe.run({"x": x}), fusible.compile(model, target="numpy").run({"x": x}))


def test_an_image_that_comes_channels_last_is_read_where_it_lies() -> None:
    model = first_layer([1, 3, 20, 22], 8, (3, 3))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 20, 22, 3]))
    model.graph.node[0].input[0] = "turned"
    model.graph.node.insert(0, helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]))
    exe = fusible.compile(model, target="cpu")
    assert exe.report.host == ()
    assert [row["kernel"] for row in exe.report.kernels] == ["k000_transpose_conv_relu", "k001_identity"]
    x = np.random.default_rng(6).standard_normal((1, 20, 22, 3)).astype(np.float32)
    assert_outputs_close(exe.run({"x": x}), fusible.compile(model, target="numpy").run({"x": x}))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5)])
@pytest.mark.parametrize("threads", [1, 2])
def test_transformed_tiles_are_those_of_the_run(kernel: tuple[int, int], threads: int) -> None:
    """Items of one block share its tiles in scratch memory, where the next run finds those of another image."""
    model = first_layer([2, 64, 16, 16], 256, kernel, pads=[kernel[0] // 2, kernel[1] // 2] * 2)
    session = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads)).session()
    reference = fusible.compile(model, target="numpy")
    for seed in range(3):
        feed = {"x": np.random.default_rng(seed).standard_normal((2, 64, 16, 16), np.float32)}
        assert_outputs_close(session.run(feed), reference.run(feed))


@pytest.mark.parametrize("threads", [1, 3])
def test_heights_known_only_at_the_call(threads: int) -> None:
    """Planes, then channels by themselves; a height that leaves no rows has no items. Rows are shared by threads."""
    rng = np.random.default_rng(9)
    weights = {"w": rng.standard_normal((16, 3, 2, 2)), "d": rng.standard_normal((16, 1, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[3, 3]),
        helper.make_node("Conv", ["c", "d"], ["y"], group=16, pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "symbolic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
    reference = fusible.compile(model, target="numpy")
    for height in (31, 2, 4, 1, 0):
        feed = {"x": rng.standard_normal((1, 3, height, 20), np.float32)}
        assert_outputs_close(exe.run(feed), reference.run(feed))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("crop", [1, 3, 6])
def test_a_cropped_image(crop: int, kernel: int, precision: Literal["fp32", "bf16"]) -> None:
    """A crop that is drawn into the convolution is padding below zero."""
    model = first_layer([2, 3, 14, 37], 24, (kernel, kernel), strides=[2, 1])
    starts, ends, axes = (
        numpy_helper.from_array(np.array(v, np.int64), n)
        for n, v in (("starts", [crop, crop]), ("ends", [1000, 1000]), ("axes", [2, 3]))
    )
    model.graph.initializer.extend([starts, ends, axes])
    model.graph.node[0].input[0] = "cropped"
    model.graph.node.insert(0, helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["cropped"]))
    x = np.random.default_rng(7).standard_normal((2, 3, 14, 37)).astype(np.float32)
    wanted = fusible.compile(model, target="numpy").run({"x": x})["y"]
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=2, precision=precision))
    np.testing.assert_allclose(exe.run({"x": x})["y"], wanted, rtol=0, atol=1e-5 if precision == "fp32" else 0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_width_without_windows(precision: Literal["fp32", "bf16"]) -> None:
    model = first_layer(["n", 3, "h", "w"], 16, (2, 2), strides=[3, 3])
    exe = fusible.compile(model, target="cpu", options=fusible.Options(precision=precision))
    for size in ((1, 3, 8, 1), (1, 3, 1, 8), (1, 3, 8, 8), (0, 3, 8, 8)):
        x = np.ones(size, np.float32)
        assert exe.run({"x": x})["y"].shape == fusible.compile(model, target="numpy").run({"x": x})["y"].shape
