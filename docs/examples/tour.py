"""Compile a small model, run it with two batch sizes, look at what happened to it, save it and load it again."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

import fusible


def small_model() -> None:
    """Write `small.onnx`: relu(x @ w) + 1 with x float32[batch, 8]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "matmul"),
        helper.make_node("Relu", ["m"], ["r"], "relu"),
        helper.make_node("Add", ["r", "one"], ["y"], "add"),
    ]
    weight = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32(1), "one")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), "small.onnx")


small_model()
exe = fusible.compile("small.onnx")
print(exe.inputs[0], "->", exe.outputs[0])  # x: float32[batch, 8] -> y: float32[batch, 3]

for batch in (1, 5):
    x = np.ones((batch, 8), np.float32)
    (y,) = exe(x)  # by position; exe.run({"x": x})["y"] is the same by name
    assert y.shape == (batch, 3)

for row in exe.report.fusions:  # what was rewritten or fused; report.refusals says why the rest was not
    print(row["kind"], row["pass"], row["nodes"])
for name, text in exe.sources.items():  # the kernels: C, and a Python module of the steps that call NumPy
    print(f"{name}:\n{text}")

exe.save("small.fusible")
again = fusible.load("small.fusible")  # needs numpy and ml_dtypes only
assert np.array_equal(again(x)[0], y)
