"""A model in float64 in place of fp16: what kernels are to be near, where what a case expects is further off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

import fusible

__all__ = ["results_in_float64"]

_HALF, _DOUBLE = TensorProto.FLOAT16, TensorProto.DOUBLE


def results_in_float64(source: Path | onnx.ModelProto, inputs: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The outputs by name, of the target numpy; None if the model or its inputs cannot be told in float64."""
    model = onnx.ModelProto()
    model.CopyFrom(_loaded(source))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = _DOUBLE
    for tensor in model.graph.initializer:
        if tensor.data_type == _HALF:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for attribute in _attributes(model):
        if attribute.name in ("to", "dtype", "stash_type", "softmax_precision") and attribute.i == _HALF:
            attribute.i = _DOUBLE
    if any(not isinstance(array, np.ndarray) for array in inputs.values()):
        return None
    given = {n: a.astype(np.float64) if a.dtype == np.float16 else a for n, a in inputs.items()}
    try:
        return fusible.compile(model, target="numpy").run(given)
    except fusible.FusibleError:
        return None  # an operator that takes no float64


def _loaded(source: Path | onnx.ModelProto) -> onnx.ModelProto:
    return source if isinstance(source, onnx.ModelProto) else onnx.load(source)


def _attributes(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    for node in model.graph.node:
        yield from node.attribute
