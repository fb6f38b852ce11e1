"""Fold constants of one number a channel into the convolution before them:

conv(x, w, b) + c  ->  conv(x, w, b + c)
conv(x, w, b) * c  ->  conv(x, w * c, b * c)        (c along the output channels)

and so for conv_transpose. Computed in float64, rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op, optional
from fusible.passes.rewrite import Reject, Rule, attributes, rule
from fusible.passes.rules.fold_batch_norm import along_outputs, along_transposed_outputs

__all__ = ["RULES"]

Array = np.ndarray


def _by_channel(y: Value, c: Value, channels: int) -> Array | Reject:
    """The constant in float64, one number for each channel of y, whose channels are along axis 1."""
    if c.constant is None:
        return Reject("what is added or multiplied is not constant", c)
    if not isinstance(y.type, TensorType) or y.type.shape is None or len(y.type.shape) < 3:
        return Reject("the rank is not known", y)
    shape, rank = c.constant.array.shape, len(y.type.shape)
    if len(shape) > rank:
        return Reject("the constant has more dimensions than the result of the convolution", c)
    aligned = (1,) * (rank - len(shape)) + shape
    if aligned[1] not in (1, channels) or any(d != 1 for n, d in enumerate(aligned) if n != 1):
        return Reject("the constant varies along other axes than that of the channels", c)
    return np.broadcast_to(c.constant.array.astype(np.float64).reshape(-1), (channels,))


def _folding(convolution: str, scaled: Callable[[Array, Array, int], Array], operation: str) -> Rule:
    """The rule for one kind of convolution and `add` or `mul`; `scaled` multiplies its weight."""

    def fold(x: Any, w: Any, b: Any, c: Any, k: Any) -> Any:
        def build(graph: Graph, x: Value, w: Value, b: Value | None, c: Value, k: Node) -> Value | Reject:
            if w.constant is None or (b is not None and b.constant is None):
                return Reject("the weight or the bias is not constant", w)
            weight = w.constant.array
            if weight.dtype.kind != "f" or weight.dtype.itemsize < 4:
                return Reject(f"{weight.dtype} would be rounded otherwise", w)
            channels = weight.shape[0] if convolution == "conv" else weight.shape[1] * k.attrs.group
            found = _by_channel(k.output, c, channels)
            if isinstance(found, Reject):
                return found
            old = np.zeros(channels) if b is None or b.constant is None else b.constant.array.astype(np.float64)
            bias = old + found if operation == "add" else old * found
            kept = w if operation == "add" else graph.constant(_rounded(scaled(found, weight, k.attrs.group), weight))
            biased = None if b is None and operation == "mul" else graph.constant(_rounded(bias, weight))
            return graph.add(convolution, x, kept, biased, **attributes(k))

        return op[operation](op[convolution](x, w, optional(b)).named(k), c), build

    fold.__name__ = f"{operation}_into_{convolution}"
    fold.__doc__ = f"{operation}({convolution}(x, w, b), c)  ->  {convolution} with other constants."
    return rule(exactness=Exactness.REASSOCIATING)(fold)


def _rounded(array: Any, weight: Array) -> Array:
    return np.asarray(array).astype(weight.dtype)


RULES = tuple(
    _folding(convolution, scaled, operation)
    for convolution, scaled in (("conv", along_outputs), ("conv_transpose", along_transposed_outputs))
    for operation in ("add", "mul")
)
