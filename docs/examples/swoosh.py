"""An op of one's own, a rewrite rule for it, and a replacement kernel for an existing op: a module outside Fusible.

    swoosh(x, slope) = x * sigmoid(slope * x)        domain my.ops
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fusible
from fusible.definitions import Arg, apply
from fusible.passes import Exactness, Reject, RewritePass, op, rule


def swoosh_numpy(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """x * sigmoid(slope * x)."""
    return np.asarray(x / (1 + np.exp(-slope * x)), dtype=x.dtype)


fusible.register_op(
    "my.ops",
    "Swoosh",
    numpy=swoosh_numpy,
    inputs=2,
    definition=apply("mul", Arg(0), apply("sigmoid", apply("mul", Arg(1), Arg(0)))),
)


def fast_tanh(x: np.ndarray) -> np.ndarray:
    """tanh by one exponential; exact to a few units in the last place."""
    e = np.exp(-2 * np.abs(x))
    return np.asarray(np.copysign((1 - e) / (1 + e), x), dtype=x.dtype)


fusible.register_kernel("tanh", function=fast_tanh, legal=lambda facts: facts.inputs[0].dtype == np.float32)


@rule(exactness=Exactness.REASSOCIATING)
def unit_swoosh(x: Any, slope: Any) -> Any:
    """swoosh(x, 1)  ->  swish(x)."""

    def build(graph: Any, x: Any, slope: Any) -> Any:
        if slope.constant is None or not np.all(slope.constant.array == 1):
            return Reject("the slope is not the constant 1", slope)
        return graph.add("swish", x, alpha=1.0)

    return op["my.ops::Swoosh"](x, slope), build


def register(pipeline: Any) -> Any:
    """For `fusible compile --passes swoosh.py` and for programs: the pipeline with the rule added."""
    return pipeline.insert(RewritePass("unit-swoosh", [unit_swoosh]), after="canonical")
