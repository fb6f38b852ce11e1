/* gemm.h in bf16: C = A B with B in panels of words (bf16.h), sums in fp32.
 *
 * A is stored as floats. Before a strip of it meets a group of panels its rows are rounded, for the chunk of depth at
 * work, into scratch memory that stays in L2: one conversion of an element to its products with a group's columns.
 *
 * `struct gemm` as in gemm.h: `depth` is K, A's strides are floats, `b` and `b_batch` words. The tiling is that of
 * gemm_items(..., bf16_pairs(K), ...).
 */
#ifndef FUSIBLE_GEMM_BF16_H
#define FUSIBLE_GEMM_BF16_H

#include "gemm.h"

/* Words from one rounded row to the next: never a multiple of 4 KiB, which would displace one another in L1. */
INLINE long gemm_bf16_row(long depth) {
    return panels_round_up(gemm_smaller(bf16_pairs(depth), GEMM_DEPTH), 16) + 16;
}

/* Floats of scratch that an item needs. Items that run at once need one each. */
INLINE long gemm_bf16_scratch_size(const struct gemm_tiling *tiling, long rows, long depth) {
    return GEMM_ROWS * gemm_bf16_row(depth) + gemm_scratch_size(tiling, rows, bf16_pairs(depth));
}

/* One chunk of depth, counted in words, of a group of panels. */
INLINE void gemm_bf16_chunk(const struct gemm *g, const struct gemm_range *range, long batch, long first_word,
                            long last_word, float *scratch, start_hook *start, finish_hook *finish,
                            const void *context) {
    struct gemm words = *g;
    words.depth = bf16_pairs(g->depth);
    const float *b = g->b + batch * g->b_batch;
    const float *a = g->a + batch * g->a_batch + 2 * first_word * g->a_depth;
    const long elements = gemm_smaller(g->depth, 2 * last_word) - 2 * first_word, row = gemm_bf16_row(g->depth);
    struct gemm_tile t = {.a = scratch, .a_row = row, .a_depth = 1, .depth = last_word - first_word,
                          .first = first_word == 0, .last = last_word == words.depth,
                          .partial = words.depth > GEMM_DEPTH ? scratch + GEMM_ROWS * row : NULL};
    gemm_look_ahead(&words, range, b, first_word, &t);
    for (long strip = range->first_strip; strip < range->last_strip; strip++) {
        t.row = gemm_part(g->rows, range->strips, strip);
        long rows = gemm_part(g->rows, range->strips, strip + 1) - t.row;
        for (long i = 0; i < rows; i++)
            bf16_round_row(scratch + i * row, a + (t.row + i) * g->a_row, g->a_depth, elements);
        for (long panel = range->first_panel; panel < range->last_panel; panel++)
            gemm_strip_panel(1, &words, &t, rows, panel, first_word, b, start, finish, context);
    }
}

/* One item, 0 <= item < tiling->items, as gemm_item. `scratch`: gemm_bf16_scratch_size floats. */
INLINE void gemm_bf16_item(const struct gemm *g, const struct gemm_tiling *tiling, long item, float *scratch,
                           start_hook *start, finish_hook *finish, const void *context) {
    struct gemm_range range = gemm_item_range(g, tiling, item);
    long batch = gemm_item_batch(tiling, item), depth = bf16_pairs(g->depth);
    long chunks = depth ? gemm_ceil_divide(depth, GEMM_DEPTH) : 1;
    for (; range.first_panel < range.end_panel; range.first_panel = range.last_panel) {
        range.last_panel = gemm_smaller(range.first_panel + tiling->group, range.end_panel);
        for (long chunk = 0; chunk < chunks; chunk++)
            gemm_bf16_chunk(g, &range, batch, gemm_part(depth, chunks, chunk), gemm_part(depth, chunks, chunk + 1),
                            scratch, start, finish, context);
    }
}

#endif
