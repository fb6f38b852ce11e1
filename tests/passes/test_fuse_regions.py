"""fuse-regions: a group reads no more than a kernel can take, and knows what is known of what it reads."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import fusible
from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.verify import verify
from fusible.passes.base import PassContext
from fusible.passes.fuse_regions import FuseRegions
from fusible.passes.ledger import Kind
from tests.passes.checking import tensor

POSITIONS = """
<ir_version: 10, opset_import: ["" : 21]> g (float[rows, columns] x) => (float y) {
    zero = Constant<value_int=0>()
    one = Constant<value_int=1>()
    shape = Shape(x)
    count = Gather(shape, zero)
    numbers = Range(zero, count, one)
    floats = Cast<to=1>(numbers)
    last = Constant<value_ints=[1]>()
    column = Unsqueeze(floats, last)
    y = Add(x, column)
}
"""


def test_a_group_reads_128_values_at_most() -> None:
    graph = Graph("g")
    inputs = [tensor(graph, (3,), f"x{n}") for n in range(160)]
    parts = [graph.add("sum", *inputs[n : n + 32]) for n in range(0, 160, 32)]
    graph.set_outputs([graph.add("sum", *parts)], ["y"])
    context = PassContext(target={"name": "cpu", "printable": lambda nodes, outputs: None})
    assert FuseRegions().run(graph, context) == 1
    verify(graph)
    assert [(node.op.name, len(node.inputs)) for node in graph] == [("sum", 32), ("sum", 32), ("fused", 98)]
    assert {e.reason for e in context.ledger.select(Kind.REFUSED)} == {"the group would read more than 128 values"}
    arrays = [np.full(3, n, np.float32) for n in range(160)]
    np.testing.assert_array_equal(evaluate_graph(graph, arrays)[0], sum(arrays))


@pytest.mark.parametrize("target", ("cpu", "triton-cpu"))
def test_a_range_to_a_symbol_keeps_its_extent_in_a_group(target: str) -> None:
    model = onnx.parser.parse_model(POSITIONS)
    exe = fusible.compile(model, target=target, options=fusible.Options(verify="passes"))
    assert any("range" in row["reason"] for row in exe.report.fusions), exe.report.fusions
    for rows in (1, 3):
        x = np.ones((rows, 2), np.float32)
        np.testing.assert_array_equal(exe(x)[0], x + np.arange(rows, dtype=np.float32)[:, None])
