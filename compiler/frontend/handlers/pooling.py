"""Pools: MaxPool, AveragePool, LpPool, their global forms, MaxUnpool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.frontend.handlers.convolution import window_attributes
from fusible.compiler.ir.graph import Value


@onnx_op("MaxPool")
def max_pool(c: NodeContext) -> Sequence[Value]:
    """MaxPool (indices and storage_order since opset 8, dilations and ceil_mode since 10)."""
    attrs = pool_attributes(c)
    if not c.wants(1):
        return [c.add("max_pool", c.required(0), **attrs)]
    order = c.attr_int("storage_order", 0)
    return c.add_node("max_pool_with_indices", c.required(0), outputs=2, storage_order=order, **attrs).outputs


@onnx_op("AveragePool")
def average_pool(c: NodeContext) -> Value:
    """AveragePool (count_include_pad since opset 7, ceil_mode since 10, dilations since 19)."""
    include = c.attr_int("count_include_pad", 0) != 0
    return c.add("average_pool", c.required(0), count_include_pad=include, **pool_attributes(c))


@onnx_op("LpPool")
def lp_pool(c: NodeContext) -> Value:
    """LpPool (p was a float in opset 1; dilations and ceil_mode since 18)."""
    return c.add("lp_pool", c.required(0), p=_norm(c), **pool_attributes(c))


@onnx_op("GlobalMaxPool")
def global_max_pool(c: NodeContext) -> Value:
    """GlobalMaxPool."""
    return c.add("global_max_pool", c.required(0))


@onnx_op("GlobalAveragePool")
def global_average_pool(c: NodeContext) -> Value:
    """GlobalAveragePool."""
    return c.add("global_average_pool", c.required(0))


@onnx_op("GlobalLpPool")
def global_lp_pool(c: NodeContext) -> Value:
    """GlobalLpPool."""
    return c.add("global_lp_pool", c.required(0), p=_norm(c))


@onnx_op("MaxUnpool")
def max_unpool(c: NodeContext) -> Value:
    """MaxUnpool."""
    attrs = {
        "kernel_shape": _kernel_shape(c),
        "strides": c.attr_ints("strides") or (),
        "pads": c.attr_ints("pads") or (),
    }
    if c.optional(2) is None:
        return c.add("max_unpool", c.required(0), c.required(1), **attrs)
    shape = c.dims(2)
    if shape is None:
        return c.add("max_unpool_dynamic", c.required(0), c.required(1), c.required(2), **attrs)
    return c.add("max_unpool", c.required(0), c.required(1), output_shape=shape, **attrs)


def pool_attributes(c: NodeContext) -> dict[str, Any]:
    """kernel_shape, ceil_mode, strides, pads, dilations and auto_pad of a pool over input 0."""
    kernel = _kernel_shape(c)
    attrs = {"kernel_shape": kernel, "ceil_mode": c.attr_int("ceil_mode", 0) != 0}
    return attrs | window_attributes(c, kernel)


def _kernel_shape(c: NodeContext) -> tuple[int, ...]:
    kernel = c.attr_ints("kernel_shape")
    if not kernel or min(kernel) < 1:
        c.invalid(f"kernel_shape must be a list of positive sizes, got {kernel}")
    return kernel


def _norm(c: NodeContext) -> int:
    """The attribute p; opset 1 stored a float."""
    p = c.attr_float("p", 2.0) if c.opset < 2 else c.attr_int("p", 2)
    if p < 1 or p != int(p):
        c.unsupported(f"p is {p}; whole numbers from 1 on are implemented")
    return int(p)
