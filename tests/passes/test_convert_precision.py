"""convert-precision: what computes in the smaller type, casts at the borders only, what stays, twice equals once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fusible.compiler.accuracy import compare, kernel_bound
from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.passes.base import PassContext
from fusible.passes.convert_precision import ConvertPrecision
from fusible.passes.dead_code import DeadCode
from fusible.passes.ledger import Kind
from tests.passes.rewriting import graph_of

Build = Callable[[Graph, Value], Value]


def converted(build: Build, dtype: DType = DType.F16) -> tuple[Graph, PassContext]:
    """The graph after the pass: valid, with its types and nearly its numbers; a second run changes nothing."""
    before, graph = graph_of(build, (3, 4)), graph_of(build, (3, 4))
    context = PassContext(target={"precision": dtype})
    ConvertPrecision().run(graph, context)
    verify(graph)
    assert [v.type for v in graph.outputs] == [v.type for v in before.outputs]
    assert ConvertPrecision().run(graph, PassContext(target={"precision": dtype})) == 0
    DeadCode().run(graph, PassContext())
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for got, wanted in zip(evaluate_graph(graph, [x]), evaluate_graph(before, [x]), strict=True):
        verdict = compare(np.asarray(wanted), np.asarray(got), kernel_bound(dtype.numpy, 4096))
        assert verdict, verdict.reason
    return graph, context


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph]


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_casts_stand_at_the_borders_only(dtype: DType) -> None:
    def build(graph: Graph, x: Value) -> Value:
        weight = graph.constant(np.eye(4, dtype=np.float32))
        return graph.add("relu", graph.add("add", graph.add("matmul", x, weight), x))

    graph, context = converted(build, dtype)
    assert ops(graph) == ["cast", "matmul", "add", "relu", "cast"]
    types = {node.op.name: node.outputs[0].type for node in list(graph)[1:-1]}
    assert all(isinstance(t, TensorType) and t.dtype is dtype for t in types.values())
    (entry,) = context.ledger.select(Kind.FIRED)
    assert entry.reason == f"3 nodes compute in {dtype.value}"


def test_what_leaves_the_range_stays() -> None:
    def build(graph: Graph, x: Value) -> Value:
        return graph.add("relu", graph.add("exp", graph.add("neg", x)))

    graph, _ = converted(build)
    assert ops(graph) == ["cast", "neg", "cast", "exp", "cast", "relu", "cast"]


def dequantised(graph: Graph, *shape: int) -> Value:
    """A weight, of more elements than are followed one by one."""
    codes, scale = graph.constant(np.arange(2000).reshape(shape).astype(np.int8)), graph.constant(np.float32(0.1))
    return graph.add("dequantize_linear", codes, scale, output_dtype=DType.F32)


def test_weights_are_dequantised_to_the_smaller_type() -> None:
    def build(graph: Graph, x: Value) -> Value:
        return graph.add("matmul", x, graph.add("transpose", dequantised(graph, 500, 4), perm=(1, 0)))

    graph, _ = converted(build)
    assert sorted(ops(graph)) == ["cast", "cast", "dequantize_linear", "matmul", "transpose"]
    (type_,) = (node.output.type for node in graph if node.op.name == "dequantize_linear")
    assert isinstance(type_, TensorType) and type_.dtype is DType.F16


def test_weights_that_are_read_in_fp32_too_are_cast() -> None:
    def build(graph: Graph, x: Value) -> Value:
        weight = dequantised(graph, 4, 500)
        return graph.add("add", graph.add("matmul", x, weight), graph.add("reduce_sum", weight, axes=(0,)))

    graph, _ = converted(build)
    (node,) = (node for node in graph if node.op.name == "dequantize_linear")
    assert isinstance(node.output.type, TensorType) and node.output.type.dtype is DType.F32
    assert sorted(user.op.name for user in node.output.users) == ["cast", "reduce_sum"]


def test_large_constants_stay_finite() -> None:
    def build(graph: Graph, x: Value) -> Value:
        return graph.add("min", x, graph.constant(np.asarray([np.inf, 1e30, 7e4, 1], np.float32)))

    graph, _ = converted(build)
    (constant,) = [v.constant.array for n in graph for v in n.inputs if v is not None and v.constant is not None]
    assert constant.tolist() == [np.inf, 65504, 65504, 1]


def test_integers_and_ops_without_a_definition_stay() -> None:
    def build(graph: Graph, x: Value) -> Value:
        return graph.add("add", graph.add("cast", x, dtype=DType.I64), graph.constant(np.asarray(1)))

    graph, context = converted(build)
    assert ops(graph) == ["cast", "add"] and not context.ledger.select(Kind.FIRED)

    def inverse(graph: Graph, x: Value) -> Value:
        return graph.add("det", graph.add("matmul", x, graph.add("transpose", x, perm=(1, 0))))

    graph, _ = converted(inverse)
    assert ops(graph)[-2:] == ["cast", "det"]


def test_without_a_precision_nothing_happens() -> None:
    graph = graph_of(lambda g, x: g.add("relu", x), (3,))
    assert ConvertPrecision().run(graph, PassContext()) == 0 and ops(graph) == ["relu"]
