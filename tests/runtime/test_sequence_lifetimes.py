"""Tensors in lists outlive the buffers they were computed in: within a run, across iterations, after the next run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import fusible
from tests import oracle
from tests.tolerance import assert_close


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def tensor(name: str, *shape: int, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: str) -> onnx.ModelProto:
    results = [helper.make_empty_tensor_value_info(name) for name in outputs.split()]
    graph = helper.make_graph(nodes, "lists", inputs, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def matrices(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal((5, 5)).astype(np.float32) for name in ("x", "w")}


def check(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, reference in expected.items():
        pairs = zip(got[name], reference, strict=True) if isinstance(reference, list) else [(got[name], reference)]
        for a, b in pairs:
            assert_close(a, b, accumulation=4096)


def many_lists() -> onnx.ModelProto:
    """A product enters lists of every kind; then more products want its buffer."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("SequenceEmpty", "", "empty"),
        node("SequenceInsert", "empty a", "inserted"),
        node("SequenceConstruct", "a a", "pair"),
        node("SplitToSequence", "a", "rows", axis=0),
        node("Optional", "a", "maybe"),
        *(node("MatMul", f"{before} w", after) for before, after in ("xb", "bc", "cd", "de")),
        node("OptionalGetElement", "maybe", "found"),
        node("MatMul", "found w", "f"),
        node("ConcatFromSequence", "rows", "whole", axis=0),
        node("MatMul", "whole w", "g"),
    ]
    return model(nodes, [tensor("x", 5, 5), tensor("w", 5, 5)], "inserted pair e f g")


def test_buffers_are_reused_and_lists_keep_their_tensors() -> None:
    inputs = matrices()
    made = many_lists()
    check(fusible.compile(made, target="numpy").run(inputs), oracle.run(made, inputs))


def test_a_list_that_was_returned_survives_the_next_run() -> None:
    session = fusible.compile(many_lists(), target="numpy").session()
    first = session.run(matrices())
    kept = [x.copy() for x in first["inserted"]]
    session.run(matrices(1))
    assert np.array_equal(first["inserted"], kept)


def test_the_caller_owns_what_passes_through() -> None:
    info = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, (2,))
    nodes = [node("SequenceErase", "s", "t")]
    given = [np.zeros(2, np.float32), np.ones(2, np.float32)]
    (returned,) = fusible.compile(model(nodes, [info], "t"), target="numpy").run({"s": given})["t"]
    returned += 7
    assert given[0].tolist() == [0, 0]


def test_a_list_that_a_loop_grows() -> None:
    steps = [
        node("Add", "c x", "next"),
        node("MatMul", "next x", "product"),
        node("SequenceInsert", "list product", "longer"),
        node("MatMul", "product x", "other"),
        node("Identity", "going", "on"),
    ]
    lists = [helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None) for name in ("list", "longer")]
    scalars = [tensor("i", dtype=TensorProto.INT64), tensor("going", dtype=TensorProto.BOOL)]
    body = helper.make_graph(
        steps,
        "body",
        [*scalars, tensor("c", 5, 5), lists[0]],
        [tensor("on", dtype=TensorProto.BOOL), tensor("next", 5, 5), lists[1], tensor("other", 5, 5)],
    )
    nodes = [
        node("SequenceEmpty", "", "empty"),
        helper.make_node("Loop", ["n", "", "x", "empty"], ["last", "grown", "others"], body=body),
        node("ConcatFromSequence", "grown", "joined", axis=0),
    ]
    made = model(nodes, [tensor("x", 5, 5), tensor("n", dtype=TensorProto.INT64)], "last grown others joined")
    inputs = {"x": matrices()["x"] / 4, "n": np.array(6)}
    expected = oracle.run(made, inputs)
    assert len(expected["grown"]) == 6
    check(fusible.compile(made, target="numpy").run(inputs), expected)
