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
import onnxruntime

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
