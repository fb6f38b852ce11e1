"""Operators on strings and optimiser steps: types at import, and refusals with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, expected, imported, model_of

TEXTS = np.array([["a b", "c"], ["d e f", ""]], object)
TRAINING = {"ai.onnx.preview.training": 1}
NGRAMS = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, "ngram_counts": [0]}


def made(op: str, x: np.ndarray = TEXTS, outputs: int = 1, **attributes: Any) -> Any:
    names = [f"y{k}" for k in range(outputs)]
    return model_of([helper.make_node(op, ["x"], names, **attributes)], {"x": x}, names)


def test_split_types_and_values() -> None:
    model = made("StringSplit", outputs=2)
    pieces, counts = (value.type for value in imported(model).outputs)
    assert isinstance(pieces, TensorType)
    assert pieces.dtype is DType.STRING
    assert pieces.rank == 3
    assert counts == TensorType(DType.I64, (2, 2))
    for got, reference in zip(evaluated(model, {"x": TEXTS}), expected(model, {"x": TEXTS}), strict=True):
        assert (got.dtype, got.tolist()) == (reference.dtype, reference.tolist())


@pytest.mark.parametrize("dtype", [np.int32, np.int64, object])
def test_tf_idf_takes_integers_and_strings(dtype: Any) -> None:
    x = np.array([[1, 2, 1]]).astype(str if dtype is object else dtype).astype(dtype)
    pool = {"pool_strings": ["1", "5"]} if dtype is object else {"pool_int64s": [1, 5]}
    model = made("TfIdfVectorizer", x, ngram_indexes=[2, 0], **NGRAMS, **pool)
    assert imported(model).outputs[0].type == TensorType(DType.F32, (1, 3))
    assert evaluated(model, {"x": x})[0].tolist() == [[0, 0, 2]]


@pytest.mark.parametrize(
    ("op", "x", "attributes", "message"),
    [
        ("StringNormalizer", TEXTS, {}, r"\[C\] or \[1, C\]"),
        ("StringNormalizer", TEXTS[0], {"case_change_action": "TITLE"}, "case_change_action"),
        ("StringSplit", TEXTS, {"maxsplit": -1}, "maxsplit"),
        ("TfIdfVectorizer", TEXTS, {"ngram_indexes": [0], "pool_int64s": [1], **NGRAMS}, "differ in type"),
        ("TfIdfVectorizer", TEXTS, {"ngram_indexes": [-1], "pool_strings": ["a"], **NGRAMS}, "negative"),
        ("TfIdfVectorizer", TEXTS, {"ngram_indexes": [0], **NGRAMS}, "either pool_strings or pool_int64s"),
    ],
)
def test_bad_models(op: str, x: np.ndarray, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        imported(made(op, x, **attributes))


def test_what_is_not_supported() -> None:
    with pytest.raises(UnsupportedOp, match="look-around"):
        imported(made("RegexFullMatch", pattern="(?=a)b"))
    with pytest.raises(UnsupportedOp, match="codec"):
        imported(made("ImageDecoder", np.zeros(3, np.uint8)))
    node = helper.make_node("Gradient", ["x"], ["g"], domain="ai.onnx.preview.training", xs=["x"], y="z")
    with pytest.raises(UnsupportedOp, match="differentiate"):
        imported(model_of([node], {"x": np.ones(2, np.float32)}, ["g"], domains=TRAINING))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [(["x", "x", "x", "x"], "3 tensors for each parameter"), (["x", "z", "x"], "like the tensor it belongs to")],
)
def test_optimisers_check_their_tensors(tensors: list[str], message: str) -> None:
    node = helper.make_node("Adagrad", ["r", "t", *tensors], ["a", "b"], domain="ai.onnx.preview.training")
    x, z = np.ones(3, np.float32), np.ones(2, np.float32)
    inputs = {"r": np.array(0.1, np.float32), "t": np.array(0), "x": x, "z": z}
    with pytest.raises(InvalidModel, match=message):
        imported(model_of([node], inputs, ["a", "b"], domains=TRAINING))
