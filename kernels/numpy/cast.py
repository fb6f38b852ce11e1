"""Cast between element types, and BitCast."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]

_FLOATS8 = frozenset(
    np.dtype(t)
    for t in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz)
)
_EXPONENT8 = np.dtype(ml_dtypes.float8_e8m0fnu)
_BITS = {
    np.dtype(t): bits
    for bits, types in {
        4: (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float4_e2m1fn),
        2: (ml_dtypes.int2, ml_dtypes.uint2),
    }.items()
    for t in types
}  # element types narrower than the byte that stores them
_ROUND_MODES = ("up", "down", "nearest")

_quiet = np.errstate(all="ignore")


@_quiet
def cast(
    x: Array, /, *, dtype: DType, saturate: bool = True, round_mode: str = "up", out: Array | None = None
) -> Array:
    """y = x converted to `dtype`, any element types; x itself if it has that type.

    Floats round half to even; floats to integers truncate towards zero (what is out of range is undefined), integers
    to narrower ones drop high bits; anything but zero is True. `saturate`: what exceeds the range of an 8-bit float
    becomes its largest value of that sign instead of infinity or NaN. `round_mode` ("up", "down" or "nearest") is for
    float8_e8m0. Numbers print with 8 significant digits as ONNX Runtime prints them; text parses as a decimal number,
    INF or NaN in any case. Raises ValueError for text that is no number, or no finite one where an integer is wanted.
    """
    result = np.asarray(_converted(x, np.dtype(dtype), saturate, round_mode))
    if out is None:
        return result
    np.copyto(out, result)
    return out


def _converted(x: Array, dtype: DType, saturate: bool, round_mode: str) -> Array:
    if x.dtype == dtype:
        return x
    if dtype.kind == "O":
        return _printed(x)
    if x.dtype.kind == "O":
        return _parsed(x, dtype, saturate, round_mode)
    if dtype == _EXPONENT8:
        return _to_exponent(x.astype(np.float32), saturate, round_mode)
    if dtype in _FLOATS8:
        return _to_float8(x, dtype, saturate)
    if x.dtype.isbuiltin != 1:
        x = x.astype(np.float32)  # exact for all that NumPy itself has not, and every conversion from float32 exists
    return x.astype(dtype)


def _to_float8(x: Array, dtype: DType, saturate: bool) -> Array:
    wide = x.astype(np.float32)
    if saturate:
        limit = np.float32(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
        wide = np.clip(wide, -limit, limit)
    return wide.astype(dtype)


def _to_exponent(x: Array, saturate: bool, round_mode: str) -> Array:
    """The powers of two of float8_e8m0: code 0 is 2^-127, 254 is 2^127, 255 is NaN.

    x: float32, of which only the magnitude counts. The code equals the exponent field of a float32, so rounding adds 0
    or 1 to the field. Below 2^-126 a float32 has no hidden bit: there 2^-127 is a fraction of one half.
    """
    if round_mode not in _ROUND_MODES:
        raise ValueError(f"cast: round_mode must be one of {', '.join(_ROUND_MODES)}, got {round_mode!r}")
    bits = x.view(np.uint32)
    field, fraction = (bits >> np.uint32(23)) & np.uint32(0xFF), bits & np.uint32(0x7FFFFF)
    lowest = field == 0
    match round_mode:
        case "up":
            increment = fraction > np.where(lowest, 0x400000, 0)
        case "nearest":
            increment = fraction >= np.where(lowest, 0x600000, 0x400000)
        case _:
            increment = np.zeros(x.shape, np.bool_)
    code = field + increment
    if saturate:
        code = np.where(np.isnan(x), 255, np.minimum(code, 254))
    else:
        code = np.where(np.isfinite(x) & ~(lowest & (fraction < 0x400000)), np.minimum(code, 255), 255)
    return np.asarray(code, np.uint8).view(_EXPONENT8)


def _printed(x: Array) -> Array:
    result = np.empty(x.shape, object)
    if x.dtype.kind in "iub":
        result.reshape(-1)[:] = [str(int(v)) for v in x.reshape(-1).tolist()]
    else:
        result.reshape(-1)[:] = [_print_float(v) for v in x.reshape(-1).astype(np.float64).tolist()]
    return result


def _print_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "INF" if value > 0 else "-INF"
    return format(value, ".8g")


def _parsed(x: Array, dtype: DType, saturate: bool, round_mode: str) -> Array:
    texts = x.reshape(-1).tolist()
    if dtype.kind in "iu":
        bits = 8 * dtype.itemsize
        unsigned = np.asarray([_parse_integer(t) % (1 << bits) for t in texts], f"u{dtype.itemsize}")
        return unsigned.view(dtype).reshape(x.shape)
    numbers = np.asarray([_parse_float(t) for t in texts], np.float64).reshape(x.shape)
    return _converted(numbers, dtype, saturate, round_mode)


def _parse_integer(text: str) -> int:
    try:
        return int(_decimal(text))
    except ValueError:
        number = _parse_float(text)
    if not math.isfinite(number):
        raise ValueError(f"cast: {text!r} cannot become an integer; a finite number was expected")
    return int(number)


def _parse_float(text: str) -> float:
    try:
        return float(_decimal(text))
    except ValueError:
        raise ValueError(f"cast: {text!r} is no number; expected a decimal number, INF or NaN") from None


def _decimal(text: str) -> str:
    if "_" in text:  # Python's digit grouping
        raise ValueError(text)
    return text


def bit_cast(x: Array, /, *, dtype: DType) -> Array:
    """The bits of x read as `dtype`, which must be as wide. A view of x where both are stored alike.

    Raises ValueError for types of different widths and for strings.
    """
    dtype = np.dtype(dtype)
    if object in (x.dtype, dtype) or _width(x.dtype) != _width(dtype):
        raise ValueError(f"bit_cast: the types must be equally wide and no strings, got {x.dtype} and {dtype}")
    if x.dtype == dtype:
        return x
    if dtype == np.bool_:
        return np.asarray(x.view(np.uint8) != 0)
    if x.dtype in _BITS:
        return _narrow_bits(x, dtype)
    return x.view(dtype)


def _width(dtype: DType) -> int:
    return _BITS.get(dtype, 8 * dtype.itemsize)


def _narrow_bits(x: Array, dtype: DType) -> Array:
    """Below 8 bits: what fills the rest of the stored byte depends on the type, so integers go by their values."""
    mask = np.uint8((1 << _BITS[x.dtype]) - 1)
    code = np.asarray(x.view(np.uint8) & mask)
    if dtype == np.dtype(ml_dtypes.float4_e2m1fn):
        return code.view(dtype)
    signed = np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.int2)
    if dtype in signed:
        sign = np.uint8(1 << (_BITS[dtype] - 1))
        return np.asarray((code ^ sign).astype(np.int8) - np.int8(sign)).astype(dtype)
    return code.astype(dtype)
