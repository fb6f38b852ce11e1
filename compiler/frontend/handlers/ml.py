"""Operators of ai.onnx.ml. Their tables, attributes in ONNX, become constant operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType

_DOMAIN = "ai.onnx.ml"


@onnx_op("ArrayFeatureExtractor", domain=_DOMAIN)
def array_feature_extractor(c: NodeContext) -> Value:
    """ArrayFeatureExtractor."""
    return c.add("array_feature_extractor", c.required(0), c.required(1))


@onnx_op("Binarizer", domain=_DOMAIN)
def binarizer(c: NodeContext) -> Value:
    """Binarizer."""
    return c.add("binarizer", c.required(0), threshold=c.attr_float("threshold", 0.0))


@onnx_op("FeatureVectorizer", domain=_DOMAIN)
def feature_vectorizer(c: NodeContext) -> Value:
    """FeatureVectorizer."""
    return c.add("feature_vectorizer", *c.all_inputs(), inputdimensions=c.attr_ints("inputdimensions") or ())


@onnx_op("Imputer", domain=_DOMAIN)
def imputer(c: NodeContext) -> Value:
    """Imputer: the integer attributes for integers, the float ones for floats."""
    dtype = c.tensor_type(0).dtype
    if dtype.is_float:
        imputed, replaced = c.attr_floats("imputed_value_floats"), c.attr_float("replaced_value_float", 0.0)
    else:
        imputed, replaced = c.attr_ints("imputed_value_int64s"), c.attr_int("replaced_value_int64", 0)
    if not imputed:
        c.invalid("the values to impute are missing")
    return c.add("imputer", c.required(0), _table(c, imputed, dtype), c.constant(np.asarray(replaced, dtype.numpy)))


@onnx_op("LinearRegressor", domain=_DOMAIN)
def linear_regressor(c: NodeContext) -> Value:
    """LinearRegressor."""
    targets, coefficients = c.attr_int("targets", 1), c.attr_floats("coefficients") or ()
    if targets < 1 or len(coefficients) % targets:
        c.invalid(f"{len(coefficients)} coefficients do not fit {targets} targets")
    matrix = np.asarray(coefficients, np.float32).reshape(targets, -1)
    intercepts = c.attr_floats("intercepts")
    return c.add(
        "linear_regressor",
        c.required(0),
        c.constant(matrix),
        _table(c, intercepts, DType.F32) if intercepts else None,
        post_transform=_post_transform(c),
    )


@onnx_op("Normalizer", domain=_DOMAIN)
def normalizer(c: NodeContext) -> Value:
    """Normalizer."""
    return c.add("normalizer", c.required(0), norm=c.attr_string("norm", "MAX"))


@onnx_op("OneHotEncoder", domain=_DOMAIN)
def one_hot_encoder(c: NodeContext) -> Value:
    """OneHotEncoder."""
    strings, integers = c.attr_strings("cats_strings"), c.attr_ints("cats_int64s")
    if (strings is None) == (integers is None):
        c.invalid("needs either cats_strings or cats_int64s")
    categories = _table(c, strings, DType.STRING) if strings is not None else _table(c, integers or (), DType.I64)
    return c.add("one_hot_encoder", c.required(0), categories, zeros=c.attr_int("zeros", 1) != 0)


@onnx_op("Scaler", domain=_DOMAIN)
def scaler(c: NodeContext) -> Value:
    """Scaler."""
    offset, scale = c.attr_floats("offset"), c.attr_floats("scale")
    if not offset or not scale or len(offset) != len(scale):
        c.invalid("needs offset and scale of the same length")
    return c.add("scaler", c.required(0), _table(c, offset, DType.F32), _table(c, scale, DType.F32))


@onnx_op("LabelEncoder", domain=_DOMAIN, since=2)
def label_encoder(c: NodeContext) -> Value:
    """LabelEncoder since version 2; keys, values and default may be tensors since 4."""
    keys, values = _one_of(c, "keys"), _one_of(c, "values")
    given = c.attr_tensor("default_tensor")
    dtype = DType.of(values.dtype)
    default: object = -1 if dtype.is_integer else -0.0
    if given is not None:
        default = given.array.ravel()[0] if given.size == 1 else c.invalid("default_tensor must have one element")
    elif dtype is DType.STRING:
        default = c.attr_string("default_string", "_Unused")
    elif dtype is DType.I64:
        default = c.attr_int("default_int64", -1)
    elif dtype is DType.F32:
        default = c.attr_float("default_float", -0.0)
    return _encoder(c, keys, values, default)


@onnx_op("LabelEncoder", domain=_DOMAIN)
def label_encoder_1(c: NodeContext) -> Value:
    """LabelEncoder of version 1: strings to their places in classes_strings, or places to strings."""
    classes = np.array(c.attr_strings("classes_strings") or (), object)
    places = np.arange(len(classes), dtype=np.int64)
    if c.tensor_type(0).dtype is DType.STRING:
        return _encoder(c, classes, places, c.attr_int("default_int64", -1))
    return _encoder(c, places, classes, c.attr_string("default_string", "_Unused"))


@onnx_op("CategoryMapper", domain=_DOMAIN)
def category_mapper(c: NodeContext) -> Value:
    """CategoryMapper: a label encoder from strings to integers or back."""
    strings = np.array(c.attr_strings("cats_strings") or (), object)
    integers = np.array(c.attr_ints("cats_int64s") or (), np.int64)
    if c.tensor_type(0).dtype is DType.STRING:
        return _encoder(c, strings, integers, c.attr_int("default_int64", -1))
    return _encoder(c, integers, strings, c.attr_string("default_string", "_Unused"))


def _encoder(c: NodeContext, keys: np.ndarray, values: np.ndarray, default: object) -> Value:
    if keys.shape != values.shape or keys.ndim != 1:
        c.invalid(f"needs as many values as keys, got {list(keys.shape)} keys and {list(values.shape)} values")
    last = np.asarray(default, values.dtype)
    return c.add("label_encoder", c.required(0), c.constant(keys), c.constant(values), c.constant(last))


def _one_of(c: NodeContext, what: str) -> np.ndarray:
    """The table that one of what_strings, what_int64s, what_floats and what_tensor gives."""
    lists: list[tuple[Sequence[Any] | None, Any]] = [
        (c.attr_strings(f"{what}_strings"), object),
        (c.attr_ints(f"{what}_int64s"), np.int64),
        (c.attr_floats(f"{what}_floats"), np.float32),
    ]
    given = [np.array(values, dtype) for values, dtype in lists if values is not None]
    tensor = c.attr_tensor(f"{what}_tensor")
    if tensor is not None:
        given.append(tensor.array)
    if len(given) != 1:
        c.invalid(f"needs exactly one attribute {what}_*, got {len(given)}")
    return given[0]


@onnx_op("TreeEnsemble", domain=_DOMAIN, since=5)
def tree_ensemble(c: NodeContext) -> Value:
    """TreeEnsemble."""
    transform = c.attr_int("post_transform", 0)
    if transform == 4:
        c.unsupported("the post-transform PROBIT has no kernel")
    modes, splits, weights = (_tensor(c, name) for name in ("nodes_modes", "nodes_splits", "leaf_weights"))
    names = ("nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs", "leaf_targetids")
    members, tracks = c.attr_tensor("membership_values"), c.attr_ints("nodes_missing_value_tracks_true")
    return c.add(
        "tree_ensemble",
        c.required(0),
        c.ints_constant(c.attr_ints("tree_roots") or ()),
        c.ints_constant(c.attr_ints("nodes_featureids") or ()),
        modes,
        splits,
        *(c.ints_constant(c.attr_ints(name) or ()) for name in names),
        weights,
        c.ints_constant(tracks) if tracks else None,
        c.constant(members) if members is not None else None,
        n_targets=c.attr_int("n_targets", 1),
        aggregate_function=c.attr_int("aggregate_function", 1),
        post_transform=transform,
    )


@onnx_op("ZipMap", "DictVectorizer", "CastMap", domain=_DOMAIN)
def maps(c: NodeContext) -> Value:
    """Maps are no type here."""
    c.unsupported("maps are not supported; take the tensors before ZipMap as outputs")


def _tensor(c: NodeContext, name: str) -> Value:
    found = c.attr_tensor(name)
    return c.constant(found) if found is not None else c.invalid(f"required attribute {name!r} is missing")


def _table(c: NodeContext, values: Sequence[Any], dtype: DType) -> Value:
    return c.constant(np.array(values, dtype.numpy))


def _post_transform(c: NodeContext) -> str:
    transform = c.attr_string("post_transform", "NONE")
    if transform == "PROBIT":
        c.unsupported("the post-transform PROBIT has no kernel")
    return transform
