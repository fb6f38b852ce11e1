/* Attention without the matrix of scores: O = softmax(scale Q K^T + bias) V for each head.
 *
 *   Q [batch, heads, queries, head_size]   K [batch, kv_heads, keys, head_size]   V [batch, kv_heads, keys, value_size]
 *
 * with a stride for every axis; kv_heads divides heads (grouped-query attention). FlashAttention (Dao et al. 2022) with
 * the online softmax of Milakov and Gimelshein (2018): an item holds a block of queries of one head and passes over the
 * keys in blocks, keeping the running maximum and sum of each query and rescaling the output when the maximum grows.
 *
 * Scores are computed transposed, [keys, queries]: Q is packed once an item and K is read where it lies, as the operand
 * whose elements are broadcast; maximum, sum and exponential then run down the lanes, with no reduction across them;
 * and the columns of the block are the broadcast operand of the product with V, which is read where it lies too.
 * Both products are the register tiles of gemm.h. A single query (decoding) takes another way: one pass over K and V.
 *
 * A query that sees no key, or only scores of -infinity, gives zeros. Head sizes up to 256 keep an item in L2.
 */
#ifndef FUSIBLE_ATTENTION_H
#define FUSIBLE_ATTENTION_H

#include "gemm.h"
#include "vector_math.h"

#define ATTENTION_QUERIES 64 /* of a block; a multiple of 16 */
#if VL == 16
#define ATTENTION_KEYS 84    /* of a block: six whole strips of gemm.h */
#else
#define ATTENTION_KEYS 64
#endif
#define ATTENTION_DECODE_KEYS 256

/* Strides in floats. */
struct attention_strides {
    long batch, head, row, column;
};

struct attention {
    long batch, heads, kv_heads, queries, keys, head_size, value_size;
    const float *q, *k, *v;
    struct attention_strides q_strides, k_strides, v_strides;
    float scale;
    int causal;         /* query i sees the keys j <= i + causal_offset */
    long causal_offset;
};

/* The scores of one key with `lanes` queries from `query` on, scaled; returns them with a bias, a mask (-infinity), a
 * soft cap. Lanes beyond `lanes` are ignored. */
typedef vf score_hook(const void *context, vf score, long query, long key, long lanes);

INLINE vf score_unchanged(const void *context, vf score, long query, long key, long lanes) {
    (void)context, (void)query, (void)key, (void)lanes;
    return score;
}

#define ATTENTION_ROUND(SIZE) (((SIZE) + 15) / 16 * 16)
/* Floats of scratch that an item needs: a constant expression for constant sizes, so that a task may have it on its
 * stack, where it stays in the cache (66 KB for heads of 64, 214 KB for heads of 256). */
#define ATTENTION_SCRATCH(HEAD_SIZE, VALUE_SIZE)                                                     \
    (ATTENTION_QUERIES * ATTENTION_ROUND(HEAD_SIZE) + ATTENTION_KEYS * ATTENTION_QUERIES +           \
     (ATTENTION_QUERIES + ATTENTION_KEYS) * ATTENTION_ROUND(VALUE_SIZE) + 3 * ATTENTION_QUERIES)

INLINE long attention_scratch_size(const struct attention *a) { return ATTENTION_SCRATCH(a->head_size, a->value_size); }

/* Blocks of queries of a head: whole 16s of queries, nearly equal. */
INLINE long attention_units(const struct attention *a) { return gemm_ceil_divide(a->queries, 16); }
INLINE long attention_blocks(const struct attention *a) {
    return gemm_ceil_divide(attention_units(a), ATTENTION_QUERIES / 16);
}

INLINE long attention_items(const struct attention *a) { return a->batch * a->heads * attention_blocks(a); }

/* batch * heads + head of an item: the hooks' rows are queries of that head. */
INLINE long attention_item_head(const struct attention *a, long item) { return item / attention_blocks(a); }

/* One item at work. `keys` are those that its last query sees. */
struct attention_block {
    const struct attention *attention;
    const float *q, *k, *v;
    long first_query, queries, keys;
    long output_row;    /* floats from one query's output to the next */
    float *packed_q;    /* panels [head_size][queries] */
    float *scores;      /* [ATTENTION_KEYS][ATTENTION_QUERIES] */
    float *output;      /* [queries][output_row], not yet divided by the sums */
    float *values;      /* V's rows of the block of keys where they cannot be read in place */
    float *largest, *sum, *correction;
};

INLINE struct attention_block attention_block_of(const struct attention *a, long item, float *scratch) {
    long head = attention_item_head(a, item), blocks = attention_blocks(a), index = item % blocks;
    if (a->causal) index = blocks - 1 - index; /* the longest items first */
    long batch = head / a->heads, kv_head = head % a->heads / (a->heads / a->kv_heads);
    struct attention_block b = {.attention = a, .output_row = ATTENTION_ROUND(a->value_size)};
    b.first_query = 16 * part_begin(attention_units(a), blocks, index);
    b.queries = gemm_smaller(a->queries, 16 * part_begin(attention_units(a), blocks, index + 1)) - b.first_query;
    b.q = a->q + batch * a->q_strides.batch + head % a->heads * a->q_strides.head + b.first_query * a->q_strides.row;
    b.k = a->k + batch * a->k_strides.batch + kv_head * a->k_strides.head;
    b.v = a->v + batch * a->v_strides.batch + kv_head * a->v_strides.head;
    b.keys = a->causal ? gemm_smaller(a->keys, b.first_query + b.queries + a->causal_offset) : a->keys;
    b.packed_q = scratch;
    b.scores = b.packed_q + ATTENTION_QUERIES * ATTENTION_ROUND(a->head_size);
    b.output = b.scores + ATTENTION_KEYS * ATTENTION_QUERIES;
    b.values = b.output + ATTENTION_QUERIES * b.output_row;
    b.largest = b.values + ATTENTION_KEYS * b.output_row;
    b.sum = b.largest + ATTENTION_QUERIES;
    b.correction = b.sum + ATTENTION_QUERIES;
    return b;
}

INLINE void attention_begin(const struct attention_block *b) {
    const struct attention *a = b->attention;
    struct panels_source q = {b->q, a->head_size, b->queries, a->q_strides.column, a->q_strides.row};
    for (long panel = 0; panel < panels_count(b->queries); panel++) panels_pack(&q, b->packed_q, panel);
    for (long i = 0; i < ATTENTION_QUERIES; i++) b->largest[i] = -__builtin_inff(), b->sum[i] = 0;
    memset(b->output, 0, (size_t)(b->queries * b->output_row) * sizeof *b->output);
}

/* Hooks of the two products; the context is the block. */
INLINE void attention_store_score(const void *context, vf value, long key, long query, long lanes) {
    const struct attention_block *b = context;
    vf_store_first(b->scores + key * ATTENTION_QUERIES + query, value, lanes);
}
INLINE vf attention_load_output(const void *context, long query, long column, long lanes) {
    const struct attention_block *b = context;
    return vf_load_first(b->output + query * b->output_row + column, lanes) * b->correction[query];
}
INLINE void attention_store_output(const void *context, vf value, long query, long column, long lanes) {
    const struct attention_block *b = context;
    vf_store_first(b->output + query * b->output_row + column, value, lanes);
}

/* scores[key][query] = K Q^T for `keys` keys from `first_key` on; not inlined, as no hook of the caller takes part. */
static __attribute__((noinline, unused)) void attention_scores(const struct attention_block *b, long first_key,
                                                               long keys) {
    const struct attention *a = b->attention;
    long strips = gemm_ceil_divide(keys, GEMM_ROWS);
    const float *k = b->k + first_key * a->k_strides.row;
    for (long panel = 0; panel < panels_count(b->queries); panel++) {
        long width = panels_width(b->queries, panel);
        const float *q = b->packed_q + panels_offset(a->head_size, panel);
        struct gemm_tile t = {.a_row = a->k_strides.row, .a_depth = a->k_strides.column, .b_depth = width,
                              .depth = a->head_size, .first = 1, .last = 1};
        for (long column = 0; column < width; column += GEMM_COLUMNS) {
            t.b = q + column;
            t.column = panel * PANEL_COLUMNS + column;
            t.lanes = t.width = gemm_smaller(width - column, GEMM_COLUMNS);
            for (long strip = 0; strip < strips; strip++) {
                t.row = part_begin(keys, strips, strip);
                t.a = k + t.row * t.a_row;
                gemm_tile_run(GEMM_FLOATS, part_begin(keys, strips, strip + 1) - t.row, &t, start_zero, attention_store_score, b);
            }
        }
    }
}

/* V's rows of the block with neighbouring columns, a multiple of 8 of them; `row` becomes the stride. */
INLINE const float *attention_values(const struct attention_block *b, long first_key, long keys, long *row) {
    const struct attention *a = b->attention;
    const float *v = b->v + first_key * a->v_strides.row;
    *row = a->v_strides.row;
    if (a->v_strides.column == 1 && a->value_size % 8 == 0) return v;
    for (long key = 0; key < keys; key++)
        for (long column = 0; column < b->output_row; column++)
            b->values[key * b->output_row + column] =
                column < a->value_size ? v[key * a->v_strides.row + column * a->v_strides.column] : 0;
    *row = b->output_row;
    return b->values;
}

/* output = output * correction + P V. */
static __attribute__((noinline, unused)) void attention_accumulate(const struct attention_block *b, long first_key,
                                                                   long keys) {
    struct gemm_tile t = {.a_row = 1, .a_depth = ATTENTION_QUERIES, .depth = keys, .first = 1, .last = 1};
    const float *v = attention_values(b, first_key, keys, &t.b_depth);
    long columns = panels_round_up(b->attention->value_size, 8), strips = gemm_ceil_divide(b->queries, GEMM_ROWS);
    for (t.column = 0; t.column < columns; t.column += GEMM_COLUMNS) {
        t.b = v + t.column;
        t.lanes = t.width = gemm_smaller(columns - t.column, GEMM_COLUMNS);
        for (long strip = 0; strip < strips; strip++) {
            t.row = part_begin(b->queries, strips, strip);
            t.a = b->scores + t.row;
            gemm_tile_run(GEMM_FLOATS, part_begin(b->queries, strips, strip + 1) - t.row, &t, attention_load_output,
                          attention_store_output, b);
        }
    }
}

/* Scale, bias and mask one vector of scores in place. */
INLINE vf attention_score(const struct attention_block *b, long query, long first_key, long key, long lanes,
                          const int masked, score_hook *score, const void *context) {
    const struct attention *a = b->attention;
    float *at = b->scores + key * ATTENTION_QUERIES + query;
    vf value = score(context, vf_load(at) * a->scale, b->first_query + query, first_key + key, lanes);
    if (masked) {
        vi seen = vi_lanes() + (int32_t)(b->first_query + query + a->causal_offset - first_key - key);
        value = vf_select((vi)(seen < 0), -vf_infinity(), value);
    }
    vf_store(at, value);
    return value;
}

INLINE vf attention_largest(const struct attention_block *b, long query, long first_key, long keys, long lanes,
                            const int masked, score_hook *score, const void *context) {
    vf even = vf_load(b->largest + query), odd = even;
    long key = 0;
    for (; key + 2 <= keys; key += 2) {
        even = vf_max(even, attention_score(b, query, first_key, key, lanes, masked, score, context));
        odd = vf_max(odd, attention_score(b, query, first_key, key + 1, lanes, masked, score, context));
    }
    if (key < keys) even = vf_max(even, attention_score(b, query, first_key, key, lanes, masked, score, context));
    return vf_max(even, odd);
}

/* The largest of scores that are final. */
INLINE vf attention_largest_final(const struct attention_block *b, long query, long keys) {
    const float *at = b->scores + query;
    vf even = vf_load(at), odd = even;
    long key = 1;
    for (; key + 2 <= keys; key += 2) {
        even = vf_max(even, vf_load(at + key * ATTENTION_QUERIES));
        odd = vf_max(odd, vf_load(at + (key + 1) * ATTENTION_QUERIES));
    }
    if (key < keys) even = vf_max(even, vf_load(at + key * ATTENTION_QUERIES));
    return vf_max(even, odd);
}

/* One vector of queries: scores become exponentials; maximum, sum and correction are brought up to date. Products
 * without scale, hook and mask are scores already: they are read twice and written once. */
INLINE void attention_softmax(const struct attention_block *b, long query, long first_key, long keys, const int masked,
                              score_hook *score, const void *context) {
    long lanes = gemm_smaller(b->queries - query, VL);
    vf before = vf_load(b->largest + query);
    const int final = score == score_unchanged && !masked && b->attention->scale == 1.0f;
    vf largest = final ? vf_max(before, attention_largest_final(b, query, keys))
                       : attention_largest(b, query, first_key, keys, lanes, masked, score, context);
    vf offset = vf_select(largest == -vf_infinity(), (vf){0}, largest); /* no key seen yet: exponentials are zero */
    vf correction = vf_exp_negative(before - offset), sum = {0};
    for (long key = 0; key < keys; key++) {
        float *at = b->scores + key * ATTENTION_QUERIES + query;
        vf value = vf_exp_negative(vf_load(at) - offset);
        vf_store(at, value);
        sum += value;
    }
    vf_store(b->largest + query, largest);
    vf_store(b->correction + query, correction);
    vf_store(b->sum + query, vf_load(b->sum + query) * correction + sum);
}

INLINE void attention_finish(const struct attention_block *b, finish_hook *finish, const void *context) {
    long columns = b->attention->value_size;
    for (long query = 0; query < b->queries; query++) {
        const float *from = b->output + query * b->output_row;
        float inverse = b->sum[query] == 0 ? 0 : 1 / b->sum[query];
        long row = b->first_query + query, column = 0;
        for (; column + VL <= columns; column += VL) finish(context, vf_load(from + column) * inverse, row, column, VL);
        if (column < columns)
            finish(context, vf_load_first(from + column, columns - column) * inverse, row, column, columns - column);
    }
}

/* An item of several queries. */
INLINE void attention_queries(const struct attention_block *b, score_hook *score, finish_hook *finish,
                              const void *context) {
    const struct attention *a = b->attention;
    attention_begin(b);
    for (long first = 0; first < b->keys; first += ATTENTION_KEYS) {
        long keys = gemm_smaller(b->keys - first, ATTENTION_KEYS);
        int masked = a->causal && first + keys - 1 > b->first_query + a->causal_offset;
        attention_scores(b, first, keys);
        for (long query = 0; query < b->queries; query += VL) {
            if (masked) attention_softmax(b, query, first, keys, 1, score, context);
            else attention_softmax(b, query, first, keys, 0, score, context);
        }
        attention_accumulate(b, first, keys);
    }
    attention_finish(b, finish, context);
}

#include "attention_decode.h"

/* One item, 0 <= item < attention_items(a); `scratch`: attention_scratch_size(a) floats. */
INLINE void attention_item(const struct attention *a, long item, float *scratch, score_hook *score, finish_hook *finish,
                           const void *context) {
    struct attention_block b = attention_block_of(a, item, scratch);
    if (a->queries == 1 && a->k_strides.column == 1 && a->v_strides.column == 1)
        attention_decode(&b, score, finish, context);
    else
        attention_queries(&b, score, finish, context);
}

#endif
