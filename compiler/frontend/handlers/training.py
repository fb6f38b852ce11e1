"""Optimiser steps of ai.onnx.preview.training; Gradient is not supported."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value

_DOMAIN = "ai.onnx.preview.training"


@onnx_op("Adagrad", domain=_DOMAIN)
def adagrad(c: NodeContext) -> Sequence[Value]:
    """Adagrad."""
    return _step(
        c,
        "adagrad",
        groups=3,
        norm_coefficient=c.attr_float("norm_coefficient", 0.0),
        decay_factor=c.attr_float("decay_factor", 0.0),
        epsilon=c.attr_float("epsilon", 1e-6),
    )


@onnx_op("Adam", domain=_DOMAIN)
def adam(c: NodeContext) -> Sequence[Value]:
    """Adam."""
    return _step(
        c,
        "adam",
        groups=4,
        alpha=c.attr_float("alpha", 0.9),
        beta=c.attr_float("beta", 0.999),
        norm_coefficient=c.attr_float("norm_coefficient", 0.0),
        norm_coefficient_post=c.attr_float("norm_coefficient_post", 0.0),
        epsilon=c.attr_float("epsilon", 1e-6),
    )


@onnx_op("Momentum", domain=_DOMAIN)
def momentum(c: NodeContext) -> Sequence[Value]:
    """Momentum."""
    return _step(
        c,
        "momentum",
        groups=3,
        alpha=c.attr_float("alpha"),
        beta=c.attr_float("beta"),
        norm_coefficient=c.attr_float("norm_coefficient"),
        mode=c.attr_string("mode"),
    )


def _step(c: NodeContext, op: str, groups: int, **attributes: float | str) -> Sequence[Value]:
    operands = c.all_inputs()
    count = (len(operands) - 2) // groups
    return c.add_node(op, *operands, outputs=count * (groups - 1), **attributes).outputs


@onnx_op("Gradient", domain=_DOMAIN)
def gradient(c: NodeContext) -> Sequence[Value]:
    """Gradient asks to differentiate the rest of the graph."""
    c.unsupported("it asks to differentiate the graph; export the gradients as nodes instead")
