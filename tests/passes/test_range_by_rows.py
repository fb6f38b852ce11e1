"""range-by-rows: a large dynamic quantisation gets the extremes of its rows, a small one stays; numbers are equal."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import PassContext
from fusible.passes.ledger import Kind
from fusible.passes.range_by_rows import RangeByRows


@pytest.mark.parametrize(
    ("shape", "rewritten"),
    [((300, 300), True), ((2, SymInt.of(Symbol("t", 1)), 40), True), ((64, 512), False), ((90_000,), False)],
)
def test_by_size(shape: tuple[int | SymInt, ...], rewritten: bool) -> None:
    graph = Graph("test")
    x = graph.input(TensorType(DType.F32, shape), "x")
    node = graph.add_node("dynamic_quantize_linear", [x], outputs=3)
    graph.set_outputs(list(node.outputs), ["y", "scale", "zero"])
    array = np.random.default_rng(0).normal(0.3, 1, tuple(d if isinstance(d, int) else 7 for d in shape))
    array.flat[3:5] = np.nan, 50  # NaN takes no part in the range, and the rest of its row does
    wanted = evaluate_graph(graph, [array.astype(np.float32)])
    context = PassContext()
    assert RangeByRows().run(graph, context) == rewritten and RangeByRows().run(graph, PassContext()) == 0
    assert bool(context.ledger.select(Kind.DECLINED)) != rewritten
    assert [n.op.name for n in graph] == (["fused"] if rewritten else []) + ["dynamic_quantize_linear"]
    for got, reference in zip(evaluate_graph(graph, [array.astype(np.float32)]), wanted, strict=True):
        np.testing.assert_array_equal(got, reference)
