/* gemm.h in bf16: C = A B with B in panels of words (bf16.h), sums in fp32.
 *
 * A is stored as floats. All of it is rounded first, once, by all threads, and then is a matrix of words with half the
 * depth: what reads it for each group of panels reads half the bytes.
 *
 *   call->tiling = gemm_items(batch, M, N, bf16_pairs(K), threads);
 *   pool_run(pool, round, call, gemm_bf16_parts(&call->gemm, threads));      gemm_bf16_round(&call->gemm, words, ...)
 *   call->words = gemm_bf16_words(&call->gemm, words);
 *   pool_run(pool, task, call, call->tiling.items);                          gemm_bf16_item(&call->words, ...)
 */
#ifndef FUSIBLE_GEMM_BF16_H
#define FUSIBLE_GEMM_BF16_H

#include "gemm.h"

/* Elements of A that a part should have at least: two threads meet again in the time that so many take. */
#define GEMM_BF16_PART (16 * 1024)

/* Words from one rounded row to the next: never a multiple of 4 KiB, which would displace one another in L1. */
INLINE long gemm_bf16_row(long depth) { return panels_round_up(bf16_pairs(depth), 16) + 16; }

/* Floats of memory for all of A, rounded. */
INLINE long gemm_bf16_size(const struct gemm *g) { return g->batch * g->rows * gemm_bf16_row(g->depth); }

/* Parts in which A is rounded. */
INLINE long gemm_bf16_parts(const struct gemm *g, long threads) {
    long rows = g->batch * g->rows, parts = rows * g->depth / GEMM_BF16_PART;
    if (parts > 4 * threads) parts = threads > 1 ? 4 * threads : 1;
    return parts > rows ? rows : parts > 1 ? parts : 1;
}

/* Round part 0 <= part < parts of A, whose depth and strides count floats, to `words` (gemm_bf16_size floats). */
INLINE void gemm_bf16_round(const struct gemm *g, float *words, long part, long parts) {
    const long rows = g->batch * g->rows, row = gemm_bf16_row(g->depth);
    for (long r = part_begin(rows, parts, part); r < part_begin(rows, parts, part + 1); r++) {
        const float *a = g->a + r / g->rows * g->a_batch + r % g->rows * g->a_row;
        bf16_round_row(words + r * row, a, g->a_depth, g->depth);
    }
}

/* The same product with A rounded: its depth and strides count words, as B's. */
INLINE struct gemm gemm_bf16_words(const struct gemm *g, const float *words) {
    const long row = gemm_bf16_row(g->depth);
    struct gemm made = *g;
    made.depth = bf16_pairs(g->depth);
    made.a = words;
    made.a_batch = g->rows * row;
    made.a_row = row;
    made.a_depth = 1;
    return made;
}

/* One item, 0 <= item < tiling->items, as gemm_item. words: from gemm_bf16_words. */
INLINE void gemm_bf16_item(const struct gemm *words, const struct gemm_tiling *tiling, long item, float *scratch,
                           start_hook *start, finish_hook *finish, const void *context) {
    gemm_item_as(GEMM_HALVES, words, tiling, item, scratch, start, finish, context);
}

#endif
