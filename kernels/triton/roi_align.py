"""RoiAlign: each region of an image is pooled to a fixed number of bins (He et al. 2017, Mask R-CNN).

    y[r, c, i, j] = mean over the samples of bin (i, j) of x[b[r], c] read bilinearly, or the largest weighted corner

A bin has `ratio` samples along each axis, or for 0 as many as it has pixels. Samples more than a pixel outside are 0;
others are pulled into the image. Coordinates and sums are float32.
"""

import triton
import triton.language as tl


@triton.jit
def corners(start, step, place, sample, number, size):
    """The two pixels of a sample along an axis of `size` pixels, and their weights.

    start, step: of the bins; place: which bin; number: of its samples, at least 1.
    """
    inner = tl.div_rn((sample + 0.5) * step, number.to(tl.float32))
    x = start + place.to(tl.float32) * step + inner
    there = (x >= -1.0) & (x <= size)
    x = tl.minimum(tl.maximum(tl.where(there, x, 0.0), 0.0), size - 1.0)
    low = tl.floor(x)
    fraction = x - low
    high = tl.minimum(low + 1.0, size - 1.0)
    return low.to(tl.int32), high.to(tl.int32), tl.where(there, 1.0 - fraction, 0.0), tl.where(there, fraction, 0.0)


@triton.jit
def larger(a, b):
    """The larger of each two; NaN if one is NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def bins_of(start, end, bins, ratio: tl.constexpr, HALF_PIXEL: tl.constexpr):
    """The length of a bin along an axis, and how many samples it has."""
    length = end - start
    if not HALF_PIXEL:
        length = tl.where(length > 1.0, length, 1.0)
    step = tl.div_rn(length, length * 0.0 + bins)
    if ratio > 0:
        number = step.to(tl.int32) * 0 + ratio
    else:
        known = (step > 0.0) & (step < 1073741824.0)  # neither NaN nor more than an int32 holds
        number = tl.where(known, tl.ceil(tl.where(known, step, 0.0)).to(tl.int32), 0)
    return step, number


@triton.jit
def samples_outside(start, step, place, number, ratio: tl.constexpr):
    """How many samples of a bin lie before the image for certain: of large boxes only those within are gone through."""
    if ratio > 0:
        return number * 0
    else:
        apart = tl.div_rn(step, tl.maximum(number, 1).to(tl.float32))
        before = -1.0 - (start + place.to(tl.float32) * step)
        outside = tl.where(number > 0, tl.div_rn(before, tl.where(apart > 0.0, apart, 1.0)) - 2.0, 0.0)
        return tl.minimum(tl.maximum(outside, 0.0), tl.maximum(number, 0).to(tl.float32)).to(tl.int32)


@triton.jit
def roi_align(program, x, rois, numbers, y, batch, channels, height, width, regions, bins_h, bins_w, scale,
              RATIO: tl.constexpr, MEAN: tl.constexpr, HALF_PIXEL: tl.constexpr, X_LAST: tl.constexpr,
              Y_LAST: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Program number `program`: BLOCK elements of y [regions, channels, bins_h, bins_w].

    x [batch, channels, height, width], rois [regions, 4] = x1, y1, x2, y2, numbers [regions]: the image of each.
    Regions of images that are none get 0. X_LAST, Y_LAST: the channels are stored last.
    """
    element = program * BLOCK + tl.arange(0, BLOCK)
    inside = element < regions * channels * bins_h * bins_w
    if Y_LAST:
        c = element % channels
        j = element // channels % bins_w
        i = element // channels // bins_w % bins_h
    else:
        j = element % bins_w
        i = element // bins_w % bins_h
        c = element // bins_w // bins_h % channels
    r = element // bins_w // bins_h // channels
    offset = 0.5 if HALF_PIXEL else 0.0
    x1 = tl.load(rois + r * 4, mask=inside, other=0.0).to(tl.float32) * scale - offset
    y1 = tl.load(rois + r * 4 + 1, mask=inside, other=0.0).to(tl.float32) * scale - offset
    x2 = tl.load(rois + r * 4 + 2, mask=inside, other=0.0).to(tl.float32) * scale - offset
    y2 = tl.load(rois + r * 4 + 3, mask=inside, other=0.0).to(tl.float32) * scale - offset
    image = tl.load(numbers + r, mask=inside, other=0).to(tl.int64)
    inside_image = inside & (image >= 0) & (image < batch)
    step_h, number_h = bins_of(y1, y2, bins_h, RATIO, HALF_PIXEL)
    step_w, number_w = bins_of(x1, x2, bins_w, RATIO, HALF_PIXEL)
    first = (image * channels * height * width).to(element.dtype)
    first += c if X_LAST else c * (height * width)
    step = channels if X_LAST else 1
    total = tl.zeros([BLOCK], tl.float32)
    if not MEAN:
        total = total - float("inf")
    # Samples of boxes are half a pixel apart at least, unless their number is given.
    most_h = number_h if RATIO > 0 else tl.minimum(number_h, 2 * height + 8)
    most_w = number_w if RATIO > 0 else tl.minimum(number_w, 2 * width + 8)
    first_h = samples_outside(y1, step_h, i, number_h, RATIO)
    first_w = samples_outside(x1, step_w, j, number_w, RATIO)
    for nth_h in range(tl.max(tl.where(inside, most_h, 0))):
        s = first_h + nth_h
        top, bottom, above, below = corners(y1, step_h, i, s, tl.maximum(number_h, 1), height * 1.0)
        for nth_w in range(tl.max(tl.where(inside, most_w, 0))):
            t = first_w + nth_w
            left, right, before, after = corners(x1, step_w, j, t, tl.maximum(number_w, 1), width * 1.0)
            there = inside_image & (s < number_h) & (t < number_w)
            a = tl.load(x + first + (top * width + left) * step, mask=there, other=0.0).to(tl.float32)
            b = tl.load(x + first + (top * width + right) * step, mask=there, other=0.0).to(tl.float32)
            d = tl.load(x + first + (bottom * width + left) * step, mask=there, other=0.0).to(tl.float32)
            e = tl.load(x + first + (bottom * width + right) * step, mask=there, other=0.0).to(tl.float32)
            a, b, d, e = a * (above * before), b * (above * after), d * (below * before), e * (below * after)
            if MEAN:
                total += a + b + d + e
            else:
                most = larger(larger(a, b), larger(d, e))
                total = tl.where(there, larger(total, most), total)
    if not MEAN:  # samples outside are 0, also those that were passed over
        passed = (first_h > 0) | (first_h + most_h < number_h) | (first_w > 0) | (first_w + most_w < number_w)
        total = tl.where(passed, larger(total, 0.0), total)
    count = number_h.to(tl.float32) * number_w.to(tl.float32)
    if MEAN:
        total = tl.div_rn(total, tl.maximum(count, 1.0))
    tl.store(y + element, tl.where((count > 0.0) & inside_image, total, 0.0).to(y.dtype.element_ty), mask=inside)
