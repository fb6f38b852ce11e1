"""Each invariant of the verifier: a planted violation, its number, and the culprit underlined."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import OPS
from fusible.compiler.ir.refine import rebuild_types
from fusible.compiler.ir.symbols import Symbol, SymInt
from fusible.compiler.ir.text import print_graph
from fusible.compiler.ir.types import DType, SequenceType, TensorType
from fusible.compiler.ir.verify import INVARIANTS, verify
from fusible.errors import VerifyError

F32 = DType.F32


def _chain() -> tuple[Graph, Node, Node]:
    graph = Graph("g")
    n = graph.symbols.add(Symbol("N"))
    graph.defines = (Symbol("N"),)
    x = graph.input(TensorType(F32, (n, 3)), "x")
    with graph.inserting_before(None, ("first",)):
        a = graph.add("add", x, graph.constant(np.ones(3, np.float32), "c"), name="a")
    with graph.inserting_before(None, ("second",)):
        b = graph.add("add", a, x, name="b")
    graph.set_outputs([b], ["y"])
    assert a.producer is not None and b.producer is not None
    return graph, a.producer, b.producer


def _loop() -> tuple[Graph, Node, Graph]:
    graph = Graph("g")
    x = graph.input(TensorType(F32, (2,)), "x")
    k = graph.input(TensorType(F32, (2,)), "k")
    body = Graph("body", graph.symbols)
    body.input(TensorType(DType.I64, ()), "i")
    condition = body.input(TensorType(DType.BOOL, ()), "go")
    carried = body.input(TensorType(F32, (2,)), "carried")
    captured = body.input(TensorType(F32, (2,)), "k")
    body.set_outputs([condition, body.add("add", carried, captured, name="sum")], ["", ""])
    trips = graph.constant(np.asarray(3, np.int64), "trips")
    node = graph.add_node("loop", [trips, None, x, k], {"carried": 1}, outputs=1, names=["r"], subgraphs=[body])
    graph.set_outputs([node.output], ["y"])
    return graph, node, body


def test_valid_graphs_pass() -> None:
    verify(_chain()[0])
    verify(_loop()[0])
    verify(Graph("empty"))


def _expect(graph: Graph, number: int, message: str) -> str:
    with pytest.raises(VerifyError) as caught:
        verify(graph)
    text = str(caught.value)
    assert caught.value.invariant == f"invariant {number} ({INVARIANTS[number]})"
    assert message in text and "^" in text, text
    return text


def test_exact_text_order() -> None:
    graph, first, second = _chain()
    graph.move_before(second, first)
    expected = """\
invariant 5 (order): operand 0 of add at 'second' is defined later
graph g {
  symbol N
  constant %c: f32[3] = [1.0, 1.0, 1.0]
  input %x: f32[N, 3]
  defines N
  %b: f32[N, 3] = add(%a, %x)  # second
                      ^^
  %a: f32[N, 3] = add(%x, %c)  # first
  output %b as y
}"""
    assert _expect(graph, 5, "") == expected


def test_exact_text_types() -> None:
    graph, first, _ = _chain()
    first.outputs[0].type = TensorType(F32, (4, 3))
    expected = """\
invariant 9 (types): add at 'first' has type f32[4, 3], inference gives f32[N, 3]
graph g {
  symbol N
  constant %c: f32[3] = [1.0, 1.0, 1.0]
  input %x: f32[N, 3]
  defines N
  %a: f32[4, 3] = add(%x, %c)  # first
  ^^^^^^^^^^^^^
  %b: f32[N, 3] = add(%a, %x)  # second
  output %b as y
}"""
    assert _expect(graph, 9, "") == expected


def test_exact_text_of_a_long_graph_shows_the_surroundings() -> None:
    graph = Graph("g")
    x = graph.input(TensorType(F32, (3,)), "x")
    values = [x]
    for _ in range(100):
        values.append(graph.add("add", values[-1], x))
    graph.set_outputs([values[-1]], ["y"])
    values[50].type = TensorType(DType.F64, (3,))
    lines = _expect(graph, 9, "has type f64[3], inference gives f32[3]").splitlines()
    assert len(lines) < 40 and lines[1].startswith("... ") and lines[-1].startswith("... ")


def _replace_attrs(node: Node) -> None:
    node.attrs = (1, 2)


def _break(change: Callable[[Graph, Node, Node], object]) -> Graph:
    graph, first, second = _chain()
    change(graph, first, second)
    return graph


def _foreign(graph: Graph) -> Value:
    other = Graph("other")
    return other.add("add", other.input(TensorType(F32, (3,)), "p"), graph.constant(np.ones(3, np.float32)))


@pytest.mark.parametrize(
    ("number", "message", "change"),
    [
        (1, "does not link back", lambda g, a, b: setattr(b, "_prev", None)),
        (1, "counts 2 nodes, its list has 1", lambda g, a, b: setattr(a, "_next", None)),
        (1, "listed in a graph it does not belong to", lambda g, a, b: setattr(a, "graph", Graph("other"))),
        (1, "listed twice", lambda g, a, b: setattr(b, "_next", a)),
        (2, "relu takes 1 operands, not 2", lambda g, a, b: setattr(a, "op", OPS["relu"])),
        (2, "attributes are tuple, not NoAttrs", lambda g, a, b: _replace_attrs(a)),
        (3, "says it is something else", lambda g, a, b: setattr(a.outputs[0], "index", 1)),
        (3, "says it is something else", lambda g, a, b: setattr(a.outputs[0], "producer", b)),
        (3, "input 'x' is not an input of this graph alone", lambda g, a, b: setattr(g.inputs[0], "graph", None)),
        (4, "does not list this use", lambda g, a, b: a.outputs[0].uses.clear()),
        (4, "is listed, which is another value", lambda g, a, b: a.outputs[0].uses.update({(a, 0): None})),
        (4, "which is not in the graph", lambda g, a, b: a.outputs[0].uses.update({(_loop()[1], 0): None})),
        (5, "operand 0 of add at 'second' is defined nowhere", lambda g, a, b: g.set_input(b, 0, _foreign(g))),
        (7, "a constant of type f32[3] holds Constant(float64[3])",
         lambda g, a, b: setattr(a.inputs[1], "constant", Constant(np.ones(3)))),
        (8, "f32[-1] is no possible shape", lambda g, a, b: setattr(a.outputs[0], "type", TensorType(F32, (-1,)))),
        (8, "is no possible shape",
         lambda g, a, b: g.input(SequenceType(TensorType(F32, (1,) * 65)), "deep")),
        (9, "inference refuses add at 'first'", lambda g, a, b: g.set_input(a, 1, g.constant(np.ones(4, np.float32)))),
        (10, "needs symbol M",
         lambda g, a, b: g.input(TensorType(F32, (SymInt.of(Symbol("M")) * 2,)), "m")),
        (11, "no result of add at 'first' has the dimension Q", lambda g, a, b: setattr(a, "defines", (Symbol("Q"),))),
        (11, "symbol N is defined a second time", lambda g, a, b: setattr(a, "defines", (Symbol("N"),))),
        (11, "with other bounds",
         lambda g, a, b: setattr(g.inputs[0], "type", TensorType(F32, (SymInt.of(Symbol("N", 2)), 3)))),
        (11, "no input has the dimension Z", lambda g, a, b: setattr(g, "defines", (Symbol("Z"),))),
        (12, "output 0 is no value of graph 'g'", lambda g, a, b: g.set_outputs([_foreign(g)], ["y"])),
        (12, "has the name 'y' of another", lambda g, a, b: g.set_outputs([b.output, a.output], ["y", "y"])),
        (12, "2 outputs have 1 names", lambda g, a, b: g.set_outputs([b.output, a.output], ["y"])),
    ],
)  # fmt: skip
def test_planted(number: int, message: str, change: Callable[[Graph, Node, Node], object]) -> None:
    _expect(_break(change), number, message)


def test_capture_without_an_input() -> None:
    graph, _, body = _loop()
    node = next(iter(body))
    body.set_input(node, 1, graph.inputs[1])
    _expect(graph, 6, "operand 1 of add at a add made by the compiler belongs to another graph")


def test_constants_are_free_in_subgraphs() -> None:
    graph, _, body = _loop()
    body.set_input(next(iter(body)), 1, graph.constant(np.ones(2, np.float32)))
    verify(graph)


def test_loop_signatures() -> None:
    graph, _, body = _loop()
    body.set_outputs(body.outputs[:1], [""])
    _expect(graph, 13, "has 4 inputs and 1 outputs, the node 4 operands")
    graph, _, body = _loop()
    body.inputs[3].type = TensorType(F32, (3,))
    _expect(graph, 13, "captured input 'k' has type f32[3], outside it is f32[2]")
    graph, _, body = _loop()
    body.set_outputs([body.inputs[1], body.inputs[0]], ["", ""])
    _expect(graph, 13, "leaves as i64[]")
    graph, node, body = _loop()
    node.subgraphs = (body, body)
    _expect(graph, 1, "graph 'body' belongs to two nodes")
    graph, node, body = _loop()
    node.subgraphs = (Graph("body"),)
    _expect(graph, 1, "has a symbol table of its own")


def test_symbols_are_edges() -> None:
    graph = Graph("g")
    mask = graph.input(TensorType(DType.BOOL, (5,)), "mask")
    found = graph.add("non_zero", mask, name="found")
    assert isinstance(found.type, TensorType) and found.type.shape is not None
    count = found.type.shape[1]
    ones = graph.add("expand", graph.constant(np.ones(1, np.float32)), shape=(count,), name="ones")
    graph.set_outputs([ones], ["y"])
    verify(graph)
    assert ones.producer is not None
    graph.move_before(ones.producer, found.producer)
    _expect(graph, 10, f"needs symbol {count}, which nothing before it defines")


def test_symbols_from_outside() -> None:
    graph = Graph("g")
    x = graph.input(TensorType(F32, (SymInt.of(Symbol("N")) * 2,)), "x")
    graph.set_outputs([x], ["y"])
    _expect(graph, 10, "the type of input 'x' needs symbol N")
    verify(graph, symbols=["N"])


def test_known_symbols_are_replaced_forward() -> None:
    graph = Graph("g")
    mask = graph.input(TensorType(DType.BOOL, (5,)), "mask")
    found = graph.add("non_zero", mask, name="found")
    assert isinstance(found.type, TensorType) and found.type.shape is not None
    count = found.type.shape[1]
    y = graph.add("transpose", found, perm=(1, 0), name="y")
    graph.set_outputs([graph.add("expand", graph.constant(np.ones(1, np.float32)), shape=(count,)), y], ["a", "b"])
    assert found.producer is not None
    graph.replace(found.producer, graph.constant(np.zeros((1, 2), np.int64)))
    with pytest.raises(VerifyError):
        verify(graph)
    rebuild_types(graph, {str(count): 2})
    verify(graph)
    assert [str(v.type) for v in graph.outputs] == ["f32[2]", "i64[2, 1]"]
    assert str(count) not in print_graph(graph)


def test_time_is_linear() -> None:
    def seconds(size: int) -> float:
        graph = Graph("g")
        value = x = graph.input(TensorType(F32, (3,)), "x")
        for _ in range(size):
            value = graph.add("add", value, x)
        graph.set_outputs([value], ["y"])
        start = time.process_time()
        verify(graph)
        return time.process_time() - start

    assert seconds(8000) < 24 * max(seconds(1000), 0.005)
