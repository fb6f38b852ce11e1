/* Softmax and log-softmax of one row of n values.
 *
 *   y[i] = exp(x[i] - max) / sum over j of exp(x[j] - max)        log y[i] = x[i] - max - log(sum)
 *
 * The `load` hook gives the row (scaled, masked, cast or gathered as it likes) and is called once for each vector; the
 * `finish` hook stores the results. Between them the row lives in `buffer`, n floats, which may be the output row
 * itself. Three passes over a buffer in L1 with one exponential an element are faster than the online form (Milakov and
 * Gimelshein, "Online normalizer calculation for softmax", 2018), which needs two.
 *
 * As in NumPy: a NaN or +infinity anywhere makes the row NaN, and so does a row of nothing but -infinity.
 */
#ifndef FUSIBLE_SOFTMAX_H
#define FUSIBLE_SOFTMAX_H

#include "hooks.h"
#include "vector_math.h"

/* The lanes below `lanes` of value, and `other` in the rest. */
INLINE vf softmax_lanes(vf value, float other, long lanes) {
    if (__builtin_constant_p(lanes == VL) && lanes == VL) return value;
    return vf_select(vi_first_lanes(lanes), value, vf_all(other));
}

/* Fill the buffer; the largest value. */
INLINE float softmax_largest(long row, long n, float *buffer, start_hook *load, const void *context) {
    vf even = -vf_infinity(), odd = even;
    long column = 0;
    for (; column + 2 * VL <= n; column += 2 * VL) {
        vf first = load(context, row, column, VL), second = load(context, row, column + VL, VL);
        vf_store(buffer + column, first);
        vf_store(buffer + column + VL, second);
        even = vf_max(even, first);
        odd = vf_max(odd, second);
    }
    for (long lanes; column < n; column += lanes) {
        lanes = n - column < VL ? n - column : VL;
        vf value = load(context, row, column, lanes);
        vf_store_first(buffer + column, value, lanes);
        even = vf_max(even, softmax_lanes(value, -__builtin_inff(), lanes));
    }
    return vf_largest(vf_max(even, odd));
}

/* exp(x - largest), kept in the buffer if `keep`; its sum. */
INLINE float softmax_sum(long n, float *buffer, float largest, const int keep) {
    vf sum = {0};
    long column = 0;
    for (; column + VL <= n; column += VL) {
        vf value = vf_exp_negative(vf_load(buffer + column) - largest);
        if (keep) vf_store(buffer + column, value);
        sum += value;
    }
    if (column < n) {
        long lanes = n - column;
        vf value = vf_exp_negative(vf_load_first(buffer + column, lanes) - largest);
        if (keep) vf_store_first(buffer + column, value, lanes);
        sum += softmax_lanes(value, 0, lanes);
    }
    return vf_sum(sum);
}

/* finish(buffer * scale - largest - log_sum) for the whole row. */
INLINE void softmax_finish(long row, long n, const float *buffer, float scale, float largest, float log_sum,
                           finish_hook *finish, const void *context) {
    long column = 0;
    for (; column + VL <= n; column += VL)
        finish(context, vf_load(buffer + column) * scale - largest - log_sum, row, column, VL);
    if (column < n) {
        vf value = vf_load_first(buffer + column, n - column) * scale - largest - log_sum;
        finish(context, value, row, column, n - column);
    }
}

INLINE void softmax_row(long row, long n, float *buffer, start_hook *load, finish_hook *finish, const void *context) {
    float largest = softmax_largest(row, n, buffer, load, context);
    float sum = softmax_sum(n, buffer, largest, 1);
    softmax_finish(row, n, buffer, 1 / sum, 0, 0, finish, context);
}

INLINE void log_softmax_row(long row, long n, float *buffer, start_hook *load, finish_hook *finish,
                            const void *context) {
    float largest = softmax_largest(row, n, buffer, load, context);
    float sum = softmax_sum(n, buffer, largest, 0);
    softmax_finish(row, n, buffer, 1, largest, vf_log(vf_all(sum))[0], finish, context);
}

#endif
