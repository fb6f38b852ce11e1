"""Images whose sizes are known only at the call: the kernels of known sizes, cut for the sizes that come."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.backends.cpu.c_dims import Names, c_dim
from fusible.compiler.ir.assumed import assumed_size
from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, floordiv, modulo
from tests.tolerance import assert_outputs_close

N, H, W = (SymInt.of(Symbol(name, 0)) for name in "nhw")
I0, I1 = (SymInt.of(Symbol(f"i{n}", 0)) for n in range(2))


def network(*, known: tuple[int, int, int] | None = None) -> ModelProto:
    """A first layer, a pooling with a ragged edge, Winograd's 3x3, a strided 1x1, an inverted residual with an
    excitation, a line of taps, a mean and a classifier.
    """
    rng = np.random.default_rng(3)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    node = helper.make_node
    constants = {
        "first": weights(32, 3, 3, 3),
        "winograd": weights(32, 32, 3, 3),
        "strided": weights(48, 32, 1, 1),
        "expand": weights(96, 48, 1, 1),
        "deep": weights(96, 1, 3, 3),
        "squeeze": weights(8, 96, 1, 1),
        "excite": weights(96, 8, 1, 1),
        "project": weights(48, 96, 1, 1),
        "line": weights(48, 48, 1, 5),
        "classes": weights(10, 48),
    }
    nodes = [
        node("Conv", ["x", "first"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        node("Conv", ["c", "winograd"], ["d"], pads=[1, 1, 1, 1]),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["e", "strided"], ["f"], strides=[2, 2]),
        node("Conv", ["f", "expand"], ["g"]),
        node("HardSwish", ["g"], ["h"]),
        node("Conv", ["h", "deep"], ["i"], pads=[1, 1, 1, 1], group=96),
        node("HardSwish", ["i"], ["j"]),
        node("GlobalAveragePool", ["j"], ["k"]),
        node("Conv", ["k", "squeeze"], ["l"]),
        node("Relu", ["l"], ["m"]),
        node("Conv", ["m", "excite"], ["o"]),
        node("HardSigmoid", ["o"], ["p"]),
        node("Mul", ["j", "p"], ["q"]),
        node("Conv", ["q", "project"], ["r"]),
        node("Add", ["r", "f"], ["s"]),
        node("Conv", ["s", "line"], ["t"], pads=[0, 2, 0, 2]),
        node("GlobalAveragePool", ["t"], ["u"]),
        node("Flatten", ["u"], ["v"]),
        node("Gemm", ["v", "classes"], ["y"], transB=1),
    ]
    batch, height, width = known or ("n", "h", "w")
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def kernels(exe: fusible.Executable) -> list[str]:
    """Their names without numbers."""
    return [row["kernel"].split("_", 1)[1] for row in exe.report.kernels]


@pytest.mark.parametrize("threads", [1, 3])
def test_any_size_is_computed_and_agrees(threads: int) -> None:
    model = network()
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
    oracle = fusible.compile(model, target="numpy")
    assert exe.report.host == ()
    for n, h, w in ((1, 96, 128), (2, 33, 47), (0, 96, 96), (1, 9, 200), (3, 8, 8), (1, 224, 224)):
        x = np.random.default_rng(h).standard_normal((n, 3, h, w)).astype(np.float32)
        assert_outputs_close(exe.run({"x": x}), oracle.run({"x": x}))


def test_the_kernels_are_those_of_known_sizes() -> None:
    assert kernels(fusible.compile(network(), target="cpu")) == kernels(
        fusible.compile(network(known=(1, 224, 224)), target="cpu")
    )


def test_expressions_of_sizes_are_parameters() -> None:
    numbers: list[Dim] = []
    texts = {"i0": "i0", "i1": "i1", "h": "c->s_h", "w": "c->s_w"}
    names = Names(texts, "c->n", numbers, sizes={"h", "w"}, literal=True)
    assert c_dim(64 * H * W * I0 + 3 * W * I1 + 64 * I1 + W, names) == "(c->n0 * i0 + c->n1 * i1 + c->s_w)"
    assert c_dim(64 * H * W * I1 + 5, names) == "(c->n0 * i1 + 5)"
    assert c_dim(floordiv(H + 1, 2) * I0, names) == "(c->n2 * i0)"
    assert numbers == [64 * H * W, 3 * W + 64, floordiv(H + 1, 2)]
    # No parameter is a quotient that has no value for an empty image, for which the kernel computes nothing.
    assert "c->s_w" in c_dim(floordiv(I0, W), names) and "c->s_w" in c_dim(modulo(H, W), names)
    assert len(numbers) == 3


def test_assumed_sizes() -> None:
    bounded = SymInt.of(Symbol("b", 2, 64))
    assert [assumed_size(d) for d in (7, N, H * 2 + 1, floordiv(H + 31, 32))] == [7, 224, 449, 7]
    assert assumed_size(bounded) == 64 and assumed_size(SymInt.of(Symbol("l", 300))) == 300
    assert assumed_size(bcast(H, floordiv(H, 3) * 3)) == 224  # which 224 is no multiple of
    assert assumed_size(floordiv(H, W - 224)) == 224 and assumed_size(5 - H) == 0


def one_input(nodes: list, dims: list[int | str]) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


WINDOWS: dict[str, dict] = {
    "max": {"op_type": "MaxPool", "kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "ragged": {"op_type": "MaxPool", "kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1},
    "dilated": {"op_type": "MaxPool", "kernel_shape": [2, 3], "dilations": [2, 2], "pads": [1, 2, 1, 2]},
    "mean": {"op_type": "AveragePool", "kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    "mean of what is inside": {"op_type": "AveragePool", "kernel_shape": [3, 5], "pads": [2, 0, 0, 4]},
    "wide": {"op_type": "MaxPool", "kernel_shape": [1, 17], "pads": [0, 8, 0, 8]},
    "root": {"op_type": "LpPool", "kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "p": 2},
}


@pytest.mark.parametrize("channels", [3, 32])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_over_an_edge(window: str, known: bool, channels: int) -> None:
    node = helper.make_node(inputs=["x"], outputs=["y"], **WINDOWS[window])
    for n, h, w in ((2, 9, 11), (1, 3, 20), (1, 24, 6)):
        model = one_input([node], [n, channels, h, w] if known else ["n", channels, "h", "w"])
        x = np.random.default_rng(h).standard_normal((n, channels, h, w)).astype(np.float32) - 3
        x[:, :, 0, 0] = -np.inf
        found = fusible.compile(model, target="cpu").run({"x": x})
        assert_outputs_close(found, fusible.compile(model, target="numpy").run({"x": x}))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("axis", [1, 2])
def test_rows_of_a_length_known_only_at_the_call_are_kept_between_passes(axis: int, threads: int) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"], axis=axis),
        helper.make_node("Mul", ["a", "x"], ["b"]),
        helper.make_node("LogSoftmax", ["b"], ["y"], axis=axis),
    ]
    model = one_input(nodes, ["n", "h", "w"])
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=threads))
    assert any("stash_floats" in source for source in exe.sources.values())
    oracle = fusible.compile(model, target="numpy")
    for shape in ((2, 3, 5), (1, 70, 33), (4, 1, 1), (0, 3, 3), (3, 0, 2), (1, 2, 20_000), (16, 40, 700)):
        x = np.random.default_rng(shape[2]).standard_normal(shape).astype(np.float32)
        assert_outputs_close(exe.run({"x": x}), oracle.run({"x": x}))


@pytest.mark.parametrize(("axis", "shape"), [(1, (1, 70_000, 19)), (2, (1, 2, 1_100_003))])
def test_rows_longer_than_scratch_memory_are_computed_again_in_each_pass(axis: int, shape: tuple[int, ...]) -> None:
    nodes = [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("LpNormalization", ["a"], ["y"], axis=axis)]
    model = one_input(nodes, ["n", "h", "w"])
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=2))
    assert any("_long(pool, buffers, dims, error);" in source for source in exe.sources.values())
    x = np.random.default_rng(5).uniform(-1, 1, shape).astype(np.float32)
    assert_outputs_close(exe.run({"x": x}), fusible.compile(model, target="numpy").run({"x": x}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_row_of_many_is_a_product_of_a_vector(precision: str) -> None:
    """The number of rows decides at the call between gemv.h and gemm.h."""
    weights = np.random.default_rng(1).standard_normal((96, 130)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])],
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    exe = fusible.compile(model, target="cpu", options=fusible.Options(threads=2, precision=precision))
    assert any("gemv" in source and "gemm_items" in source for source in exe.sources.values())
    for n in (1, 0, 2, 17):
        x = np.random.default_rng(n).standard_normal((n, 96)).astype(np.float32)
        expected = np.maximum(x.astype(np.float64) @ weights, 0)
        np.testing.assert_allclose(exe.run({"x": x})["y"], expected, atol=1e-4 if precision == "fp32" else 0.4, rtol=0)


@pytest.mark.parametrize("names", [("stride", "h", "w"), ("n", "most", "stride"), ("n", "stride", "most")])
def test_symbols_may_have_any_name(names: tuple[str, str, str]) -> None:
    """Also those of the variables of a ring."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Conv", ["x", "wide"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "deep"], ["c"], group=96, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "last"], ["y"]),
    ]
    shapes = {"wide": (96, 24, 1, 1), "deep": (96, 1, 3, 3), "last": (24, 96, 1, 1)}
    model = one_input(nodes, [names[0], 24, *names[1:]])
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape, np.float32) / 5, name))
    exe = fusible.compile(model, target="cpu")
    assert any("ring_of" in source for source in exe.sources.values())
    x = rng.standard_normal((2, 24, 20, 33), np.float32)
    assert_outputs_close(exe.run({"x": x}), fusible.compile(model, target="numpy").run({"x": x}))
