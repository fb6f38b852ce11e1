"""Write a rewrite rule: move constant scales into weights,  (x @ w) * s  ->  x @ (w * s)."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.passes import Exactness, Pipeline, Reject, RewritePass, op, rule


@rule(exactness=Exactness.REASSOCIATING)
def scale_into_weight(x, w, s):
    def build(graph, x, w, s):
        if w.constant is None or s.constant is None:
            return Reject("weight or scale is not constant", w, s)
        if s.constant.size != 1:
            return Reject(f"scale has {s.constant.size} elements, only scalars move through matmul", s)
        return graph.add("matmul", x, graph.constant(w.constant * s.constant))

    return op.mul(op.matmul(x, w), s), build


fold_scales = RewritePass("fold-scales", [scale_into_weight])


def register(pipeline: Pipeline) -> Pipeline:
    """Add the pass: called by `fusible compile --passes own_rule.py`."""
    return pipeline.insert(fold_scales, after="canonical")


def scaled_matmul(scale: np.ndarray) -> bytes:
    """A model that computes (x @ w) * scale."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "project"),
        helper.make_node("Mul", ["m", "s"], ["y"], "scale"),
    ]
    constants = [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"), numpy_helper.from_array(scale, "s")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "scaled", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10).SerializeToString()


if __name__ == "__main__":
    pipeline = register(fusible.pipeline("numpy"))
    x = np.ones((2, 4), np.float32)

    exe = fusible.compile(scaled_matmul(np.float32(3)), passes=pipeline)
    assert [row["rule"] for row in exe.report.fusions] == ["scale_into_weight"]
    assert np.array_equal(exe(x)[0], np.full((2, 4), 3, np.float32))

    exe = fusible.compile(scaled_matmul(np.arange(4, dtype=np.float32)), passes=pipeline)
    print([row["reason"] for row in exe.report.refusals if row["rule"] == "scale_into_weight"])
    # ['scale has 4 elements, only scalars move through matmul']
