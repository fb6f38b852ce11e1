/* Max and average pooling, and the same over whole images; fp32, channels-last.
 *
 *   y[n][oy][ox][c] = max or mean over ky, kx of x[n][oy * sy - top + ky * dy][ox * sx - left + kx * dx][c]
 *
 * x: [images][height][width][channels] with strides; y is the finish hook's business, row (n * OH + oy) * OW + ox and
 * column c. Taps in the padding are left out, so that a maximum is right for negative inputs (minus infinity where no
 * tap is inside), and a mean divides by the taps inside, or, with `count_padding`, by those inside the padded image
 * (with ceil mode the last window may reach beyond even that). A NaN in the window gives NaN.
 *
 * An item is (image, output rows) of pooling_item and (image, channels) of pooling_global_item.
 */
#ifndef FUSIBLE_POOLING_H
#define FUSIBLE_POOLING_H

#include "hooks.h"

enum pooling_kind { POOLING_MAX, POOLING_AVERAGE };

struct pooling {
    const float *x;      /* image 0, pixel (0, 0), channel 0 */
    long images, height, width, channels;
    long kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x;
    long pad_top, pad_left, pad_bottom, pad_right, out_height, out_width;
    long image_stride, row_stride, pixel_stride;     /* floats */
    long rows_per_item;
    int count_padding;
};

/* Taps first ... end - 1 of a window lie inside the image, `padded` inside the padded one. */
struct pooling_window {
    long from, first, end, padded;
};

INLINE struct pooling_window pooling_window_of(long from, long kernel, long dilation, long size, long pad_end) {
    struct pooling_window w = {from, 0, kernel, 0};
    while (w.first < w.end && from + w.first * dilation < 0) w.first++;
    while (w.end > w.first && from + (w.end - 1) * dilation >= size) w.end--;
    for (long k = 0; k < kernel; k++) w.padded += from + k * dilation < size + pad_end;
    return w;
}

INLINE vf pooling_start(const enum pooling_kind kind) {
    return kind == POOLING_MAX ? vf_all(-__builtin_inff()) : (vf){0};
}
INLINE vf pooling_combine(const enum pooling_kind kind, vf a, vf b) {
    return kind == POOLING_MAX ? vf_max(a, b) : a + b;
}

/* `lanes` channels of one output pixel. */
INLINE vf pooling_reduce(const enum pooling_kind kind, const struct pooling *p, const float *image,
                         const struct pooling_window *rows, const struct pooling_window *columns, long lanes) {
    vf result = pooling_start(kind);
    for (long ky = rows->first; ky < rows->end; ky++) {
        const float *row = image + (rows->from + ky * p->dilation_y) * p->row_stride;
        for (long kx = columns->first; kx < columns->end; kx++) {
            const float *x = row + (columns->from + kx * p->dilation_x) * p->pixel_stride;
            result = pooling_combine(kind, result, vf_load_first(x, lanes));
        }
    }
    if (kind == POOLING_MAX) return result;
    long inside = (rows->end - rows->first) * (columns->end - columns->first);
    return result / vf_all((float)(p->count_padding ? rows->padded * columns->padded : inside));
}

INLINE long pooling_bands(const struct pooling *p) { return (p->out_height + p->rows_per_item - 1) / p->rows_per_item; }
INLINE long pooling_items(const struct pooling *p) { return p->images * pooling_bands(p); }

INLINE void pooling_row(const enum pooling_kind kind, const struct pooling *p, long image, long oy, finish_hook *finish,
                        const void *context) {
    const float *x = p->x + image * p->image_stride;
    struct pooling_window rows = pooling_window_of(oy * p->stride_y - p->pad_top, p->kernel_height, p->dilation_y,
                                                   p->height, p->pad_bottom);
    for (long ox = 0; ox < p->out_width; ox++) {
        struct pooling_window columns = pooling_window_of(ox * p->stride_x - p->pad_left, p->kernel_width,
                                                          p->dilation_x, p->width, p->pad_right);
        long row = (image * p->out_height + oy) * p->out_width + ox, c = 0;
        for (; c + VL <= p->channels; c += VL)
            finish(context, pooling_reduce(kind, p, x + c, &rows, &columns, VL), row, c, VL);
        if (c < p->channels) {
            long lanes = p->channels - c;
            finish(context, pooling_reduce(kind, p, x + c, &rows, &columns, lanes), row, c, lanes);
        }
    }
}

/* Compute item 0 <= item < pooling_items(p); `kind` is a constant. */
INLINE void pooling_item(const enum pooling_kind kind, const struct pooling *p, long item, finish_hook *finish,
                         const void *context) {
    long image = item / pooling_bands(p), oy = item % pooling_bands(p) * p->rows_per_item;
    for (long end = oy + p->rows_per_item; oy < end && oy < p->out_height; oy++)
        pooling_row(kind, p, image, oy, finish, context);
}

/* Over whole images: output row n, column c. A row of pixels is added up before it joins the sum, which keeps the error
 * of large images small. */
struct pooling_global {
    const float *x;      /* image 0, pixel (0, 0), channel 0 */
    long images, height, width, channels;
    long image_stride, row_stride, pixel_stride;     /* floats */
    long channels_per_item;                          /* a multiple of VL, or all */
};

INLINE long pooling_global_parts(const struct pooling_global *p) {
    return (p->channels + p->channels_per_item - 1) / p->channels_per_item;
}
INLINE long pooling_global_items(const struct pooling_global *p) { return p->images * pooling_global_parts(p); }

/* `lanes` channels of each of `count` vectors of one image, count <= 4: chains that do not wait for each other. */
INLINE void pooling_global_vectors(const enum pooling_kind kind, const int count, const struct pooling_global *p,
                                   long image, long channel, long lanes, finish_hook *finish, const void *context) {
    vf total[4];
    UNROLL for (int i = 0; i < count; i++) total[i] = pooling_start(kind);
    for (long y = 0; y < p->height; y++) {
        const float *x = p->x + image * p->image_stride + y * p->row_stride + channel;
        vf row[4];
        UNROLL for (int i = 0; i < count; i++) row[i] = pooling_start(kind);
        for (long pixel = 0; pixel < p->width; pixel++, x += p->pixel_stride)
            UNROLL for (int i = 0; i < count; i++)
                row[i] = pooling_combine(kind, row[i], vf_load_first(x + i * VL, lanes));
        UNROLL for (int i = 0; i < count; i++) total[i] = pooling_combine(kind, total[i], row[i]);
    }
    vf pixels = vf_all((float)(p->height * p->width));
    UNROLL for (int i = 0; i < count; i++)
        finish(context, kind == POOLING_MAX ? total[i] : total[i] / pixels, image, channel + i * VL, lanes);
}

/* Compute item 0 <= item < pooling_global_items(p); `kind` is a constant. */
INLINE void pooling_global_item(const enum pooling_kind kind, const struct pooling_global *p, long item,
                                finish_hook *finish, const void *context) {
    long image = item / pooling_global_parts(p), c = item % pooling_global_parts(p) * p->channels_per_item;
    long end = c + p->channels_per_item < p->channels ? c + p->channels_per_item : p->channels;
    for (; c + 4 * VL <= end; c += 4 * VL) pooling_global_vectors(kind, 4, p, image, c, VL, finish, context);
    for (; c + VL <= end; c += VL) pooling_global_vectors(kind, 1, p, image, c, VL, finish, context);
    if (c < end) pooling_global_vectors(kind, 1, p, image, c, end - c, finish, context);
}

#endif
