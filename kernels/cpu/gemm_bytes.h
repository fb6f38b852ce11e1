/* gemm.h over bytes: C = (A - zero) B in int32, A [M, K] of uint8 or int8, B [K, N] of int8 in panels of words (bytes.h).
 *
 * What the zero point takes from every row, zero * (the sum of a column of B), is the start hook's value. int8 is uint8 with
 * its highest bit turned, less 128. A is read where it lies if it can be; else it is copied first, by all threads.
 *
 *   struct gemm_bytes call = {.a = ..., .flip = 0x80 for int8, .panels = ..., .start = ..., .c = ..., .rows = M, ...};
 *   scratch: gemm_bytes_floats(&call) floats
 *   gemm_bytes_run(&call, scratch);
 */
#ifndef FUSIBLE_GEMM_BYTES_H
#define FUSIBLE_GEMM_BYTES_H

#include "gemm.h"
#include "pool.h"

#define GEMM_BYTES_PART (64 * 1024) /* bytes of A that a thread should copy at once, at least */

struct gemm_bytes {
    const uint8_t *a;
    uint8_t flip;
    const float *panels;
    const int32_t *start; /* [N] */
    int32_t *c;
    long rows, columns, depth;
    struct pool *pool;
    /* for gemm_bytes_run alone */
    float *words, *scratch;
    long parts;
    struct gemm words_of;
    struct gemm_tiling tiling;
};

/* Rows are words already, and not so far apart that they displace one another in L1. */
INLINE int gemm_bytes_direct(const struct gemm_bytes *g) { return !g->flip && g->depth % 4 == 0 && g->depth % 4096 != 0; }

/* Words from one row to the next. */
INLINE long gemm_bytes_row(const struct gemm_bytes *g) {
    const long words = bytes_words(g->depth);
    return gemm_bytes_direct(g) ? words : panels_round_up(words, 16) + 16;
}

INLINE struct gemm_tiling gemm_bytes_tiling(const struct gemm_bytes *g) {
    return gemm_items(1, g->rows, g->columns, bytes_words(g->depth), pool_threads(g->pool));
}

INLINE long gemm_bytes_copied(const struct gemm_bytes *g) {
    return gemm_bytes_direct(g) ? 0 : panels_round_up(g->rows * gemm_bytes_row(g), 16);
}

/* Floats of scratch for a run. */
INLINE long gemm_bytes_floats(const struct gemm_bytes *g) {
    const struct gemm_tiling tiling = gemm_bytes_tiling(g);
    const long partial = gemm_scratch_size(&tiling, g->rows, bytes_words(g->depth));
    return gemm_bytes_copied(g) + pool_threads(g->pool) * partial;
}

/* A part of the rows, copied: bytes turned, and zeros to the end of the last word. */
static void gemm_bytes_copy(void *context, long part) {
    const struct gemm_bytes *g = context;
    const long row = gemm_bytes_row(g), end = part_begin(g->rows, g->parts, part + 1);
    for (long r = part_begin(g->rows, g->parts, part); r < end; r++) {
        uint8_t *to = (uint8_t *)(g->words + r * row);
        const uint8_t *from = g->a + r * g->depth;
        for (long k = 0; k < g->depth; k++) to[k] = from[k] ^ g->flip;
        for (long k = g->depth; k < 4 * bytes_words(g->depth); k++) to[k] = 0;
    }
}

INLINE vf gemm_bytes_start(const void *context, long row, long column, long lanes) {
    const struct gemm_bytes *g = context;
    (void)row;
    return vf_load_first((const float *)g->start + column, lanes);
}

INLINE void gemm_bytes_finish(const void *context, vf value, long row, long column, long lanes) {
    const struct gemm_bytes *g = context;
    vf_store_first((float *)g->c + row * g->columns + column, value, lanes);
}

static void gemm_bytes_item(void *context, long item) {
    const struct gemm_bytes *g = context;
    const long partial = gemm_scratch_size(&g->tiling, g->rows, g->words_of.depth);
    float *scratch = partial ? g->scratch + pool_thread(g->pool) * partial : NULL;
    gemm_item_as(GEMM_BYTES, &g->words_of, &g->tiling, item, scratch, gemm_bytes_start, gemm_bytes_finish, g);
}

static inline void gemm_bytes_run(struct gemm_bytes *g, float *scratch) {
    const long copied = gemm_bytes_copied(g);
    g->words = scratch;
    g->scratch = scratch + copied;
    if (copied) {
        const long wanted = g->rows * g->depth / GEMM_BYTES_PART, most = gemm_smaller(g->rows, 4 * pool_threads(g->pool));
        g->parts = wanted < 1 ? 1 : gemm_smaller(wanted, most);
        pool_run(g->pool, gemm_bytes_copy, g, g->parts);
    }
    g->words_of = (struct gemm){.batch = 1, .rows = g->rows, .columns = g->columns, .depth = bytes_words(g->depth),
                                .a = copied ? g->words : (const float *)g->a, .a_row = gemm_bytes_row(g), .a_depth = 1,
                                .b = g->panels};
    g->tiling = gemm_bytes_tiling(g);
    pool_run(g->pool, gemm_bytes_item, g, g->tiling.items);
}

#endif
