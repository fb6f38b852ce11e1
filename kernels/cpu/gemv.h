/* C = A B for few rows: A [M, K] strided, 1 <= M <= 4, B [K, N] in panels (panels.h), C written by a hook.
 *
 * A classifier layer or a decoding step reads every weight for two to eight flops, so the time is that of streaming B.
 * Each panel is read once, from its beginning to its end, several cache lines ahead, for all rows. The accumulators of
 * a row are the panel's columns times two phases of k (even and odd): enough independent sums to hide the latency of a
 * multiply-add. Where registers do not hold all rows, they take turns over a chunk of the panel that stays in L1.
 *
 * Items are groups of panels; a panel's arithmetic does not depend on its group.
 *
 * B may be words of bf16 (bf16.h): half the bytes for the same products, which are computed in fp32 with A as it is.
 */
#ifndef FUSIBLE_GEMV_H
#define FUSIBLE_GEMV_H

#include "bf16.h"
#include "panels.h"

#define GEMV_MAX_ROWS 4
/* Vectors of one panel. */
#define GEMV_VECTORS (PANEL_COLUMNS / VL)
/* Floats of B fetched ahead: 4 KB. */
#define GEMV_AHEAD 1024
/* Steps of k between two rows' turns: 16 KB of a full panel. */
#define GEMV_CHUNK 128
/* Bytes of B below which another item costs more than it brings. */
#define GEMV_ITEM_BYTES (32 * 1024)

/* Element [m, k] of A stands at a[m * a_row + k * a_depth]. */
struct gemv {
    long rows, columns, depth;
    const float *a;
    long a_row, a_depth;
    const float *b;
};

/* Into how many groups the panels are split: several a thread, none too small. `depth`: words, if B is words. */
INLINE long gemv_items(long columns, long depth, long threads) {
    long panels = panels_count(columns), bytes = panels_size(depth, columns) * (long)sizeof(float);
    long items = threads > 1 ? 4 * threads : 1;
    if (items > bytes / GEMV_ITEM_BYTES) items = bytes / GEMV_ITEM_BYTES;
    if (items < 1) items = columns > 0;
    return items < panels ? items : panels;
}

/* sum[phases][rows][vectors] += `phases` steps of k. */
INLINE void gemv_step(const int rows, const int vectors, const int phases, const struct gemv *g, const float *a,
                      const float *b, long width, vf *sum) {
    UNROLL for (int phase = 0; phase < phases; phase++) {
        const float *line = b + phase * width;
        vf element[GEMV_MAX_ROWS];
        UNROLL for (int i = 0; i < rows; i++) element[i] = vf_all(a[i * g->a_row + phase * g->a_depth]);
        UNROLL for (int j = 0; j < vectors; j++) {
            if (j * VL % 16 == 0) prefetch(line + GEMV_AHEAD + j * VL);
            vf column = panels_load(line, j, width);
            UNROLL for (int i = 0; i < rows; i++) sum[(phase * rows + i) * vectors + j] += element[i] * column;
        }
    }
}

/* sum[phases][rows][vectors] += the first `steps` elements of a line of words: the second ones go to the last phase. */
INLINE void gemv_step_bf16(const int rows, const int vectors, const int phases, const int steps, const struct gemv *g,
                           const float *a, const float *line, long width, vf *sum) {
    vf element[2 * GEMV_MAX_ROWS];
    UNROLL for (int i = 0; i < steps * rows; i++) element[i] = vf_all(a[i % rows * g->a_row + i / rows * g->a_depth]);
    UNROLL for (int j = 0; j < vectors; j++) {
        if (j * VL % 16 == 0) prefetch(line + GEMV_AHEAD + j * VL);
        vi words = (vi)panels_load(line, j, width);
        UNROLL for (int i = 0; i < steps * rows; i++)
            sum[(i / rows * (phases - 1) * rows + i % rows) * vectors + j] += element[i] * bf16_half(i / rows, words);
    }
}

/* `rows` rows times `depth` steps of a panel of `vectors` vectors, added to sum[rows][vectors]. */
INLINE void gemv_chunk(const int bf16, const int rows, const int vectors, const struct gemv *g, const float *a,
                       const float *b, long depth, long width, vf *sum) {
    const int phases = rows * vectors * 2 <= VECTOR_REGISTERS / 2 ? 2 : 1;
    vf part[2 * GEMV_MAX_ROWS * GEMV_VECTORS];
    UNROLL for (int i = 0; i < phases * rows * vectors; i++) part[i] = i < rows * vectors ? sum[i] : (vf){0};
    long k = 0;
    if (bf16) {
        for (; k + 2 <= depth; k += 2, a += 2 * g->a_depth, b += width)
            gemv_step_bf16(rows, vectors, phases, 2, g, a, b, width, part);
        if (k < depth) gemv_step_bf16(rows, vectors, phases, 1, g, a, b, width, part);
    } else {
        for (; k + phases <= depth; k += phases, a += phases * g->a_depth, b += phases * width)
            gemv_step(rows, vectors, phases, g, a, b, width, part);
        if (k < depth) gemv_step(rows, vectors, 1, g, a, b, width, part);
    }
    UNROLL for (int i = 0; i < rows * vectors; i++) {
        if (phases == 2) part[i] += part[rows * vectors + i];
        sum[i] = part[i];
    }
}

/* A turn of 1 or 2 rows as a function of its own: inlined among the turns of others, its sums lose their registers. */
#if VL == 4
#define GEMV_WIDTHS(X) X(2) X(4) X(6) X(8)
#elif VL == 8
#define GEMV_WIDTHS(X) X(1) X(2) X(3) X(4)
#else
#define GEMV_WIDTHS(X) X(1) X(2)
#endif
#define GEMV_TURN_FUNCTION(NAME, BF16, TURN, VECTORS)                                                         \
    static __attribute__((noinline, unused)) void NAME##_##TURN##_##VECTORS(                                  \
        const struct gemv *g, const float *a, const float *b, long depth, long width, vf *sum) {              \
        gemv_chunk(BF16, TURN, VECTORS, g, a, b, depth, width, sum);                                          \
    }
#define GEMV_TURN_FUNCTIONS(VECTORS)                  \
    GEMV_TURN_FUNCTION(gemv_turn, 0, 1, VECTORS)      \
    GEMV_TURN_FUNCTION(gemv_turn, 0, 2, VECTORS)      \
    GEMV_TURN_FUNCTION(gemv_turn_bf16, 1, 1, VECTORS) \
    GEMV_TURN_FUNCTION(gemv_turn_bf16, 1, 2, VECTORS)
GEMV_WIDTHS(GEMV_TURN_FUNCTIONS)
#undef GEMV_TURN_FUNCTIONS
#undef GEMV_TURN_FUNCTION

INLINE void gemv_one_turn(const int bf16, const int turn, const int vectors, const struct gemv *g, const float *a,
                          const float *b, long depth, long width, vf *sum) {
#define GEMV_ONE_TURN(VECTORS)                                                               \
    if (vectors == VECTORS) {                                                                \
        if (bf16 && turn == 1) gemv_turn_bf16_1_##VECTORS(g, a, b, depth, width, sum);       \
        else if (bf16) gemv_turn_bf16_2_##VECTORS(g, a, b, depth, width, sum);               \
        else if (turn == 1) gemv_turn_1_##VECTORS(g, a, b, depth, width, sum);               \
        else gemv_turn_2_##VECTORS(g, a, b, depth, width, sum);                              \
    }
    GEMV_WIDTHS(GEMV_ONE_TURN)
#undef GEMV_ONE_TURN
}

/* Rows that take a turn together; a divisor of `rows`. */
INLINE int gemv_turn(const int rows, const int vectors) {
    const int most = VECTOR_REGISTERS * 3 / 4 / vectors;
    return rows <= most ? rows : rows == 4 && most >= 2 ? 2 : 1;
}

INLINE void gemv_panel(const int bf16, const int rows, const int vectors, const struct gemv *g, long panel,
                       start_hook *start, finish_hook *finish, const void *context) {
    const int turn = gemv_turn(rows, vectors);
    long first = panel * PANEL_COLUMNS, width = panels_width(g->columns, panel);
    const float *b = g->b + panels_offset(bf16 ? bf16_pairs(g->depth) : g->depth, panel);
    long lanes[GEMV_VECTORS];
    vf sum[GEMV_MAX_ROWS * GEMV_VECTORS];
    UNROLL for (int j = 0; j < vectors; j++) {
        long left = g->columns - first - j * VL;
        lanes[j] = left < 0 ? 0 : left < VL ? left : VL;
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sum[i * vectors + j] = start(context, i, first + j * VL, lanes[j]);
    for (long k = 0, depth; k < g->depth; k += depth) {
        depth = turn == rows || g->depth - k < GEMV_CHUNK ? g->depth - k : GEMV_CHUNK;
        const float *a = g->a + k * g->a_depth, *from = b + (bf16 ? k / 2 : k) * width;
        if (turn == rows) gemv_chunk(bf16, rows, vectors, g, a, from, depth, width, sum);
        else
            for (int i = 0; i < rows; i += turn)
                gemv_one_turn(bf16, turn, vectors, g, a + i * g->a_row, from, depth, width, sum + i * vectors);
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            if (lanes[j]) finish(context, sum[i * vectors + j], i, first + j * VL, lanes[j]);
}

INLINE void gemv_rows(const int bf16, const int rows, const struct gemv *g, long panel, start_hook *start,
                      finish_hook *finish, const void *context) {
    long vectors = (panels_width(g->columns, panel) + VL - 1) / VL;
#define GEMV_PANEL(VECTORS)                            \
    if (VECTORS <= GEMV_VECTORS && vectors == VECTORS) \
        gemv_panel(bf16, rows, VECTORS, g, panel, start, finish, context);
    GEMV_WIDTHS(GEMV_PANEL)
#undef GEMV_PANEL
}

INLINE void gemv_panels(const int bf16, const struct gemv *g, long items, long item, start_hook *start,
                        finish_hook *finish, const void *context) {
    long panels = panels_count(g->columns), last = panels * (item + 1) / items;
    for (long panel = panels * item / items; panel < last; panel++) {
        if (g->rows == 1) gemv_rows(bf16, 1, g, panel, start, finish, context);
        else if (g->rows == 2) gemv_rows(bf16, 2, g, panel, start, finish, context);
        else if (g->rows == 3) gemv_rows(bf16, 3, g, panel, start, finish, context);
        else gemv_rows(bf16, 4, g, panel, start, finish, context);
    }
}

/* One of `items` items. The number of rows should be known where this is inlined: then only its code remains. */
INLINE void gemv_item(const struct gemv *g, long items, long item, start_hook *start, finish_hook *finish,
                      const void *context) {
    gemv_panels(0, g, items, item, start, finish, context);
}

/* The same where B is words of bf16. */
INLINE void gemv_bf16_item(const struct gemv *g, long items, long item, start_hook *start, finish_hook *finish,
                           const void *context) {
    gemv_panels(1, g, items, item, start, finish, context);
}

#endif
