/* Depthwise convolution, fp32, channels-last.
 *
 *   y[n][oy][ox][c] = sum over ky, kx of x[n][oy * sy - top + ky * dy][ox * sx - left + kx * dx][c] * w[ky][kx][c]
 *
 * x: [images][height][width][channels] with strides; w: [kernel_height][kernel_width][channels]; y is the finish hook's
 * business, row (n * OH + oy) * OW + ox and column c. Several channels from one (a multiplier) are a case for groups.
 *
 * A tile is 7 neighbouring pixels (7 divides 7, 14, 28, 56 and 112) times VL channels. For a kernel row its weights
 * stay in registers, and each input pixel is loaded once and multiplied into all the outputs that see it. Kernels 3
 * and 5 wide with stride 1 or 2, and 7 wide with stride 1, without dilation, are unrolled; taps in the padding are left
 * out, not multiplied by zero. Other kernels go pixel by pixel.
 *
 * An item is (image, output rows, channels). Where a few image rows of 64 channels fit in L1 but all channels do not,
 * `channels_per_item` = 64 keeps them and the weights there. Rows are outermost, so that a thread, which begins with
 * items side by side, reads and writes the rows that it has of other kernels.
 */
#ifndef FUSIBLE_DEPTHWISE_H
#define FUSIBLE_DEPTHWISE_H

#include "hooks.h"

struct depthwise {
    const float *x;      /* image 0, pixel (0, 0), channel 0 */
    const float *weights;
    long images, height, width, channels;
    long kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x;
    long pad_top, pad_left, out_height, out_width;
    long image_stride, row_stride, pixel_stride;     /* floats */
    long bands, channels_per_item;                   /* parts of the output rows; a multiple of VL, or all */
};

INLINE long depthwise_parts(long whole, long part) { return (whole + part - 1) / part; }
INLINE long depthwise_items(const struct depthwise *d) {
    return d->images * d->bands * depthwise_parts(d->channels, d->channels_per_item);
}

/* One output row: the image row under tap 0 may lie outside; taps first_tap ... end_tap - 1 do not. */
struct depthwise_row {
    const float *x;             /* image row `iy` of tap 0, pixel 0, channel 0: only offsets inside are read */
    const float *const *taps;   /* instead, where image rows do not lie one after the other: that under each tap */
    long first_tap, end_tap, row;
    long left, right;           /* the columns to compute */
};

INLINE struct depthwise_row depthwise_row_of(const struct depthwise *d, long image, long oy) {
    long top = oy * d->stride_y - d->pad_top, first = 0, end = d->kernel_height;
    while (first < end && top + first * d->dilation_y < 0) first++;
    while (end > first && top + (end - 1) * d->dilation_y >= d->height) end--;
    return (struct depthwise_row){d->x + image * d->image_stride + top * d->row_stride, 0, first, end,
                                  (image * d->out_height + oy) * d->out_width, 0, d->out_width};
}

INLINE const float *depthwise_tap(const struct depthwise *d, const struct depthwise_row *r, long ky) {
    return r->taps ? r->taps[ky] : r->x + ky * d->dilation_y * d->row_stride;
}

#define DEPTHWISE_PIXELS 7

/* A kernel row for a tile: `column` is the image column of tap 0 of pixel 0. Unless `clip`, all columns are inside. */
INLINE void depthwise_kernel_row(const int width, const int stride, const int clip, const struct depthwise *d,
                                 const float *x, long column, const float *weights, long lanes, vf *sum) {
    vf weight[7];
    UNROLL for (int kx = 0; kx < width; kx++) weight[kx] = vf_load_first(weights + kx * d->channels, lanes);
    long step = d->pixel_stride;
    x += column * step;
    if (VECTOR_REGISTERS == 16) OPAQUE(step); /* its multiples would be kept in memory */
    UNROLL for (int j = 0; j < (DEPTHWISE_PIXELS - 1) * stride + width; j++) {
        const float *at = x + j % 2 * step;
        if (j % 2) x += 2 * step;
        if (clip && (column + j < 0 || column + j >= d->width)) continue;
        vf value = vf_loaded(vf_load_first(at, lanes));
        UNROLL for (int kx = 0; kx < width; kx++) {
            int pixel = (j - kx) / stride;
            if (j >= kx && (j - kx) % stride == 0 && pixel < DEPTHWISE_PIXELS) sum[pixel] += value * weight[kx];
        }
    }
}

/* Pixels ox ... ox + pixels - 1 of a row, 1 <= pixels <= DEPTHWISE_PIXELS, for `lanes` channels from `channel` on. */
INLINE void depthwise_tile(const int width, const int stride, const int clip, const struct depthwise *d,
                           const struct depthwise_row *r, long ox, long pixels, long channel, long lanes,
                           start_hook *start, finish_hook *finish, const void *context) {
    vf sum[DEPTHWISE_PIXELS];
    UNROLL for (int i = 0; i < DEPTHWISE_PIXELS; i++)
        sum[i] = i < pixels ? start(context, r->row + ox + i, channel, lanes) : (vf){0};
    for (long ky = r->first_tap; ky < r->end_tap; ky++)
        depthwise_kernel_row(width, stride, clip, d, depthwise_tap(d, r, ky) + channel,
                             ox * stride - d->pad_left, d->weights + ky * width * d->channels + channel, lanes, sum);
    UNROLL for (int i = 0; i < DEPTHWISE_PIXELS; i++)
        if (i < pixels) finish(context, sum[i], r->row + ox + i, channel, lanes);
}

/* Channels first ... end - 1 of the columns of one output row. */
INLINE void depthwise_tiles(const int width, const int stride, const struct depthwise *d, const struct depthwise_row *r,
                            long first, long end, start_hook *start, finish_hook *finish, const void *context) {
    for (long ox = r->left; ox < r->right; ox += DEPTHWISE_PIXELS) {
        long pixels = r->right - ox < DEPTHWISE_PIXELS ? r->right - ox : DEPTHWISE_PIXELS;
        long left = ox * stride - d->pad_left, right = left + (DEPTHWISE_PIXELS - 1) * stride + width;
        int inside = left >= 0 && right <= d->width && pixels == DEPTHWISE_PIXELS;
        long c = first;
        if (inside)
            for (; c + VL <= end; c += VL)
                depthwise_tile(width, stride, 0, d, r, ox, DEPTHWISE_PIXELS, c, VL, start, finish, context);
        else
            for (; c + VL <= end; c += VL)
                depthwise_tile(width, stride, 1, d, r, ox, pixels, c, VL, start, finish, context);
        if (c < end) depthwise_tile(width, stride, 1, d, r, ox, pixels, c, end - c, start, finish, context);
    }
}

/* One output pixel of any kernel. */
INLINE void depthwise_pixel(const struct depthwise *d, const struct depthwise_row *r, long ox, long channel, long lanes,
                            start_hook *start, finish_hook *finish, const void *context) {
    vf sum = start(context, r->row + ox, channel, lanes);
    for (long ky = r->first_tap; ky < r->end_tap; ky++)
        for (long kx = 0; kx < d->kernel_width; kx++) {
            long column = ox * d->stride_x - d->pad_left + kx * d->dilation_x;
            if (column < 0 || column >= d->width) continue;
            const float *x = depthwise_tap(d, r, ky) + column * d->pixel_stride + channel;
            const float *weights = d->weights + (ky * d->kernel_width + kx) * d->channels + channel;
            sum += vf_load_first(x, lanes) * vf_load_first(weights, lanes);
        }
    finish(context, sum, r->row + ox, channel, lanes);
}

INLINE void depthwise_pixels(const struct depthwise *d, const struct depthwise_row *r, long first, long end,
                             start_hook *start, finish_hook *finish, const void *context) {
    for (long ox = r->left; ox < r->right; ox++) {
        long c = first;
        for (; c + VL <= end; c += VL) depthwise_pixel(d, r, ox, c, VL, start, finish, context);
        if (c < end) depthwise_pixel(d, r, ox, c, end - c, start, finish, context);
    }
}

/* The columns of one output row, for channels first ... end - 1. Kernel, stride and dilation along x should be constants
 * where this is inlined: then one of the branches remains. */
INLINE void depthwise_one_row(const struct depthwise *d, const struct depthwise_row *r, long first, long end,
                              start_hook *start, finish_hook *finish, const void *context) {
#define DEPTHWISE_CASE(WIDTH, STRIDE)                                              \
    if (d->dilation_x == 1 && d->kernel_width == WIDTH && d->stride_x == STRIDE) { \
        depthwise_tiles(WIDTH, STRIDE, d, r, first, end, start, finish, context);  \
        return;                                                                    \
    }
    DEPTHWISE_CASE(3, 1)
    DEPTHWISE_CASE(3, 2)
    DEPTHWISE_CASE(5, 1)
    DEPTHWISE_CASE(5, 2)
    DEPTHWISE_CASE(7, 1)
#undef DEPTHWISE_CASE
    depthwise_pixels(d, r, first, end, start, finish, context);
}

/* Output rows oy ... last - 1 of an image. */
INLINE void depthwise_rows(const struct depthwise *d, long image, long oy, long last, long first, long end,
                           start_hook *start, finish_hook *finish, const void *context) {
    for (; oy < last; oy++) {
        struct depthwise_row r = depthwise_row_of(d, image, oy);
        depthwise_one_row(d, &r, first, end, start, finish, context);
    }
}

/* Compute item 0 <= item < depthwise_items(d). */
INLINE void depthwise_item(const struct depthwise *d, long item, start_hook *start, finish_hook *finish,
                           const void *context) {
    long parts = depthwise_parts(d->channels, d->channels_per_item), band = item / parts % d->bands;
    long image = item / parts / d->bands, first = item % parts * d->channels_per_item;
    long end = first + d->channels_per_item < d->channels ? first + d->channels_per_item : d->channels;
    long oy = part_begin(d->out_height, d->bands, band), last = part_begin(d->out_height, d->bands, band + 1);
    depthwise_rows(d, image, oy, last, first, end, start, finish, context);
}

#endif
