"""Random valid graphs for tests: names of every kind, symbols, constants large and small, subgraphs."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType

ODD_NAMES = ["x", "x", "_1", "a/b.0", 'q"\\\n', "f32", "ü", "\udc80"]
NAMES = st.one_of(st.just(""), st.text(max_size=6), st.sampled_from(ODD_NAMES))
BOUNDS = st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(3, 64)))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A graph of float tensors [N, 3]."""
    graph = Graph(draw(NAMES))
    low, high = draw(BOUNDS)
    name = draw(st.sampled_from(["N", "f32", "inf", "batch_size"]))
    n = graph.symbols.add(Symbol(name, low, high))
    if draw(st.booleans()):
        graph.symbols.display[name] = draw(st.text(min_size=1, max_size=5))
    values = [graph.input(TensorType(DType.F32, (n, 3)), f"in{i}{draw(NAMES)}") for i in range(draw(st.integers(1, 3)))]
    graph.defines = (Symbol(name, low, high),)
    graph.input(SequenceType(draw(st.sampled_from([None, TensorType(DType.STRING, None)]))), "sequence")
    graph.input(OptionalType(SequenceType(TensorType(DType.BF16, (2,)))), "optional")
    _fill(draw, graph, values, depth=draw(st.integers(0, 2)))
    names = [f"out{i}{draw(NAMES)}" for i in range(2)]
    graph.set_outputs([draw(st.sampled_from(values)) for _ in names], names)
    return graph


def _fill(draw: st.DrawFn, graph: Graph, values: list[Value], depth: int) -> None:
    for _ in range(draw(st.integers(0, 5))):
        a, b = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        with graph.inserting_before(None, tuple(draw(st.lists(NAMES, max_size=2)))):
            match draw(st.integers(0, 5)):
                case 0:
                    made = graph.add("add", a, b, name=draw(NAMES))
                case 1:
                    data = np.asarray(draw(st.sampled_from([0.1, -0.0, float("nan"), float("inf"), 3e-45])), np.float32)
                    made = graph.add("mul", a, graph.constant(data, draw(NAMES)))
                case 2:
                    made = graph.add("add", a, graph.constant(np.zeros((40, 1, 3), np.float32)[0]), name="c")
                case 3:
                    made = graph.add("expand", graph.constant(np.ones((1, 3), np.float32)), shape=a.type.shape)
                case 4 if depth:
                    made = _branch(draw, graph, a, depth)
                case _:
                    made = graph.add("relu", a, name=draw(NAMES))
        values.append(made)


def _branch(draw: st.DrawFn, graph: Graph, captured: Value, depth: int) -> Value:
    condition = graph.input(TensorType(DType.BOOL, ()), f"condition{len(graph.inputs)}")
    branches = []
    for name in ("then", "else"):
        branch = Graph(name, graph.symbols)
        inner = [branch.input(captured.type, captured.name)]
        _fill(draw, branch, inner, 0)
        branch.set_outputs([inner[-1]], [draw(NAMES)])
        branches.append(branch)
    return graph.add_node("if", [condition, captured], outputs=1, subgraphs=branches).output
