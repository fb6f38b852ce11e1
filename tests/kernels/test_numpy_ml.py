"""Operators of ai.onnx.ml against ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fusible.kernels.numpy import ml
from fusible.kernels.numpy.tree_ensemble import tree_ensemble
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close

DOMAIN = "ai.onnx.ml"
X = np.array([[1, -2, 3], [0, 0, 0], [-4, -1, -2]], np.float32)


def reference(op: str, inputs: list[np.ndarray], version: int = 1, **attributes: Any) -> np.ndarray:
    found: np.ndarray = run_node(op, inputs, domain=DOMAIN, version=version, **attributes)[0]
    return found


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("x", [X, X[0], np.arange(24, dtype=np.float32).reshape(2, 3, 4)])
def test_array_feature_extractor(x: np.ndarray) -> None:
    columns = np.array([[0, 2, 2]])
    assert_same(ml.array_feature_extractor(x, columns), reference("ArrayFeatureExtractor", [x, columns]))
    with pytest.raises(ValueError, match="asked for"):
        ml.array_feature_extractor(x, np.array([9]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_binarizer(dtype: Any) -> None:
    assert_same(ml.binarizer(X.astype(dtype), threshold=0.5), (X > 0.5).astype(dtype))


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("x", [X, X[0], X.astype(np.int64)])
def test_normalizer(norm: str, x: np.ndarray) -> None:
    assert_close(ml.normalizer(x, norm=norm), reference("Normalizer", [x], norm=norm), accumulation=3)


@pytest.mark.parametrize("x", [X, X.astype(np.int64)])
def test_scaler(x: np.ndarray) -> None:
    offset, scale = np.array([1, 2, 3], np.float32), np.array([2, 2, 0.5], np.float32)
    expected = reference("Scaler", [x], offset=offset.tolist(), scale=scale.tolist())
    assert_same(ml.scaler(x, offset, scale), expected)


def test_imputer() -> None:
    x = np.array([[1, np.nan, 3]], np.float32)
    got = ml.imputer(x, np.array([9], np.float32), np.array(np.nan, np.float32))
    assert_same(got, reference("Imputer", [x], imputed_value_floats=[9.0], replaced_value_float=float("nan")))
    y = np.array([[1, 2, 3], [2, 2, 2]])
    got = ml.imputer(y, np.array([9, 8, 7]), np.array(2))
    assert_same(got, reference("Imputer", [y], imputed_value_int64s=[9, 8, 7], replaced_value_int64=2))


@pytest.mark.parametrize("x", [np.array([[1, 2], [5, 1]]), np.array([[1.7, 2.0]], np.float32)])
def test_one_hot_encoder(x: np.ndarray) -> None:
    expected = reference("OneHotEncoder", [x], cats_int64s=[1, 2, 3], zeros=1)
    assert_same(ml.one_hot_encoder(x, np.array([1, 2, 3])), expected)
    with pytest.raises(ValueError, match="no category"):
        ml.one_hot_encoder(np.array([7]), np.array([1]), zeros=False)


def test_feature_vectorizer() -> None:
    expected = reference("FeatureVectorizer", [X, X.T.copy()], inputdimensions=[3, 3])
    assert_same(ml.feature_vectorizer(X, X.T, inputdimensions=(3, 3)), expected)
    assert ml.feature_vectorizer(X[0], X[1], inputdimensions=(2, 4)).tolist() == [[1, -2, 0, 0, 0, 0]]


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
def test_linear_regressor(transform: str) -> None:
    weights, intercepts = np.array([[0.1, 0.2, 0.3], [-0.1, 0, 0.5]], np.float32), np.array([0.1, 0.2], np.float32)
    attributes = {"coefficients": weights.ravel().tolist(), "intercepts": intercepts.tolist(), "targets": 2}
    expected = reference("LinearRegressor", [X], post_transform=transform, **attributes)
    assert_close(ml.linear_regressor(X, weights, intercepts, post_transform=transform), expected, accumulation=3)


def test_softmax_zero_leaves_zeros() -> None:
    scores = np.array([[0, 1, 1], [0, 0, 0]], np.float32)
    assert ml.transformed(scores, "SOFTMAX_ZERO").tolist() == [[0, 0.5, 0.5], [0, 0, 0]]
    with pytest.raises(ValueError, match="PROBIT"):
        ml.transformed(scores, "PROBIT")


def test_label_encoder() -> None:
    x = np.array([[1, np.nan, 3]], np.float32)
    keys, values = np.array([np.nan, 1, 2], np.float32), np.array(["n", "a", "b"], object)
    expected = reference("LabelEncoder", [x], 4, keys_floats=keys.tolist(), values_strings=values.tolist())
    assert_same(ml.label_encoder(x, keys, values, np.array("_Unused", object)), expected)
    words = np.array(["b", "q", "a"], object)
    got = ml.label_encoder(words, np.array(["a", "b", "a"], object), np.array([1, 2, 3]), np.array(-1))
    assert_same(got, np.array([2, -1, 3]))  # the last of equal keys counts
    empty = ml.label_encoder(words[:0], words[:0], np.empty(0, np.int64), np.array(-1))
    assert_same(empty, np.empty(0, np.int64))


@dataclass
class Forest:
    """Random trees in the tables of TreeEnsemble."""

    roots: list[int]
    nodes: list[list[Any]]  # feature, mode, split, (child, is leaf) if true, if false
    leaves: list[tuple[int, float]]  # target, weight

    @staticmethod
    def grow(source: np.random.Generator, trees: int) -> Forest:
        forest = Forest([], [], [])
        forest.roots = [forest.branch(source, 3) for _ in range(trees)]
        return forest

    def branch(self, source: np.random.Generator, depth: int) -> int:
        at = len(self.nodes)
        self.nodes.append([int(source.integers(4)), int(source.integers(6)), float(source.integers(-2, 3))])
        for _ in range(2):
            if depth == 0 or source.random() < 0.2:
                self.leaves.append((int(source.integers(3)), float(np.float32(source.standard_normal()))))
                self.nodes[at].append((len(self.leaves) - 1, 1))
            else:
                self.nodes[at].append((self.branch(source, depth - 1), 0))
        return at

    def integers(self) -> dict[str, list[int]]:
        return {
            "tree_roots": self.roots,
            "nodes_featureids": [n[0] for n in self.nodes],
            "nodes_truenodeids": [n[3][0] for n in self.nodes],
            "nodes_trueleafs": [n[3][1] for n in self.nodes],
            "nodes_falsenodeids": [n[4][0] for n in self.nodes],
            "nodes_falseleafs": [n[4][1] for n in self.nodes],
            "leaf_targetids": [leaf[0] for leaf in self.leaves],
        }


def evaluate(x: np.ndarray, forest: Forest, tracks: list[int], **attributes: int) -> np.ndarray:
    tables = {name: np.array(values) for name, values in forest.integers().items()}
    return tree_ensemble(
        x, tables["tree_roots"], tables["nodes_featureids"], np.array([n[1] for n in forest.nodes], np.uint8),
        np.array([n[2] for n in forest.nodes], x.dtype), tables["nodes_truenodeids"], tables["nodes_trueleafs"],
        tables["nodes_falsenodeids"], tables["nodes_falseleafs"], tables["leaf_targetids"],
        np.array([leaf[1] for leaf in forest.leaves], x.dtype), np.array(tracks), n_targets=3, **attributes,
    )  # fmt: skip


@pytest.mark.parametrize("function", [0, 1, 2, 3])
@pytest.mark.parametrize("transform", [0, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tree_ensemble(function: int, transform: int, dtype: Any) -> None:
    source = np.random.default_rng(function)
    forest = Forest.grow(source, 3)
    x = source.integers(-2, 3, (9, 4)).astype(dtype)
    x[source.random(x.shape) < 0.1] = np.nan
    tracks = source.integers(0, 2, len(forest.nodes)).tolist()
    number = TensorProto.FLOAT if dtype == np.float32 else TensorProto.DOUBLE
    tensors = {
        "nodes_modes": (TensorProto.UINT8, [n[1] for n in forest.nodes]),
        "nodes_splits": (number, [n[2] for n in forest.nodes]),
        "leaf_weights": (number, [leaf[1] for leaf in forest.leaves]),
    }
    attributes = {"aggregate_function": function, "post_transform": transform}
    expected = reference(
        "TreeEnsemble", [x], 5, n_targets=3, nodes_missing_value_tracks_true=tracks, **forest.integers(), **attributes,
        **{name: helper.make_tensor(name, kind, [len(v)], v) for name, (kind, v) in tensors.items()},
    )  # fmt: skip
    precision = np.float32 if transform else dtype  # ONNX Runtime transforms doubles in float32
    got = evaluate(x, forest, tracks, **attributes)
    assert got.dtype == dtype
    assert_close(got.astype(precision), expected.astype(precision), accumulation=3)


def test_tree_transforms_are_numbered_as_in_the_standard() -> None:
    """1 is softmax and 2 logistic; ONNX Runtime has them the other way round."""
    forest = Forest.grow(np.random.default_rng(0), 2)
    tracks, x = [0] * len(forest.nodes), X[:, [0, 1, 2, 0]]
    scores = evaluate(x, forest, tracks)
    assert_close(evaluate(x, forest, tracks, post_transform=1), ml.transformed(scores, "SOFTMAX"))
    assert_close(evaluate(x, forest, tracks, post_transform=2), ml.transformed(scores, "LOGISTIC"))


def test_trees_that_go_nowhere() -> None:
    forest = Forest.grow(np.random.default_rng(0), 1)
    forest.nodes[0][3] = forest.nodes[0][4] = (0, 0)
    with pytest.raises(ValueError, match="circle"):
        evaluate(np.ones((1, 4), np.float32), forest, [0] * len(forest.nodes))
    forest.nodes[0][3] = (len(forest.leaves), 1)
    with pytest.raises(ValueError, match="not there"):
        evaluate(np.ones((1, 4), np.float32), forest, [0] * len(forest.nodes))
