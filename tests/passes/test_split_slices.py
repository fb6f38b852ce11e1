"""split-into-slices: every piece a slice of its own, with the same numbers; only where the sizes surely add up."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import PassContext
from fusible.passes.split_slices import SplitSlices
from tests.passes.rewriting import apply

N = SymInt.of(Symbol("n"))


def _graph(shape: tuple[Dim, ...], axis: int, sizes: tuple[Dim, ...]) -> Graph:
    graph = Graph("g")
    x = graph.input(TensorType(DType.F32, shape), "x")
    node = graph.add_node("split", [x], {"axis": axis, "split": sizes}, outputs=len(sizes))
    graph.set_outputs(node.outputs, [f"y{n}" for n in range(len(sizes))])
    return graph


@pytest.mark.parametrize(("axis", "sizes"), [(1, (1, 3, 0, 1)), (-1, (4, 3)), (0, (2,))])
def test_pieces(axis: int, sizes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 7)).astype(np.float32)
    expected = evaluate_graph(_graph((2, 5, 7), axis, sizes), [x])
    graph = _graph((2, 5, 7), axis, sizes)
    ops, _ = apply(SplitSlices(), graph)
    assert ops == ["slice"] * len(sizes)
    for got, wanted in zip(evaluate_graph(graph, [x]), expected, strict=True):
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize(("extent", "sizes", "op"), [(N, (2, 3), "split"), (3 * N, (N, 2 * N), "slice")])
def test_symbolic_sizes(extent: Dim, sizes: tuple[Dim, ...], op: str) -> None:
    graph = _graph((4, extent), 1, sizes)
    SplitSlices().run(graph, PassContext())
    assert [node.op.name for node in graph] == [op] * (1 if op == "split" else len(sizes))
