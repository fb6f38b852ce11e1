"""What C computes with for each element type, and how elements lie in memory.

Short integers are computed as int32, fp16 and bf16 as fp32; each step's result is cut down or rounded to its own type.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.types import DType

__all__ = [
    "ELEMENT_TYPES",
    "Code",
    "Kind",
    "c_float",
    "kind_of",
    "literal",
    "number_of",
    "promoted",
    "rounded",
    "stored",
]


class Kind(Enum):
    """What C computes with. The value is the pair of its types: one number, a vector."""

    FLOAT = ("float", "vf")
    DOUBLE = ("double", "vd")
    MASK = ("int", "vi")
    INT = ("int32_t", "vi")
    LONG = ("int64_t", "vl")

    def c_type(self, vector: bool) -> str:
        """The C type of a value."""
        return self.value[1] if vector else self.value[0]

    def prefix(self, vector: bool) -> str:
        """What the names of its functions begin with."""
        return self.value[1] if vector else {"int32_t": "int", "int64_t": "long"}.get(self.value[0], self.value[0])

    @property
    def wide(self) -> bool:
        """True if lanes have 64 bits."""
        return self in (Kind.DOUBLE, Kind.LONG)


@dataclass(frozen=True, slots=True)
class Code:
    """A C expression, its kind, and whether it is a vector; number: of an integer, the same as a float, if at hand."""

    text: str
    kind: Kind
    vector: bool
    number: str = ""


ELEMENT_TYPES = {
    DType.F32: "float",
    DType.F64: "double",
    DType.F16: "uint16_t",
    DType.BF16: "uint16_t",
    DType.BOOL: "uint8_t",
    DType.I64: "int64_t",
    DType.I32: "int32_t",
    DType.I16: "int16_t",
    DType.I8: "int8_t",
    DType.U32: "uint32_t",
    DType.U16: "uint16_t",
    DType.U8: "uint8_t",
}
"""What elements are in memory."""

_KINDS = {
    DType.F32: Kind.FLOAT,
    DType.F64: Kind.DOUBLE,
    DType.F16: Kind.FLOAT,
    DType.BF16: Kind.FLOAT,
    DType.BOOL: Kind.MASK,
    DType.I64: Kind.LONG,
    DType.U32: Kind.LONG,
} | dict.fromkeys((DType.I32, DType.I16, DType.I8, DType.U16, DType.U8), Kind.INT)
_UNSIGNED = {DType.U8: "255", DType.U16: "65535", DType.U32: "4294967295L"}
_SIGNED = {DType.I8: 24, DType.I16: 16}


def kind_of(dtype: DType) -> Kind:
    """The kind that computes an element type. Raises NotPrintable for one that C code here does not compute."""
    if dtype not in _KINDS:
        raise NotPrintable(f"it computes in {dtype.value}")
    return _KINDS[dtype]


def c_float(value: float) -> str:
    """A float literal that reads back as the same number."""
    number = float(np.float32(value))
    if np.isnan(number):
        return "NAN"
    if np.isinf(number):
        return "INFINITY" if number > 0 else "(-INFINITY)"
    text = f"{np.float32(value)!s}f" if "." in str(np.float32(value)) or "e" in str(np.float32(value)) else f"{number}f"
    return f"({text})" if number < 0 or text.startswith("-") else text


def literal(value: float | int | bool, kind: Kind) -> str:
    """A number as C writes it."""
    match kind:
        case Kind.FLOAT:
            return c_float(float(value))
        case Kind.DOUBLE:
            return _double(float(value))
        case Kind.MASK:
            return str(int(bool(value)))
    whole, most = int(value), 63 if kind is Kind.LONG else 31
    suffix = "L" if kind is Kind.LONG else ""
    if whole == -(2**most):
        return f"(-{2**most - 1}{suffix} - 1)"
    return f"({whole}{suffix})" if whole < 0 else f"{whole}{suffix}"


def _double(value: float) -> str:
    if np.isnan(value):
        return "((double)NAN)"
    if np.isinf(value):
        return "((double)INFINITY)" if value > 0 else "(-(double)INFINITY)"
    return f"({value!r})" if str(value).startswith("-") else repr(value)


def promoted(code: Code) -> Code:
    """The same value in every lane."""
    if code.vector:
        return code
    cast = "mask_all({})" if code.kind is Kind.MASK else f"{code.kind.c_type(True)}_all({{}})"
    return Code(cast.format(code.text), code.kind, True)


def rounded(code: Code, dtype: DType) -> Code:
    """What was computed for an element type, as a number of that type."""
    text = code.text
    if dtype in (DType.F16, DType.BF16):
        text = f"vf_as_{dtype.value}({promoted(code).text})" + ("" if code.vector else "[0]")
    elif dtype in _UNSIGNED and not (text.isdigit() and int(text) <= int(_UNSIGNED[dtype].rstrip("L"))):
        text = f"({text} & {_UNSIGNED[dtype]})"
    elif dtype in _SIGNED:
        shift = _SIGNED[dtype]
        text = f"(({text} << {shift}) >> {shift})" if code.vector else f"(({ELEMENT_TYPES[dtype]})({text}))"
    return Code(text, code.kind, code.vector)


def number_of(element: str, dtype: DType) -> str:
    """An element in memory as a number."""
    return f"float_of_{dtype.value}({element})" if dtype in (DType.F16, DType.BF16) else element


def stored(number: str, dtype: DType) -> str:
    """A number as an element in memory."""
    if dtype in (DType.F16, DType.BF16):
        return f"{dtype.value}_of_float({number})"
    return f"({ELEMENT_TYPES[dtype]})({number})"
