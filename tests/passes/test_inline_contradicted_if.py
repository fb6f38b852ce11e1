"""inline-contradicted-if: of two branches that differ in rank the one stays with which what follows can be computed."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.failing import failure_of
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.refine import rebuild_types
from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import ExecutionError, InvalidModel
from fusible.passes import Kind, PassContext
from fusible.passes.inline_constant_if import InlineConstantIf
from fusible.passes.inline_contradicted_if import InlineContradictedIf
from tests.passes.checking import ops, random, run, tensor


def branch(graph: Graph, x: Value, shape: tuple[object, ...] | None) -> Graph:
    """x in another shape, or as it is."""
    inner = Graph("branch", graph.symbols)
    value = inner.input_for(x)
    inner.set_outputs([inner.add("reshape" if shape else "relu", value, **({"shape": shape} if shape else {}))], ["y"])
    return inner


def squeezed(graph: Graph, x: Value, flag: Value) -> Value:
    """An `if` as exporters write `squeeze(x, 1)`: x [rows, 1, 3] without its ones, or as it is."""
    assert isinstance(x.type, TensorType) and x.type.shape is not None
    shape = (x.type.shape[0], 3)
    branches = [branch(graph, x, shape), branch(graph, x, None)]
    return graph.add_node("if", [flag, x], {}, subgraphs=branches, outputs=1).outputs[0]


def graph_of(*, flag: str = "flag") -> tuple[Graph, Value, Value]:
    g = Graph("test")
    return g, tensor(g, ("rows", 1, 3)), tensor(g, (), flag, DType.BOOL)


def product(g: Graph, value: Value) -> Value:
    """A product with weights that needs two dimensions."""
    return g.add("gemm", value, g.constant(np.ones((3, 4), np.float32)), None)


def test_the_branch_that_what_follows_can_read_takes_the_place_of_the_if() -> None:
    g, x, flag = graph_of()
    g.set_outputs([product(g, squeezed(g, x, flag))], ["y"])
    assert g.outputs[0].type.shape is None or len(g.outputs[0].type.shape) == 2  # type: ignore[union-attr]
    feeds = [random((2, 1, 3)), np.asarray(True)]
    used = run(InlineContradictedIf(), g, feeds, 1)
    assert ops(g) == ["require", "reshape", "gemm"]
    assert g.outputs[0].type == TensorType(DType.F32, (x.type.shape[0], 4))  # type: ignore[union-attr, index]
    fired = next(e for e in used.ledger if e.kind is Kind.FIRED)
    assert "the else branch contradicts what follows: gemm at" in fired.reason
    with pytest.raises(ExecutionError, match=r"the else branch of the If at .* leads to an error: gemm at"):
        evaluate_graph(g, [feeds[0], np.asarray(False)])


def test_branches_that_both_go_on_stay() -> None:
    g, x, flag = graph_of()
    g.set_outputs([g.add("relu", squeezed(g, x, flag))], ["y"])
    run(InlineContradictedIf(), g, [random((2, 1, 3)), np.asarray(True)], 0)
    assert ops(g) == ["if", "relu"]


def test_an_error_behind_both_branches_is_no_reason() -> None:
    g, x, flag = graph_of()
    value = squeezed(g, x, flag)
    g.set_outputs([g.add("gemm", value, g.constant(np.ones((5, 4), np.float32)), None)], ["y"])
    assert InlineContradictedIf().run(g, PassContext()) == 0


def test_an_error_that_only_another_branch_makes_is_none() -> None:
    """What contradicts stands in a branch of a second `if`, which need not be taken."""
    g, x, flag = graph_of()
    other = tensor(g, (), "other", DType.BOOL)
    value = squeezed(g, x, flag)
    branches = []
    for op in ("gemm", "relu"):
        inner = Graph(op, g.symbols)
        read = inner.input_for(value)
        inner.set_outputs([product(inner, read) if op == "gemm" else inner.add("relu", read)], ["y"])
        branches.append(inner)
    node = g.add_node("if", [other, value], {}, subgraphs=branches, outputs=1)
    g.set_outputs(node.outputs, ["y"])
    feeds = [random((2, 1, 3)), np.asarray(True), np.asarray(True)]
    run(InlineContradictedIf(), g, feeds, 0)
    assert ops(g) == ["if", "if"]


def test_conditions_that_follow_from_a_rank_are_decided_on_the_way() -> None:
    """A second `if` asks for the rank that the first one leaves open; what needs two dimensions comes behind it."""
    g, x, flag = graph_of()
    value = squeezed(g, x, flag)
    rank = g.add("size", g.add("shape", value))
    is_two = g.add("equal", rank, g.constant(np.asarray(2)))
    inner = [Graph(name, g.symbols) for name in ("same", "more")]
    for graph, axes in zip(inner, ((), (0,)), strict=True):
        read = graph.input_for(value)
        graph.set_outputs([graph.add("unsqueeze", read, axes=axes) if axes else graph.add("identity", read)], ["y"])
    second = g.add_node("if", [is_two, value], {}, subgraphs=inner, outputs=1)
    g.set_outputs([product(g, second.outputs[0])], ["y"])
    run(InlineContradictedIf(), g, [random((2, 1, 3)), np.asarray(True)], 1)
    assert "require" in ops(g)
    run(InlineConstantIf(), g, [random((2, 1, 3)), np.asarray(True)], 1)
    assert g.outputs[0].type == TensorType(DType.F32, (x.type.shape[0], 4))  # type: ignore[union-attr, index]


def test_a_body_of_a_loop_may_run_no_time_at_all() -> None:
    g, x, flag = graph_of()
    value = squeezed(g, x, flag)
    body = Graph("body", g.symbols)
    body.input(TensorType(DType.I64, ()), "n")
    going = body.input(TensorType(DType.BOOL, ()), "going")
    body.input(TensorType(DType.F32, None), "carried")
    read = body.input_for(value)
    body.set_outputs([body.add("identity", going), body.add("relu", product(body, read))], ["going", "carried"])
    first = g.constant(np.zeros((2, 4), np.float32))
    trips = tensor(g, (), "trips", DType.I64)
    loop = g.add_node("loop", [trips, None, first, value], {"carried": 1}, subgraphs=[body], outputs=1)
    g.set_outputs(loop.outputs, ["y"])
    run(InlineContradictedIf(), g, [random((2, 1, 3)), np.asarray(True), np.asarray(0)], 0)


def test_large_graphs_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusible.passes.inline_contradicted_if._MOST_NODES", 5)
    g, x, flag = graph_of()
    g.set_outputs([product(g, squeezed(g, x, flag))], ["y"])
    used = run(InlineContradictedIf(), g, [random((2, 1, 3)), np.asarray(True)], 0)
    assert [e.reason for e in used.ledger if e.kind is Kind.DECLINED] == ["the graph is too large to try both branches"]


def if_node(g: Graph) -> Node:
    return next(node for node in g if node.op.name == "if")


def test_a_branch_that_new_types_contradict_fails_when_it_is_taken() -> None:
    g = Graph("test")
    x, flag = tensor(g, ("rows", "columns")), tensor(g, (), "flag", DType.BOOL)
    branches = [branch(g, x, None), Graph("product", g.symbols)]
    branches[1].set_outputs([product(branches[1], branches[1].input_for(x))], ["y"])
    g.set_outputs(g.add_node("if", [flag, x], {}, subgraphs=branches, outputs=1).outputs, ["y"])
    rebuild_types(g, {"columns_0": 5})
    then, otherwise = if_node(g).subgraphs
    assert failure_of(then) is None and failure_of(otherwise) is not None
    assert g.outputs[0].type == TensorType(DType.F32, (x.type.shape[0], 5))  # type: ignore[union-attr, index]
    evaluate_graph(g, [random((2, 5)), np.asarray(True)])
    with pytest.raises(ExecutionError, match="gemm"):
        evaluate_graph(g, [random((2, 5)), np.asarray(False)])


def test_two_branches_that_new_types_contradict_are_an_error() -> None:
    g = Graph("test")
    x, flag = tensor(g, ("rows", "columns")), tensor(g, (), "flag", DType.BOOL)
    branches = [Graph("product", g.symbols) for _ in range(2)]
    for inner in branches:
        inner.set_outputs([product(inner, inner.input_for(x))], ["y"])
    g.set_outputs(g.add_node("if", [flag, x], {}, subgraphs=branches, outputs=1).outputs, ["y"])
    with pytest.raises(InvalidModel, match="gemm"):
        rebuild_types(g, {"columns_0": 5})
