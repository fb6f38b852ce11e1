"""Dynamic quantisation: a tensor as uint8 by its own range, with the scale and zero point that it got.

    low = min(0, min x), high = max(0, max x),  scale = (high - low) / 255 or 1,  zero = round(-low / scale)
    y = round(x / scale) + zero, bounded by 0 and 255                    (ONNX DynamicQuantizeLinear; ties to even)

A small tensor is one program's work: it goes through it twice, and the second time finds it in the cache. Of a large
one the extremes of its rows are known already; each program goes through these and then quantises a block.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def parameters(low, high):
    """The scale (float32) and the zero point, as a whole float32, of a range that holds 0."""
    step = tl.div_rn(high - low, 255.0)
    scale = tl.where(step == 0, 1.0, step)
    return scale, libdevice.rint(tl.maximum(tl.minimum(tl.div_rn(0.0 - low, scale), 255.0), 0.0))


@triton.jit
def levels(x, scale, zero):
    """x / scale + zero as uint8; NaN is 0."""
    least = 0.0 - zero
    quotient = tl.div_rn(x, tl.zeros_like(x) + scale)
    bounded = tl.minimum(tl.where(quotient > least, quotient, least), 255.0 - zero)
    return (libdevice.rint(bounded) + zero).to(tl.uint8)


@triton.jit
def range_of(lows, highs, size, BLOCK: tl.constexpr):
    """The least and the greatest of `size` numbers each, and of 0; NaN takes no part."""
    low = tl.zeros([BLOCK], tl.float32)
    high = tl.zeros([BLOCK], tl.float32)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        low = tl.minimum(low, tl.load(lows + at, mask=at < size, other=0.0))
        high = tl.maximum(high, tl.load(highs + at, mask=at < size, other=0.0))
    return tl.min(low, 0), tl.max(high, 0)


@triton.jit
def quantise_whole(x, y, scale, zero, size, BLOCK: tl.constexpr):
    """The one program: x and y [size], scale and zero of one element; BLOCK: elements at once, a power of two."""
    low, high = range_of(x, x, size, BLOCK)
    step, shift = parameters(low, high)
    tl.store(scale, step)
    tl.store(zero, shift.to(tl.uint8))
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        numbers = tl.load(x + at, mask=at < size, other=0.0)
        tl.store(y + at, levels(numbers, step, shift), mask=at < size)


@triton.jit
def quantise_block(program, x, lows, highs, y, scale, zero, size, parts, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """One program: BLOCK elements of x and y [size]. lows, highs [parts]: extremes of parts of x, read PARTS at once.

    The first program stores scale and zero. Grid: ceil(size / BLOCK); `program` is its number, as wide as `size` needs.
    """
    low, high = range_of(lows, highs, parts, PARTS)
    step, shift = parameters(low, high)
    if program == 0:
        tl.store(scale, step)
        tl.store(zero, shift.to(tl.uint8))
    at = program * BLOCK + tl.arange(0, BLOCK)
    numbers = tl.load(x + at, mask=at < size, other=0.0)
    tl.store(y + at, levels(numbers, step, shift), mask=at < size)
