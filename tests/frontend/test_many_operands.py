"""Variadic operators with more operands than Python nests brackets, and than a launch takes buffers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from tests.tolerance import assert_outputs_close

COUNT = 300


def _model(op: str, products: bool) -> onnx.ModelProto:
    """`op` over 300 inputs, or over 300 products of them with the first."""
    names = [f"x{n}" for n in range(COUNT)]
    nodes = [helper.make_node("Mul", ["x0", x], [f"p{n}"]) for n, x in enumerate(names)] if products else []
    axis = {"axis": 0} if op == "Concat" else {}
    nodes.append(helper.make_node(op, [f"p{n}" for n in range(COUNT)] if products else names, ["y"], **axis))
    inputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, [4]) for x in names]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("target", ("numpy", "cpu"))
@pytest.mark.parametrize(
    ("op", "products", "expected"),
    (("Sum", True, np.sum), ("Max", False, np.max), ("Min", False, np.min), ("Mean", False, np.mean)),
)
def test_many_operands(op: str, products: bool, expected: np.ufunc, target: str) -> None:
    given = np.random.default_rng(0).standard_normal((COUNT, 4)).astype(np.float32)
    exe = fusible.compile(_model(op, products), target=target, options=fusible.Options(verify="passes"))
    found = exe.run({f"x{n}": x for n, x in enumerate(given)})
    wide = given.astype(np.float64)
    assert_outputs_close(found, {"y": expected(wide * wide[0] if products else wide, axis=0).astype(np.float32)})


@pytest.mark.parametrize("target", ("numpy", "cpu"))
def test_many_are_joined(target: str) -> None:
    given = np.random.default_rng(0).standard_normal((COUNT, 4)).astype(np.float32)
    exe = fusible.compile(_model("Concat", products=False), target=target)
    found = exe.run({f"x{n}": x for n, x in enumerate(given)})
    assert np.array_equal(found["y"], given.reshape(-1))
