/* Resizing of images by a separable filter, fp32, channels-last: nearest (1 tap), bilinear (2), bicubic (4).
 *
 *   y[n][oy][ox][c] = sum over i, j < taps of wy[oy][i] * wx[ox][j] * x[n][at_y[oy][i]][at_x[ox][j]][c]
 *
 * x: [images][height][width][channels] with strides; the tables are computed beforehand, by whatever rule maps output
 * to input coordinates, with all indices inside the image; y is the finish hook's business, row (n * OH + oy) * OW + ox
 * and column c. With one tap the weights are not read: the values are copied.
 *
 * An item is (image, output rows).
 */
#ifndef FUSIBLE_RESIZE_H
#define FUSIBLE_RESIZE_H

#include "hooks.h"

struct resize {
    const float *x;                                  /* image 0, pixel (0, 0), channel 0 */
    const int32_t *rows_at, *columns_at;             /* [out_height][taps], [out_width][taps] */
    const float *row_weights, *column_weights;       /* the same shapes; null with one tap */
    long images, channels, out_height, out_width;
    long image_stride, row_stride, pixel_stride;     /* floats */
    long rows_per_item;
};

INLINE long resize_bands(const struct resize *r) { return (r->out_height + r->rows_per_item - 1) / r->rows_per_item; }
INLINE long resize_items(const struct resize *r) { return r->images * resize_bands(r); }

/* `lanes` channels of one output pixel; `x` is the image from the first of them on. */
INLINE vf resize_pixel(const int taps, const struct resize *r, const float *x, long oy, long ox, long lanes) {
    const int32_t *rows_at = r->rows_at + oy * taps, *columns_at = r->columns_at + ox * taps;
    if (taps == 1) return vf_load_first(x + *rows_at * r->row_stride + *columns_at * r->pixel_stride, lanes);
    vf sum = {0};
    UNROLL for (int i = 0; i < taps; i++) {
        const float *row = x + rows_at[i] * r->row_stride;
        vf part = {0};
        UNROLL for (int j = 0; j < taps; j++)
            part += vf_load_first(row + columns_at[j] * r->pixel_stride, lanes) *
                    vf_all(r->column_weights[ox * taps + j]);
        sum += part * vf_all(r->row_weights[oy * taps + i]);
    }
    return sum;
}

/* Compute item 0 <= item < resize_items(r); `taps`, a constant, is 1, 2 or 4. */
INLINE void resize_item(const int taps, const struct resize *r, long item, finish_hook *finish, const void *context) {
    long image = item / resize_bands(r), oy = item % resize_bands(r) * r->rows_per_item;
    const float *x = r->x + image * r->image_stride;
    for (long end = oy + r->rows_per_item; oy < end && oy < r->out_height; oy++)
        for (long ox = 0; ox < r->out_width; ox++) {
            long row = (image * r->out_height + oy) * r->out_width + ox, c = 0;
            for (; c + VL <= r->channels; c += VL)
                finish(context, resize_pixel(taps, r, x + c, oy, ox, VL), row, c, VL);
            if (c < r->channels) {
                long lanes = r->channels - c;
                finish(context, resize_pixel(taps, r, x + c, oy, ox, lanes), row, c, lanes);
            }
        }
}

#endif
