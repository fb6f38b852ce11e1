"""GridSample: an image read between its pixels, at places that an operand states (Jaderberg et al. 2015).

    y[n, c, o] = sum over taps of weight * x[n, c, pixel],  along each axis by the coordinate grid[n, o, axis]

-1 and 1 are the image's edges, or the centres of its outermost pixels. A coordinate has one tap (nearest, halves to
even), two (linear) or four (cubic, Keys 1981 with a = -0.75). Beyond the image pixels are 0 (zeros), those at its edge
(border), or its mirror images (reflection, at the edges or at the outermost centres). Coordinates are float32; NaN
counts as -1, and with reflection whatever is infinite or 2^63 pixels away.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def reflected(x, low, high):
    """x mirrored at low and high until it lies between them."""
    span = high - low
    beyond = tl.where(x < low, low - x, tl.where(x > high, x - high, 0.0))
    divisor = x * 0.0 + tl.where(span > 0.0, span, 1.0)
    times = tl.floor(tl.div_rn(beyond, divisor))
    rest = beyond - times * span
    even = times - 2.0 * tl.floor(times * 0.5) == 0.0
    found = tl.where((x < low) == even, low + rest, high - rest)
    return tl.where(span > 0.0, tl.where((x < low) | (x > high), found, x), low)


@triton.jit
def place_of(at, size, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr):
    """The coordinate in pixels of a number between -1 and 1, pulled into an axis of `size` pixels."""
    if ALIGN:
        x = (at + 1.0) * 0.5 * (size - 1.0)
    else:
        x = ((at + 1.0) * size - 1.0) * 0.5
    margin = 0.0 if ALIGN else 0.5
    known = tl.abs(x) < 9223372036854775808.0 if PADDING == "reflection" else x == x
    x = tl.where(known, x, 0.0 - margin)
    if TAPS == 1:
        x = libdevice.rint(x)
    if PADDING == "reflection":
        return reflected(x, 0.0 - margin, size - 1.0 + margin)
    # What is infinite has no fraction: it is pulled to where no tap reaches into the image.
    beyond = 0.0 if PADDING == "border" and TAPS != 4 else 8.0
    last = size - 1.0 if PADDING == "border" and TAPS != 4 else size + 8.0
    return tl.where(x > 0.0 - beyond, tl.minimum(x, last), 0.0 - beyond)


@triton.jit
def tap(x, number: tl.constexpr, size, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr):
    """The index of a tap in an axis, its weight, and whether there is such a pixel, for coordinates x."""
    low = tl.floor(x)
    weight = x * 0.0 + 1.0
    fraction = x - low
    if TAPS == 2:
        weight = fraction if number == 1 else 1.0 - fraction
    if TAPS == 4:
        d = tl.abs(fraction + (1.0 - number))
        if number % 3 == 0:  # further away than 1
            weight = ((-0.75 * d + 5.0 * 0.75) * d - 8.0 * 0.75) * d + 4.0 * 0.75
        else:
            weight = ((-0.75 + 2.0) * d - (-0.75 + 3.0)) * d * d + 1.0
    index = tl.where(low > -4.0, tl.minimum(low, size + 4.0), -4.0) + (number - (1 if TAPS == 4 else 0))
    inside = (index >= 0.0) & (index < size)
    if PADDING == "reflection":
        margin = 0.0 if ALIGN else 0.5
        index = reflected(index, 0.0 - margin, size - 1.0 + margin)
    index = tl.minimum(tl.maximum(index, 0.0), size - 1.0)
    return index.to(tl.int32), weight, inside if PADDING == "zeros" else index == index


@triton.jit
def grid_sample(program, x, grid, y, batch, channels, depth, height, width, points, RANK: tl.constexpr,
                TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGN: tl.constexpr, X_LAST: tl.constexpr,
                Y_LAST: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Program number `program`: BLOCK elements of y [batch, channels, points].

    x [batch, channels, depth, height, width], grid [batch, points, RANK] in the order width, height, depth; RANK is 2
    (depth is 1 then) or 3. X_LAST, Y_LAST: the channels are stored last. TAPS: 1, 2 or 4.
    """
    element = program * BLOCK + tl.arange(0, BLOCK)
    inside = element < batch * channels * points
    if Y_LAST:
        c = element % channels
        o = element // channels % points
    else:
        o = element % points
        c = element // points % channels
    n = element // points // channels
    at = grid + (n * points + o) * RANK
    w = place_of(tl.load(at, mask=inside, other=0.0).to(tl.float32), width * 1.0, TAPS, PADDING, ALIGN)
    h = place_of(tl.load(at + 1, mask=inside, other=0.0).to(tl.float32), height * 1.0, TAPS, PADDING, ALIGN)
    d = w * 0.0
    if RANK == 3:
        d = place_of(tl.load(at + 2, mask=inside, other=0.0).to(tl.float32), depth * 1.0, TAPS, PADDING, ALIGN)
    pixels = depth * height * width
    first = n * channels * pixels + (c if X_LAST else c * pixels)
    step = channels if X_LAST else 1
    total = tl.zeros([BLOCK], tl.float32)
    for s in tl.static_range(TAPS if RANK == 3 else 1):
        plane, weight_d, in_d = tap(d, s, depth * 1.0, TAPS if RANK == 3 else 1, PADDING, ALIGN)
        for t in tl.static_range(TAPS):
            row, weight_h, in_h = tap(h, t, height * 1.0, TAPS, PADDING, ALIGN)
            for u in tl.static_range(TAPS):
                column, weight_w, in_w = tap(w, u, width * 1.0, TAPS, PADDING, ALIGN)
                where = first + ((plane * height + row) * width + column) * step
                if RANK == 3:
                    there = inside & in_d & in_h & in_w
                else:
                    there = inside & in_h & in_w
                value = tl.load(x + where, mask=there, other=0)
                if TAPS == 1:
                    tl.store(y + element, value, mask=inside)
                elif RANK == 3:
                    total += value.to(tl.float32) * (weight_d * weight_h * weight_w)
                else:
                    total += value.to(tl.float32) * (weight_h * weight_w)
    if TAPS > 1:
        tl.store(y + element, total.to(y.dtype.element_ty), mask=inside)
