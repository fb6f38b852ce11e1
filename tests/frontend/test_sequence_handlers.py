"""Sequences and optionals: what is known at import is resolved there, and types follow the elements."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from fusible.compiler.ir.types import DType, SequenceType, TensorType
from fusible.errors import InvalidModel
from tests.frontend.imported import evaluated, expected, imported, model_of

X = np.arange(12, dtype=np.float32).reshape(6, 2)
AT = {"one": np.array(1), "last": np.array(-1), "far": np.array(7), "four": np.array(4)}
LENGTHS = {"lengths": np.array([1, 2, 3])}


def ops(*nodes: tuple[str, list[str], list[str], dict[str, int]]) -> list:
    return [helper.make_node(op, inputs, outputs, **attrs) for op, inputs, outputs, attrs in nodes]


@pytest.mark.parametrize("split", [[], ["four"], ["lengths"]])
@pytest.mark.parametrize("place", ["one", "last"])
def test_a_piece_of_a_split_is_a_slice(split: list[str], place: str) -> None:
    keepdims = {} if split else {"keepdims": 0}  # ignored beside lengths, where ONNX Runtime fails over it
    nodes = ops(("SplitToSequence", ["x", *split], ["s"], keepdims), ("SequenceAt", ["s", place], ["y"], {}))
    model = model_of(nodes, {"x": X}, ["y"], AT | LENGTHS)
    graph = imported(model)
    output = graph.outputs[0]
    assert output.producer is not None
    assert output.producer.op.name in ("slice", "reshape")
    got = evaluated(model, {"x": X})[0]
    assert np.array_equal(got, expected(model, {"x": X})[0])
    assert isinstance(output.type, TensorType)
    assert output.type.shape == got.shape


def test_elements_of_a_constructed_list() -> None:
    nodes = ops(
        ("SequenceConstruct", ["x", "z"], ["s"], {}),
        ("SequenceAt", ["s", "last"], ["y"], {}),
        ("SequenceLength", ["s"], ["n"], {}),
        ("ConcatFromSequence", ["s"], ["c"], {"axis": 0}),
    )
    inputs = {"x": X, "z": X[:3]}
    graph = imported(model_of(nodes, inputs, ["y", "n", "c"], AT))
    y, n, c = graph.outputs
    assert y is graph.inputs[1]
    assert n.content is not None
    assert n.content.item() == 2
    assert isinstance(c.type, TensorType)
    assert c.type.shape == (9, 2)


@pytest.mark.parametrize("maker", [("SequenceConstruct", ["x", "x"]), ("SplitToSequence", ["x"])])
def test_places_outside_are_refused(maker: tuple[str, list[str]]) -> None:
    nodes = ops((*maker, ["s"], {}), ("SequenceAt", ["s", "far"], ["y"], {}))
    with pytest.raises(InvalidModel, match="outside"):
        imported(model_of(nodes, {"x": X}, ["y"], AT))


def test_lists_that_are_known_only_when_they_run() -> None:
    nodes = ops(
        ("SequenceEmpty", [], ["e"], {"dtype": TensorProto.FLOAT}),
        ("SequenceInsert", ["e", "x"], ["a"], {}),
        ("SequenceInsert", ["a", "x", "place"], ["b"], {}),
        ("SequenceInsert", ["b", "z", "place"], ["c"], {}),
        ("SequenceErase", ["c", "place"], ["d"], {}),
        ("SequenceAt", ["d", "place"], ["y"], {}),
        ("SequenceLength", ["c"], ["n"], {}),
        ("ConcatFromSequence", ["d"], ["stacked"], {"axis": 0, "new_axis": 1}),
        ("SplitToSequence", ["x", "sizes"], ["parts"], {}),
        ("ConcatFromSequence", ["parts"], ["whole"], {"axis": 0}),
    )
    inputs = {"x": X, "z": X + 1, "place": np.array(-1), "sizes": np.array([2, 4])}
    model = model_of(nodes, inputs, ["y", "n", "stacked", "c", "whole"])
    for got, reference in zip(evaluated(model, inputs), expected(model, inputs), strict=True):
        if isinstance(reference, list):
            assert [g.tolist() for g in got] == [r.tolist() for r in reference]
        else:
            assert (got.dtype, got.shape, got.tolist()) == (reference.dtype, reference.shape, reference.tolist())
    graph = imported(model)
    assert graph.outputs[0].type == TensorType(DType.F32, (6, 2))
    assert graph.outputs[3].type == SequenceType(TensorType(DType.F32, (6, 2)))


def test_a_list_of_different_types_is_refused() -> None:
    nodes = [helper.make_node("SequenceInsert", ["e", "z"], ["y"])]
    nodes.insert(0, helper.make_node("SequenceEmpty", [], ["e"], dtype=TensorProto.INT64))
    with pytest.raises(InvalidModel, match="cannot hold both"):
        imported(model_of(nodes, {"z": X}, ["y"]))


def test_optionals_that_are_known() -> None:
    nodes = ops(
        ("Optional", ["x"], ["o"], {}),
        ("OptionalHasElement", ["o"], ["there"], {}),
        ("OptionalGetElement", ["o"], ["y"], {}),
        ("OptionalHasElement", ["x"], ["always"], {}),
        ("OptionalHasElement", [""], ["never"], {}),
    )
    model = model_of(nodes, {"x": X}, ["there", "y", "always", "never"])
    there, y, always, never = evaluated(model, {"x": X})
    assert (bool(there), bool(always), bool(never)) == (True, True, False)
    assert np.array_equal(y, X)
    content = imported(model).outputs[0].content
    assert content is not None
    assert content.item() is True
