"""Order of nodes, cycles, names that are missing or given twice, deep nesting."""

from __future__ import annotations

import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper

from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model
from fusible.compiler.ir.graph import Graph
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel, LimitExceeded


def _import(nodes: list[NodeProto], limits: Limits | None = None, **fields: object) -> Graph:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], **fields)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return import_model(load_model(model, limits or Limits()), limits=limits)


def _node(op: str, inputs: str, outputs: str, name: str = "", **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


def test_any_order_is_sorted() -> None:
    graph = _import([_node("Neg", "b", "y"), _node("Relu", "a", "b"), _node("Abs", "x", "a")])
    assert [n.op.name for n in graph] == ["abs", "relu", "neg"]


def test_the_order_of_the_file_is_kept() -> None:
    graph = _import([_node("Abs", "x", "a"), _node("Relu", "x", "b"), _node("Add", "b a", "y")])
    assert [n.op.name for n in graph] == ["abs", "relu", "add"]


def _captures(name: str) -> NodeProto:
    def branch() -> GraphProto:
        output = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])
        return helper.make_graph([_node("Neg", name, "r")], "branch", [], [output])

    return _node("If", "c", "y", then_branch=branch(), else_branch=branch())


def test_captured_values_come_first() -> None:
    condition = [_node("ReduceSum", "x", "s", keepdims=0), _node("Cast", "s", "c", to=TensorProto.BOOL)]
    graph = _import([_captures("late"), _node("Abs", "x", "late"), *condition])
    names = [n.op.name for n in graph]
    assert names.index("abs") < names.index("if")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([_node("Add", "x b", "a", "p"), _node("Relu", "a", "b", "q"), _node("Abs", "b", "y")],
         "cycle.*'p'.*'q'|cycle.*'q'.*'p'"),
        ([_node("Add", "x y", "y", "self")], "cycle: node 'self'"),
        ([_node("Relu", "nowhere", "y", "r")], "node 'r' uses 'nowhere', which no input"),
        ([_node("Relu", "x", "a"), _node("Abs", "x", "a"), _node("Abs", "x", "y")], "'a' is defined twice"),
        ([_node("Relu", "x", "a"), _node("Neg", "a", "x"), _node("Abs", "a", "y")], "cycle|defined twice"),
        ([_node("Constant", "", "x", value_floats=[1.0, 2.0]), _node("Abs", "x", "y")], "'x' is defined twice"),
        ([_node("Split", "x", "y y", num_outputs=2)], "'y' is defined twice"),
        ([_node("Relu", "x", "other")], "output 'y' of graph 'g' is computed by no node"),
        ([], "output 'y' of graph 'g' is computed by no node"),
    ],
)  # fmt: skip
def test_broken_names(nodes: list[NodeProto], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        _import(nodes)


def test_outputs_listed_twice() -> None:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xyy"]
    graph = helper.make_graph([_node("Relu", "x", "y")], "g", info[:1], info[1:])
    with pytest.raises(InvalidModel, match="lists an output twice"):
        import_model(load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), Limits()))


def test_long_chains_backwards_do_not_recurse() -> None:
    nodes = [_node("Relu", f"v{i}", f"v{i + 1}") for i in range(5000)]
    nodes = [*reversed(nodes), _node("Abs", "x", "v0"), _node("Abs", "v5000", "y")]
    assert len(_import(nodes)) == 5002


def _nested(depth: int) -> NodeProto:
    inner = _node("Relu", "x", "r0")
    for level in range(depth):
        output = helper.make_tensor_value_info(f"r{level}", TensorProto.FLOAT, [2])
        branch = helper.make_graph([inner], "branch", [], [output])
        inner = _node("If", "c", f"r{level + 1}", then_branch=branch, else_branch=branch)
    return inner


def test_deep_nesting_is_a_limit() -> None:
    condition = [_node("ReduceSum", "x", "s", keepdims=0), _node("Cast", "s", "c", to=TensorProto.BOOL)]
    last = _node("Identity", "r5", "y")
    _import([*condition, _nested(5), last])
    with pytest.raises(LimitExceeded, match="depth"):
        _import([*condition, _nested(5), last], Limits(depth=3))


def test_too_many_nodes() -> None:
    with pytest.raises(LimitExceeded, match="nodes"):
        _import([_node("Relu", "x", "a"), _node("Relu", "a", "b"), _node("Abs", "b", "y")], Limits(nodes=2))


def test_recursive_functions_end() -> None:
    calls = helper.make_function("f", "again", ["a"], ["b"], [helper.make_node("again", ["a"], ["b"], domain="f")],
                                 [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)])  # fmt: skip
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("again", ["x"], ["y"], domain="f")], "g", info[:1], info[1:])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[calls])
    assert isinstance(model, onnx.ModelProto)
    with pytest.raises(InvalidModel, match="a function calls itself: f::again -> f::again"):
        import_model(load_model(model, Limits()))
