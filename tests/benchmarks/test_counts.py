"""Counts of nodes, kernels and bytes, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusible.benchmarks import fusion_counts, node_counts
from fusible.benchmarks.zoo.catalog import Obtained
from fusible.errors import UsageError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """relu(x @ w) through a chain of shape arithmetic that changes nothing, and an If over it."""
    branch, other = (
        helper.make_graph(
            [helper.make_node(op, ["r"], [op])], op, [], [helper.make_tensor_value_info(op, TensorProto.FLOAT, None)]
        )
        for op in ("Neg", "Identity")
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["a"]),
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("Reshape", ["a", "s"], ["r"]),
        helper.make_node("Constant", [], ["unused"], value_float=1.0),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((8, 4), np.float32), "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_nodes_with_subgraphs_and_without_constants(model: Path) -> None:
    counts = node_counts.counts_of("m", model)
    assert counts.file.total() == 7 and "Constant" not in counts.file
    assert counts.ours == {"MatMul": 1, "Relu": 1, "If": 1, "Neg": 1, "Identity": 1}
    assert counts.excess == counts.ours.total() - min(counts.onnxslim.total(), counts.onnxruntime.total()) <= 0


def test_an_unknown_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a model of the zoo nor a file"):
        node_counts.main([str(tmp_path / "none.onnx")])


def test_bytes_of_contractions_are_the_bound(model: Path) -> None:
    inputs = {"x": np.ones((3, 8), np.float32), "flag": np.asarray(True)}
    found = fusion_counts.fused(Obtained("m", "file", model, inputs), "numpy")
    assert found.bound == 4 * (3 * 8 + 8 * 4 + 3 * 4)
    assert found.moved >= found.bound and found.inductor is None
    assert found.onnxruntime > 0 and found.kernels > 0
