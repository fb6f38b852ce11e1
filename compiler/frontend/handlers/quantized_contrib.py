"""ONNX Runtime's quantised operators (com.microsoft), written out in standard ones.

A quantised operator becomes dequantize - operator - quantize, an integer product with floats becomes the product and
its scaling. Results are within a step of ONNX Runtime's, which rounds in tables and fixed point. DynamicQuantizeLSTM is
with the recurrent layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.contrib_shapes import check_shape, check_single, flag
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.frontend.handlers.convolution import positive_by_axis
from fusible.compiler.frontend.handlers.pooling import pool_attributes
from fusible.compiler.frontend.handlers.quantization import quantised_convolution
from fusible.compiler.frontend.handlers.reduction import by_rows
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.compiler.ir.window_shapes import padded_axes

_DOMAIN = "com.microsoft"


@onnx_op("QLinearAdd", "QLinearMul", domain=_DOMAIN)
def qlinear_binary(c: NodeContext) -> Value:
    """QLinearAdd, QLinearMul: A, its scale and zero point, B likewise, scale and zero point of the result."""
    a, b = _dequantised(c, 0), _dequantised(c, 3)
    return _quantised(c, c.add("add" if c.node.op_type == "QLinearAdd" else "mul", a, b), 6, like=0)


@onnx_op("QLinearSigmoid", "QLinearLeakyRelu", domain=_DOMAIN)
def qlinear_unary(c: NodeContext) -> Value:
    """QLinearSigmoid, QLinearLeakyRelu: X, its scale and zero point, those of the result."""
    x = _dequantised(c, 0)
    if c.node.op_type == "QLinearSigmoid":
        return _quantised(c, c.add("sigmoid", x), 3, like=0)
    return _quantised(c, c.add("leaky_relu", x, alpha=c.attr_float("alpha", 0.01)), 3, like=0)


@onnx_op("QLinearConcat", domain=_DOMAIN)
def qlinear_concat(c: NodeContext) -> Value:
    """QLinearConcat: scale and zero point of the result, then each tensor with its scale and zero point."""
    if len(c.inputs) < 5 or len(c.inputs) % 3 != 2:
        c.invalid(f"takes two inputs and three more for each tensor, got {len(c.inputs)}")
    parts = [_dequantised(c, index) for index in range(2, len(c.inputs), 3)]
    return _quantised(c, c.add("concat", *parts, axis=c.attr_int("axis")), 0, like=2)


@onnx_op("QLinearWhere", domain=_DOMAIN)
def qlinear_where(c: NodeContext) -> Value:
    """QLinearWhere: a condition; X, its scale and zero point, Y likewise, scale and zero point of the result."""
    return _quantised(c, c.add("where", c.required(0), _dequantised(c, 1), _dequantised(c, 4)), 7, like=1)


@onnx_op("QLinearSoftmax", domain=_DOMAIN)
def qlinear_softmax(c: NodeContext) -> Value:
    """QLinearSoftmax: as Softmax of the version that the attribute `opset` states; the axis is the last by default.

    ONNX Runtime lets int8 results beyond 127 start again at -128 (1.32), which is none of its meaning.
    """
    axis, floats = c.attr_int("axis", -1), c.replacing(0, _dequantised(c, 0))
    if c.attr_int("opset") < 13:
        y = by_rows(floats, "softmax", axis)
    else:
        y = c.add("softmax", floats.required(0), axis=axis)
    return _quantised(c, y, 3, like=0)


@onnx_op("QLinearReduceMean", domain=_DOMAIN)
def qlinear_reduce_mean(c: NodeContext) -> Value:
    """QLinearReduceMean: over all axes if none is listed."""
    y = c.add("reduce_mean", _dequantised(c, 0), axes=c.attr_ints("axes") or None, keepdims=flag(c, "keepdims"))
    return _quantised(c, y, 3, like=0)


@onnx_op("QLinearGlobalAveragePool", domain=_DOMAIN)
def qlinear_global_average_pool(c: NodeContext) -> Value:
    """QLinearGlobalAveragePool: X [N, C, *spatial], or with channels_last [N, *spatial, C]."""
    return _channels_first(c, lambda n: _quantised(n, n.add("global_average_pool", _dequantised(n, 0)), 3, like=0))


@onnx_op("QLinearAveragePool", domain=_DOMAIN)
def qlinear_average_pool(c: NodeContext) -> Value:
    """QLinearAveragePool: X [N, C, *spatial], or with channels_last [N, *spatial, C].

    With ceil_mode and count_include_pad everything counts that a window reaches, as it did in AveragePool before
    ONNX 19, not only what lies within the padding.
    """
    return _channels_first(c, _average_pool)


@onnx_op("QLinearConv", domain=_DOMAIN)
def qlinear_conv(c: NodeContext) -> Value:
    """QLinearConv: as in the standard, or with channels_last X and Y [N, *spatial, C]; W is [M, C / group, *kernel]."""
    return _channels_first(c, quantised_convolution)


@onnx_op("QGemm", domain=_DOMAIN)
def qgemm(c: NodeContext) -> Value:
    """QGemm: alpha * (A' @ B' + C), quantised where there is a scale of the result, else float32."""
    check_shape(c, 0, (None, None))
    check_shape(c, 3, (None, None))
    check_single(c, 1, 2)
    a, b = _transposed(c, 0, "transA"), _transposed(c, 3, "transB")
    _check_columns(c, b, 4, 5)
    total = c.add("matmul_integer", a, b, c.required(2), c.required(5))
    bias = c.optional(6)
    if bias is not None:
        m, n = _shape(total) or (None, None)
        check_shape(c, 6, (), (1,), (n,), (1, 1), (1, n), (m, 1), (m, n))
        total = c.add("add", total, bias)
    y = _scaled(c, total, c.required(1), c.required(4))
    alpha = c.attr_float("alpha", 1.0)
    if alpha != 1:
        y = c.add("mul", y, c.constant(np.asarray(alpha, np.float32)))
    if c.optional(7) is None:
        if c.optional(8) is not None:
            c.invalid("a zero point of the result needs its scale, input 7 (y_scale), which is missing")
        return y
    return _quantised(c, y, 7, like=0)


@onnx_op("MatMulIntegerToFloat", domain=_DOMAIN)
def matmul_integer_to_float(c: NodeContext) -> Value:
    """MatMulIntegerToFloat: A, B, their scales, their zero points, a bias; one scale of A, those of B by column."""
    check_single(c, 2, 4)
    _check_columns(c, c.required(1), 3, 5)
    total = c.add("matmul_integer", c.required(0), c.required(1), c.optional(4), c.optional(5))
    y = _biased(c, _scaled(c, total, c.required(2), c.required(3)), c.required(1), 6)
    dtype = c.tensor_type(2).dtype
    return y if dtype is DType.F32 else c.add("cast", y, dtype=dtype)


@onnx_op("DynamicQuantizeMatMul", domain=_DOMAIN)
def dynamic_quantize_matmul(c: NodeContext) -> Value:
    """DynamicQuantizeMatMul: A is quantised by its own range; B, its scale and zero point, a bias."""
    _check_columns(c, c.required(1), 2, 3)
    a, scale, zero_point = c.add_node("dynamic_quantize_linear", c.required(0), outputs=3).outputs
    total = c.add("matmul_integer", a, c.required(1), zero_point, c.optional(3))
    return _biased(c, _scaled(c, total, scale, c.required(2)), c.required(1), 4)


def _channels_first(c: NodeContext, convert: Callable[[NodeContext], Value]) -> Value:
    """What `convert` makes of X [N, C, *spatial]. With channels_last X and the result are [N, *spatial, C]."""
    if not flag(c, "channels_last"):
        return convert(c)
    rank = c.known_rank(0)
    if rank < 3:
        c.invalid(f"with channels_last input 0 must be [N, *spatial, C], got {c.tensor_type(0)}")
    planes = c.add("transpose", c.required(0), perm=(0, rank - 1, *range(1, rank - 1)))
    return c.add("transpose", convert(c.replacing(0, planes)), perm=(0, *range(2, rank), 1))


def _average_pool(c: NodeContext) -> Value:
    x, attributes, include = _dequantised(c, 0), pool_attributes(c), flag(c, "count_include_pad")
    if include and attributes["ceil_mode"]:
        x, attributes = _padded(c, x, attributes)
    y = c.add("average_pool", x, count_include_pad=include, **attributes)
    return _quantised(c, y, 3, like=0)


def _padded(c: NodeContext, x: Value, attributes: dict[str, Any]) -> tuple[Value, dict[str, Any]]:
    """x with zeros as far as the windows reach, and the attributes of a pool over it that has no padding."""
    kernel, pads = attributes["kernel_shape"], attributes["pads"]
    rank, shape = c.known_rank(0), c.shape(0) or ()
    if rank != len(kernel) + 2:
        c.invalid(f"a kernel of rank {len(kernel)} takes [N, C, *spatial], got {c.tensor_type(0)}")
    strides = positive_by_axis(c, "strides", attributes["strides"], len(kernel))
    fit = all(0 <= pad < size for pad, size in zip(pads, (*kernel, *kernel), strict=False))
    if len(pads) not in (0, 2 * len(kernel)) or not fit:
        c.invalid(f"pads must have {2 * len(kernel)} values from 0 to below those of kernel_shape, got {list(pads)}")
    before: list[Dim] = []
    after: list[Dim] = []
    for axis in padded_axes(shape[2:], kernel, strides, pads, (), attributes["auto_pad"]):
        reach = (axis.count(ceil_mode=True) - 1) * axis.stride + axis.kernel
        end = reach - axis.size - axis.before
        if not isinstance(end, int):
            c.unsupported(
                f"count_include_pad with ceil_mode needs spatial sizes that are known, got {c.tensor_type(0)}; state "
                "them with shapes={...}"
            )
        before.append(axis.before)
        after.append(max(end, 0))
    x = c.add("pad", x, pads=(0, 0, *before, 0, 0, *after))
    return x, {"kernel_shape": kernel, "strides": strides}


def _dequantised(c: NodeContext, index: int) -> Value:
    """The tensor at `index` by the scale and zero point that follow it, each a single one."""
    check_single(c, index + 1, index + 2)
    return c.add(
        "dequantize_linear",
        c.required(index),
        c.required(index + 1),
        c.optional(index + 2),
        output_dtype=c.tensor_type(index + 1).dtype,
    )


def _quantised(c: NodeContext, y: Value, index: int, like: int) -> Value:
    """y by the single scale and zero point at `index`; without a zero point in the type of input `like`."""
    check_single(c, index, index + 1)
    zero_point = c.optional(index + 1)
    dtype = c.tensor_type(like if zero_point is None else index + 1).dtype
    return c.add("quantize_linear", y, c.required(index), zero_point, output_dtype=dtype)


def _check_columns(c: NodeContext, b: Value, *indices: int) -> None:
    """InvalidModel if an input is there and has neither one element nor one for each column of b [..., K, N]."""
    shape = _shape(b)
    if shape is None:
        return
    columns = [(shape[-1],), (*shape[:-2], 1, shape[-1])] if len(shape) > 1 else []
    for index in indices:
        check_shape(c, index, (), (1,), *columns)


def _scaled(c: NodeContext, total: Value, a_scale: Value, b_scale: Value) -> Value:
    """An integer product by its scales, in float32. A vector of scales belongs to the columns."""
    scale = c.add("mul", _as_factor(c, a_scale), _as_factor(c, b_scale))
    return c.add("mul", c.add("cast", total, dtype=DType.F32), scale)


def _as_factor(c: NodeContext, scale: Value) -> Value:
    """A scale in float32; one of one element as a scalar, since a product of two vectors is a scalar too."""
    if _shape(scale) == (1,):
        scale = c.add("reshape", scale, shape=())
    return _wide(c, scale)


def _biased(c: NodeContext, y: Value, b: Value, index: int) -> Value:
    """y, and the bias [N] at `index` of a product with b [..., K, N] where there is one."""
    bias = c.optional(index)
    if bias is None:
        return y
    shape = _shape(b)
    if shape is not None:
        check_shape(c, index, shape[-1:] if len(shape) > 1 else ())
    return c.add("add", y, _wide(c, bias))


def _wide(c: NodeContext, value: Value) -> Value:
    """A float tensor in float32."""
    wide = isinstance(value.type, TensorType) and value.type.dtype is DType.F32
    return value if wide else c.add("cast", value, dtype=DType.F32)


def _shape(value: Value) -> Shape | None:
    """The shape of a tensor, None if its rank is unknown."""
    return value.type.shape if isinstance(value.type, TensorType) else None


def _transposed(c: NodeContext, index: int, name: str) -> Value:
    value = c.required(index)
    return c.add("transpose", value, perm=(1, 0)) if flag(c, name) else value
