"""Models of one node for ops that hold in operands what ONNX has in attributes, which the exporter leaves alone.

They are the lookups and linear models of domain ai.onnx.ml, decision trees, and TfIdfVectorizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fusible.benchmarks.kernels.counterparts.protocol import NoCounterpart
from fusible.compiler.frontend.load import onnx_dtype
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.types import TensorType

__all__ = ["TABLES", "model_with_tables"]

ML = "ai.onnx.ml"
_Attributes: TypeAlias = Mapping[str, Any]


def _label_encoder(node: Node, values: Sequence[Any]) -> _Attributes:
    keys, results, default = values[1:4]
    tensors = {"keys_tensor": keys, "values_tensor": results, "default_tensor": default.reshape(1)}
    return {name: numpy_helper.from_array(array, name) for name, array in tensors.items()}


def _imputer(node: Node, values: Sequence[Any]) -> _Attributes:
    x, imputed, replaced = values
    if x.dtype == np.float32:
        return {"imputed_value_floats": imputed.tolist(), "replaced_value_float": float(replaced)}
    return {"imputed_value_int64s": imputed.tolist(), "replaced_value_int64": int(replaced)}


def _one_hot_encoder(node: Node, values: Sequence[Any]) -> _Attributes:
    categories = values[1]
    name = "cats_strings" if categories.dtype == object else "cats_int64s"
    return {name: categories.tolist(), "zeros": int(node.attrs.zeros)}


def _scaler(node: Node, values: Sequence[Any]) -> _Attributes:
    return {"offset": values[1].tolist(), "scale": values[2].tolist()}


def _linear_regressor(node: Node, values: Sequence[Any]) -> _Attributes:
    intercepts = values[2].tolist() if len(values) > 2 and values[2] is not None else None
    return {
        "coefficients": values[1].reshape(-1).tolist(),
        "targets": int(values[1].shape[0]),
        "post_transform": node.attrs.post_transform,
        "intercepts": intercepts,
    }


_TREE_INDICES = (
    "tree_roots", "nodes_featureids", "nodes_modes", "nodes_splits", "nodes_truenodeids", "nodes_trueleafs",
    "nodes_falsenodeids", "nodes_falseleafs", "leaf_targetids", "leaf_weights", "nodes_missing_value_tracks_true",
    "membership_values",
)  # fmt: skip
_TREE_TENSORS = ("nodes_modes", "nodes_splits", "leaf_weights", "membership_values")


def _tree_ensemble(node: Node, values: Sequence[Any]) -> _Attributes:
    found: dict[str, Any] = {}
    for name, array in zip(_TREE_INDICES, values[1:], strict=False):
        if array is not None:
            found[name] = numpy_helper.from_array(array, name) if name in _TREE_TENSORS else array.tolist()
    attrs = node.attrs
    plain = {"n_targets": attrs.n_targets, "aggregate_function": attrs.aggregate_function}
    return found | plain | {"post_transform": attrs.post_transform}


def _tf_idf(node: Node, values: Sequence[Any]) -> _Attributes:
    attrs, pool = node.attrs, values[1]
    return {
        "mode": attrs.mode,
        "min_gram_length": attrs.min_gram_length,
        "max_gram_length": attrs.max_gram_length,
        "max_skip_count": attrs.max_skip_count,
        "ngram_counts": list(attrs.ngram_counts),
        "ngram_indexes": values[2].tolist(),
        "pool_strings" if pool.dtype == object else "pool_int64s": pool.tolist(),
        "weights": values[3].tolist() if len(values) > 3 and values[3] is not None else None,
    }


# op -> (operator, domain, version of the domain, its attributes from the operands)
TABLES: Mapping[str, tuple[str, str, int, Callable[[Node, Sequence[Any]], _Attributes]]] = MappingProxyType(
    {
        "imputer": ("Imputer", ML, 1, _imputer),
        "label_encoder": ("LabelEncoder", ML, 4, _label_encoder),
        "linear_regressor": ("LinearRegressor", ML, 1, _linear_regressor),
        "one_hot_encoder": ("OneHotEncoder", ML, 1, _one_hot_encoder),
        "scaler": ("Scaler", ML, 1, _scaler),
        "tf_idf_vectorizer": ("TfIdfVectorizer", "", 9, _tf_idf),
        "tree_ensemble": ("TreeEnsemble", ML, 5, _tree_ensemble),
    }
)


def model_with_tables(graph: Graph, values: Sequence[Any]) -> onnx.ModelProto:
    """The model of a graph of one such node. Raises NoCounterpart if a table is no constant of the case."""
    node = next(iter(graph))
    operator, domain, version, attributes = TABLES[node.op.name]
    if len(graph.inputs) != 1 or graph.inputs[0] is not node.inputs[0]:
        raise NoCounterpart(f"{operator} has its tables in attributes; operands other than the first must be const")
    given = {name: value for name, value in attributes(node, values).items() if value is not None}
    proto = helper.make_node(operator, ["x0"], ["y0"], domain=domain, **given)
    source, result = graph.inputs[0].type, node.outputs[0].type
    assert isinstance(source, TensorType) and isinstance(result, TensorType)
    body = helper.make_graph(
        [proto],
        operator,
        [helper.make_tensor_value_info("x0", onnx_dtype(source.dtype), source.static_shape)],
        [helper.make_tensor_value_info("y0", onnx_dtype(result.dtype), result.static_shape)],
    )
    imports = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, version)] if domain else [])]
    return helper.make_model(body, opset_imports=imports, ir_version=10, producer_name="fusible")
