"""The operator Attention with operands [batch, tokens, heads * size]: a kernel on every target that prints regions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fusible
from fusible.compiler.api import import_graph
from fusible.compiler.backends.attention import attention_of
from fusible.compiler.region.build import build_region
from tests.runtime import models
from tests.tolerance import assert_outputs_close

FLOAT = TensorProto.FLOAT

# query heads, key heads, size, size of values, queries, keys, causal
FORMS = {
    "plain": (2, 2, 8, 8, 5, 5, False),
    "grouped": (4, 2, 8, 12, 5, 7, False),
    "one key head": (3, 1, 20, 20, 6, 6, True),
}


def attention(query: int, key: int, size: int, width: int, rows: int, keys: int, causal: bool) -> onnx.ModelProto:
    node = helper.make_node(
        "Attention", ["q", "k", "v"], ["y"], name="a", q_num_heads=query, kv_num_heads=key, is_causal=int(causal)
    )
    shapes = {"q": [2, rows, query * size], "k": [2, keys, key * size], "v": [2, keys, key * width]}
    return models.make([node], [models.value(n, FLOAT, s) for n, s in shapes.items()], ["y"], opset=23)


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("target", ["cpu", "triton-cpu"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_heads_are_one_kernel(target: str, form: str) -> None:
    model = attention(*FORMS[form])
    exe = fusible.compile(model, target=target, options=fusible.Options(threads=2, verify="kernels"))
    assert exe.report.host == () and len(exe.report.kernels) == 1
    given = feeds(model)
    assert_outputs_close(exe.run(given), fusible.compile(model, target="numpy").run(given))


def test_heads_get_an_axis_of_their_own() -> None:
    (node,) = import_graph(attention(*FORMS["grouped"]).SerializeToString())
    inputs = [value for value in node.inputs if value is not None]
    region = build_region([node], list(node.outputs), inputs=inputs, inline_scalars=True).region
    found = attention_of(region)
    assert region.extents[2] == 4 * 12 and found.region.extents[2] == 4 and 2 in found.leading
    assert found.region.extents[found.column] == 12
