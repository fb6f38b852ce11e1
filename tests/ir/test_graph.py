"""Graph building and its few mutations."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.errors import InvalidModel, LimitExceeded, UsageError

F32 = DType.F32


def _graph() -> Graph:
    graph = Graph("g")
    graph.input(TensorType(F32, (2, 3)), "x")
    return graph


def test_types_are_inferred() -> None:
    graph = _graph()
    y = graph.add("add", graph.inputs[0], graph.constant(np.ones((4, 1, 3), np.float32)))
    assert str(y.type) == "f32[4, 2, 3]"


def test_replace_redirects_and_erases() -> None:
    graph = _graph()
    x = graph.inputs[0]
    a = graph.add("relu", x, name="a")
    b = graph.add("relu", a)
    graph.set_outputs([b, a], ["b", "a"])
    assert a.producer is not None and b.producer is not None
    graph.replace(a.producer, x)
    assert graph.outputs == (b, x) and b.producer.inputs == (x,) and len(graph) == 1
    assert list(x.uses) == [(b.producer, 0)]
    verify(graph)


def test_erase_refuses_what_is_used() -> None:
    graph = _graph()
    a = graph.add("relu", graph.inputs[0])
    graph.set_outputs([a], ["a"])
    assert a.producer is not None
    with pytest.raises(UsageError, match="still used"):
        graph.erase(a.producer)


def test_the_cursor_and_origins() -> None:
    graph = _graph()
    last = graph.add("relu", graph.inputs[0])
    with graph.inserting_before(last.producer, ("n1", "n1", "n2")):
        first = graph.add("relu", graph.inputs[0])
    assert [n.outputs[0] for n in graph] == [first, last]
    assert first.producer is not None and first.producer.origin == ("n1", "n2")
    assert graph.add("relu", first).producer.origin == ()  # type: ignore[union-attr]


def test_iteration_survives_erasure() -> None:
    graph = _graph()
    for _ in range(5):
        graph.add("relu", graph.inputs[0])
    for node in graph:
        graph.erase(node)
    assert len(graph) == 0 and list(graph) == []


def test_errors() -> None:
    graph = _graph()
    x = graph.inputs[0]
    with pytest.raises(UsageError, match="no op 'nonsense'"):
        graph.add("nonsense", x)
    with pytest.raises(UsageError, match="attributes of relu"):
        graph.add("relu", x, alpha=1.0)
    with pytest.raises(InvalidModel, match="takes 2 inputs, got 1"):
        graph.add("add", x)
    with pytest.raises(InvalidModel, match="do not broadcast"):
        graph.add("add", x, graph.constant(np.ones(4, np.float32)))
    with pytest.raises(LimitExceeded, match="rank"):
        graph.add("expand", x, shape=(1,) * 70 + (2, 3))


def test_content_is_followed() -> None:
    graph = Graph("g")
    n = SymInt.of(Symbol("N"))
    dims = graph.add("dims", values=(n, 3), shape=(2,))
    total = graph.add("add", dims, graph.constant(np.asarray([1, 2], np.int64)))
    assert total.content is not None and [str(c) for c in total.content] == ["N + 1", "5"]
    assert graph.add("relu", graph.constant(np.asarray([-1.0, 2.0], np.float32))).content.tolist() == [0.0, 2.0]  # type: ignore[union-attr]


def test_unused_fresh_symbols_are_not_defined() -> None:
    graph = _graph()
    body = Graph("body", graph.symbols)
    body.input(TensorType(DType.I64, ()), "i")
    go = body.input(TensorType(DType.BOOL, ()), "go")
    unknown = body.input(TensorType(F32, None), "u")
    body.set_outputs([go, unknown], ["", ""])
    value = graph.input(TensorType(F32, None), "v")
    node = graph.add_node("loop", [None, None, value], {"carried": 0}, outputs=1, subgraphs=[body])
    graph.set_outputs([node.output], ["y"])
    assert str(node.output.type) == "f32[?]" and node.defines == ()
    verify(graph)
