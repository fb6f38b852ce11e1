"""fuse-siblings: results of the same operands and type come from one group; others stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.passes.base import PassContext
from fusible.passes.fuse_regions import MOST_READ, FuseRegions, ungroup
from fusible.passes.fuse_siblings import FuseSiblings
from fusible.passes.ledger import Kind
from fusible.passes.packed_weights import READS_PACKED

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


def _caches() -> Graph:
    """Two caches that one product extends, cast for the caller, and what is added up of one of them."""
    graph = Graph("g")
    past = [graph.input(TensorType(DType.F16, (2, 6)), name) for name in ("k", "v")]
    x = graph.input(TensorType(DType.F16, (2, 4)), "x")
    results, total = [], None
    for n, cache in enumerate(past):
        new = graph.add("slice", x, starts=(2 * n,), ends=(2 * n + 2,), axes=(1,), steps=(1,))
        joined = graph.add("concat", cache, new, axis=1)
        if total is None:
            total = graph.add("reduce_sum", joined, axes=(1,))
        results.append(graph.add("cast", joined, dtype=DType.F32))
    assert total is not None
    graph.set_outputs([*results, total], ["K", "V", "sum"])
    return graph


def test_caches_and_their_casts_are_one_launch_where_one_operand_is_common() -> None:
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float16) for shape in ((2, 6), (2, 6), (2, 4))]
    expected = evaluate_graph(_caches(), arrays)
    graph, context = _caches(), _context()
    context.target["reads_packed"] = True  # type: ignore[index]
    assert _run(graph, context) >= 2
    verify(graph)
    fused = [node for node in graph if node.op.name == "fused" and len(node.outputs) > 1]
    assert [len(node.outputs) for node in fused] == [3]
    for got, wanted in zip(evaluate_graph(graph, arrays), expected, strict=True):
        assert np.array_equal(got, wanted)
    graph, context = _caches(), _context()
    assert _run(graph, context) == 0, "targets whose launches cost little leave them alone"


def test_what_reads_the_first_before_the_second_is_made_keeps_them_apart() -> None:
    graph = Graph("g")
    x, y = (graph.input(TensorType(DType.F32, (4, 6)), name) for name in "xy")
    first = graph.add("exp", graph.add("add", x, y))
    total = graph.add("matmul", graph.add("transpose", first, perm=(1, 0)), first)
    row = graph.add("reduce_max", total, axes=(0,))
    graph.set_outputs([first, graph.add("sub", graph.add("neg", x), row)], ["a", "b"])
    context = _context()
    context.target["reads_packed"] = True  # type: ignore[index]
    expected = evaluate_graph(graph, [X, X])
    assert _run(graph, context) == 0
    verify(graph)
    assert all(np.array_equal(a, b) for a, b in zip(evaluate_graph(graph, [X, X]), expected, strict=True))


@pytest.mark.parametrize("near", [False, True])
def test_a_kernel_has_sixteen_results_at_most(near: bool) -> None:
    graph, context = _graph(*[(24,)] * 40), _context()
    context.target["reads_packed"] = near  # type: ignore[index]
    expected = evaluate_graph(graph, [X])
    assert _run(graph, context) == 37
    verify(graph)
    assert [len(node.outputs) for node in graph] == [16, 16, 8]
    for got, wanted in zip(evaluate_graph(graph, [X]), expected, strict=True):
        assert np.array_equal(got, wanted)
    reasons = [e.reason for e in context.ledger.select(Kind.REFUSED)]
    assert "the kernel would have more than 16 results" in reasons and len(reasons) < 5


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("reason", [None, "no two stores"])
def test_what_is_asked_of_many_siblings_grows_with_their_number(near: bool, reason: str | None) -> None:
    """The nodes that a target is asked about: of 160 siblings four times as many as of 40."""
    asked = []
    for count in (40, 160):
        graph, context = _graph(*[(24,)] * count), _context()
        FuseRegions().run(graph, context)
        sizes: list[int] = []

        def printable(nodes: Sequence[Node], outputs: Sequence[Value], sizes: list[int] = sizes) -> str | None:
            sizes.append(len(nodes))
            return reason

        FuseSiblings().run(graph, PassContext(target={"printable": printable, "reads_packed": near}))
        asked.append(sum(sizes))
    assert 3.5 * asked[0] < asked[1] < 4.5 * asked[0]


def test_a_result_that_only_the_other_group_read_is_not_stored() -> None:
    def made() -> Graph:
        graph = Graph("g")
        x, y = (graph.input(TensorType(DType.F32, (64,)), name) for name in "xy")
        first = graph.add("add", graph.add("exp", x), y)
        graph.set_outputs([graph.add("mul", graph.add("sqrt", first), y)], ["z"])
        return graph

    graph, operands = made(), [np.linspace(0, 9, 64, dtype=np.float32), np.ones(64, np.float32)]
    (expected,) = evaluate_graph(made(), operands)
    small = {"name": "cpu", "printable": lambda nodes, outputs: "large" if len(nodes) > 2 else None}
    FuseRegions().run(graph, PassContext(target=small))
    assert len(list(graph)) == 2
    near = {"name": "triton-cpu", "printable": lambda nodes, outputs: None, READS_PACKED: True}
    assert FuseSiblings().run(graph, PassContext(target=near)) == 1
    verify(graph)
    (node,) = graph
    assert len(node.outputs) == 1
    np.testing.assert_array_equal(evaluate_graph(graph, operands)[0], expected)


def test_a_group_of_more_values_than_kernels_take_is_refused() -> None:
    graph = Graph("g")
    values = [graph.input(TensorType(DType.F32, (64,)), f"x{n}") for n in range(140)]

    def folded(among: Sequence[Value]) -> Value:
        total = among[0]
        for value in among[1:]:
            total = graph.add("add", total, value)
        return total

    graph.set_outputs([folded(values[:80]), folded(values[60:])], ["y", "z"])
    context = PassContext(target={"name": "triton-cpu", "printable": lambda nodes, outputs: None, READS_PACKED: True})
    FuseRegions().run(graph, context)
    FuseSiblings().run(graph, context)
    assert max(len(node.inputs) for node in graph) <= MOST_READ
    assert any(entry.reason == "the kernel would read more than 128 values" for entry in context.ledger)
