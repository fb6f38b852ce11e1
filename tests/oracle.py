"""ONNX Runtime as the oracle: optimisations disabled, one thread, silent.

Its optimiser is off because it moves roundings: on the dynamically quantised models its own two answers differ by whole
quantisation steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnxruntime

from fusible.benchmarks.reference import without_saturation as without_saturation

onnxruntime.set_default_logger_severity(4)

Model = onnx.ModelProto | bytes | str | os.PathLike[str]


def session(model: Model) -> onnxruntime.InferenceSession:
    """Load `model` (a path keeps external data reachable)."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    match model:
        case onnx.ModelProto():
            source: bytes | str = model.SerializeToString()
        case bytes():
            source = model
        case _:
            source = os.fspath(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: Model | onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The outputs of `model` by name: arrays, lists of arrays for sequences, None for empty optionals."""
    loaded = model if isinstance(model, onnxruntime.InferenceSession) else session(model)
    names = [output.name for output in loaded.get_outputs()]
    return dict(zip(names, loaded.run(names, dict(inputs)), strict=True))


def tie_margin(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> float:
    """How far, in quantisation steps, any value that DynamicQuantizeLinear rounds stays from the middle of two levels.

    Where the margin is no larger than a rounding error, two right answers differ by a level; in a deep model the
    difference then grows to that of quantisation itself, and a comparison means nothing.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    nodes = [node for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]
    known = {value.name for value in [*model.graph.output, *model.graph.input]}
    wanted = dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[1]) if name not in known)
    probed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    values = {**inputs, **run(probed, inputs)}
    margins = [1.0]
    for node in nodes:
        levels = values[node.input[0]] / np.float64(values[node.output[1]])
        margins.append(float(np.abs(levels - np.floor(levels) - 0.5).min(initial=1.0)))
    return min(margins)
