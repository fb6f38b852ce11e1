"""The list of everything in a model that cannot be imported, not only the first of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fusible.compiler.frontend.coverage import Coverage, import_covering, way_of
from fusible.compiler.frontend.load import load_model
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel

NODE = helper.make_node


def covering(nodes: Sequence[onnx.NodeProto], functions: Sequence[onnx.FunctionProto] = ()) -> Coverage:
    """Import a model with the inputs x float32[n] and flag bool[], whose output is y."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(np.float32(1), "one")]
    graph = helper.make_graph(list(nodes), "main", inputs, outputs, constants)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)
    return import_covering(load_model(model, Limits()), Limits())


def reasons(coverage: Coverage) -> dict[str, list[str]]:
    """Return the nodes that cannot be imported, by operator."""
    return {o.title: [node for node, _ in o.reasons] for o in coverage.operators if o.reasons}


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    """Return a subgraph without inputs whose output is called `name`."""
    return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def test_a_supported_model_has_its_graph() -> None:
    coverage = covering([NODE("Add", ["x", "one"], ["a"]), NODE("Add", ["a", "x"], ["y"])])
    assert coverage.supported
    assert coverage.graph is not None
    assert list(coverage.graph.output_names) == ["y"]
    assert [(o.title, o.count, o.way, o.reasons) for o in coverage.operators] == [("Add", 2, "handler", ())]


def test_what_follows_an_unknown_operator_is_looked_up() -> None:
    coverage = covering(
        [
            NODE("Strange", ["x"], ["a"], "one", domain="here"),
            NODE("Relu", ["a"], ["b"], "two"),
            NODE("Stranger", ["b"], ["c"], "three", domain="here"),
            NODE("Add", ["x", "one"], ["d"], "four"),
            NODE("Add", ["c", "d"], ["y"], "five"),
        ]
    )
    assert not coverage.supported
    assert coverage.graph is None
    assert reasons(coverage) == {"here::Strange": ["one"], "here::Stranger": ["three"]}


def test_each_use_of_an_unknown_operator_is_named() -> None:
    coverage = covering(
        [NODE("Strange", ["x"], ["a"], "one", domain="here"), NODE("Strange", ["x"], ["y"], "two", domain="here")]
    )
    assert reasons(coverage) == {"here::Strange": ["one", "two"]}


def test_inside_a_subgraph() -> None:
    then = branch(
        "t", NODE("Strange", ["x"], ["u"], "inner", domain="here"), NODE("Stranger", ["u"], ["t"], domain="here")
    )
    other = branch("e", NODE("Relu", ["x"], ["e"]))
    coverage = covering([NODE("If", ["flag"], ["y"], "if", then_branch=then, else_branch=other)])
    assert reasons(coverage) == {"here::Strange": ["inner"], "here::Stranger": ["t"]}
    counts = {o.title: o.count for o in coverage.operators}
    assert counts == {"If": 1, "Relu": 1, "here::Strange": 1, "here::Stranger": 1}


def test_a_subgraph_that_reads_what_is_missing() -> None:
    then, other = branch("t", NODE("Relu", ["a"], ["t"])), branch("e", NODE("Relu", ["x"], ["e"]))
    coverage = covering(
        [
            NODE("Strange", ["x"], ["a"], "one", domain="here"),
            NODE("If", ["flag"], ["y"], "if", then_branch=then, else_branch=other),
        ]
    )
    assert reasons(coverage) == {"here::Strange": ["one"]}


def test_inside_a_function() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)]
    body = [NODE("Strange", ["a"], ["b"], domain="here")]
    function = helper.make_function("here", "Wrapped", ["a"], ["b"], body, imports)
    coverage = covering([NODE("Wrapped", ["x"], ["y"], "call", domain="here")], [function])
    assert reasons(coverage) == {"here::Strange": ["call"]}
    assert {o.title: o.way for o in coverage.operators} == {"here::Strange": "none", "here::Wrapped": "model function"}


def test_an_invalid_model_stays_an_error() -> None:
    with pytest.raises(InvalidModel):
        covering([NODE("Relu", ["nothing"], ["y"])])


@pytest.mark.parametrize(
    ("domain", "name", "opset", "way"),
    [
        ("", "Relu", 17, "handler"),
        ("", "NoSuchOperator", 17, "none"),
        ("no.such.domain", "Relu", 1, "none"),
        ("", "MeanVarianceNormalization", 17, "function body"),
    ],
)
def test_ways(domain: str, name: str, opset: int, way: str) -> None:
    assert way_of(domain, name, opset) == way
