"""fuse-regions: a group reads no more than a kernel can take."""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.verify import verify
from fusible.passes.base import PassContext
from fusible.passes.fuse_regions import FuseRegions
from fusible.passes.ledger import Kind
from tests.passes.checking import tensor


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
