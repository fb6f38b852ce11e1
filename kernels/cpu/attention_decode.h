/* Attention of a single query, included by attention.h: decoding with a cache of keys and values.
 *
 * Every element of K and V is used once, so the time is that of reading them: a dot product for each key of a block,
 * the softmax along the block, then the weighted sum of V's rows, with the vectors along the head. The running maximum
 * and sum are scalars. K and V have neighbouring columns.
 */
#ifndef FUSIBLE_ATTENTION_DECODE_H
#define FUSIBLE_ATTENTION_DECODE_H

#include "attention.h"

/* Vectors of the output that a pass over V's rows accumulates in registers. */
#define ATTENTION_DECODE_VECTORS 8

/* The query with neighbouring elements. */
INLINE const float *attention_decode_query(const struct attention_block *b) {
    const struct attention *a = b->attention;
    for (long i = 0; i < a->head_size; i++) b->packed_q[i] = b->q[i * a->q_strides.column];
    return b->packed_q;
}

INLINE float attention_dot(const float *x, const float *y, long n) {
    vf sum[4] = {{0}};
    long i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLL for (int j = 0; j < 4; j++) sum[j] += vf_load(x + i + j * VL) * vf_load(y + i + j * VL);
    for (; i + VL <= n; i += VL) sum[0] += vf_load(x + i) * vf_load(y + i);
    if (i < n) sum[1] += vf_load_first(x + i, n - i) * vf_load_first(y + i, n - i);
    return vf_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* scores[key], ready for the exponential; their largest, at least `largest`. */
INLINE float attention_decode_scores(const struct attention_block *b, const float *query, long first_key, long keys,
                                     float largest, score_hook *score, const void *context) {
    const struct attention *a = b->attention;
    const float *k = b->k + first_key * a->k_strides.row;
    vf most = vf_all(largest);
    for (long key = 0; key < keys; key++, k += a->k_strides.row) {
        vf value = vf_all(attention_dot(query, k, a->head_size) * a->scale);
        value = score(context, value, 0, first_key + key, 1);
        b->scores[key] = value[0];
        most = vf_max(most, value);
    }
    return most[0];
}

/* scores become exponentials; their sum. */
INLINE float attention_decode_exp(const struct attention_block *b, long keys, float offset) {
    vf sum = {0};
    for (long key = 0, lanes; key < keys; key += lanes) {
        lanes = gemm_smaller(keys - key, VL);
        vf value = vf_exp_negative(vf_load_first(b->scores + key, lanes) - offset);
        vf_store_first(b->scores + key, value, lanes);
        sum += vf_select(vi_first_lanes(lanes), value, (vf){0});
    }
    return vf_sum(sum);
}

/* `vectors` vectors of the output from `column` on: output = output * correction + sum of scores[key] V[key]. */
INLINE void attention_decode_columns(const struct attention_block *b, const float *v, long column, const int vectors,
                                     long lanes, long keys, float correction) {
    long row = b->attention->v_strides.row;
    vf sum[ATTENTION_DECODE_VECTORS];
    UNROLL for (int j = 0; j < vectors; j++) sum[j] = vf_load(b->output + column + j * VL) * correction;
    for (long key = 0; key < keys; key++) {
        vf weight = vf_all(b->scores[key]);
        UNROLL for (int j = 0; j < vectors; j++)
            sum[j] += weight * vf_load_first(v + key * row + column + j * VL, vectors == 1 ? lanes : VL);
    }
    UNROLL for (int j = 0; j < vectors; j++) vf_store(b->output + column + j * VL, sum[j]);
}

INLINE void attention_decode_accumulate(const struct attention_block *b, long first_key, long keys, float correction) {
    const float *v = b->v + first_key * b->attention->v_strides.row;
    const int vectors = ATTENTION_DECODE_VECTORS;
    long columns = b->attention->value_size, column = 0;
    for (; column + vectors * VL <= columns; column += vectors * VL)
        attention_decode_columns(b, v, column, vectors, VL, keys, correction);
    for (; column < columns; column += VL)
        attention_decode_columns(b, v, column, 1, gemm_smaller(columns - column, VL), keys, correction);
}

INLINE void attention_decode(const struct attention_block *b, score_hook *score, finish_hook *finish,
                             const void *context) {
    const float *query = attention_decode_query(b);
    memset(b->output, 0, (size_t)b->output_row * sizeof *b->output);
    float largest = -__builtin_inff(), sum = 0;
    for (long first = 0; first < b->keys; first += ATTENTION_DECODE_KEYS) {
        long keys = gemm_smaller(b->keys - first, ATTENTION_DECODE_KEYS);
        float before = largest;
        largest = attention_decode_scores(b, query, first, keys, before, score, context);
        float offset = largest == -__builtin_inff() ? 0 : largest;
        float correction = vf_exp_negative(vf_all(before - offset))[0];
        sum = sum * correction + attention_decode_exp(b, keys, offset);
        attention_decode_accumulate(b, first, keys, correction);
    }
    b->sum[0] = sum;
    attention_finish(b, finish, context);
}

#endif
