"""Quantise and dequantise: QuantizeLinear, DequantizeLinear (ONNX opset 28), DynamicQuantizeLinear.

Scales and zero points apply per tensor (one element), per axis (1-D, as long as that axis) or per block (the shape of
x but for the blocked axis, where each element serves `block_size` neighbours; the last block may be short). Beyond the
standard, parameters of x's rank that broadcast against x are taken as they are.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]

_INTEGERS: dict[DType, tuple[int, int]] = {  # least, greatest
    np.dtype(np.uint8): (0, 255),
    np.dtype(np.int8): (-128, 127),
    np.dtype(np.uint16): (0, 65535),
    np.dtype(np.int16): (-32768, 32767),
    np.dtype(ml_dtypes.uint4): (0, 15),
    np.dtype(ml_dtypes.int4): (-8, 7),
    np.dtype(ml_dtypes.uint2): (0, 3),
    np.dtype(ml_dtypes.int2): (-2, 1),
}
# Greatest finite values. Only the 8-bit floats have codes beyond (infinity or NaN), which `saturate=False` yields.
_FLOATS8: dict[DType, float] = {
    np.dtype(ml_dtypes.float8_e4m3fn): 448.0,
    np.dtype(ml_dtypes.float8_e4m3fnuz): 240.0,
    np.dtype(ml_dtypes.float8_e5m2): 57344.0,
    np.dtype(ml_dtypes.float8_e5m2fnuz): 57344.0,
}
_SMALLER_FLOATS: dict[DType, float] = {
    np.dtype(ml_dtypes.float4_e2m1fn): 6.0,
    np.dtype(ml_dtypes.float6_e2m3fn): 7.5,
    np.dtype(ml_dtypes.float6_e3m2fn): 28.0,
}
_HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def quantize_linear(
    x: Array, scale: Array, zero_point: Array | None = None, /, *, output_dtype: DType, axis: int = 1,
    block_size: int = 0, saturate: bool = True, precision: DType | None = None,
) -> Array:  # fmt: skip
    """y = saturate(round_half_even(x / scale) + zero_point) for integers, saturate(x / scale + zero_point) for floats.

    x: float32, float16, bfloat16 or int32; output_dtype: an 8- or 16-bit integer, (u)int4, (u)int2, float8, float6 or
    float4. The quotient has the precision of `precision`, or else of the scale's type (float32 for a float8_e8m0
    scale, float64 for an integer one). `saturate=False` lets float8 overflow to what the type has for that. NaN becomes
    the least integer, as in ONNX Runtime. Raises ValueError for other types and for shapes that do not fit.
    """
    quotient = _quotient(x, spread(scale, x.shape, axis, block_size), precision or scale.dtype)
    shift = None if zero_point is None else spread(zero_point, x.shape, axis, block_size)
    return saturated(quotient, shift, output_dtype, saturate=saturate)


def dequantize_linear(
    x: Array, scale: Array, zero_point: Array | None = None, /, *, output_dtype: DType, axis: int = 1,
    block_size: int = 0,
) -> Array:  # fmt: skip
    """y = (x - zero_point) * scale in `output_dtype` (float32, float16 or bfloat16; halves round a float32 product).

    x: an integer of at most 32 bits or a float of at most 8. int32 less its zero point wraps as in C.
    """
    if x.dtype == np.int32:
        shifted = x
        if zero_point is not None:
            shifted = x - spread(zero_point, x.shape, axis, block_size)
        levels = shifted.astype(np.float32)
    else:
        levels = x.astype(np.float32)
        if zero_point is not None:
            levels -= spread(zero_point, x.shape, axis, block_size).astype(np.float32)
    with np.errstate(all="ignore"):
        levels *= spread(scale, x.shape, axis, block_size).astype(np.float32)
        return levels.astype(output_dtype, copy=False)


def dynamic_quantize_linear(
    x: Array, lows: Array | None = None, highs: Array | None = None, /
) -> tuple[Array, Array, Array]:
    """y uint8, its scale float32 [] and zero point uint8 [], from the range of x (float32) widened to hold 0.

    Beyond the standard: lows, highs (float32, any shape), the extremes of parts of x, where these are known already.
    """
    if lows is None or highs is None:
        lows = highs = x
    scale, zero_point = dynamic_range(lows, highs)
    y = quantize_linear(x, scale, zero_point, output_dtype=np.dtype(np.uint8))
    return y, scale, zero_point


def dynamic_range(x: Array, highs: Array | None = None) -> tuple[Array, Array]:
    """The scale (float32 []) and zero point (uint8 []) for which [min(x, 0), max(x, 0)] becomes [0, 255].

    highs: where to look for the greatest element, if not in x.

    scale = (max - min) / 255, or 1 where x is all zero or empty (as ONNX Runtime has it; the standard divides 0 by 0);
    zero_point = round_half_even(-min / scale). NaN takes no part in the range.
    """
    above = x if highs is None else highs
    low, high = x.min(initial=0), above.max(initial=0)
    if np.isnan(low) or np.isnan(high):
        low, high = np.fmin.reduce(x, axis=None, initial=0), np.fmax.reduce(above, axis=None, initial=0)
    with np.errstate(all="ignore"):
        scale = (np.float32(high) - np.float32(low)) / np.float32(255)
        if scale == 0:
            scale = np.float32(1)
        zero_point = np.rint(np.fmax(np.fmin(-np.float32(low) / scale, np.float32(255)), np.float32(0)))
    return np.asarray(scale, np.float32), np.asarray(zero_point, np.uint8)


def saturated(levels: Array, zero_point: Array | None, dtype: DType, *, saturate: bool = True) -> Array:
    """Levels -> `dtype`: rounded, shifted by the zero point (of that dtype or None), bounded. May overwrite levels."""
    if dtype in _INTEGERS:
        return _to_integer(levels, zero_point, dtype)
    if dtype not in _FLOATS8 and dtype not in _SMALLER_FLOATS:
        raise ValueError(f"quantize_linear yields integers of at most 16 bits and floats of at most 8, got {dtype}")
    if zero_point is not None:
        levels = levels + zero_point.astype(levels.dtype)
    if saturate or dtype in _SMALLER_FLOATS:
        limit = _SMALLER_FLOATS[dtype] if dtype in _SMALLER_FLOATS else _FLOATS8[dtype]
        levels = np.clip(levels, -limit, limit)
    with np.errstate(all="ignore"):
        return levels.astype(dtype)


def _to_integer(levels: Array, zero_point: Array | None, dtype: DType) -> Array:
    least, greatest = _INTEGERS[dtype]
    zero = np.zeros((), levels.dtype) if zero_point is None else zero_point.astype(levels.dtype)
    # Bounding before the conversion keeps infinities defined; fmax and fmin send NaN to the lower bound.
    np.fmax(levels, least - zero, out=levels)
    np.fmin(levels, greatest - zero, out=levels)
    np.rint(levels, out=levels)
    if zero_point is not None:
        levels += zero
    return levels.astype(dtype)


def _quotient(x: Array, scale: Array, precision: DType) -> Array:
    """x / scale, rounded to `precision`, in float32 (float64 where the precision is an integer type)."""
    compute = np.dtype(np.float64 if precision.kind in "iu" else np.float32)
    if precision in _HALVES:
        x, scale = x.astype(precision), scale.astype(precision)
    with np.errstate(all="ignore"):
        quotient = x.astype(compute, copy=False) / scale.astype(compute, copy=False)
        if precision in _HALVES:
            quotient = quotient.astype(precision).astype(compute)
    return np.asarray(quotient)


def spread(parameter: Array, shape: tuple[int, ...], axis: int, block_size: int = 0) -> Array:
    """A scale or zero point in a shape that broadcasts against x of that shape."""
    rank = len(shape)
    if parameter.size == 1 and not block_size:
        return parameter.reshape(())
    # On vectors the axis is unnecessary, and its default of 1 out of range.
    axis = 0 if rank == 1 else axis
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of range for a tensor of rank {rank}")
    axis %= rank
    if block_size:
        return _spread_blocks(parameter, shape, axis, block_size)
    if parameter.ndim == rank and all(own in (1, extent) for own, extent in zip(parameter.shape, shape, strict=True)):
        return parameter
    if parameter.shape != (shape[axis],):
        raise ValueError(
            f"a scale or zero point along axis {axis} of shape {shape} must have shape ({shape[axis]},), "
            f"got {parameter.shape}"
        )
    return parameter.reshape([shape[axis] if k == axis else 1 for k in range(rank)])


def _spread_blocks(parameter: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    expected = (*shape[:axis], -(-shape[axis] // block_size), *shape[axis + 1 :])
    if block_size < 0 or parameter.shape != expected:
        raise ValueError(
            f"a scale or zero point in blocks of {block_size} along axis {axis} of shape {shape} must have shape "
            f"{expected}, got {parameter.shape}"
        )
    return np.take(parameter, np.arange(shape[axis]) // block_size, axis=axis)
