"""Models of a few nodes, imported and evaluated, beside ONNX Runtime's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fusible.compiler.frontend.convert import import_model
from fusible.compiler.frontend.load import load_model
from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.options import Limits
from tests import oracle


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 21,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of the nodes; the element types and shapes of its inputs are those of the arrays."""
    graph = helper.make_graph(
        list(nodes),
        "few",
        [_value_info(name, array) for name, array in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def _value_info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def imported(model: onnx.ModelProto) -> Graph:
    """The graph that the frontend makes of it."""
    return import_model(load_model(model, Limits()))


def evaluated(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[Any]:
    """The outputs by the NumPy meanings."""
    graph = imported(model)
    return evaluate_graph(graph, [inputs[value.name] for value in graph.inputs])


def expected(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[Any]:
    """The outputs by ONNX Runtime."""
    return list(oracle.run(model, inputs).values())
