"""The model that docs/architecture.md walks through: y = relu(conv(x, w)) + conv(x, w), any batch, height and width."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

import fusible

nodes = [
    helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c"], ["r"], "relu"),
    helper.make_node("Add", ["r", "c"], ["y"], "add"),
]
weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])]
outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "h", "w"])]
graph = helper.make_graph(nodes, "walk", inputs, outputs, [numpy_helper.from_array(weight, "w")])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), "model.onnx")
x = np.ones((2, 3, 5, 7), np.float32)

exe = fusible.compile("model.onnx", target="numpy")
(y,) = exe(x)
assert y.shape == (2, 4, 5, 7)
