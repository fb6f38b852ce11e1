"""The order of nodes: fewer bytes live at once, everything after what it needs, left alone where nothing is gained."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.schedule import peak_bytes, schedule


def home(value: Value) -> Value:
    return value


def branches(count: int = 4) -> Graph:
    """The sum of branches that grow wide and become small again: all wide ones first."""
    graph = Graph("branches")
    x = graph.input(TensorType(DType.F32, (8, 1)), "x")
    wide = [graph.add("expand", x, shape=(8, 100 + n)) for n in range(count)]
    small = [graph.add("reduce_sum", w, axes=(1,), keepdims=True) for w in wide]
    total = small[0]
    for value in small[1:]:
        total = graph.add("add", total, value)
    graph.set_outputs([total], ["y"])
    return graph


def test_branches_are_finished_one_by_one() -> None:
    graph = branches()
    before = peak_bytes(list(graph), graph.outputs, home)
    assert schedule(graph, home)
    after = peak_bytes(list(graph), graph.outputs, home)
    assert before == 8 * 4 * (100 + 101 + 102 + 103 + 1) and after < before / 3
    position = {node: n for n, node in enumerate(graph)}
    assert len(position) == 11
    for node, place in position.items():
        assert all(position[v.producer] < place for v in node.inputs if v is not None and v.producer is not None)


def test_it_does_nothing_twice_and_nothing_to_a_chain() -> None:
    graph = branches()
    schedule(graph, home)
    assert not schedule(graph, home)
    assert not schedule(branches(1), home)


def test_symbols_are_there_before_they_are_needed() -> None:
    graph = Graph("symbols")
    x = graph.input(TensorType(DType.F32, (64,)), "x")
    found = graph.add("non_zero", x)
    wide = [graph.add("expand", graph.add("reshape", x, shape=(64, 1)), shape=(64, 50 + n)) for n in range(3)]
    sums = [graph.add("reduce_sum", w, axes=(0, 1), keepdims=False) for w in wide]
    rows = [graph.add("expand", s, shape=(found.type.shape[1],)) for s in sums]  # type: ignore[union-attr, index]
    graph.set_outputs([*rows, found], ["a", "b", "c", "n"])
    assert schedule(graph, home)
    position = {node: n for n, node in enumerate(graph)}
    assert found.producer is not None
    assert all(position[found.producer] < position[r.producer] for r in rows if r.producer is not None)


@pytest.mark.parametrize("seed", range(20))
def test_an_order_is_never_worse(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = Graph("random")
    known = [graph.input(TensorType(DType.F32, (4,)), "x")]
    for _ in range(25):
        value = known[int(random.integers(len(known)))]
        if random.integers(2):
            row = graph.add("reduce_sum", value, axes=(0,), keepdims=True)
            known.append(graph.add("expand", row, shape=(int(random.integers(1, 500)),)))
        else:
            known.append(graph.add("neg", value))
    graph.set_outputs([v for v in known if not v.uses], None)
    before = peak_bytes(list(graph), graph.outputs, home)
    changed = schedule(graph, home)
    after = peak_bytes(list(graph), graph.outputs, home)
    assert after < before if changed else after == before
