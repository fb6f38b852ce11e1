"""How elements of each type are held, computed and written down in C."""

from __future__ import annotations

import math
import re

import ml_dtypes
import numpy as np

from fusible.compiler.backends.triton.ttir import Element, Scalar
from fusible.compiler.backends.triton.ttir_text import BadText

__all__ = ["DTYPES", "c_type", "literal", "literals", "narrowed", "widened"]

DTYPES: dict[Element, np.dtype] = {
    Element.I1: np.dtype(np.bool_),
    Element.I8: np.dtype(np.int8),
    Element.I16: np.dtype(np.int16),
    Element.I32: np.dtype(np.int32),
    Element.I64: np.dtype(np.int64),
    Element.INDEX: np.dtype(np.int64),
    Element.F8E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    Element.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
    Element.F16: np.dtype(np.float16),
    Element.BF16: np.dtype(ml_dtypes.bfloat16),
    Element.F32: np.dtype(np.float32),
    Element.F64: np.dtype(np.float64),
}
"""The NumPy type of an array of these elements."""

_C_TYPES = {
    Element.I1: "uint8_t",
    Element.I8: "int8_t",
    Element.I16: "int16_t",
    Element.I32: "int32_t",
    Element.I64: "int64_t",
    Element.INDEX: "int64_t",
    Element.F8E4M3: "uint8_t",
    Element.F8E5M2: "uint8_t",
    Element.F16: "uint16_t",
    Element.BF16: "uint16_t",
    Element.F32: "float",
    Element.F64: "double",
}
_SMALL = {Element.F8E4M3: "f8e4m3", Element.F8E5M2: "f8e5m2", Element.F16: "f16", Element.BF16: "bf16"}
_NUMBER = re.compile(r"[^\s\[\],]+")


def c_type(element: Scalar) -> str:
    """Return the C type that holds an element: its bits where C has no such type, int64_t for a pointer."""
    return _C_TYPES[element] if isinstance(element, Element) else "int64_t"


def widened(element: Element, text: str) -> str:
    """Return the C expression of a held float as `float` (or `double`), the type it is computed in."""
    return f"{_SMALL[element]}_to_f32({text})" if element in _SMALL else text


def narrowed(element: Element, text: str, *, from_double: bool = False) -> str:
    """Return the C expression of a computed float as it is held: rounded to nearest, ties to even, once."""
    if element is Element.F64:
        return f"(double)({text})" if not from_double else text
    if element is Element.F32:
        return f"(float)({text})" if from_double else text
    return f"f32_to_{_SMALL[element]}({f'f64_to_odd_f32({text})' if from_double else text})"


def literal(element: Scalar, text: str) -> str:
    """Return the C expression of a number that MLIR printed. Raises BadText."""
    if not isinstance(element, Element):
        raise BadText(f"a constant of a number, not of {element}")
    if element is Element.I1 and text in ("true", "false"):
        return str(int(text == "true"))
    try:
        return _float_literal(element, text) if element.is_float else _int_literal(element, int(text, 0))
    except ValueError as error:
        raise BadText(f"a number of type {element.value}, not {text[:40]!r}") from error


def literals(element: Scalar, text: str) -> list[str]:
    """Return the C expressions of the numbers of `[[1, 2], [3, 4]]`, in their order."""
    return [literal(element, each) for each in _NUMBER.findall(text)]


def _int_literal(element: Element, value: int) -> str:
    if element is Element.I1:
        return str(value & 1)
    size = 1 << element.bits
    if not -size // 2 <= value < size:
        raise ValueError(value)
    value = (value + size // 2) % size - size // 2
    if element.bits < 64:
        return f"(({c_type(element)}){value})" if value >= 0 else f"(({c_type(element)})({value + 1} - 1))"
    return f"INT64_C({value})" if value > -(2**63) else "INT64_MIN"


def _float_literal(element: Element, text: str) -> str:
    if text.startswith("0x"):
        bits = int(text, 16)
        value = np.array(bits, np.dtype(f"u{element.bytes}")).view(DTYPES[element])
    else:
        value = np.array(float(text), np.float64).astype(DTYPES[element])
        bits = int(value.view(np.dtype(f"u{element.bytes}")))
    if element in _SMALL:
        return f"(({c_type(element)}){bits:#x})"
    number, suffix = float(value), "f" if element is Element.F32 else ""
    if math.isfinite(number):
        return f"{number.hex()}{suffix}" if number >= 0 else f"({number.hex()}{suffix})"
    return f"{element.value}_of_bits({bits:#x}u{'ll' if element is Element.F64 else ''})"
