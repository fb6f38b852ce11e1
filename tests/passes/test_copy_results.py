"""copy-results: outputs that are views become kernels of their own; other outputs, and views within, stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import PassContext
from fusible.passes.copy_results import CopyResults
from tests.passes.rewriting import apply, graph_of
from tests.tolerance import assert_close


def test_a_chain_of_views_is_one_copy() -> None:
    def build(graph: Graph, x: Value) -> Value:
        turned = graph.add("transpose", graph.add("relu", x), perm=(2, 0, 1))
        return graph.add("reshape", turned, shape=(7, 15))

    graph = graph_of(build, (3, 5, 7))
    ops, _ = apply(CopyResults(), graph)
    assert ops == ["relu", "fused"]
    inner = [node.op.name for node in list(graph)[-1].subgraphs[0]]
    assert inner == ["transpose", "reshape", "identity"]


def test_a_view_that_others_read() -> None:
    graph = Graph("test")
    x = graph.input(TensorType(DType.F32, (4, 6)), "x")
    flat = graph.add("reshape", x, shape=(24,))
    graph.set_outputs([flat, graph.add("exp", flat), flat], ["y", "z", "again"])
    ops, _ = apply(CopyResults(), graph)
    assert ops == ["fused", "exp"]
    assert graph.outputs[0] is graph.outputs[2]


def test_what_is_no_view() -> None:
    graph = Graph("test")
    x = graph.input(TensorType(DType.F32, (4, 6)), "x")
    graph.set_outputs([graph.add("exp", graph.add("reshape", x, shape=(24,))), x], ["y", "same"])
    assert CopyResults().run(graph, PassContext()) == 0


@pytest.mark.parametrize("batch", [2, "n"])
def test_outputs_need_no_host_step(batch: int | str) -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Reshape", ["s", "shape"], ["y"]),
        helper.make_node("MatMul", ["s", "w"], ["z"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[2, 0, 1]),
    ]
    constants = {"w": np.eye(6, dtype=np.float32), "shape": np.asarray([0, -1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "views",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5, 6])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "z", "t", "s")],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    exe = fusible.compile(model, target="cpu")
    assert exe.report.host == ()
    assert {type(step).__name__ for step in exe.plan.steps} == {"Launch"}
    x = {"x": np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32)}
    expected = fusible.compile(model, target="numpy").run(x)
    got = exe.run(x)
    for name in ("y", "t", "s", "z"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("size", [8, "n"])
@pytest.mark.parametrize("channels", [5, 16])
def test_an_output_that_a_convolution_reads_is_copied(channels: int, size: int | str) -> None:
    """Channels first, as outputs are, it would be read element by element."""
    node = helper.make_node
    weights = np.random.default_rng(3).standard_normal((16, channels, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [node("Relu", ["x"], ["r"]), node("Conv", ["r", "w"], ["c"], pads=[1] * 4), node("Sigmoid", ["c"], ["y"])],
        "features",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, size, 9])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("r", "y")],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    exe = fusible.compile(model, target="cpu")
    assert any(row["kernel"].endswith("_conv_sigmoid") for row in exe.report.kernels)
    x = {"x": np.random.default_rng(1).standard_normal((1, channels, 8, 9)).astype(np.float32)}
    expected = fusible.compile(model, target="numpy").run(x)
    for name, got in exe.run(x).items():
        assert_close(got, expected[name], accumulation=9 * channels)
