"""Range, EyeLike and random tensors."""

from __future__ import annotations

from typing import Any

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.opset.creation import known_range
from fusible.compiler.ir.types import DType


@onnx_op("Range")
def range_(c: NodeContext) -> Value:
    """Range: of known or symbolic extent where start, limit and delta are."""
    bounds = [c.required(i) for i in range(3)]
    try:
        extent = known_range([v.content for v in bounds], c.tensor_type(0).dtype)
    except (ValueError, ZeroDivisionError) as error:
        c.invalid(str(error))
    return c.add("range_dynamic" if extent is None else "range", *bounds)


@onnx_op("EyeLike")
def eye_like(c: NodeContext) -> Value:
    """EyeLike."""
    return c.add("eye_like", c.required(0), dtype=c.attr_dtype("dtype", c.tensor_type(0).dtype), k=c.attr_int("k", 0))


def _seed(c: NodeContext) -> float | None:
    return c.attr_float("seed") if c.has_attr("seed") else None


def _normal(c: NodeContext) -> dict[str, Any]:
    return {"mean": c.attr_float("mean", 0.0), "scale": c.attr_float("scale", 1.0), "seed": _seed(c)}


def _uniform(c: NodeContext) -> dict[str, Any]:
    return {"low": c.attr_float("low", 0.0), "high": c.attr_float("high", 1.0), "seed": _seed(c)}


@onnx_op("RandomNormal")
def random_normal(c: NodeContext) -> Value:
    """RandomNormal."""
    shape, dtype = c.attr_ints("shape") or (), c.attr_dtype("dtype", DType.F32)
    return c.add("random_normal", shape=shape, dtype=dtype, **_normal(c))


@onnx_op("RandomUniform")
def random_uniform(c: NodeContext) -> Value:
    """RandomUniform."""
    shape, dtype = c.attr_ints("shape") or (), c.attr_dtype("dtype", DType.F32)
    return c.add("random_uniform", shape=shape, dtype=dtype, **_uniform(c))


@onnx_op("RandomNormalLike")
def random_normal_like(c: NodeContext) -> Value:
    """RandomNormalLike."""
    return c.add("random_normal_like", c.required(0), dtype=_like(c), **_normal(c))


@onnx_op("RandomUniformLike")
def random_uniform_like(c: NodeContext) -> Value:
    """RandomUniformLike."""
    return c.add("random_uniform_like", c.required(0), dtype=_like(c), **_uniform(c))


@onnx_op("Bernoulli")
def bernoulli(c: NodeContext) -> Value:
    """Bernoulli."""
    return c.add("bernoulli", c.required(0), dtype=_like(c), seed=_seed(c))


@onnx_op("Multinomial")
def multinomial(c: NodeContext) -> Value:
    """Multinomial."""
    attributes = {"dtype": c.attr_dtype("dtype", DType.I32), "sample_size": c.attr_int("sample_size", 1)}
    return c.add("multinomial", c.required(0), **attributes, seed=_seed(c))


def _like(c: NodeContext) -> DType:
    return c.attr_dtype("dtype", c.tensor_type(0).dtype)
