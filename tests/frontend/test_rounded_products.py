"""The model with rounded operands: what is cast, what it gives, and how far a bound is widened by it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fusible.compiler.accuracy import Bound, Comparison, model_bound, widened
from fusible.compiler.frontend.rounded_products import with_rounded_products

X = np.random.default_rng(0).standard_normal((1, 6, 5, 5), dtype=np.float32)
W = np.random.default_rng(1).standard_normal((6, 6, 1, 1), dtype=np.float32)
DEEP = np.random.default_rng(2).standard_normal((6, 1, 3, 3), dtype=np.float32)


def network(opset: int = 17) -> onnx.ModelProto:
    """x -> 1x1 -> depthwise -> 1x1 with the same weights."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "d"], ["b"], group=6, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, X.shape)],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(DEEP, "d")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": X})[0])


def narrow(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def test_operands_of_products_are_cast_once_each() -> None:
    model = network()
    rounded = with_rounded_products(model)
    assert rounded is not None and len(model.graph.node) == 3
    onnx.checker.check_model(rounded)
    assert [n.op_type for n in rounded.graph.node].count("Cast") == 6  # x, w and b, there and back
    assert list(rounded.graph.node[5].input) == ["a", "d"]  # depthwise


def test_it_is_the_model_on_rounded_operands() -> None:
    rounded = with_rounded_products(network())
    assert rounded is not None
    a = np.einsum("oc,nchw->nohw", narrow(W[..., 0, 0]), narrow(X)).astype(np.float32)
    padded = np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1)))
    b = sum(padded[..., y : y + 5, x : x + 5] * DEEP[None, :, 0, y, x, None, None] for y in range(3) for x in range(3))
    expected = np.einsum("oc,nchw->nohw", narrow(W[..., 0, 0]), narrow(np.asarray(b)))
    np.testing.assert_allclose(run(rounded), expected, atol=0.02)  # a sum on the edge may round the other way
    assert np.abs(run(network()) - expected).max() > 0.02


def test_an_old_cast_knows_no_bf16() -> None:
    assert with_rounded_products(network(opset=12)) is None


def test_a_bound_is_widened_by_what_rounding_does_and_never_narrowed() -> None:
    row = model_bound("bf16")
    assert isinstance(row, Bound)
    assert (
        widened(row, [Comparison(True, 0.02, 0.004, (0,), ""), Comparison(False, float("inf"), 1.0, None, "")]) == row
    )
    nowhere = Comparison(False, float("inf"), 1.0, None, "")
    small, large, wide = (Comparison(True, *e, (0,), "") for e in ((0.02, 0.004), (0.2, 0.004), (0.1, 0.06)))
    assert widened(row, [small, nowhere]) == row
    assert widened(row, [large, wide]) == Bound(0.4, 0.12)
