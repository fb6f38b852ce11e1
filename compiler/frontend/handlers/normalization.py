"""Normalisations and Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim, exact_div, product
from fusible.compiler.ir.types import DType, TensorType


@onnx_op("BatchNormalization")
def batch_normalization_by_mode(context: NodeContext) -> list[Value | None]:
    """BatchNormalization until opset 6: `is_test` chooses the mode, `spatial` the shape of the statistics."""
    return _batch(context, training=not context.attr_int("is_test", 0))


@onnx_op("BatchNormalization", since=7)
def batch_normalization_by_outputs(context: NodeContext) -> list[Value | None]:
    """BatchNormalization until opset 13: training is meant where more than one output is asked for."""
    return _batch(context, training=context.outputs > 1)


@onnx_op("BatchNormalization", since=14)
def batch_normalization(context: NodeContext) -> list[Value | None]:
    """BatchNormalization."""
    return _batch(context, training=bool(context.attr_int("training_mode", 0)))


def _batch(context: NodeContext, *, training: bool) -> list[Value | None]:
    values = [context.required(i) for i in range(5)]
    epsilon, momentum = context.attr_float("epsilon", 1e-5), context.attr_float("momentum", 0.9)
    shape = None
    if not context.attr_int("spatial", 1):
        shape = context.shape(0)
        if shape is None or len(shape) < 2:
            context.unsupported("spatial=0 needs a known rank of at least 2")
        features = product(shape[1:])
        values = [context.add("reshape", values[0], shape=(shape[0], features))] + [
            context.add("reshape", v, shape=(features,)) for v in values[1:]
        ]
    if not training:
        y = context.add("batch_normalization", *values, epsilon=epsilon)
        return [y if shape is None else context.add("reshape", y, shape=shape)]
    y, *running = context.add_node("batch_normalization_training", *values, epsilon=epsilon, momentum=momentum).outputs
    if shape is None:
        return [y, *running]
    return [context.add("reshape", y, shape=shape), *(context.add("reshape", v, shape=shape[1:]) for v in running)]


@onnx_op("InstanceNormalization")
def instance_normalization(context: NodeContext) -> Value:
    """InstanceNormalization."""
    epsilon = context.attr_float("epsilon", 1e-5)
    return context.add("instance_normalization", *(context.required(i) for i in range(3)), epsilon=epsilon)


@onnx_op("GroupNormalization", since=18)
def group_normalization_by_group(context: NodeContext) -> Value:
    """GroupNormalization until opset 20: one scale and bias a group, spread here over its channels."""
    groups = context.attr_int("num_groups")
    shape = context.shape(0)
    if shape is None or len(shape) < 2:
        context.unsupported("the channels of input 0 are not known")
    size = exact_div(shape[1], groups) if groups > 0 else None
    if size is None:
        refuse = context.invalid if isinstance(shape[1], int) else context.unsupported
        refuse(f"{groups} groups do not divide {shape[1]} channels")
    return _group(context, [_spread(context, context.required(i), groups, size) for i in (1, 2)], groups)


def _spread(context: NodeContext, parameter: Value, groups: int, size: Dim) -> Value:
    """One number a group -> one a channel."""
    column = context.add("reshape", parameter, shape=(groups, 1))
    return context.add("reshape", context.add("expand", column, shape=(groups, size)), shape=(size * groups,))


@onnx_op("GroupNormalization", since=21)
def group_normalization(context: NodeContext) -> Value:
    """GroupNormalization with one scale and bias a channel."""
    return _group(context, [context.required(1), context.required(2)], context.attr_int("num_groups"))


def _group(context: NodeContext, parameters: list[Value], groups: int) -> Value:
    epsilon = context.attr_float("epsilon", 1e-5)
    if context.attr_dtype("stash_type", DType.F32) is not DType.F64:
        return context.add("group_normalization", context.required(0), *parameters, num_groups=groups, epsilon=epsilon)
    wide = [context.add("cast", v, dtype=DType.F64) for v in (context.required(0), *parameters)]
    y = context.add("group_normalization", *wide, num_groups=groups, epsilon=epsilon)
    return context.add("cast", y, dtype=context.tensor_type(0).dtype)


@onnx_op("LayerNormalization", since=17)
def layer_normalization(context: NodeContext) -> list[Value | None]:
    """LayerNormalization, with its statistics where they are asked for."""
    inputs = context.required(0), context.required(1), context.optional(2)
    attributes = _layer_attributes(context)
    if context.outputs > 1:
        return list(context.add_node("layer_normalization_statistics", *inputs, outputs=3, **attributes).outputs)
    return [context.add("layer_normalization", *inputs, **attributes)]


@onnx_op("RMSNormalization", since=23)
def rms_normalization(context: NodeContext) -> Value:
    """RMSNormalization."""
    return context.add("rms_normalization", context.required(0), context.required(1), **_layer_attributes(context))


def _layer_attributes(context: NodeContext) -> dict[str, Any]:
    stash = context.attr_dtype("stash_type", DType.F32)
    if stash not in (DType.F32, DType.F64, DType.F16, DType.BF16):
        context.invalid(f"stash_type must be a float type of at least 16 bits, got {stash.value}")
    return {
        "axis": context.attr_int("axis", -1),
        "epsilon": context.attr_float("epsilon", 1e-5),
        "stash_dtype": stash,
    }


@onnx_op("LpNormalization")
def lp_normalization(context: NodeContext) -> Value:
    """LpNormalization."""
    return context.add(
        "lp_normalization", context.required(0), axis=context.attr_int("axis", -1), p=context.attr_int("p", 2)
    )


@onnx_op("LRN")
def lrn(context: NodeContext) -> Value:
    """LRN."""
    return context.add(
        "lrn",
        context.required(0),
        size=context.attr_int("size"),
        alpha=context.attr_float("alpha", 1e-4),
        beta=context.attr_float("beta", 0.75),
        bias=context.attr_float("bias", 1.0),
    )


@onnx_op("Dropout")
def dropout_by_mode(context: NodeContext) -> list[Value | None]:
    """Dropout until opset 6: random unless `is_test`."""
    if context.attr_int("is_test", 0):
        return _identity(context)
    ratio = context.constant(np.asarray(context.attr_float("ratio", 0.5), np.float32))
    return _random(context, ratio, context.constant(np.asarray(True)), None)


@onnx_op("Dropout", since=7)
def dropout_at_inference(context: NodeContext) -> list[Value | None]:
    """Dropout until opset 11, which says nothing about the mode: inference."""
    return _identity(context)


@onnx_op("Dropout", since=12)
def dropout(context: NodeContext) -> list[Value | None]:
    """Dropout with ratio and training_mode as inputs."""
    training = context.static(2)
    if context.optional(2) is None or (training is not None and not training.any()):
        return _identity(context)
    seed = context.attr_int("seed") if context.has_attr("seed") else None
    return _random(context, context.optional(1), context.required(2), seed)


def _random(context: NodeContext, ratio: Value | None, training: Value, seed: int | None) -> list[Value | None]:
    y, mask = context.add_node("dropout", context.required(0), ratio, training, seed=seed).outputs
    return [y, _mask_as_asked(context, mask)]


def _identity(context: NodeContext) -> list[Value | None]:
    x = context.required(0)
    return [context.add("identity", x), _all_kept(context, x) if context.wants(1) else None]


def _all_kept(context: NodeContext, x: Value) -> Value:
    """A mask of True shaped like x."""
    shape = context.shape(0)
    if shape is None:
        return _mask_as_asked(context, context.add_node("dropout", x).outputs[1])
    return _mask_as_asked(context, context.add("expand", context.constant(np.asarray(True)), shape=shape))


def _mask_as_asked(context: NodeContext, mask: Value) -> Value:
    """Until opset 9 the mask has the type of the data."""
    assert isinstance(mask.type, TensorType)
    return context.add("cast", mask, dtype=context.tensor_type(0).dtype) if context.opset < 10 else mask
