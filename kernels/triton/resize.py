"""Resize of one or two adjacent axes: each output element is a weighted sum of a few input elements, along each axis.

    y[o, i, j, n] = sum_{s, t} wh[i, s] ww[j, t] x[o, clamp(ih[i] + s), clamp(iw[j] + t), n]

with taps and weights by the coordinate of an output element in the input, as ONNX Resize has it (Keys, "Cubic
convolution interpolation for digital image processing", 1981, for four taps). Coordinates are computed in float32, so
that quotients give the whole numbers that they stand for.

COORDINATE(place, size, count, scale, length) gives the coordinate in float32; NEAREST(coordinate) the nearest element.
"""

import triton
import triton.language as tl


@triton.jit
def half_pixel(place, size, count, scale, length):
    """Centres of pixels lie upon each other."""
    return tl.div_rn(place + 0.5, place * 0.0 + scale) - 0.5


@triton.jit
def half_pixel_of_several(place, size, count, scale, length):
    """As `half_pixel`, but one output pixel alone is the first input pixel."""
    return tl.where(count > 1, half_pixel(place, size, count, scale, length), 0.0)


@triton.jit
def half_pixel_symmetric(place, size, count, scale, length):
    """As `half_pixel`, about the centre of what the scale says, whole or not."""
    offset = size * 0.5 * (1.0 - tl.div_rn(place * 0.0 + count, place * 0.0 + length))
    return offset + tl.div_rn(place + 0.5, place * 0.0 + scale) - 0.5


@triton.jit
def align_corners(place, size, count, scale, length):
    """Centres of the corners' pixels lie upon each other."""
    rest = tl.where(length == 1.0, 1.0, length - 1.0)
    return tl.where(length == 1.0, 0.0, place * tl.div_rn(place * 0.0 + size - 1.0, place * 0.0 + rest))


@triton.jit
def asymmetric(place, size, count, scale, length):
    """Corners of the corners' pixels lie upon each other."""
    return tl.div_rn(place, place * 0.0 + scale)


@triton.jit
def round_prefer_floor(x):
    """Halves down."""
    return tl.ceil(x - 0.5)


@triton.jit
def round_prefer_ceil(x):
    """Halves up."""
    return tl.floor(x + 0.5)


@triton.jit
def floor(x):
    """Down."""
    return tl.floor(x)


@triton.jit
def ceil(x):
    """Up."""
    return tl.ceil(x)


@triton.jit
def tap(x, number: tl.constexpr, size, TAPS: tl.constexpr, A: tl.constexpr, NEAREST: tl.constexpr):
    """The index of a tap in the input, and its weight, for coordinates x."""
    if TAPS == 1:
        index = NEAREST(x)
        weight = x * 0.0 + 1.0
    else:
        index = tl.floor(x) + (number - (TAPS // 2 - 1))
        distance = tl.abs(index - x)
        if TAPS == 2:
            weight = 1.0 - distance
        else:
            near = ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
            far = ((A * distance - 5.0 * A) * distance + 8.0 * A) * distance - 4.0 * A
            weight = tl.where(distance <= 1.0, near, tl.where(distance < 2.0, far, 0.0))
    index = tl.minimum(tl.maximum(index, 0.0), size - 1.0)
    return index.to(tl.int32), weight


@triton.jit
def resize(program, x, y, outer, height, width, inner, out_height, out_width, scale_h, scale_w, length_h, length_w,
           COORDINATE: tl.constexpr, NEAREST: tl.constexpr, TAPS_H: tl.constexpr, TAPS_W: tl.constexpr,
           A: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Program number `program`: BLOCK elements of y [outer, out_height, out_width, inner].

    x [outer, height, width, inner] of floats of at most 32 bits (any type where both numbers of taps are 1). scale_h,
    scale_w: by how much the axes grow; length_h, length_w: size * scale, whole or not. TAPS: 1 (nearest), 2 (linear), 4
    (cubic, with coefficient A); an axis that is not resized has one tap, scale 1 and COORDINATE is exact for it.
    """
    point = program * BLOCK + tl.arange(0, BLOCK)
    inside = point < outer * out_height * out_width * inner
    n = point % inner
    j = point // inner % out_width
    i = point // inner // out_width % out_height
    o = point // inner // out_width // out_height
    at_h = COORDINATE(i.to(tl.float32), height * 1.0, out_height * 1.0, scale_h, length_h)
    at_w = COORDINATE(j.to(tl.float32), width * 1.0, out_width * 1.0, scale_w, length_w)
    if TAPS_H == 1 and TAPS_W == 1:
        row, _ = tap(at_h, 0, height, 1, A, NEAREST)
        column, _ = tap(at_w, 0, width, 1, A, NEAREST)
        value = tl.load(x + ((o * height + row) * width + column) * inner + n, mask=inside, other=0)
        tl.store(y + point, value, mask=inside)
    else:
        total = tl.zeros([BLOCK], tl.float32)
        for s in tl.static_range(TAPS_H):
            row, weight_h = tap(at_h, s, height, TAPS_H, A, NEAREST)
            line = tl.zeros([BLOCK], tl.float32)
            for t in tl.static_range(TAPS_W):
                column, weight_w = tap(at_w, t, width, TAPS_W, A, NEAREST)
                value = tl.load(x + ((o * height + row) * width + column) * inner + n, mask=inside, other=0.0)
                line += weight_w * value.to(tl.float32)
            total += weight_h * line
        tl.store(y + point, total.to(y.dtype.element_ty), mask=inside)
