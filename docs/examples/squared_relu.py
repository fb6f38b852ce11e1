"""An operator of our own, `com.example::SquaredRelu`, and a second kernel for it: a module that others import.

The definition is a scalar expression, so the op fuses with its neighbours. Importing the module registers both; with
`fusible compile model.onnx -o model.fusible --passes squared_relu.py` the command line does too.
"""

from __future__ import annotations

import numpy as np

import fusible
from fusible.definitions import Arg, apply
from fusible.kernels.registry import NodeFacts
from fusible.passes import Pipeline


def squared_relu(x: np.ndarray) -> np.ndarray:
    """Return max(x, 0) ** 2: what the operator means."""
    positive = np.maximum(x, 0)
    return positive * positive


def squared_relu_of_floats(x: np.ndarray) -> np.ndarray:
    """Return the same with one temporary array less."""
    result = np.maximum(x, 0)
    return np.multiply(result, result, out=result)


def floats_only(facts: NodeFacts) -> bool | str:
    """Tell where the second kernel may be used, or why not."""
    return (facts.inputs[0] is not None and facts.inputs[0].dtype == np.float32) or "only written for float32"


positive = apply("max", Arg(0), 0)
fusible.register_op("com.example", "SquaredRelu", numpy=squared_relu, definition=apply("mul", positive, positive))
fusible.register_kernel("com.example::SquaredRelu", function=squared_relu_of_floats, legal=floats_only, cost=0.5)


def register(pipeline: Pipeline) -> Pipeline:
    """Leave the passes as they are; the op and its kernel are registered by now."""
    return pipeline
