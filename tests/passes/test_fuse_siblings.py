"""fuse-siblings: results of the same operands and type come from one group; others stay."""

from __future__ import annotations

import numpy as np

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.passes.base import PassContext
from fusible.passes.fuse_regions import FuseRegions, ungroup
from fusible.passes.fuse_siblings import FuseSiblings
from fusible.passes.ledger import Kind

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


def _graph(*shapes: tuple[int, ...]) -> Graph:
    """exp(x) doubled and reshaped, once for each shape."""
    graph = Graph("g")
    x = graph.input(TensorType(DType.F32, (4, 6)), "x")

    def branch(number: int, shape: tuple[int, ...]) -> Value:
        scaled = graph.add("mul", x, graph.constant(np.asarray(number + 2, np.float32)))
        return graph.add("reshape", graph.add("exp", scaled), shape=shape)

    graph.set_outputs([branch(n, s) for n, s in enumerate(shapes)], [f"y{n}" for n in range(len(shapes))])
    return graph


def _context(reason: str | None = None) -> PassContext:
    return PassContext(target={"name": "cpu", "printable": lambda nodes, outputs: reason if len(outputs) > 1 else None})


def _run(graph: Graph, context: PassContext) -> int:
    FuseRegions().run(graph, context)
    return FuseSiblings().run(graph, context)


def test_three_of_one_type() -> None:
    expected = evaluate_graph(_graph((24,), (24,), (24,)), [X])
    graph = _graph((24,), (24,), (24,))
    context = _context()
    assert _run(graph, context) == 2
    verify(graph)
    assert [len(node.outputs) for node in graph] == [3]
    for got, wanted in zip(evaluate_graph(graph, [X]), expected, strict=True):
        assert np.array_equal(got, wanted)
    ungroup(graph, next(iter(graph)))
    verify(graph)
    assert all(np.array_equal(a, b) for a, b in zip(evaluate_graph(graph, [X]), expected, strict=True))


def test_other_types_stay() -> None:
    assert _run(_graph((24,), (2, 12)), _context()) == 0


def test_what_cannot_be_printed_stays_and_says_why() -> None:
    context = _context("no two stores")
    assert _run(_graph((24,), (24,)), context) == 0
    assert any(e.reason == "no two stores" for e in context.ledger.select(Kind.REFUSED))
