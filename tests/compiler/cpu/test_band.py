"""1x1 convolutions that compute what they read, by bands of depthwise or element-wise stages, against target numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from tests.tolerance import assert_outputs_close


@dataclass(frozen=True)
class Block:
    """x [n, channels, h, w] -> depthwise kxk -> clip -> 1x1 -> (+ x)."""

    images: int | str
    channels: int
    height: int | str
    width: int | str
    outputs: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    residual: bool = False

    def model(self) -> onnx.ModelProto:
        """The ONNX model, with a 1x1 convolution ahead so that images are stored channels last."""
        rng = np.random.default_rng(1)
        pad = self.dilation * (self.kernel // 2)
        weights = {
            "we": rng.standard_normal((self.channels, self.channels, 1, 1)) / np.sqrt(self.channels),
            "wd": rng.standard_normal((self.channels, 1, self.kernel, self.kernel)) / self.kernel,
            "bd": rng.standard_normal(self.channels),
            "wp": rng.standard_normal((self.outputs, self.channels, 1, 1)) / np.sqrt(self.channels),
            "bp": rng.standard_normal(self.outputs),
            "low": np.array(0.0),
            "high": np.array(6.0),
        }
        sizes = {"strides": [self.stride] * 2, "dilations": [self.dilation] * 2, "pads": [pad] * 4}
        nodes = [
            helper.make_node("Conv", ["x", "we"], ["e"]),
            helper.make_node("Conv", ["e", "wd", "bd"], ["d"], group=self.channels, **sizes),
            helper.make_node("Clip", ["d", "low", "high"], ["c"]),
            helper.make_node("Conv", ["c", "wp", "bp"], ["p"]),
            helper.make_node("Add", ["p", "e"], ["y"]) if self.residual else helper.make_node("Relu", ["p"], ["y"]),
        ]
        shape = [self.images, self.channels, self.height, self.width]
        return model_of(nodes, weights, shape)


def model_of(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int | str]) -> onnx.ModelProto:
    """A model from x to y."""
    constants = [numpy_helper.from_array(np.asarray(w, np.float32), n) for n, w in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "band", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def assert_one_band(model: onnx.ModelProto, chain: str, *shapes: tuple[int, ...]) -> None:
    """The chain is one kernel, its numbers are those of the target numpy, and threads change no bit."""
    one, two = (fusible.compile(model, target="cpu", options=fusible.Options(threads=n)) for n in (1, 2))
    assert any(chain in row["kernel"] for row in one.report.kernels), [row["kernel"] for row in one.report.kernels]
    assert one.report.host == ()
    reference = fusible.compile(model, target="numpy")
    for shape in shapes:
        feed = {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}
        got = one.run(feed)
        assert_outputs_close(got, reference.run(feed))
        np.testing.assert_array_equal(two.run(feed)["y"], got["y"])


BLOCKS = [
    Block(1, 24, 7, 7, 40),
    Block(2, 16, 9, 11, 16, residual=True),
    Block(1, 13, 10, 8, 5, stride=2),
    Block(1, 96, 30, 29, 24, kernel=5),
    Block(1, 32, 12, 33, 64, kernel=5, stride=2),
    Block(1, 17, 8, 9, 33, dilation=2),
    Block(3, 8, 1, 1, 8),
    Block(1, 1024, 3, 4, 20),
    Block(1, 40, 3, 61, 24),  # three rows for two threads: cut into pieces
    Block(3, 16, 1, 50, 24, kernel=5),
    Block(1, 20, 9, 97, 16, kernel=3, stride=3),
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_depthwise_and_pointwise(block: Block) -> None:
    assert all(isinstance(d, int) for d in (block.images, block.height, block.width))
    shape = (int(block.images), block.channels, int(block.height), int(block.width))
    assert_one_band(block.model(), "conv_clip_conv", shape)


def test_sizes_known_only_at_the_call() -> None:
    block = Block("n", 16, "h", "w", 16, residual=True)
    assert_one_band(block.model(), "conv_clip_conv", (1, 16, 9, 5), (2, 16, 64, 48), (1, 16, 1, 1))


def normalised(scale_by_image: bool) -> onnx.ModelProto:
    """x -> 1x1 -> relu -> (two readers) -> scale, shift, sigmoid -> 1x1 -> relu, times the mean of the image."""
    rng = np.random.default_rng(3)
    weights = {
        "we": rng.standard_normal((20, 12, 1, 1)) / 4,
        "scale": rng.standard_normal((1, 20, 1, 1)),
        "shift": rng.standard_normal((1, 20, 1, 1)),
        "wp": rng.standard_normal((28, 20, 1, 1)) / 4,
    }
    nodes = [
        helper.make_node("Conv", ["x", "we"], ["e"]),
        helper.make_node("Relu", ["e"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["mean"]),
        helper.make_node("Mul", ["r", "mean" if scale_by_image else "scale"], ["m"]),
        helper.make_node("Add", ["m", "shift"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Conv", ["s", "wp"], ["p"]),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("ReduceMax", ["mean"], ["most"], keepdims=1),
        helper.make_node("Mul", ["q", "most"], ["y"]),
    ]
    return model_of(nodes, weights, [2, 12, 13, 9])


@pytest.mark.parametrize("scale_by_image", [False, True])
def test_element_wise_and_pointwise(scale_by_image: bool) -> None:
    assert_one_band(normalised(scale_by_image), "mul_add_sigmoid_conv", (2, 12, 13, 9))


@pytest.mark.parametrize("pads", [[0, 0, 0, 2], [0, 0, 1, 0], [1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("size", [9, 72])
def test_a_pointwise_convolution_that_pads_reads_what_is_there(pads: list[int], size: int) -> None:
    """Of 72 x 72 pixels it follows the depthwise one as a chain of three would, of 9 x 9 as a band."""
    model = Inverted(1, 8, size, size, 64).model()
    (last,) = (n for n in model.graph.node if n.output[0] == "p")
    last.attribute.append(helper.make_attribute("pads", pads))
    feed = {"x": np.random.default_rng(2).standard_normal((1, 8, size, size)).astype(np.float32)}
    wanted = fusible.compile(model, target="numpy").run(feed)
    for threads in (1, 2):
        exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
        assert_outputs_close(exe.run(feed), wanted)


@dataclass(frozen=True)
class Inverted:
    """x [n, channels, h, w] -> kxk -> clip -> depthwise -> clip -> 1x1 (+ x); between them over a megabyte.

    images, height, width: numbers or names. planes: the first convolution reads the model's input, channels first.
    """

    images: int | str
    channels: int
    height: int | str
    width: int | str
    wide: int
    first: int = 1
    first_stride: int = 1
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    project: bool = True
    residual: bool = False
    planes: bool = False

    def model(self) -> onnx.ModelProto:
        """The ONNX model."""
        rng = np.random.default_rng(5)
        taps = self.channels * self.first**2
        weights = {
            "w0": rng.standard_normal((self.channels, self.channels, 1, 1)) / np.sqrt(self.channels),
            "we": rng.standard_normal((self.wide, self.channels, self.first, self.first)) / np.sqrt(taps),
            "be": rng.standard_normal(self.wide),
            "wd": rng.standard_normal((self.wide, 1, self.kernel, self.kernel)) / self.kernel,
            "wp": rng.standard_normal((self.channels, self.wide, 1, 1)) / np.sqrt(self.wide),
            "bp": rng.standard_normal(self.channels),
            "low": np.array(0.0),
            "high": np.array(6.0),
        }
        pad = self.dilation * (self.kernel // 2)
        deep = {"strides": [self.stride] * 2, "dilations": [self.dilation] * 2, "pads": [pad, pad, pad, pad]}
        node = helper.make_node
        nodes = [
            node("Conv", ["x", "w0"], ["r"]),
            node("Conv", ["r", "we", "be"], ["e"], pads=[self.first // 2] * 4, strides=[self.first_stride] * 2),
            node("Clip", ["e", "low", "high"], ["ec"]),
            node("Conv", ["ec", "wd"], ["d"], group=self.wide, **deep),
            node("Clip", ["d", "low", "high"], ["dc"]),
        ]
        if self.project:
            nodes.append(node("Conv", ["dc", "wp", "bp"], ["p"]))
            nodes.append(node("Add", ["p", "r"], ["y"]) if self.residual else node("Sigmoid", ["p"], ["y"]))
        else:
            nodes += [node("GlobalAveragePool", ["dc"], ["mean"]), node("Mul", ["dc", "mean"], ["y"])]
        if self.planes:
            del nodes[0], weights["w0"]
            nodes[0].input[0] = "x"
        return model_of(nodes, weights, [self.images, self.channels, self.height, self.width])


INVERTED = [
    Inverted(1, 16, 72, 70, 96, residual=True),
    Inverted(2, 8, 64, 65, 72, stride=2),
    Inverted(1, 5, 120, 90, 26, kernel=5, residual=True),
    Inverted(1, 12, 140, 130, 64, first=3, first_stride=2, kernel=5, stride=2),
    Inverted(1, 8, 64, 66, 72, dilation=2),
    Inverted(1, 6, 200, 9, 160, project=False),
    Inverted(1, 4, 3, 1100, 96, project=False, stride=2),
    Inverted(1, 3, 140, 130, 64, first=3, first_stride=2, planes=True),
    Inverted(2, 4, 71, 72, 56, first=5, kernel=5, stride=2, planes=True),
    Inverted(2, 2, 66, 80, 72, first=3, dilation=2, project=False, planes=True),
    Inverted(1, 3, 9, 1100, 32, first=3, stride=2, planes=True),
    Inverted(1, 4, 700, 7, 56, first=3, planes=True),
]


@pytest.mark.parametrize("block", INVERTED, ids=str)
def test_inverted_residual(block: Inverted) -> None:
    chain = "conv_clip_conv_clip_conv" if block.project else "conv_clip_conv_clip"
    assert all(isinstance(d, int) for d in (block.images, block.height, block.width))
    assert_one_band(block.model(), chain, (int(block.images), block.channels, int(block.height), int(block.width)))


@pytest.mark.parametrize("planes", [False, True])
def test_inverted_residual_of_sizes_known_only_at_the_call(planes: bool) -> None:
    block = Inverted("n", 3, "h", "w", 640, first=3, first_stride=2, planes=planes)
    assert_one_band(block.model(), "conv_clip_conv_clip_conv", (1, 3, 9, 5), (2, 3, 48, 33), (1, 3, 1, 1))


def test_what_stays_in_the_cache_is_kept_apart() -> None:
    exe = fusible.compile(Inverted(1, 16, 20, 20, 96).model(), target="cpu")
    assert not any("conv_clip_conv_clip_conv" in row["kernel"] for row in exe.report.kernels)
    assert "stays in the cache anyway" in str(exe.report.refusals)
