"""Compile a model that uses the op of swoosh.py, run it, save it, load it again."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

import fusible

sys.path.insert(0, str(Path(__file__).parent))
import swoosh

nodes = [
    helper.make_node("Swoosh", ["x", "one"], ["a"], name="first", domain="my.ops"),
    helper.make_node("Tanh", ["a"], ["b"], name="middle"),
    helper.make_node("Swoosh", ["b", "two"], ["y"], name="last", domain="my.ops"),
]
graph = helper.make_graph(
    nodes,
    "example",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
    [ValueInfoProto(name="y")],
    [
        numpy_helper.from_array(np.ones((), np.float32), "one"),
        numpy_helper.from_array(np.full((), 2, np.float32), "two"),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("my.ops", 1)])

exe = fusible.compile(model, target="numpy", passes=swoosh.register(fusible.pipeline("numpy")))
print("what the rule did:", [(f["rule"], f["nodes"]) for f in exe.report.fusions if f["pass"] == "unit-swoosh"])
print("what it declined:", [r["reason"] for r in exe.report.refusals if r["pass"] == "unit-swoosh"])

x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
a = x / (1 + np.exp(-x))
b = np.tanh(a)
expected = b / (1 + np.exp(-2 * b))
(y,) = exe(x)
print("greatest error:", float(np.abs(y - expected).max()))
assert np.allclose(y, expected, atol=1e-6)
assert "custom_0" in exe.source  # fast_tanh stands in for the tanh of Fusible

with tempfile.TemporaryDirectory() as folder:
    exe.save(Path(folder) / "example.fusible")
    (again,) = fusible.load(Path(folder) / "example.fusible")(x)
assert np.array_equal(y, again)
print("saved and loaded: the same result")
