"""Images of three channels get a fourth of zeros where they are rounded to half precision:

conv(cast(x [N, 3, H, W]), w [O, 3, kh, kw])  ->  conv(cast(pad(x)), w with zeros)

Each pixel then is 8 bytes at a multiple of 8 bytes, which one asynchronous copy fetches, where three numbers of 16 bits
are fetched one by one: no GPU copies 2 bytes asynchronously. The kernel that rounds writes a third more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op, optional
from fusible.passes.rewrite import Reject, attributes, rule

__all__ = ["RULES"]

_FEW, _PADDED = 3, 4
_LEAST = 64  # terms of a sum below which the convolution is no product of matrices


@rule(exactness=Exactness.REASSOCIATING)
def three_channels(x: Any, w: Any, b: Any, k: Any, c: Any) -> Any:
    """conv(cast(x), w) of three channels  ->  conv(cast(pad(x)), w) of four, the last of them zero."""

    def build(graph: Graph, x: Value, w: Value, b: Value | None, k: Node, c: Node) -> Value | Reject:
        half = k.output.type
        if not isinstance(half, TensorType) or not half.dtype.is_small_float or half.dtype.numpy.itemsize != 2:
            return Reject("it is not in half precision", k)
        if not isinstance(x.type, TensorType) or x.type.shape is None or len(x.type.shape) != 4:
            return Reject("it is no convolution of images", x)
        if x.type.shape[1] != _FEW or c.attrs.group != 1:
            return Reject("it has not three channels in one group", x)
        if w.constant is None:
            return Reject("its weights are not constant", w)
        weights = w.constant.array
        if weights[0].size < _LEAST:
            return Reject("its sums have few terms", w)
        if c.attrs.strides == weights.shape[2:]:
            return Reject("its windows do not overlap: their rows are whole vectors already", c)
        padded = graph.add("pad", x, pads=(0, 0, 0, 0, 0, _PADDED - _FEW, 0, 0), mode="constant")
        image = graph.add("cast", padded, **attributes(k))
        wider = np.pad(weights, ((0, 0), (0, _PADDED - _FEW), (0, 0), (0, 0)))
        return graph.add("conv", image, graph.constant(wider), b, **attributes(c))

    return op.conv(op.cast(x).named(k), w, optional(b)).named(c), build


RULES = (three_channels,)
