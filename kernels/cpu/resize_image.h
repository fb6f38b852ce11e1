/* Resizing of the two middle dimensions of x [outer][height][width][inner], fp32: nearest, bilinear, bicubic.
 *
 * The tables of resize.h are made when the kernel is called, for sizes may be known only then, by the rules of ONNX
 * Resize; coordinates are computed in fp32, as ONNX Runtime does. Where elements of one pixel are adjacent (inner last)
 * vectors lie along them. Planes ([outer][inner][height][width]) are resized one by one: rows of the input along their
 * width, each once, and what follows from a few of those rows in vectors.
 *
 * Items are (image or plane, output rows).
 */
#ifndef FUSIBLE_RESIZE_IMAGE_H
#define FUSIBLE_RESIZE_IMAGE_H

#include <limits.h>
#include <stdint.h>

#include "lanes.h"
#include "pool.h"
#include "resize.h"

/* coordinate_transformation_mode */
enum {
    RESIZE_HALF_PIXEL, RESIZE_HALF_PIXEL_SYMMETRIC, RESIZE_PYTORCH_HALF_PIXEL, RESIZE_ALIGN_CORNERS, RESIZE_ASYMMETRIC,
    RESIZE_HALF_PIXEL_FOR_NN
};
/* nearest_mode; the last is the rule of opset 10 */
enum { RESIZE_PREFER_FLOOR, RESIZE_PREFER_CEIL, RESIZE_FLOOR, RESIZE_CEIL, RESIZE_SIMPLE };

#define RESIZE_LITTLE 4096 /* elements of an item, at least */

struct resize_image {
    const float *x;
    float *y;
    long outer, height, width, inner, out_height, out_width;
    int x_last, y_last;              /* whether inner is the last dimension of x, of y; else it follows outer */
    float row_scale, column_scale;   /* as given; 0: the sizes were, and the scale is their quotient */
    int coordinates, nearest;
    float cubic;                     /* Keys' a */
    /* Filled in by resize_image_run. */
    int32_t *rows_at, *columns_at;   /* [out_height][taps], [out_width][taps] */
    float *row_weights, *column_weights;
    float *lines;                    /* of each thread [taps][out_width] */
    long rows_per_item;
    struct pool *pool;
};

INLINE float resize_floor(float x) { return vf_floor(vf_all(x))[0]; }

/* Where output element i lies in an axis of `size` elements that becomes one of `count`. */
INLINE float resize_coordinate(int mode, long i, long size, long count, float scale, float length) {
    const float y = (float)i;
    switch (mode) {
    case RESIZE_ASYMMETRIC: return y / scale;
    case RESIZE_HALF_PIXEL_FOR_NN: return (y + 0.5f) / scale;
    case RESIZE_ALIGN_CORNERS: return length != 1.0f ? y * (((float)size - 1.0f) / (length - 1.0f)) : 0.0f;
    case RESIZE_PYTORCH_HALF_PIXEL: return count > 1 ? (y + 0.5f) / scale - 0.5f : 0.0f;
    case RESIZE_HALF_PIXEL_SYMMETRIC: {
        volatile float offset = (float)size / 2.0f * (1.0f - (float)count / length); /* no multiply-add: it rounds less */
        return offset + (y + 0.5f) / scale - 0.5f;
    }
    default: return (y + 0.5f) / scale - 0.5f;
    }
}

/* The whole number next to a coordinate. */
INLINE float resize_nearest(int mode, float x, float scale) {
    switch (mode) {
    case RESIZE_PREFER_FLOOR: return -resize_floor(-(x - 0.5f));
    case RESIZE_PREFER_CEIL: return resize_floor(x + 0.5f);
    case RESIZE_FLOOR: return resize_floor(x);
    case RESIZE_CEIL: return -resize_floor(-x);
    default: return scale < 1.0f ? -resize_floor(-x) : resize_floor(x);
    }
}

/* Keys' cubic convolution kernel at a distance (1981, equation 4), or the triangle. */
INLINE double resize_weight(int taps, double distance, double a) {
    const double x = distance < 0 ? -distance : distance;
    if (taps == 2) return x < 1 ? 1 - x : 0;
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* The table of an axis: what each of `count` output elements reads, and its weights. */
INLINE void resize_table(const int taps, const struct resize_image *r, long size, long count, float given, int32_t *at,
                         float *weights) {
    const float scale = given > 0 ? given : (float)count / (float)size;
    const float length = given > 0 ? (float)size * given : (float)count;
    for (long i = 0; i < count; i++, at += taps, weights += taps) {
        if (count == size && scale == 1.0f) { /* as it is: halves of one element, for 0 times infinity is no number */
            for (int t = 0; t < taps; t++) at[t] = (int32_t)i, weights[t] = 1.0f / (float)taps;
            continue;
        }
        const float x = resize_coordinate(r->coordinates, i, size, count, scale, length);
        float first = taps == 1 ? resize_nearest(r->nearest, x, scale) : resize_floor(x);
        first = !(first >= -4.0f) ? -4.0f : first > (float)size + 4.0f ? (float)size + 4.0f : first;
        for (int t = 0; t < taps; t++) {
            const long number = (long)first + t - (taps == 4);
            at[t] = (int32_t)long_max(0, long_min(number, size - 1));
            weights[t] = taps == 1 ? 1.0f : (float)resize_weight(taps, (double)number - (double)x, (double)r->cubic);
        }
    }
}

INLINE int resize_by_pixel(const struct resize_image *r) { return r->x_last && r->inner > 1; }

/* False for results that would be made of nothing. */
INLINE int resize_image_fits(const struct resize_image *r) {
    const int empty = r->height == 0 || r->width == 0;
    return !empty || r->outer == 0 || r->inner == 0 || r->out_height == 0 || r->out_width == 0;
}

/* Floats of scratch memory for resize_image_run; more than there are for axes that its tables have no numbers for. */
INLINE long resize_image_floats(const struct resize_image *r, const int taps, long threads) {
    if (long_max(r->height, r->width) > INT32_MAX) return LONG_MAX / 8;
    return 2 * taps * (r->out_height + r->out_width) + (resize_by_pixel(r) ? 0 : threads * taps * r->out_width);
}

INLINE void resize_store(const void *context, vf value, long row, long column, long lanes) {
    const struct resize_image *r = context;
    if (r->y_last) {
        vf_store_first(r->y + row * r->inner + column, value, lanes);
        return;
    }
    const long pixels = r->out_height * r->out_width;
    float *to = r->y + (row / pixels * r->inner + column) * pixels + row % pixels;
    for (long lane = 0; lane < lanes; lane++) to[lane * pixels] = value[lane];
}

/* Vectors along the elements of a pixel. */
INLINE void resize_pixels_item(const int taps, const struct resize_image *r, long item) {
    const struct resize shape = {
        r->x, r->rows_at, r->columns_at, r->row_weights, r->column_weights, r->outer, r->inner, r->out_height,
        r->out_width, r->height * r->width * r->inner, r->width * r->inner, r->inner, r->rows_per_item};
    resize_item(taps, &shape, item, resize_store, r);
}

/* A row of the input along its width, as long as the output's. */
INLINE void resize_line(const int taps, const struct resize_image *r, const float *x, float *line) {
    const int32_t *at = r->columns_at;
    const float *weights = r->column_weights;
    for (long i = 0; i < r->out_width; i++, at += taps, weights += taps) {
        float sum = taps == 1 ? x[at[0]] : 0.0f;
        if (taps > 1)
            UNROLL for (int t = 0; t < taps; t++) sum += weights[t] * x[at[t]];
        line[i] = sum;
    }
}

/* What rows of the input make of an output row. */
INLINE void resize_rows(const int taps, const struct resize_image *r, const float *const *lines, const float *weights,
                        float *y, long step) {
    long i = 0;
    for (; i < r->out_width; i += VL) {
        const long lanes = long_min(VL, r->out_width - i);
        vf sum = taps == 1 ? vf_load_first(lines[0] + i, lanes) : (vf){0};
        if (taps > 1)
            UNROLL for (int t = 0; t < taps; t++) sum += vf_load_first(lines[t] + i, lanes) * vf_all(weights[t]);
        if (step == 1)
            vf_store_first(y + i, sum, lanes);
        else
            for (long lane = 0; lane < lanes; lane++) y[(i + lane) * step] = sum[lane];
    }
}

INLINE void resize_planes_item(const int taps, const struct resize_image *r, long item) {
    const long bands = (r->out_height + r->rows_per_item - 1) / r->rows_per_item, plane = item / bands;
    const float *x = r->x + plane * r->height * r->width;
    float *y = r->y + (r->y_last ? plane / r->inner * r->out_height * r->out_width * r->inner + plane % r->inner
                                 : plane * r->out_height * r->out_width);
    const long step = r->y_last ? r->inner : 1;
    float *const kept = r->lines + pool_thread(r->pool) * taps * r->out_width;
    long held[4] = {-1, -1, -1, -1}; /* the row of the input in each line: four that follow each other have one each */
    long oy = item % bands * r->rows_per_item;
    for (const long end = long_min(oy + r->rows_per_item, r->out_height); oy < end; oy++) {
        const float *lines[4];
        for (int t = 0; t < taps; t++) {
            const long row = r->rows_at[oy * taps + t], slot = row % taps;
            float *line = kept + slot * r->out_width;
            if (held[slot] != row) resize_line(taps, r, x + row * r->width, line);
            held[slot] = row, lines[t] = line;
        }
        resize_rows(taps, r, lines, r->row_weights + oy * taps, y + oy * r->out_width * step, step);
    }
}

#define RESIZE_TASK(taps)                                                      \
    static __attribute__((unused)) void resize_task_##taps(void *context, long item) { \
        const struct resize_image *r = context;                                \
        if (resize_by_pixel(r)) resize_pixels_item(taps, r, item);             \
        else resize_planes_item(taps, r, item);                                \
    }
RESIZE_TASK(1)
RESIZE_TASK(2)
RESIZE_TASK(4)

/* Resize; `taps`, a constant, is 1 (nearest), 2 (linear) or 4 (cubic). scratch: resize_image_floats. */
INLINE void resize_image_run(const int taps, struct resize_image *r, struct pool *pool, float *scratch) {
    const long images = resize_by_pixel(r) ? r->outer : r->outer * r->inner;
    const long points = r->outer * r->inner * r->out_height * r->out_width;
    if (points <= 0) return;
    r->rows_at = (int32_t *)scratch, r->columns_at = r->rows_at + taps * r->out_height;
    r->row_weights = scratch + taps * (r->out_height + r->out_width);
    r->column_weights = r->row_weights + taps * r->out_height;
    r->lines = r->column_weights + taps * r->out_width, r->pool = pool;
    resize_table(taps, r, r->height, r->out_height, r->row_scale, r->rows_at, r->row_weights);
    resize_table(taps, r, r->width, r->out_width, r->column_scale, r->columns_at, r->column_weights);
    const long threads = pool_threads(pool), wanted = long_max(1, long_min(points / RESIZE_LITTLE, 4 * threads));
    const long bands = threads == 1 ? 1 : long_min((wanted + images - 1) / images, r->out_height);
    r->rows_per_item = (r->out_height + bands - 1) / bands;
    const long items = images * ((r->out_height + r->rows_per_item - 1) / r->rows_per_item);
    pool_run(pool, taps == 1 ? resize_task_1 : taps == 2 ? resize_task_2 : resize_task_4, r, items);
}

#endif
