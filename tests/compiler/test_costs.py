"""Static costs: by hand for the ops that matter, consistent between symbols and numbers, and honest where unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, ValueInfoProto, helper

import fusible
from fusible.benchmarks.kernels.values import operand_values
from fusible.benchmarks.kernels.written import written_cases
from fusible.compiler.costs import Cost, Costs, arithmetic, graph_cost, node_cost
from fusible.compiler.ir.definition import Composite
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.expr import Arg, apply
from fusible.errors import InvalidModel

F32 = DType.F32


def node(op: str, *shapes: Sequence[Dim] | None, of: DType = F32, outputs: int | None = None, **attrs: Any) -> Node:
    """A node whose operands have these shapes."""
    g = Graph("single")
    for shape in shapes:
        for symbol in [s for d in shape or () for s in symbols_of(d)]:
            g.symbols.add(symbol)
    operands = [None if s is None else g.input(TensorType(of, tuple(s)), f"x{i}") for i, s in enumerate(shapes)]
    return g.add_node(op, operands, attrs, outputs=outputs)


def cost(op: str, *shapes: Sequence[Dim] | None, **attrs: Any) -> Cost:
    return node_cost(node(op, *shapes, **attrs))


# By hand


def test_products() -> None:
    assert cost("matmul", (5, 7), (7, 3)).flops == 2 * 5 * 3 * 7
    assert cost("matmul", (4, 5, 7), (7, 3)).flops == 4 * 2 * 5 * 3 * 7
    assert cost("gemm", (5, 7), (3, 7), (3,), transB=True).flops == pytest.approx(2 * 5 * 3 * 7 + 5 * 3, abs=2 * 15)
    assert cost("einsum", (2, 3, 4), (2, 4, 5), equation="bij,bjk->bik").flops == 2 * 2 * 3 * 5 * 4
    assert cost("matmul_integer", (5, 7), (7, 3), of=DType.U8).flops == 2 * 5 * 3 * 7


def test_convolutions() -> None:
    plain = cost("conv", (1, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3))
    assert plain.flops == 2 * 64 * 112 * 112 * 3 * 7 * 7
    assert cost("conv", (1, 3, 9, 9), (4, 3, 3, 3), (4,)).flops == 2 * 4 * 7 * 7 * 27 + 4 * 49
    depthwise = cost("conv", (1, 32, 56, 56), (32, 1, 3, 3), pads=(1, 1, 1, 1), group=32)
    assert depthwise.flops == 2 * 32 * 56 * 56 * 9
    assert depthwise.bytes_read == 4 * (32 * 56 * 56 + 32 * 9)
    assert depthwise.bytes_written == 4 * 32 * 56 * 56


def test_a_transposed_convolution_does_the_work_of_the_one_it_turns_round() -> None:
    forward = cost("conv", (1, 8, 16, 16), (4, 8, 2, 2), strides=(2, 2))
    back = cost("conv_transpose", (1, 4, 8, 8), (4, 8, 2, 2), strides=(2, 2))
    assert back.flops == forward.flops


def test_attention() -> None:
    """Two products with L x S scores a head; softmax and scaling are a few operations a score."""
    heads, length, depth = 4, 32, 16
    shape = (2, heads, length, depth)
    flops = cost("attention", shape, shape, shape).flops
    products = 2 * 2 * (2 * heads * length * length * depth)
    scores = 2 * heads * length * length
    assert isinstance(flops, int)
    assert products + 3 * scores <= flops <= products + 9 * scores


def test_attention_by_table_is_that_by_definition() -> None:
    """With a number of valid keys a row attention is opaque; for full rows the work is the same."""
    g = Graph("single")
    operands = [g.input(TensorType(F32, (2, 4, 32, 16)), f"x{i}") for i in range(3)]
    lengths = g.input(TensorType(DType.I64, (2,)), "lengths")
    by_table = node_cost(g.add_node("attention", [*operands, None, None, None, lengths])).flops
    by_definition = cost("attention", *[(2, 4, 32, 16)] * 3).flops
    assert isinstance(by_table, int) and isinstance(by_definition, int)
    assert by_table == pytest.approx(by_definition, rel=0.05)


@pytest.mark.parametrize(("op", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_recurrent_layers_by_table_and_by_definition(op: str, gates: int) -> None:
    steps, batch, width, hidden = 10, 2, 24, 16
    shapes = [(steps, batch, width), (1, gates * hidden, width), (1, gates * hidden, hidden)]
    whole = cost(op, *shapes).flops
    g = Graph("single")
    operands = [g.input(TensorType(F32, s), f"x{i}") for i, s in enumerate(shapes)]
    lengths = g.input(TensorType(DType.I32, (batch,)), "lengths")
    ragged = node_cost(g.add_node(op, [*operands, None, lengths])).flops
    products = 2 * steps * batch * gates * hidden * (width + hidden)
    assert isinstance(whole, int) and isinstance(ragged, int)
    assert products <= whole <= 1.2 * products
    assert products <= ragged <= 1.2 * products


def test_elementwise_counts_each_call_once() -> None:
    x = Arg(0)
    square = apply("mul", x, x)
    assert arithmetic(apply("add", square, square)) == 2
    assert arithmetic(apply("add", x, apply("mul", 2.0, 3.0))) == 1  # what is constant is computed beforehand
    assert cost("add", (3, 1, 5), (4, 1)).flops == 3 * 4 * 5
    assert cost("relu", (7, 9)).flops == 7 * 9
    assert cost("add", (3, 5), (5,)).bytes_read == 4 * (15 + 5)


def test_an_operand_that_stands_twice_is_read_once() -> None:
    g = Graph("single")
    x = g.input(TensorType(F32, (8, 8)), "x")
    assert node_cost(g.add_node("mul", (x, x))).bytes_read == 4 * 64


def test_reductions_and_pools() -> None:
    assert cost("reduce_sum", (8, 100), axes=(1,)).flops == 8 * 100
    assert cost("reduce_mean", (8, 100), axes=(1,)).flops == 8 * 100 + 8
    assert cost("reduce_sum_square", (8, 100), axes=(1,)).flops == 8 * 100 * 2
    assert cost("max_pool", (1, 4, 8, 8), kernel_shape=(2, 2), strides=(2, 2)).flops == 4 * 4 * 4 * 4
    assert cost("softmax", (8, 100)).flops == 8 * 100 * 5  # maximum, difference, exponential, sum, quotient


def test_views_move_what_they_give_and_compute_nothing() -> None:
    sliced = cost("slice", (100, 100), starts=(0,), ends=(10,), axes=(0,), steps=(1,))
    assert (sliced.flops, sliced.bytes_read, sliced.bytes_written) == (0, 4000, 4000)
    assert cost("expand", (1, 100), shape=(50, 100)).bytes_read == 400
    assert cost("reshape", (10, 10), shape=(100,)).bytes == 0
    g = Graph("single")
    table, rows = g.input(TensorType(F32, (10_000, 8)), "t"), g.input(TensorType(DType.I64, (3,)), "i")
    gathered = node_cost(g.add_node("gather", (table, rows), {"axis": 0}))
    assert (gathered.flops, gathered.bytes_read) == (0, 3 * 8 * 4 + 3 * 8)


def test_opaque_ops_by_the_table() -> None:
    assert cost("top_k", (4, 100), k=5).flops == 400
    assert cost("cum_sum", (4, 100), axis=1).flops == 400
    assert cost("det", (2, 6, 6)).flops == 2 * (2 * 6**3 // 3)
    assert cost("resize", (1, 1, 8, 8), sizes=(1, 1, 16, 16), mode="linear").flops == 256 * (2 * 4 - 1)
    assert cost("resize", (1, 1, 8, 8), sizes=(1, 1, 16, 16), mode="cubic").flops == 256 * (2 * 16 - 1)
    assert cost("resize", (1, 1, 8, 8), sizes=(1, 1, 13, 13), mode="nearest").flops == 0
    assert cost("dft", (3, 1024, 1), axis=1, onesided=True).flops == 3 * 5 * 1024 * 10 // 2


def test_what_is_not_known_is_said() -> None:
    unknown = cost("random_normal", shape=(4, 4), dtype=F32)
    assert unknown.flops is None
    assert unknown.unknown == ("random_normal: its elements are random",)
    assert unknown.bytes_written == 64
    g = Graph("single")
    ranked = node_cost(g.add_node("relu", (g.input(TensorType(F32, None), "x"),)))
    assert ranked.flops is None
    assert "no known size" in " ".join(ranked.unknown)


def test_a_definition_that_cannot_be_built_ends_no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(node: Node) -> Graph:
        raise InvalidModel("planted")

    made = node("relu", (4,))
    monkeypatch.setattr(made, "op", replace(made.op, definition=lambda n: Composite(build)))
    assert node_cost(made).flops is None
    assert "planted" in node_cost(made).unknown[0]


# What the data decide, what is drawn, text, tables, and the forms of ops whose sizes only a run can tell.
KNOWN_UNKNOWN = {
    "affine_grid_dynamic", "bernoulli", "blackman_window_dynamic", "col2im_dynamic", "dft_dynamic", "dropout",
    "feature_vectorizer", "hamming_window_dynamic", "hann_window_dynamic", "imputer", "linear_regressor",
    "max_roi_pool", "mel_weight_matrix", "mel_weight_matrix_dynamic", "multinomial", "non_max_suppression",
    "non_max_suppression_dynamic", "normalizer", "random_normal", "random_normal_like", "random_uniform",
    "random_uniform_like", "regex_full_match", "resize_dynamic", "stft_dynamic", "string_concat", "string_normalizer",
    "string_split", "tf_idf_vectorizer", "tree_ensemble", "unique",
}  # fmt: skip


def test_every_op_has_a_cost_or_is_known_to_have_none() -> None:
    costs = {case.text: (case.op, node_cost(case.node(operand_values(case, 0)))) for case in written_cases()}
    without = {op for op, found in costs.values() if found.flops is None}
    assert without == KNOWN_UNKNOWN
    for op, found in costs.values():
        assert (found.flops is None) == any(op in reason for reason in found.unknown if "no known size" not in reason)
        for count in (found.flops, found.bytes_read, found.bytes_written):
            assert not isinstance(count, int) or count >= 0


# Symbols


SIZES = st.integers(1, 40)


@given(n=SIZES, c=SIZES, h=st.integers(8, 40), w=st.integers(8, 40))
def test_symbolic_costs_at_sizes_are_those_of_the_sizes(n: int, c: int, h: int, w: int) -> None:
    names = {"n": n, "c": c, "h": h, "w": w}
    symbols = {name: SymInt.of(Symbol(name, 1)) for name in names}
    cases: list[tuple[str, list[list[str | int]], dict[str, Any]]] = [
        ("conv", [["n", 3, "h", "w"], [5, 3, 3, 3]], {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        ("matmul", [["n", "h", "c"], ["c", 7]], {}),
        ("softmax", [["n", "c", "h"]], {}),
        ("layer_normalization", [["n", "c", 16], [16]], {}),
        ("max_pool", [["n", "c", "h", "w"]], {"kernel_shape": (3, 3), "strides": (2, 2)}),
        ("concat", [["n", "c"], ["n", "h"]], {"axis": 1}),
        ("cum_sum", [["n", "c"]], {"axis": 0}),
    ]
    for op, shapes, attrs in cases:
        open_ = cost(op, *[[symbols.get(str(d), d) for d in s] for s in shapes], **attrs)
        literal = cost(op, *[[names.get(str(d), d) for d in s] for s in shapes], **attrs)
        assert open_.at(names) == literal, op


def test_a_symbol_without_a_value_is_named() -> None:
    with pytest.raises(KeyError, match="n"):
        cost("relu", (SymInt.of(Symbol("n")), 3)).at({})


# Graphs


def test_a_graph_is_the_sum_of_its_nodes() -> None:
    g = Graph("chain")
    x = g.input(TensorType(F32, (4, 8)), "x")
    y = g.add("relu", g.add("matmul", x, g.constant(np.ones((8, 3), np.float32))))
    g.set_outputs([y], ["y"])
    assert graph_cost(g).flops == 2 * 4 * 8 * 3 + 4 * 3
    costs = Costs()
    assert graph_cost(g).bytes == sum(costs.node(n).bytes for n in g)  # type: ignore[misc]


def test_resnet_50_has_its_published_operations() -> None:
    """4.09 billion multiply-adds (He et al. 2015, with the stride in the 3x3 convolutions as in torchvision)."""
    g = Graph("resnet50")

    def conv(x: Any, filters: int, size: int, stride: int = 1) -> Any:
        weight = g.input(TensorType(F32, (filters, x.type.shape[1], size, size)), "w")
        return g.add("conv", x, weight, strides=(stride, stride), pads=(size // 2,) * 4)

    x = conv(g.input(TensorType(F32, (1, 3, 224, 224)), "x"), 64, 7, 2)
    x = g.add("max_pool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and width > 64 else 1
            short = conv(x, 4 * width, 1, stride) if block == 0 else x
            inner = conv(conv(conv(x, width, 1), width, 3, stride), 4 * width, 1)
            x = g.add("relu", g.add("add", inner, short))
    x = g.add("reshape", g.add("global_average_pool", x), shape=(1, 2048))
    g.set_outputs([g.add("matmul", x, g.input(TensorType(F32, (2048, 1000)), "fc"))], ["y"])
    flops = graph_cost(g).flops
    assert isinstance(flops, int)
    assert flops == pytest.approx(2 * 4.09e9, rel=0.01)


def _branch(g: Graph, width: int) -> Graph:
    branch = Graph("branch", g.symbols)
    x = branch.input(TensorType(F32, (4, 8)), "x")
    y = branch.add("matmul", x, branch.constant(np.ones((8, width), np.float32)))
    branch.set_outputs([branch.add("reduce_sum", y, axes=None, keepdims=False)], ["y"])
    return branch


def test_of_a_branch_the_larger_counts() -> None:
    g = Graph("main")
    condition, x = g.input(TensorType(DType.BOOL, ()), "c"), g.input(TensorType(F32, (4, 8)), "x")
    made = g.add_node("if", (condition, x), subgraphs=(_branch(g, 2), _branch(g, 30)))
    assert node_cost(made).flops == graph_cost(made.subgraphs[1]).flops


@pytest.mark.parametrize("trip", [7, SymInt.of(Symbol("steps")), None])
def test_a_loop_counts_its_body_as_often_as_it_runs(trip: Dim | None) -> None:
    g = Graph("main")
    body = Graph("body", g.symbols)
    _, going = body.input(TensorType(DType.I64, ()), "i"), body.input(TensorType(DType.BOOL, ()), "going")
    state = body.input(TensorType(F32, (16,)), "s")
    body.set_outputs([going, body.add("exp", state)], ["going", "s"])
    count = g.input(TensorType(DType.I64, ()), "trip")
    if trip is not None:
        count._content = np.array(trip, dtype=object)
    x = g.input(TensorType(F32, (16,)), "x")
    found = node_cost(g.add_node("loop", (count, None, x), {"carried": 1}, outputs=1, subgraphs=(body,)))
    assert found.flops == (None if trip is None else trip * 16)
    assert found.bytes == (1 if trip is None else trip) * 2 * 64
    assert any("iterations" in reason for reason in found.unknown) == (trip is None)


# Reports


def _model(batch: int | str) -> bytes:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], name="product"),
        helper.make_node("Transpose", ["a"], ["t"], name="turn"),
        helper.make_node("Relu", ["t"], ["y"], name="bend"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 3]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def test_the_report_has_the_cost_of_every_step() -> None:
    rows = {row["op"]: row for row in fusible.compile(_model(4), target="numpy").report.kernels}
    product = rows.get("matmul", rows.get("gemm"))
    assert product is not None
    assert (product["flops"], product["bytes"]) == (2 * 4 * 8 * 3, 4 * (32 + 24 + 12))
    assert (rows["transpose"]["flops"], rows["transpose"]["bytes"]) == (0, 0)  # NumPy hands out a view
    assert rows["relu"]["flops"] == 12


def test_the_report_has_totals_as_text_where_sizes_are_open() -> None:
    cost_ = fusible.compile(_model("batch"), target="numpy").report.cost
    assert cost_["flops"] == "51*batch"
    assert isinstance(cost_["bytes"], str)
    assert "batch" in cost_["bytes"]


def test_artifacts_stay_the_same_to_the_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fusible.compile(_model("batch"), target="numpy").save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert fusible.load(tmp_path / "a").report.cost["flops"] == "51*batch"


def test_a_window_of_any_size_is_counted_without_building_it() -> None:
    graph = Graph("huge")
    x = graph.input(TensorType(DType.F32, (1, 5, 3, 3)), "x")
    small, huge = (graph.add("lrn", x, size=size, alpha=1.0, beta=1.0, bias=1.0).producer for size in (3, 2**40))
    assert small is not None and huge is not None
    assert node_cost(small).flops == 45 * 7
    assert node_cost(huge).flops == 45 * (2**40 + 4)
