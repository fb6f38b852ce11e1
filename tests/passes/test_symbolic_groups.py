"""Groups of nodes whose types follow from what is known of symbolic numbers: valid after each pass, on every target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fusible
from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model
from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.compiler.options import Limits, Options
from fusible.compiler.run_passes import run_passes
from fusible.passes.take_out import take_out
from tests.frontend.imported import expected
from tests.frontend.test_transformer_contrib import gqa
from tests.passes.checking import tensor

CONSTANTS = {"zero": np.asarray(0), "one": np.asarray(1), "two": np.asarray(2), "table": np.ones((64, 8), np.float32)}


def _model(nodes: list[onnx.NodeProto], inputs: dict[str, list[int | str]]) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "g", given, [helper.make_empty_tensor_value_info("y")], constants)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def _positions() -> onnx.ModelProto:
    """x plus a table's rows 2, 3, ... as many as x has; the positions are a group whose first node is a range."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["range"], "range"),
        helper.make_node("Add", ["range", "two"], ["positions"]),
        helper.make_node("Gather", ["table", "positions"], ["rows"]),
        helper.make_node("Add", ["x", "rows"], ["y"]),
    ]
    return _model(nodes, {"x": ["batch", "n", 8]})


def _cached() -> onnx.ModelProto:
    """GroupQueryAttention behind a cache of any length, of any number of new keys."""
    made, inputs = gqa(1, 2, 6, 8, [8], rotary=True)
    symbols = {"q": {1: "new"}, "k": {1: "new"}, "v": {1: "new"}, "pk": {2: "past"}, "pv": {2: "past"}}
    del made.graph.initializer[:]
    for value in made.graph.input:
        for axis, name in symbols.get(value.name, {}).items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    constants = {"one": np.asarray(1), "two": np.asarray(2)}
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    before = [
        helper.make_node("Shape", ["q"], ["q_shape"]),
        helper.make_node("Gather", ["q_shape", "one"], ["new"]),
        helper.make_node("Shape", ["pk"], ["past_shape"]),
        helper.make_node("Gather", ["past_shape", "two"], ["past"]),
        helper.make_node("Add", ["new", "past"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["total"], to=TensorProto.INT32),
    ]
    attention = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*before, *attention])
    assert set(inputs) == {value.name for value in made.graph.input}
    return made


@pytest.mark.parametrize("target", ["numpy", "cpu", "triton-cpu"])
@pytest.mark.parametrize("model", [_positions, _cached], ids=["positions", "cached"])
def test_symbolic_ranges_in_groups(model: Callable[[], onnx.ModelProto], target: str) -> None:
    graph = import_model(load_model(model(), Limits()))
    run_passes(fusible.pipeline(target), graph, Options(verify="passes"), target)
    grouped = [n.op.name for node in graph if node.op.name == "fused" for n in node.subgraphs[0]]
    assert target == "numpy" or "range" in grouped, "or nothing was shown"


@pytest.mark.parametrize(("new", "past", "end"), [(3, 6, 9), (3, 6, 7), (1, 5, 4), (4, 0, 4), (4, 0, 2)])
def test_caches_of_any_length(new: int, past: int, end: int) -> None:
    """A sequence of a batch of one ends where seqlens_k says, behind a cache and in a first prompt."""
    model = _cached()
    _, inputs = gqa(1, new, past, past + new, [end], rotary=True)
    graph = import_model(load_model(model, Limits()))
    run_passes(fusible.pipeline("cpu"), graph, Options(), "cpu")
    got = evaluate_graph(graph, [inputs[value.name] for value in graph.inputs])
    y, *caches = expected(model, inputs)
    rows = min(new, end)  # what is behind the end of a prompt is padding
    np.testing.assert_allclose(got[0][:, :rows], y[:, :rows], rtol=2e-4, atol=2e-5)
    for mine, theirs in zip(got[1:], caches, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine[:, :, :end], theirs[:, :, :end], rtol=2e-4, atol=2e-5)


def test_what_is_taken_out_of_a_group_leaves_what_is_known() -> None:
    graph = Graph("g")
    x = tensor(graph, ["n"])
    assert isinstance(x.type, TensorType) and x.type.shape is not None
    count = graph.add("dims", values=x.type.shape, shape=(), dtype=DType.I64)
    inner = Graph("fused", graph.symbols)
    a, n = inner.input_for(x), inner.input_for(count)
    numbers = inner.add("range", inner.constant(np.asarray(0)), n, inner.constant(np.asarray(1)))
    cast = inner.add("cast", numbers, dtype=DType.F32)
    inner.set_outputs([inner.add("add", inner.add("neg", a), cast)])
    fused = graph.add_node("fused", [x, count], {}, outputs=1, subgraphs=[inner])
    graph.set_outputs(fused.outputs, ["y"])
    data = np.arange(5, dtype=np.float32) ** 2
    expected = evaluate_graph(graph, [data])
    take_out(graph, fused, next(n for n in inner if n.op.name == "neg"))
    verify(graph)
    np.testing.assert_array_equal(evaluate_graph(graph, [data]), expected)
