"""canonicalise: each identity fires, near ones do not, exactness is obeyed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType
from fusible.passes import Exactness
from fusible.passes.canonicalise import canonicalise
from tests.passes.checking import F32, I64, ops, random, reasons, run, tensor

Build = Callable[[Graph, Value], Value]


def scalar(graph: Graph, value: float, shape: tuple[int, ...] = ()) -> Value:
    return graph.constant(np.full(shape, value, np.float32))


VANISHING: dict[str, Build] = {
    "mul 1": lambda g, x: g.add("mul", scalar(g, 1), x),
    "div 1": lambda g, x: g.add("div", x, scalar(g, 1, (1,))),
    "sub 0": lambda g, x: g.add("sub", x, scalar(g, 0)),
    "add 0": lambda g, x: g.add("add", x, scalar(g, 0)),
    "add -0": lambda g, x: g.add("add", x, scalar(g, -0.0)),
    "add zeros": lambda g, x: g.add("add", scalar(g, 0, (1, 5)), x),
    "pow 1": lambda g, x: g.add("pow", x, scalar(g, 1)),
    "neg neg": lambda g, x: g.add("neg", g.add("neg", x)),
    "identity": lambda g, x: g.add("identity", x),
    "concat": lambda g, x: g.add("concat", x, axis=1),
    "cast": lambda g, x: g.add("cast", x, dtype=F32),
    "reshape": lambda g, x: g.add("reshape", x, shape=x.type.shape),  # type: ignore[union-attr]
    "expand": lambda g, x: g.add("expand", x, shape=(1, 5)),
    "transpose": lambda g, x: g.add("transpose", x, perm=(0, 1)),
    "pad": lambda g, x: g.add("pad", x, pads=(0, 0, 0, 0)),
    "tile": lambda g, x: g.add("tile", x, repeats=(1, 1)),
    "slice": lambda g, x: g.add("slice", x, starts=(0,), ends=(2**31,), axes=(1,), steps=(1,)),
}


@pytest.mark.parametrize("name", VANISHING)
@pytest.mark.parametrize("rows", [3, 0, "n"])
def test_it_vanishes(name: str, rows: object) -> None:
    graph = Graph("g")
    x = tensor(graph, [rows, 5])
    graph.set_outputs([graph.add("relu", VANISHING[name](graph, x))], ["y"])
    run(canonicalise, graph, [random((rows if isinstance(rows, int) else 4, 5))], None)
    assert ops(graph) == ["relu"]


STAYING: dict[str, Build] = {
    "mul 2": lambda g, x: g.add("mul", x, scalar(g, 2)),
    "wider 1": lambda g, x: g.add("mul", x, scalar(g, 1, (1, 1, 1))),
    "wider 0": lambda g, x: g.add("add", x, scalar(g, 0, (2, 1, 1))),
    "add zeros but one": lambda g, x: g.add("add", x, g.constant(np.eye(1, 5, 2, dtype=np.float32))),
    "1 / x": lambda g, x: g.add("div", scalar(g, 1), x),
    "0 - x": lambda g, x: g.add("sub", scalar(g, 0), x),
    "two parts": lambda g, x: g.add("concat", x, x, axis=0),
    "expanded": lambda g, x: g.add("expand", x, shape=(2, 3, 5)),
    "transpose": lambda g, x: g.add("transpose", x, perm=(1, 0)),
    "part": lambda g, x: g.add("slice", x, starts=(0,), ends=(4,), axes=(1,), steps=(1,)),
    "reverse": lambda g, x: g.add("slice", x, starts=(-1,), ends=(-9,), axes=(1,), steps=(-1,)),
}


@pytest.mark.parametrize("name", STAYING)
def test_it_stays(name: str) -> None:
    graph = Graph("g")
    graph.set_outputs([STAYING[name](graph, tensor(graph, [3, 5]))], ["y"])
    run(canonicalise, graph, [random((3, 5))], 0)


def test_square() -> None:
    graph = Graph("g")
    x = tensor(graph, [7])
    graph.set_outputs([graph.add("pow", x, scalar(graph, 2))], ["y"])
    run(canonicalise, graph, [random((7,))], 1)
    assert ops(graph) == ["mul"]


def test_adding_zero_is_not_exact_for_floats() -> None:
    graph = Graph("g")
    x = tensor(graph, [3])
    graph.set_outputs([graph.add("add", x, scalar(graph, 0))], ["y"])
    used = run(canonicalise, graph, [np.float32([-0.0, 1, 2])], 0, exactness=Exactness.EXACT)
    assert ops(graph) == ["add"]
    assert "changes -0.0 to 0.0" in reasons(used)
    assert "REASSOCIATING, EXACT is the loosest allowed" in reasons(used)


def test_adding_zero_is_exact_for_integers() -> None:
    graph = Graph("g")
    x = tensor(graph, [3], dtype=I64)
    graph.set_outputs([graph.add("neg", graph.add("add", graph.constant(np.int64(0)), x))], ["y"])
    run(canonicalise, graph, [random((3,), I64)], 1, exactness=Exactness.EXACT)
    assert ops(graph) == ["neg"]


def test_not_not() -> None:
    graph = Graph("g")
    x = tensor(graph, [3], dtype=DType.BOOL)
    graph.set_outputs([graph.add("not", graph.add("not", graph.add("not", x)))], ["y"])
    run(canonicalise, graph, [random((3,), DType.BOOL)], 1)
    assert ops(graph) == ["not"]


def test_a_result_of_the_graph_keeps_its_name() -> None:
    graph = Graph("g")
    x = tensor(graph, [3])
    graph.set_outputs([graph.add("identity", x)], ["y"])
    run(canonicalise, graph, [random((3,))], 1)
    assert graph.output_names == ["y"] and graph.outputs == (x,)
