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
def bins_of(start, end, bins, ratio: tl.constexpr, HALF_PIXEL: tl.constexpr):
    """The length of a bin along an axis, and how many samples it has."""
    length = end - start
    if not HALF_PIXEL:
        length = tl.where(length > 1.0, length, 1.0)
    step = tl.div_rn(length, length * 0.0 + bins)
    if ratio > 0:
        number = step.to(tl.int32) * 0 + ratio
    else:
        number = tl.maximum(tl.ceil(step).to(tl.int32), 0)
    return step, number


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
    image = tl.where(image < 0, image + batch, image)
    inside_image = inside & (image >= 0) & (image < batch)
    step_h, number_h = bins_of(y1, y2, bins_h, RATIO, HALF_PIXEL)
    step_w, number_w = bins_of(x1, x2, bins_w, RATIO, HALF_PIXEL)
    first = (image * channels * height * width).to(element.dtype)
    first += c if X_LAST else c * (height * width)
    step = channels if X_LAST else 1
    total = tl.zeros([BLOCK], tl.float32)
    if not MEAN:
        total = total - float("inf")
    for s in range(tl.max(tl.where(inside, number_h, 0))):
        top, bottom, above, below = corners(y1, step_h, i, s, tl.maximum(number_h, 1), height * 1.0)
        for t in range(tl.max(tl.where(inside, number_w, 0))):
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
                most = tl.maximum(tl.maximum(a, b), tl.maximum(d, e))
                total = tl.where(there, tl.maximum(total, most), total)
    count = number_h * number_w
    if MEAN:
        total = tl.div_rn(total, tl.maximum(count, 1).to(tl.float32))
    tl.store(y + element, tl.where((count > 0) & inside_image, total, 0.0).to(y.dtype.element_ty), mask=inside)
