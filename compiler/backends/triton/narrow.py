"""4-bit integers and 8-bit floats in kernels: bytes, made into numbers where they are read.

A 4-bit integer takes a byte, as NumPy has it, whose upper half says nothing; it is computed as an int8 or uint8. An
8-bit float stays a byte until it is converted: nothing computes in that type.
"""

from __future__ import annotations

from fusible.compiler.ir.types import DType
from fusible.compiler.region.scales import FLOATS8

__all__ = ["BITCASTS", "FLOAT8_TEMPLATE", "FOUR_BITS", "float8_calls", "from_float8", "to_float8", "to_four_bits"]

FOUR_BITS = {DType.I4: DType.I8, DType.U4: DType.U8}
"""The types that 4-bit integers are computed in."""

FLOAT8_TEMPLATE = "float8"
"""The module of kernels/triton that converts."""

BITCASTS = {DType.F8E4M3FN: "float8e4nv", DType.F8E5M2: "float8e5"}
"""What the language calls 8-bit floats, for products of them."""


def to_four_bits(text: str, dtype: DType) -> str:
    """The text of an int8 or uint8 tensor that is the lower half of each byte as a 4-bit integer."""
    return f"((({text} & 15) ^ 8) - 8)" if dtype is DType.I4 else f"({text} & 15)"


def from_float8(text: str, dtype: DType) -> str:
    """The text of the values of bytes, as float32."""
    return f"{dtype.value}_to_f32({text})"


def to_float8(text: str, dtype: DType) -> str:
    """The text of the bytes of a float32 tensor's numbers, rounded."""
    return f"f32_to_{dtype.value}({text})"


def float8_calls(text: str) -> list[str]:
    """The functions of `FLOAT8_TEMPLATE` that a text calls."""
    names = [name for d in sorted(FLOATS8, key=lambda d: d.value) for name in (from_float8("", d), to_float8("", d))]
    return [name[:-2] for name in names if name[:-1] in text]
