"""Types of values: tensors with logical shapes, sequences and optionals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import ml_dtypes
import numpy as np

from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, dim_text, product

__all__ = [
    "DType",
    "Dim",
    "OptionalType",
    "SequenceType",
    "Shape",
    "TensorType",
    "Type",
    "substitute_type",
    "type_symbols",
]

Shape: TypeAlias = tuple[Dim, ...]


class DType(Enum):
    """An element type. The value is its name in printed graphs; `.numpy` is the storage dtype."""

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    F8E8M0 = "f8e8m0"
    F4E2M1 = "f4e2m1"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    I4 = "i4"
    I2 = "i2"
    U64 = "u64"
    U32 = "u32"
    U16 = "u16"
    U8 = "u8"
    U4 = "u4"
    U2 = "u2"
    C64 = "c64"
    C128 = "c128"
    BOOL = "bool"
    STRING = "string"

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype that stores it (strings: object)."""
        return _NUMPY[self]

    @property
    def is_float(self) -> bool:
        """True for every real floating-point type."""
        return self.value[0] == "f" or self is DType.BF16

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers (not bool)."""
        return self.value[0] in "iu"

    @property
    def is_signed(self) -> bool:
        """True for signed integers and floats."""
        return self.is_float or self.value[0] == "i"

    @property
    def is_complex(self) -> bool:
        """True for complex types."""
        return self in (DType.C64, DType.C128)

    @property
    def is_small_float(self) -> bool:
        """True for the floats that are computed in fp32 and rounded after each op."""
        return self in (DType.F16, DType.BF16)

    @staticmethod
    def of(dtype: np.typing.DTypeLike) -> DType:
        """The element type stored by a NumPy dtype. Raises ValueError for a dtype that ONNX has not."""
        wanted = np.dtype(dtype)
        if wanted.kind in "OUST":
            return DType.STRING
        found = _OF_NUMPY.get(wanted)
        if found is None:
            raise ValueError(f"dtype {wanted} is no ONNX element type")
        return found


_NUMPY: dict[DType, np.dtype] = {
    DType.F64: np.dtype(np.float64),
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.F8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
    DType.F8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
    DType.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
    DType.F8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
    DType.F8E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
    DType.F4E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
    DType.I64: np.dtype(np.int64),
    DType.I32: np.dtype(np.int32),
    DType.I16: np.dtype(np.int16),
    DType.I8: np.dtype(np.int8),
    DType.I4: np.dtype(ml_dtypes.int4),
    DType.I2: np.dtype(ml_dtypes.int2),
    DType.U64: np.dtype(np.uint64),
    DType.U32: np.dtype(np.uint32),
    DType.U16: np.dtype(np.uint16),
    DType.U8: np.dtype(np.uint8),
    DType.U4: np.dtype(ml_dtypes.uint4),
    DType.U2: np.dtype(ml_dtypes.uint2),
    DType.C64: np.dtype(np.complex64),
    DType.C128: np.dtype(np.complex128),
    DType.BOOL: np.dtype(np.bool_),
    DType.STRING: np.dtype(object),
}
_OF_NUMPY = {n: d for d, n in _NUMPY.items()}


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor: element type and logical shape; shape None means that even the rank is unknown."""

    dtype: DType
    shape: Shape | None

    @property
    def rank(self) -> int | None:
        """The number of dimensions, None if unknown."""
        return None if self.shape is None else len(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape if every dimension is a literal, else None."""
        if self.shape is None or not all(isinstance(d, int) for d in self.shape):
            return None
        return tuple(int(d) for d in self.shape)  # type: ignore[arg-type]

    @property
    def elements(self) -> Dim | None:
        """The number of elements, None if the rank is unknown."""
        return None if self.shape is None else product(self.shape)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype.value}[?]"
        return f"{self.dtype.value}[{', '.join(dim_text(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A list of values of one type; `element` None: nothing is known of the elements (an empty untyped list)."""

    element: Type | None

    def __str__(self) -> str:
        return f"seq<{self.element if self.element is not None else '?'}>"


@dataclass(frozen=True, slots=True)
class OptionalType:
    """A value of the element type, or nothing (None at run time)."""

    element: Type | None

    def __str__(self) -> str:
        return f"optional<{self.element if self.element is not None else '?'}>"


Type: TypeAlias = TensorType | SequenceType | OptionalType


def type_symbols(type_: Type | None) -> dict[Symbol, None]:
    """The symbols that a type mentions."""
    found: dict[Symbol, None] = {}
    match type_:
        case TensorType(shape=shape) if shape is not None:
            for dim in shape:
                found.update(symbols_of(dim))
        case SequenceType(element=element) | OptionalType(element=element):
            found.update(type_symbols(element))
    return found


def substitute_type(type_: Type, values: Mapping[str, Dim]) -> Type:
    """The type with symbols replaced by name."""
    match type_:
        case TensorType(dtype=dtype, shape=shape) if shape is not None:
            return TensorType(dtype, tuple(substitute(d, values) for d in shape))
        case SequenceType(element=element) if element is not None:
            return SequenceType(substitute_type(element, values))
        case OptionalType(element=element) if element is not None:
            return OptionalType(substitute_type(element, values))
    return type_
