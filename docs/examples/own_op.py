"""Use an operator and a kernel of our own in a model, save the artifact and load it again."""

from __future__ import annotations

import numpy as np
import squared_relu  # registers com.example::SquaredRelu; the artifact names the module
from onnx import TensorProto, helper

import fusible

node = helper.make_node("SquaredRelu", ["x"], ["y"], "activation", domain="com.example")
inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])]
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
model = helper.make_model(helper.make_graph([node], "own", inputs, outputs), opset_imports=opsets, ir_version=10)

exe = fusible.compile(model)
x = np.array([-1, 0, 3], np.float32)
assert np.array_equal(exe(x)[0], squared_relu.squared_relu(x))

exe.save("own.fusible")  # wherever it is loaded, squared_relu.py must be importable, else ArtifactError
assert np.array_equal(fusible.load("own.fusible")(x)[0], [0, 0, 9])
print(exe.report.kernels)
