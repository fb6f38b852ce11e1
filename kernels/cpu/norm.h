/* Layer normalization and RMS normalization of one row of n values.
 *
 *   layer:  y[i] = (x[i] - mean) / sqrt(variance + epsilon)       RMS:  y[i] = x[i] / sqrt(mean of squares + epsilon)
 *
 * The `load` hook gives the row (and may add a residual and store the sum); it is called once for each vector. The
 * `finish` hook gets y and applies gain and bias. Between them the row lives in `buffer`, n floats, which may be the
 * output row itself. The variance is that of the differences from the mean, in a second pass over L1: the difference of
 * the squares' mean and the mean's square would cancel.
 */
#ifndef FUSIBLE_NORM_H
#define FUSIBLE_NORM_H

#include "hooks.h"

/* Independent sums, to hide the latency of an addition. */
#define NORM_SUMS 4

/* What ONNX calls Mean and InvStdDev. */
struct norm_moments {
    float mean, inverse;
};

INLINE vf norm_lanes(vf value, long lanes) {
    if (__builtin_constant_p(lanes == VL) && lanes == VL) return value;
    return vf_select(vi_first_lanes(lanes), value, (vf){0});
}

/* Fill one vector of the buffer; its contribution to the sum of values or of squares. */
INLINE vf norm_load(long row, long column, long lanes, float *buffer, const int squares, start_hook *load,
                    const void *context) {
    vf value = load(context, row, column, lanes);
    vf_store_first(buffer + column, value, lanes);
    value = norm_lanes(value, lanes);
    return squares ? value * value : value;
}

INLINE float norm_first_sum(long row, long n, float *buffer, const int squares, start_hook *load, const void *context) {
    vf sum[NORM_SUMS] = {{0}};
    long column = 0;
    for (; column + NORM_SUMS * VL <= n; column += NORM_SUMS * VL)
        UNROLL for (int j = 0; j < NORM_SUMS; j++)
            sum[j] += norm_load(row, column + j * VL, VL, buffer, squares, load, context);
    for (; column + VL <= n; column += VL) sum[0] += norm_load(row, column, VL, buffer, squares, load, context);
    if (column < n) sum[0] += norm_load(row, column, n - column, buffer, squares, load, context);
    return vf_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* Sum of the squared differences from the mean. */
INLINE float norm_squares(long n, const float *buffer, float mean) {
    vf sum[NORM_SUMS] = {{0}};
    long column = 0;
    for (; column + NORM_SUMS * VL <= n; column += NORM_SUMS * VL)
        UNROLL for (int j = 0; j < NORM_SUMS; j++) {
            vf difference = vf_load(buffer + column + j * VL) - mean;
            sum[j] += difference * difference;
        }
    for (long lanes; column < n; column += lanes) {
        lanes = n - column < VL ? n - column : VL;
        vf difference = norm_lanes(vf_load_first(buffer + column, lanes) - mean, lanes);
        sum[0] += difference * difference;
    }
    return vf_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE void norm_finish(long row, long n, const float *buffer, struct norm_moments moments, finish_hook *finish,
                        const void *context) {
    long column = 0;
    for (; column + VL <= n; column += VL)
        finish(context, (vf_load(buffer + column) - moments.mean) * moments.inverse, row, column, VL);
    if (column < n)
        finish(context, (vf_load_first(buffer + column, n - column) - moments.mean) * moments.inverse, row, column,
               n - column);
}

INLINE struct norm_moments layer_norm_row(long row, long n, float epsilon, float *buffer, start_hook *load,
                                          finish_hook *finish, const void *context) {
    float mean = norm_first_sum(row, n, buffer, 0, load, context) / (float)n;
    float variance = norm_squares(n, buffer, mean) / (float)n;
    struct norm_moments moments = {mean, 1 / __builtin_sqrtf(variance + epsilon)};
    norm_finish(row, n, buffer, moments, finish, context);
    return moments;
}

INLINE struct norm_moments rms_norm_row(long row, long n, float epsilon, float *buffer, start_hook *load,
                                        finish_hook *finish, const void *context) {
    float squares = norm_first_sum(row, n, buffer, 1, load, context) / (float)n;
    struct norm_moments moments = {0, 1 / __builtin_sqrtf(squares + epsilon)};
    norm_finish(row, n, buffer, moments, finish, context);
    return moments;
}

#endif
