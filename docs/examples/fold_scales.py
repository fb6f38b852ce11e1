"""Move constant scales into weights:  (x @ w) * s  ->  x @ (w * s)."""

import numpy as np
import onnx.helper as make
import onnx.numpy_helper as numpy_helper

import fusible
from fusible.passes import Exactness, Reject, RewritePass, op, rule


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


def register(pipeline):
    """What `fusible compile MODEL --passes fold_scales.py` calls."""
    return pipeline.insert(fold_scales, after="canonical")


def model():
    """(x @ w) * 2, and a second product whose scale has four elements."""
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    constants = {"w": weight, "two": np.float32(2), "four": np.arange(4, dtype=np.float32)}
    nodes = [
        make.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        make.make_node("Mul", ["p", "two"], ["y"], name="scale"),
        make.make_node("MatMul", ["y", "v"], ["q"], name="product_2"),
        make.make_node("Mul", ["q", "four"], ["z"], name="scale_2"),
    ]
    constants["v"] = np.eye(4, dtype=np.float32)
    graph = make.make_graph(
        nodes,
        "example",
        [make.make_tensor_value_info("x", 1, ["n", 3])],
        [make.make_tensor_value_info("z", 1, ["n", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=10)


if __name__ == "__main__":
    exe = fusible.compile(model(), target="numpy", passes=register(fusible.pipeline("numpy")))
    for row in (*exe.report.fusions, *exe.report.refusals):
        if row["pass"] == "fold-scales":
            print(row["kind"], row["nodes"], row["reason"])
    x = np.ones((2, 3), np.float32)
    print(exe.run({"x": x})["z"])
