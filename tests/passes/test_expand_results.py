"""expand-results: ops whose results differ in shape become the nodes of their definition, with the same numbers."""

from __future__ import annotations

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType
from fusible.passes.expand_results import ExpandResults
from fusible.passes.ledger import Kind
from tests.passes.rewriting import apply, graph_of


def quantised(graph: Graph, x: Value) -> Value:
    node = graph.add_node("dynamic_quantize_linear", [x], outputs=3)
    y, scale, zero = node.outputs
    return graph.add("dequantize_linear", y, scale, zero, output_dtype=DType.F32)


def test_a_quantisation_and_its_scale() -> None:
    ops, context = apply(ExpandResults(), graph_of(quantised, (3, 5)))
    assert {"reduce_min", "reduce_max", "quantize_linear"} < set(ops) and "dynamic_quantize_linear" not in ops
    (entry,) = context.ledger.select(Kind.FIRED)
    assert entry.nodes == ("node",) and entry.reason.startswith("its 3 results differ in shape: ")


def test_results_of_one_shape_and_ops_without_such_a_definition_stay() -> None:
    def pieces(graph: Graph, x: Value) -> Value:
        first, second = graph.add_node("split", [x], {"axis": 1, "split": (2, 3)}, outputs=2).outputs
        return graph.add("concat", first, second, axis=1)

    def largest(graph: Graph, x: Value) -> Value:
        return graph.add_node("top_k", [x], {"axis": -1, "k": 2}, outputs=2).outputs[0]

    for build in (pieces, largest):
        ops, _ = apply(ExpandResults(), graph_of(build, (3, 5)))
        assert ops[0] in ("split", "top_k")
