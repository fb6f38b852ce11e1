"""Fold batch normalisation with constant statistics into the constants of what comes before:

bn(y) = s * y + t  with  s = scale / sqrt(var + eps),  t = bias - mean * s
bn(conv(x, w, b))            ->  conv(x, w * s, b * s + t)             (s along the output channels)
bn(conv_transpose(x, w, b))  ->  conv_transpose(x, w * s, b * s + t)
bn(x)                        ->  x * s + t                             (where nothing is before it)

Computed in float64, rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import op, optional
from fusible.passes.rewrite import Reject, attributes, rule

__all__ = ["RULES", "along_outputs", "along_transposed_outputs"]

Array = np.ndarray


def _affine(scale: Value, bias: Value, mean: Value, var: Value, epsilon: float) -> tuple[Array, Array] | Reject:
    """s and t in float64, one for each channel."""
    arrays = []
    for value in (scale, bias, mean, var):
        if value.constant is None:
            return Reject("a statistic of the batch normalisation is not constant", value)
        arrays.append(value.constant.array.astype(np.float64))
    with np.errstate(all="ignore"):
        s = arrays[0] / np.sqrt(arrays[3] + epsilon)
    if not np.isfinite(s).all():
        return Reject("a variance is negative or not finite", var)
    return s, arrays[1] - arrays[2] * s


def _shifted(graph: Graph, b: Value | None, s: Array, t: Array, dtype: np.dtype) -> Value | Reject:
    if b is not None and b.constant is None:
        return Reject("the bias is not constant", b)
    old = 0.0 if b is None or b.constant is None else b.constant.array.astype(np.float64)
    return graph.constant((old * s + t).astype(dtype))


def along_outputs(s: Array, weight: Array, group: int) -> Array:
    """weight [out, in / group, ...] times s, in float64."""
    return np.asarray(weight.astype(np.float64) * s.reshape(-1, *(1,) * (weight.ndim - 1)))


def along_transposed_outputs(s: Array, weight: Array, group: int) -> Array:
    """weight [in, out / group, ...] times s, in float64: the outputs of each group stand along axis 1."""
    grouped = weight.astype(np.float64).reshape(group, -1, *weight.shape[1:])
    return np.asarray((grouped * s.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape))


def _folding(convolution: str, scaled: Callable[[Array, Array, int], Array]) -> Callable[..., Any]:
    """The rule function for one kind of convolution; `scaled` multiplies its weight by s."""

    def fold(x: Any, w: Any, b: Any, n: Any, c: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
        def build(
            graph: Graph,
            x: Value,
            w: Value,
            b: Value | None,
            n: Node,
            c: Node,
            scale: Value,
            bias: Value,
            mean: Value,
            var: Value,
        ) -> Value | Reject:
            affine = _affine(scale, bias, mean, var, n.attrs.epsilon)
            if isinstance(affine, Reject):
                return affine
            if w.constant is None:
                return Reject("the weight is not constant", w)
            s, t = affine
            weight = w.constant.array
            shifted = _shifted(graph, b, s, t, weight.dtype)
            if isinstance(shifted, Reject):
                return shifted
            constant = graph.constant(scaled(s, weight, c.attrs.group).astype(weight.dtype))
            return graph.add(convolution, x, constant, shifted, **attributes(c))

        before = op[convolution](x, w, optional(b)).named(c)
        return op.batch_normalization(before, scale, bias, mean, var).named(n), build

    fold.__name__ = f"fold_batch_norm_into_{convolution}"
    fold.__doc__ = f"bn({convolution}(x, w, b))  ->  {convolution}(x, w * s, b * s + t)."
    return fold


fold_batch_norm_into_conv = rule(exactness=Exactness.REASSOCIATING)(_folding("conv", along_outputs))
fold_batch_norm_into_conv_transpose = rule(exactness=Exactness.REASSOCIATING)(
    _folding("conv_transpose", along_transposed_outputs)
)


@rule(exactness=Exactness.REASSOCIATING)
def batch_norm_as_affine(x: Any, n: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    """bn(x)  ->  x * s + t, which fuses with its neighbours."""

    def build(graph: Graph, x: Value, n: Node, scale: Value, bias: Value, mean: Value, var: Value) -> Value | Reject:
        producer = x.producer
        if producer is not None and producer.op.name in ("conv", "conv_transpose") and len(x.uses) == 1:
            weight = producer.inputs[1]
            if weight is not None and weight.constant is not None:
                return Reject("it folds into the convolution before it", x)
        if not isinstance(x.type, TensorType) or x.type.shape is None or len(x.type.shape) < 2:
            return Reject("the rank is not known", x)
        if not x.type.dtype.is_float or x.type.dtype.is_small_float:
            return Reject(f"{x.type.dtype.value} would be rounded twice", x)
        affine = _affine(scale, bias, mean, var, n.attrs.epsilon)
        if isinstance(affine, Reject):
            return affine
        ones = (1,) * (len(x.type.shape) - 2)
        s, t = (graph.constant(a.astype(x.type.dtype.numpy).reshape(-1, *ones)) for a in affine)
        return graph.add("add", graph.add("mul", x, s), t)

    return op.batch_normalization(x, scale, bias, mean, var).named(n), build


RULES = (fold_batch_norm_into_conv, fold_batch_norm_into_conv_transpose, batch_norm_as_affine)
