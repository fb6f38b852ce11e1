"""Attention as exporters write it: one product for queries, keys and values, cut apart, scaled on both sides."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from tests.tolerance import assert_close, assert_outputs_close

HEADS, HEAD = 2, 16
WIDTH = HEADS * HEAD


def packed(tokens: int) -> onnx.ModelProto:
    """x, mask -> attention over heads, and its keys and values as results (what a cache would keep)."""
    random = np.random.default_rng(4)
    constants: dict[str, np.ndarray] = {
        "w": (random.standard_normal((WIDTH, 3 * WIDTH)) / 6).astype(np.float32),
        "b": random.standard_normal(3 * WIDTH).astype(np.float32),
        "four": np.asarray([1, tokens, HEADS, HEAD]),
        "heads": np.asarray([HEADS, tokens, HEAD]),
        "turned": np.asarray([1, HEADS, HEAD, tokens]),
        "row": np.asarray([1, tokens, WIDTH]),
        "scale": np.asarray(HEAD**-0.25, np.float32),
        "zero": np.asarray(0, np.float32),
        "minus": np.asarray(-np.inf, np.float32),
    }
    node = helper.make_node
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "b"], ["pb"])]
    nodes.append(node("Split", ["pb"], ["q0", "k0", "v0"], axis=2, num_outputs=3))
    for name, result in (("q", "q"), ("k", "keys"), ("v", "values")):
        nodes.append(node("Reshape", [f"{name}0", "four"], [f"{name}1"]))
        nodes.append(node("Transpose", [f"{name}1"], [result], perm=[0, 2, 1, 3]))
    nodes += [
        node("Reshape", ["keys", "heads"], ["k2"]),
        node("Transpose", ["k2"], ["k3"], perm=[0, 2, 1]),
        node("Reshape", ["k3", "turned"], ["k4"]),
        node("Mul", ["q", "scale"], ["qs"]),
        node("Mul", ["k4", "scale"], ["ks"]),
        node("Where", ["mask", "zero", "minus"], ["bias"]),
        node("MatMul", ["qs", "ks"], ["scores"]),
        node("Add", ["scores", "bias"], ["hidden"]),
        node("Softmax", ["hidden"], ["soft"]),
        node("IsNaN", ["soft"], ["lost"]),
        node("Where", ["lost", "zero", "soft"], ["safe"]),
        node("MatMul", ["safe", "values"], ["seen"]),
        node("Transpose", ["seen"], ["back"], perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "row"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "packed",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, tokens, WIDTH]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 1, tokens, tokens]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "keys", "values")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize("tokens", [9, HEAD, 33])
def test_packed_attention_is_one_kernel(tokens: int) -> None:
    # As many tokens as elements of a head: three axes of one extent, which must not be taken for each other.
    exe = fusible.compile(packed(tokens), target="cpu")
    names = [row["kernel"] for row in exe.report.kernels]
    assert exe.report.host == () and len(names) == 4  # the product, keys and values as results, the mask, attention
    random = np.random.default_rng(tokens)
    mask = np.tril(np.ones((tokens, tokens), bool))[None, None]
    mask[..., 3, :] = False  # a query that sees nothing
    given = {"x": random.standard_normal((1, tokens, WIDTH)).astype(np.float32), "mask": mask}
    assert_outputs_close(exe.run(given), fusible.compile(packed(tokens), target="numpy").run(given))


@pytest.mark.parametrize("scale", [1.0, 40**-0.5])
@pytest.mark.parametrize("most", [3.0, 2e4])
def test_scores_without_a_mask(scale: float, most: float) -> None:
    """Of huge ones the largest alone counts, however its product with the scale is rounded."""
    rng = np.random.default_rng(0)
    q, k = (rng.uniform(-1, 1, (1, 2, 150, 40)).astype(np.float32) for _ in range(2))
    v = rng.standard_normal((1, 2, 150, 40)).astype(np.float32)
    q[:], k[..., 0, :] = most, most
    text = f"""<ir_version: 10, opset_import: ["": 23]>
    g (float[1, 2, 150, 40] q, float[1, 2, 150, 40] k, float[1, 2, 150, 40] v) => (float[1, 2, 150, 40] y)
    <float s = {{{scale!r}}}> {{
        t = Transpose<perm = [0, 1, 3, 2]>(k) r = Mul(q, s) d = MatMul(r, t) p = Softmax<axis = -1>(d) y = MatMul(p, v)
    }}"""
    exe = fusible.compile(onnx.parser.parse_model(text), target="cpu")
    assert len(exe.report.kernels) == 1
    (found,) = exe.run({"q": q, "k": k, "v": v}).values()
    scores = (q.astype(np.float64) @ k.astype(np.float64).swapaxes(2, 3)) * np.float64(np.float32(scale))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    assert_close(found, (weights / weights.sum(-1, keepdims=True)) @ v, accumulation=150)
