"""Operators of ai.onnx.ml: their attributes become tables, their answers are ONNX Runtime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fusible.compiler.ir.types import TensorType
from fusible.errors import InvalidModel, UnsupportedOp
from tests.frontend.imported import evaluated, expected, imported, model_of

ML = "ai.onnx.ml"
X = np.array([[1, -2, 3], [0, 0, 0], [-4, -1, -2]], np.float32)
WORDS = np.array([["b", "q"], ["a", "b"]], object)
NUMBERS = np.array([[2, 9], [1, 2]])


def model(op: str, x: np.ndarray, version: int, **attributes: Any) -> Any:
    node = helper.make_node(op, ["x"], ["y"], domain=ML, **attributes)
    return model_of([node], {"x": x}, ["y"], domains={ML: version})


@pytest.mark.parametrize(
    ("op", "x", "version", "attributes"),
    [
        ("Binarizer", X, 1, {"threshold": 0.5}),
        ("Normalizer", X, 1, {"norm": "L2"}),
        ("Scaler", X, 1, {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, 1.0]}),
        ("Imputer", X, 1, {"imputed_value_floats": [9.0], "replaced_value_float": 0.0}),
        ("Imputer", NUMBERS, 1, {"imputed_value_int64s": [7, 8], "replaced_value_int64": 2}),
        ("FeatureVectorizer", X, 1, {"inputdimensions": [3]}),
        ("LinearRegressor", X, 1, {"coefficients": [0.5, 1.0, -1.0], "intercepts": [0.25]}),
        ("LinearRegressor", X, 1, {"coefficients": [0.5, 1, -1.0] * 2, "targets": 2, "post_transform": "SOFTMAX"}),
        ("OneHotEncoder", NUMBERS, 1, {"cats_int64s": [1, 2]}),
        ("OneHotEncoder", WORDS, 1, {"cats_strings": ["a", "b"]}),
        ("CategoryMapper", WORDS, 1, {"cats_strings": ["a", "b"], "cats_int64s": [5, 6], "default_int64": -7}),
        ("CategoryMapper", NUMBERS, 1, {"cats_strings": ["a", "b"], "cats_int64s": [1, 2], "default_string": "?"}),
        ("LabelEncoder", WORDS, 1, {"classes_strings": ["a", "b"], "default_int64": -7}),
        ("LabelEncoder", NUMBERS, 1, {"classes_strings": ["a", "b", "c"]}),
        ("LabelEncoder", WORDS, 2, {"keys_strings": ["a", "b"], "values_floats": [0.5, 1.5]}),
        ("LabelEncoder", NUMBERS, 2, {"keys_int64s": [1, 2], "values_int64s": [4, 5], "default_int64": 3}),
        ("LabelEncoder", NUMBERS, 4, {"keys_int64s": [1, 2], "values_strings": ["x", "y"]}),
    ],
)
def test_as_onnx_runtime(op: str, x: np.ndarray, version: int, attributes: dict[str, Any]) -> None:
    made = model(op, x, version, **attributes)
    (got,), (reference,) = evaluated(made, {"x": x}), expected(made, {"x": x})
    assert (got.dtype, got.shape) == (reference.dtype, reference.shape)
    if got.dtype == np.float32:
        np.testing.assert_allclose(got, reference, rtol=1e-6, atol=1e-7)
    else:
        assert got.tolist() == reference.tolist()
    output = imported(made).outputs[0].type
    assert isinstance(output, TensorType)
    assert output.dtype.numpy == got.dtype
    assert output.shape == got.shape


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("Scaler", {"offset": [1.0], "scale": [1.0, 2.0]}, "same length"),
        ("Scaler", {"offset": [1.0, 2.0], "scale": [1.0, 2.0]}, "features"),
        ("Imputer", {}, "missing"),
        ("Normalizer", {"norm": "L3"}, "norm must be"),
        ("OneHotEncoder", {"cats_strings": ["a"]}, "do not fit"),
        ("LinearRegressor", {"coefficients": [1.0, 2.0]}, "rows of 2 features"),
        ("LinearRegressor", {"coefficients": [1.0, 2.0, 3.0], "targets": 2}, "do not fit 2 targets"),
        ("FeatureVectorizer", {"inputdimensions": [1, 2]}, "one non-negative dimension"),
    ],
)
def test_bad_attributes(op: str, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        imported(model(op, X, 1, **attributes))


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("ZipMap", {"classlabels_int64s": [1, 2, 3]}, "maps are not supported"),
        ("LinearRegressor", {"coefficients": [1.0, 2.0, 3.0], "post_transform": "PROBIT"}, "PROBIT"),
    ],
)
def test_what_is_not_supported(op: str, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedOp, match=message):
        imported(model(op, X, 1, **attributes))


def test_tree_ensemble_checks_its_tables() -> None:
    names = ("nodes_splits", "leaf_weights")
    tensors = {name: helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0]) for name in names}
    attributes = {
        "nodes_modes": helper.make_tensor("modes", TensorProto.UINT8, [1], [0]),
        "tree_roots": [0],
        "nodes_featureids": [9],
        "nodes_truenodeids": [0],
        "nodes_trueleafs": [1],
        "nodes_falsenodeids": [0],
        "nodes_falseleafs": [1],
        "leaf_targetids": [0],
        "n_targets": 1,
    }
    made = model("TreeEnsemble", X, 5, **tensors, **attributes)
    with pytest.raises(InvalidModel, match="nodes_featureids"):
        evaluated(made, {"x": X})
