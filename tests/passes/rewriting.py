"""Build a graph, run a pass on it, and check what every pass owes: valid, equal numbers, twice equals once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusible.compiler.accuracy import compare, kernel_bound
from fusible.compiler.ir.clone import clone_graph
from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.passes.base import Pass, PassContext


def graph_of(build: Callable[[Graph, Value], Value], shape: tuple[int, ...], dtype: DType = DType.F32) -> Graph:
    """A graph of one input x of the given type and the one output that `build` makes."""
    graph = Graph("test")
    x = graph.input(TensorType(dtype, shape), "x")
    with graph.inserting_before(None, ("node",)):
        graph.set_outputs([build(graph, x)], ["y"])
    return graph


def apply(pass_: Pass, graph: Graph, seed: int = 0) -> tuple[list[str], PassContext]:
    """Run a pass and return the ops left; the graph must stay valid and its numbers the same."""
    before = clone_graph(graph)
    context = PassContext()
    pass_.run(graph, context)
    verify(graph)
    assert pass_.run(graph, PassContext()) == 0, "twice is not once"
    rng = np.random.default_rng(seed)
    inputs = []
    for value in graph.inputs:
        assert isinstance(value.type, TensorType)
        shape = value.type.static_shape
        assert shape is not None
        inputs.append(rng.standard_normal(shape).astype(value.type.dtype.numpy))
    for old, new in zip(evaluate_graph(before, inputs), evaluate_graph(graph, inputs), strict=True):
        verdict = compare(np.asarray(old), np.asarray(new), kernel_bound(np.asarray(old).dtype, 4096))
        assert verdict, verdict.reason
    return [node.op.name for node in graph], context


def scalar(graph: Graph, number: float) -> Value:
    """A float32 constant of one element."""
    return graph.constant(np.asarray(number, np.float32))
