"""A small model with its inputs, as file and as work to be measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fusible.benchmarks.reference import model_tolerance
from fusible.benchmarks.work import Work

INPUTS = {"x": np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)}


def small_model(folder: Path) -> Path:
    """y = relu(x @ w), x: f32[n, 16], w seeded."""
    weights = np.random.default_rng(2).standard_normal((16, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"], "product"), helper.make_node("Relu", ["m"], ["y"], "relu")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def small_work(folder: Path, expected: dict[str, np.ndarray] | None) -> Work:
    """The model as the runner takes it."""
    path = small_model(folder)
    return Work("small", "", "file", path, INPUTS, 3, expected, model_tolerance(path), 2.0 * 3 * 16 * 8, 1000.0)
