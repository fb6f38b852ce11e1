"""8-bit floats as bytes: their values, and bytes of the nearest.

Two types of OCP's "8-bit Floating Point Specification" (Micikevicius et al., "FP8 Formats for Deep Learning", 2022):

    e4m3fn  (-1)^s 2^(e-7)  (1 + m/8),  e = 0: (-1)^s 2^-6 m/8;   s.1111.111 is NaN, there is no infinity
    e5m2    (-1)^s 2^(e-15) (1 + m/4),  e = 0: (-1)^s 2^-14 m/4;  e = 31: infinity and NaN, as in fp16

Conversions are integer arithmetic, so they round the same on every GPU, with or without instructions for these types:
to nearest, ties to even, once. A number too large for e4m3fn becomes NaN, for e5m2 infinity; who wants the largest
number in its place bounds it before.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["f8e4m3fn_to_f32", "f8e5m2_to_f32", "f32_to_f8e4m3fn", "f32_to_f8e5m2"]


@triton.jit
def f8e4m3fn_to_f32(code):
    """The values, float32, of bytes of type e4m3fn (uint8, any shape)."""
    wide = code.to(tl.int32)
    half = ((wide & 0x7F) << 7 | (wide & 0x80) << 8).to(tl.int16).to(tl.float16, bitcast=True)  # 2^8 times too small
    return tl.where((wide & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)


@triton.jit
def f8e5m2_to_f32(code):
    """The values, float32, of bytes of type e5m2 (uint8, any shape): the upper halves of fp16 numbers."""
    return (code.to(tl.int32) << 8).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def f32_to_f8e4m3fn(x):
    """The bytes, uint8, of the e4m3fn numbers nearest to float32 numbers of any shape; NaN beyond 464."""
    return _narrowed(x, 3, 7, 16384.0, 0x7F, 0x7F)


@triton.jit
def f32_to_f8e5m2(x):
    """The bytes, uint8, of the e5m2 numbers nearest to float32 numbers of any shape; infinity from 61440 on."""
    return _narrowed(x, 2, 15, 128.0, 0x7C, 0x7E)


@triton.jit
def _narrowed(x, MANTISSA: tl.constexpr, BIAS: tl.constexpr, UNIT: tl.constexpr, OVER: tl.constexpr, NAN: tl.constexpr):
    """UNIT: the number whose last place is the least step of the type, so that adding it rounds to a subnormal one."""
    drop: tl.constexpr = 23 - MANTISSA
    bits = x.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    finite = tl.minimum(magnitude, 0x7F800000)
    normal = ((finite + ((1 << (drop - 1)) - 1) + ((finite >> drop) & 1)) >> drop) - ((127 - BIAS) << MANTISSA)
    fixed = finite.to(tl.float32, bitcast=True) + UNIT
    small = fixed.to(tl.int32, bitcast=True) & ((1 << (MANTISSA + 1)) - 1)
    code = tl.where(finite < ((128 - BIAS) << 23), small, tl.minimum(normal, OVER))
    code = tl.where(magnitude > 0x7F800000, NAN, code)
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)
