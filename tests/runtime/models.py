"""Small models for the tests of the runtime."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, dtype: int, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def make(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        inputs,
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def conv_relu_add() -> onnx.ModelProto:
    """u = relu(conv(x)) + conv(x) with symbolic batch, height and width."""
    w = np.random.default_rng(3).standard_normal((5, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "c"], ["u"], name="add"),
    ]
    return make(nodes, [value("x", FLOAT, ["n", 3, "h", "w"])], ["u"], {"w": w})


def cache_step() -> onnx.ModelProto:
    """present = past + x; y = sum(present): a state that goes from run to run."""
    nodes = [
        helper.make_node("Add", ["past", "x"], ["present"], name="add"),
        helper.make_node("ReduceSum", ["present"], ["y"], name="sum", keepdims=0),
    ]
    return make(nodes, [value("past", FLOAT, [4]), value("x", FLOAT, [4])], ["present", "y"])


def branches() -> onnx.ModelProto:
    """y = x + 1 if flag else x * 2 (a captured value in each branch), then a loop that doubles n times."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["t"], name="plus")], "then", [], [onnx.ValueInfoProto(name="t")]
    )
    other = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["e"], name="times")], "else", [], [onnx.ValueInfoProto(name="e")]
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["c2"]),
            helper.make_node("Mul", ["v", "two"], ["v2"], name="double"),
            helper.make_node("Add", ["v2", "x"], ["s"], name="scan"),
        ],
        "body",
        [value("i", INT64, []), value("c", BOOL, []), value("v", FLOAT, ["n", 2])],
        [onnx.ValueInfoProto(name=o) for o in ("c2", "v2", "s")],
    )
    nodes = [
        helper.make_node("If", ["flag"], ["b"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Loop", ["count", "", "b"], ["y", "scans"], name="loop", body=body),
    ]
    constants = {"one": np.ones(1, np.float32), "two": np.full(1, 2, np.float32)}
    inputs = [value("x", FLOAT, ["n", 2]), value("flag", BOOL, []), value("count", INT64, [])]
    return make(nodes, inputs, ["y", "scans"], constants)


def nonzero_chain() -> onnx.ModelProto:
    """A size that is known only when it happens: the elements of x that are positive, doubled, and their number."""
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["m"], name="greater"),
        helper.make_node("NonZero", ["m"], ["i"], name="nonzero"),
        helper.make_node("Transpose", ["i"], ["t"], name="transpose", perm=[1, 0]),
        helper.make_node("GatherND", ["x", "t"], ["g"], name="gather"),
        helper.make_node("Add", ["g", "g"], ["d"], name="double"),
        helper.make_node("Shape", ["d"], ["k"], name="count"),
    ]
    return make(nodes, [value("x", FLOAT, ["n", "m"])], ["d", "k"], {"zero": np.zeros((), np.float32)})
