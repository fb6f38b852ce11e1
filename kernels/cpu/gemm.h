/* C = A B for each of a batch: A [M, K] strided, B [K, N] in panels (panels.h), C written by a hook.
 *
 * The blocking is that of Goto and van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008) and BLIS
 * (Van Zee and van de Geijn, 2015), less the packing of A, whose rows are read where they lie:
 *
 *   item     a range of strips times a range of panels
 *   group    panels of an item whose chunk of depth stays in L2; meanwhile the next group is fetched at a steady rate,
 *            because weights come from memory and the first strip would wait for them
 *   strip    at most GEMM_ROWS rows of A; all strips of a matrix differ by at most one row, so none is a poor tail
 *   tile     a strip times 2 VL columns of a panel, accumulated in registers: 14 x 32 (AVX-512), 6 x 16 (AVX2),
 *            8 x 8 (NEON), 6 x 8 (SSE)
 *
 * K up to GEMM_DEPTH runs through a tile at once. A longer one is cut into chunks, and partial sums pass through
 * scratch; the cut depends on K alone, so neither the number of threads nor the tiling changes a bit of the result.
 *
 *   static void task(void *context, long item) {
 *       const struct my_call *call = context;
 *       struct my_output output = {..., call->c + gemm_item_batch(&call->tiling, item) * call->c_batch};
 *       gemm_item(&call->gemm, &call->tiling, item, scratch, my_start, my_finish, &output);
 *   }
 */
#ifndef FUSIBLE_GEMM_H
#define FUSIBLE_GEMM_H

#include "bf16.h"
#include "bytes.h"
#include "panels.h"

#if VL == 16
#define GEMM_ROWS 14
#elif VECTOR_REGISTERS == 32
#define GEMM_ROWS 8
#else
#define GEMM_ROWS 6
#endif
#define GEMM_VECTORS 2
#define GEMM_COLUMNS (GEMM_VECTORS * VL)
#define GEMM_TILE (GEMM_ROWS * GEMM_VECTORS)

/* Depth of one chunk, and the bytes of B that a group may have: two groups and strips of A share L2. */
#define GEMM_DEPTH 1536
/* Steps of k by which B is fetched ahead of its use, all lines of a tile's columns: half a panel is every other cache
 * line, which not every hardware prefetcher follows. The first group comes from memory while nothing else is at work,
 * so where a core is fast it is small. */
#if VL == 16
#define GEMM_GROUP_BYTES (100 * 1024)
#define GEMM_PREFETCH 48
#else
#define GEMM_GROUP_BYTES (200 * 1024)
#define GEMM_PREFETCH 16
#endif
/* Multiplications below which splitting costs more than a second core brings. */
#define GEMM_SMALL_ITEM (64 * 1024)

/* Element [m, k] of matrix z of A stands at a[z * a_batch + m * a_row + k * a_depth]; B's panels at b + z * b_batch
 * (0: one B for all). */
struct gemm {
    long batch, rows, columns, depth;
    const float *a;
    long a_batch, a_row, a_depth;
    const float *b;
    long b_batch;
};

/* How the work is cut: `items` independent items, numbered with the batch outermost, then `shares` of the row blocks,
 * and row blocks innermost, so that neighbours share panels. A thread begins with items side by side. Where A and C are
 * larger than B there is a share for each thread, which then has the rows that it has in other kernels; where not, it
 * does not read all of B. */
struct gemm_tiling {
    long row_blocks, panel_blocks, items;
    long group; /* panels of a group */
    long shares;
};

INLINE long gemm_ceil_divide(long value, long by) { return (value + by - 1) / by; }
INLINE long gemm_smaller(long a, long b) { return a < b ? a : b; }

/* Cut until every thread has several items, unless they would become too small; the longer way first, so that an item
 * reuses both operands. */
INLINE struct gemm_tiling gemm_items(long batch, long rows, long columns, long depth, long threads) {
    if (!batch || !rows || !columns) return (struct gemm_tiling){1, 1, 0, 1, 1};
    long strips = gemm_ceil_divide(rows, GEMM_ROWS), panels = panels_count(columns);
    long panel_bytes = gemm_smaller(depth, GEMM_DEPTH) * PANEL_COLUMNS * (long)sizeof(float) + 1;
    long group = GEMM_GROUP_BYTES / panel_bytes ? GEMM_GROUP_BYTES / panel_bytes : 1;
    long row_blocks = 1, blocks = 1, wanted = threads > 1 ? 4 * threads : 1;
    while (batch * row_blocks * blocks < wanted) {
        long item_strips = gemm_ceil_divide(strips, row_blocks), item_panels = gemm_ceil_divide(panels, blocks);
        long work = item_strips * GEMM_ROWS * item_panels * PANEL_COLUMNS * depth;
        if (work < 2 * GEMM_SMALL_ITEM || (item_strips == 1 && item_panels == 1)) break;
        int by_rows = item_panels == 1 || (item_strips > 1 && item_strips * GEMM_ROWS > item_panels * PANEL_COLUMNS);
        if (by_rows) row_blocks = gemm_smaller(2 * row_blocks, strips);
        else blocks = gemm_smaller(2 * blocks, panels);
    }
    int is_tall = depth * columns <= rows * (depth + columns);
    long shares = batch == 1 && is_tall && row_blocks % threads == 0 ? threads : 1;
    return (struct gemm_tiling){row_blocks, blocks, batch * row_blocks * blocks, group, shares};
}

/* Floats of scratch that an item needs; 0 unless K is cut into chunks. Items that run at once need one each. */
INLINE long gemm_scratch_size(const struct gemm_tiling *tiling, long rows, long depth) {
    if (depth <= GEMM_DEPTH) return 0;
    long strips = gemm_ceil_divide(gemm_ceil_divide(rows, GEMM_ROWS), tiling->row_blocks) + 1;
    return strips * GEMM_ROWS * tiling->group * PANEL_COLUMNS;
}

/* Which matrix of the batch an item belongs to. */
INLINE long gemm_item_batch(const struct gemm_tiling *tiling, long item) {
    return item / (tiling->row_blocks * tiling->panel_blocks);
}

/* One register tile: operands, place in C, and the chunk of depth; `partial` is the tile's place in scratch. */
struct gemm_tile {
    const float *a, *b;
    long a_row, a_depth;
    long b_depth;        /* floats from one k of B to the next */
    long depth;
    long row, column;
    long width;          /* columns stored in B from `column` on, at most GEMM_COLUMNS; a multiple of 8 */
    long lanes;          /* of them, the real ones */
    int first, last;     /* chunk of depth: the one with the start hook's values, the finish hook's */
    float *partial;
    const char *ahead;   /* what to fetch into L2 meanwhile, `ahead_step` bytes for each k; may be null */
    long ahead_step;
};

/* Lanes of a tile's vector that are real columns. */
INLINE long gemm_lanes(long lanes, long vector) {
    long left = lanes - vector * VL;
    return left < 0 ? 0 : gemm_smaller(left, VL);
}

/* Bring a line of B that is GEMM_PREFETCH steps ahead into L1. */
INLINE void gemm_fetch_ahead(const int vectors, const float *b, long b_depth) {
    UNROLL for (int j = 0; j < vectors * VL; j += 16) prefetch(b + GEMM_PREFETCH * b_depth + j);
}

/* What the sums of a tile begin with. */
INLINE vf gemm_first(const struct gemm_tile *t, vf sum) { return START_LAST && t->first ? (vf){0} : sum; }

INLINE vf gemm_column(const int full, const float *b, long vector, long width) {
    return full ? vf_load(b + vector * VL) : panels_load(b, vector, width);
}

/* A step of k: row i of A's column at `a` or, from row 3 on, at `middle`, b: a line of B. */
INLINE void gemm_tile_step(const int rows, const int vectors, const float *a, const float *middle, long a_row,
                           const float *b, vf *sum) {
    vf column[GEMM_VECTORS];
    UNROLL for (int j = 0; j < vectors; j++) {
        column[j] = vf_load(b + j * VL);
        LOADED_ONCE(column[j]);
    }
    UNROLL for (int i = 0; i < rows; i++) {
        vf element = vf_all(*((i < 3 ? a : middle) + i % 3 * a_row));
        UNROLL for (int j = 0; j < vectors; j++) ADD_PRODUCT(sum[i * vectors + j], element, column[j]);
    }
}

/* The first steps of k, by fours; returns how many. *b and *ahead move on. Of two threads that share a core each gets
 * half of the instructions that it can begin, and a step of 12 multiplications has 27 if k advances by one, 21 here (on
 * Zen 3 beside a busy neighbour 1.2 times as fast). Row 3 has a pointer of its own: every address is a pointer plus 0, 1
 * or 2 strides. None are done here where B is to be fetched ahead more than a line in four steps, or A is read neither
 * along its rows nor along its columns. */
INLINE long gemm_tile_multiply_fours(const int rows, const int vectors, const struct gemm_tile *t, const float **b,
                                     const char **ahead, vf *sum) {
    const float *a = t->a, *middle = a + 3 * t->a_row;
    const long end = t->depth - 3, ahead_step = 4 * t->ahead_step;
    long a_row = t->a_row, b_depth = t->b_depth, k = 0;
    if (GEMM_ROWS != 6 || ahead_step > 64) return 0;
    if (a_row == 1 && !ahead_step)
        for (; k < end; k += 4)
            UNROLL for (int step = 0; step < 4; step++, a += t->a_depth, *b += b_depth)
                gemm_tile_step(rows, vectors, a, a + 3, 1, *b, sum);
    if (t->a_depth == 1)
        for (; k < end; k += 4, a += 4, middle += 4, *ahead += ahead_step) {
            __builtin_prefetch(*ahead, 0, 2);
            OPAQUE(a);
            OPAQUE(middle);
            OPAQUE(a_row);
            OPAQUE(b_depth);
            UNROLL for (int step = 0; step < 4; step++) {
                gemm_tile_step(rows, vectors, a + step, middle + step, a_row, *b + step % 2 * b_depth, sum);
                if (step % 2) *b += 2 * b_depth;
            }
        }
    return k;
}

/* sum[rows][vectors] += A B for the tile; full: whose columns are all stored; fours: four steps at once, where they are
 * faster. */
INLINE void gemm_tile_multiply_as(const int fours, const int full, const int rows, const int vectors,
                                  const struct gemm_tile *t, vf *sum) {
    const float *b = t->b;
    const char *ahead = t->ahead ? t->ahead : (const char *)b;
    vf accumulator[GEMM_TILE];
    UNROLL for (int i = 0; i < rows * vectors; i++) accumulator[i] = gemm_first(t, sum[i]);
    long k = fours ? gemm_tile_multiply_fours(rows, vectors, t, &b, &ahead, accumulator) : 0;
    const float *a = t->a + k * t->a_depth;
    for (; k < t->depth; k++, a += t->a_depth, b += t->b_depth, ahead += t->ahead_step) {
        __builtin_prefetch(ahead, 0, 2);
        gemm_fetch_ahead(vectors, b, t->b_depth);
        vf column[GEMM_VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) column[j] = gemm_column(full, b, j, t->width);
        UNROLL for (int i = 0; i < rows; i++) {
            vf element = vf_all(a[i * t->a_row]);
            UNROLL for (int j = 0; j < vectors; j++)
                accumulator[i * vectors + j] = PLUS_PRODUCT(accumulator[i * vectors + j], element, column[j]);
        }
    }
    UNROLL for (int i = 0; i < rows * vectors; i++) sum[i] = accumulator[i];
}

/* The same for words of bf16 (bf16.h), the rows of A without gaps. */
INLINE void gemm_tile_multiply_bf16_as(const int full, const int rows, const int vectors, const struct gemm_tile *t,
                                       vf *sum) {
    const float *a = t->a, *b = t->b;
    const char *ahead = t->ahead ? t->ahead : (const char *)b;
    vf accumulator[GEMM_TILE];
    UNROLL for (int i = 0; i < rows * vectors; i++) accumulator[i] = gemm_first(t, sum[i]);
    for (long k = 0; k < t->depth; k++, a++, b += t->b_depth, ahead += t->ahead_step) {
        __builtin_prefetch(ahead, 0, 2);
        gemm_fetch_ahead(vectors, b, t->b_depth);
#ifdef BF16_INSTRUCTIONS
        vi column[GEMM_VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) column[j] = (vi)gemm_column(full, b, j, t->width);
        UNROLL for (int i = 0; i < rows; i++) {
            vi element = bf16_all(a + i * t->a_row);
            UNROLL for (int j = 0; j < vectors; j++)
                accumulator[i * vectors + j] = bf16_dot(accumulator[i * vectors + j], element, column[j]);
        }
#else
        UNROLL for (int second = 0; second < 2; second++) {
            vf column[GEMM_VECTORS];
            UNROLL for (int j = 0; j < vectors; j++)
                column[j] = bf16_half(second, (vi)gemm_column(full, b, j, t->width));
            UNROLL for (int i = 0; i < rows; i++) {
                vf element = bf16_half(second, bf16_all(a + i * t->a_row));
                UNROLL for (int j = 0; j < vectors; j++) accumulator[i * vectors + j] += element * column[j];
            }
        }
#endif
    }
    UNROLL for (int i = 0; i < rows * vectors; i++) sum[i] = accumulator[i];
}

/* The same for words of bytes (bytes.h): sums are the bits of int32. */
INLINE void gemm_tile_multiply_bytes_as(const int full, const int rows, const int vectors, const struct gemm_tile *t,
                                        vf *sum) {
    const float *a = t->a, *b = t->b;
    const char *ahead = t->ahead ? t->ahead : (const char *)b;
    vi accumulator[GEMM_TILE];
    UNROLL for (int i = 0; i < rows * vectors; i++) accumulator[i] = (vi)gemm_first(t, sum[i]);
    for (long k = 0; k < t->depth; k++, a++, b += t->b_depth, ahead += t->ahead_step) {
        __builtin_prefetch(ahead, 0, 2);
        gemm_fetch_ahead(vectors, b, t->b_depth);
        UNROLL for (int part = 0; part < BYTES_PARTS; part++) {
            vi column[GEMM_VECTORS];
            UNROLL for (int j = 0; j < vectors; j++)
                column[j] = bytes_right(part, (vi)gemm_column(full, b, j, t->width));
            UNROLL for (int i = 0; i < rows; i++) {
                vi element = bytes_left(part, bf16_all(a + i * t->a_row));
                UNROLL for (int j = 0; j < vectors; j++)
                    accumulator[i * vectors + j] = bytes_add(accumulator[i * vectors + j], element, column[j]);
            }
        }
    }
    UNROLL for (int i = 0; i < rows * vectors; i++) sum[i] = (vf)accumulator[i];
}

/* Only panels that are the last of a matrix lack columns: all others are read without masks. */
INLINE void gemm_tile_multiply(const int rows, const int vectors, const struct gemm_tile *t, vf *sum) {
    if (VL < 16 || t->width == vectors * VL) gemm_tile_multiply_as(1, 1, rows, vectors, t, sum);
    else gemm_tile_multiply_as(1, 0, rows, vectors, t, sum);
}

INLINE void gemm_tile_multiply_bf16(const int rows, const int vectors, const struct gemm_tile *t, vf *sum) {
    if (VL < 16 || t->width == vectors * VL) gemm_tile_multiply_bf16_as(1, rows, vectors, t, sum);
    else gemm_tile_multiply_bf16_as(0, rows, vectors, t, sum);
}

INLINE void gemm_tile_multiply_bytes(const int rows, const int vectors, const struct gemm_tile *t, vf *sum) {
    if (VL < 16 || t->width == vectors * VL) gemm_tile_multiply_bytes_as(1, rows, vectors, t, sum);
    else gemm_tile_multiply_bytes_as(0, rows, vectors, t, sum);
}

/* One function for every shape of tile, once in a translation unit however many products it has: only the two tiles
 * that do nearly all the work are compiled again for each pair of hooks (gemm_tile_run_whole). Here the sums pass
 * through memory, which costs about ten steps of k. */
#define GEMM_TILE_ROWS_6(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define GEMM_TILE_ROWS_8(X) GEMM_TILE_ROWS_6(X) X(7) X(8)
#define GEMM_TILE_ROWS_14(X) GEMM_TILE_ROWS_8(X) X(9) X(10) X(11) X(12) X(13) X(14)
#if GEMM_ROWS == 14
#define GEMM_TILE_ROWS GEMM_TILE_ROWS_14
#elif GEMM_ROWS == 8
#define GEMM_TILE_ROWS GEMM_TILE_ROWS_8
#else
#define GEMM_TILE_ROWS GEMM_TILE_ROWS_6
#endif

#define GEMM_TILE_FUNCTION(ROWS, NAME, VECTORS, MULTIPLY)                                                             \
    static __attribute__((noinline, unused)) void gemm_tile_##ROWS##_##NAME(const struct gemm_tile *t, vf *sum) {    \
        MULTIPLY(ROWS, VECTORS, t, sum);                                                                             \
    }
#define GEMM_TILE_FUNCTIONS(ROWS)                                                  \
    GEMM_TILE_FUNCTION(ROWS, wide, GEMM_VECTORS, gemm_tile_multiply)               \
    GEMM_TILE_FUNCTION(ROWS, narrow, 1, gemm_tile_multiply)                        \
    GEMM_TILE_FUNCTION(ROWS, wide_bf16, GEMM_VECTORS, gemm_tile_multiply_bf16)     \
    GEMM_TILE_FUNCTION(ROWS, narrow_bf16, 1, gemm_tile_multiply_bf16)              \
    GEMM_TILE_FUNCTION(ROWS, wide_bytes, GEMM_VECTORS, gemm_tile_multiply_bytes)   \
    GEMM_TILE_FUNCTION(ROWS, narrow_bytes, 1, gemm_tile_multiply_bytes)
GEMM_TILE_ROWS(GEMM_TILE_FUNCTIONS)
#undef GEMM_TILE_FUNCTIONS
#undef GEMM_TILE_FUNCTION

#define GEMM_TILE_CASE(ROWS, SUFFIX)                              \
    case ROWS:                                                    \
        if (t->width > VL) gemm_tile_##ROWS##_wide##SUFFIX(t, sum); \
        else gemm_tile_##ROWS##_narrow##SUFFIX(t, sum);           \
        return;
#define GEMM_TILE_CASE_FLOATS(ROWS) GEMM_TILE_CASE(ROWS, )
#define GEMM_TILE_CASE_BF16(ROWS) GEMM_TILE_CASE(ROWS, _bf16)
#define GEMM_TILE_CASE_BYTES(ROWS) GEMM_TILE_CASE(ROWS, _bytes)
static __attribute__((noinline, unused)) void gemm_tile_dispatch(long rows, const struct gemm_tile *t, vf *sum) {
    switch (rows) { GEMM_TILE_ROWS(GEMM_TILE_CASE_FLOATS) }
}
static __attribute__((noinline, unused)) void gemm_tile_dispatch_bf16(long rows, const struct gemm_tile *t, vf *sum) {
    switch (rows) { GEMM_TILE_ROWS(GEMM_TILE_CASE_BF16) }
}
static __attribute__((noinline, unused)) void gemm_tile_dispatch_bytes(long rows, const struct gemm_tile *t, vf *sum) {
    switch (rows) { GEMM_TILE_ROWS(GEMM_TILE_CASE_BYTES) }
}
#undef GEMM_TILE_CASE
#undef GEMM_TILE_CASE_FLOATS
#undef GEMM_TILE_CASE_BF16
#undef GEMM_TILE_CASE_BYTES

INLINE void gemm_tile_begin(long rows, long vectors, const struct gemm_tile *t, vf *sum, start_hook *start,
                            const void *context) {
    if (START_LAST && t->first) return;
    if (!t->first) {
        for (long i = 0; i < rows * vectors; i++) sum[i] = vf_load(t->partial + i * VL);
    } else if (t->lanes == GEMM_COLUMNS) {
        for (long i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < GEMM_VECTORS; j++)
                sum[i * GEMM_VECTORS + j] = start(context, t->row + i, t->column + j * VL, VL);
    } else {
        for (long j = 0; j < vectors; j++)
            for (long i = 0; i < rows; i++)
                sum[i * vectors + j] = start(context, t->row + i, t->column + j * VL, gemm_lanes(t->lanes, j));
    }
}

/* `kind`, here and below: of operands that are words (gemm_bf16.h, gemm_bytes.h). A constant wherever it is given. */
enum gemm_kind { GEMM_FLOATS, GEMM_HALVES, GEMM_BYTES };

INLINE void gemm_tile_end(const int kind, long rows, long vectors, const struct gemm_tile *t, const vf *sum,
                          start_hook *start, finish_hook *finish, const void *context) {
    if (!t->last) {
        for (long i = 0; i < rows * vectors; i++) vf_store(t->partial + i * VL, sum[i]);
    } else if (t->lanes == GEMM_COLUMNS) {
        for (long i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < GEMM_VECTORS; j++)
                finish_sum(kind == GEMM_BYTES, sum[i * GEMM_VECTORS + j], t->row + i, t->column + j * VL, VL, start,
                           finish, context);
    } else {
        for (long j = 0; j < vectors && gemm_lanes(t->lanes, j); j++)
            for (long i = 0; i < rows; i++)
                finish_sum(kind == GEMM_BYTES, sum[i * vectors + j], t->row + i, t->column + j * VL,
                           gemm_lanes(t->lanes, j), start, finish, context);
    }
}

/* A tile with all its columns and no chunks, whose sums stay in registers until the finish hook has them. */
INLINE void gemm_tile_run_whole(const int kind, const int rows, const struct gemm_tile *t, start_hook *start,
                                finish_hook *finish, const void *context) {
    vf sum[GEMM_TILE];
    UNROLL for (int i = 0; i < rows * GEMM_VECTORS; i++)
        sum[i] = START_LAST ? (vf){0}
                            : start(context, t->row + i / GEMM_VECTORS, t->column + i % GEMM_VECTORS * VL, VL);
    if (kind == GEMM_BYTES) gemm_tile_multiply_bytes_as(1, rows, GEMM_VECTORS, t, sum);
    else if (kind == GEMM_HALVES) gemm_tile_multiply_bf16_as(1, rows, GEMM_VECTORS, t, sum);
    else gemm_tile_multiply_as(0, 1, rows, GEMM_VECTORS, t, sum);
    UNROLL for (int i = 0; i < rows * GEMM_VECTORS; i++)
        finish_sum(kind == GEMM_BYTES, sum[i], t->row + i / GEMM_VECTORS, t->column + i % GEMM_VECTORS * VL, VL, start,
                   finish, context);
}

INLINE void gemm_tile_run(const int kind, long rows, const struct gemm_tile *t, start_hook *start,
                          finish_hook *finish, const void *context) {
    int whole = t->first && t->last && t->lanes == GEMM_COLUMNS && t->depth <= WHOLE_DEPTH;
    if (whole && rows == GEMM_ROWS) {
        gemm_tile_run_whole(kind, GEMM_ROWS, t, start, finish, context);
        return;
    }
    if (whole && rows == GEMM_ROWS - 1) {
        gemm_tile_run_whole(kind, GEMM_ROWS - 1, t, start, finish, context);
        return;
    }
    vf sum[GEMM_TILE];
    long vectors = t->width > VL ? GEMM_VECTORS : 1;
    gemm_tile_begin(rows, vectors, t, sum, start, context);
    if (kind == GEMM_BYTES) gemm_tile_dispatch_bytes(rows, t, sum);
    else if (kind == GEMM_HALVES) gemm_tile_dispatch_bf16(rows, t, sum);
    else gemm_tile_dispatch(rows, t, sum);
    gemm_tile_end(kind, rows, vectors, t, sum, start, finish, context);
}

/* What an item works on: strips and panels, from the first to before the last. */
struct gemm_range {
    long strips;         /* of the whole matrix */
    long first_strip, last_strip;
    long first_panel, last_panel;   /* of the group at work */
    long end_panel;                 /* of the item */
    long known_panel;               /* to which panels may be fetched ahead: those of the next item too */
};

INLINE struct gemm_range gemm_item_range(const struct gemm *g, const struct gemm_tiling *tiling, long item) {
    long of_share = tiling->row_blocks / tiling->shares, block = item / of_share % tiling->panel_blocks;
    long share = item / of_share / tiling->panel_blocks % tiling->shares;
    long row_block = share * of_share + item % of_share;
    long strips = gemm_ceil_divide(g->rows, GEMM_ROWS), panels = panels_count(g->columns);
    return (struct gemm_range){strips, part_begin(strips, tiling->row_blocks, row_block),
                               part_begin(strips, tiling->row_blocks, row_block + 1),
                               part_begin(panels, tiling->panel_blocks, block),
                               part_begin(panels, tiling->panel_blocks, block),
                               part_begin(panels, tiling->panel_blocks, block + 1),
                               of_share == 1 ? panels : part_begin(panels, tiling->panel_blocks, block + 1)};
}

/* A strip times one panel: the tile `t` names the strip and the chunk of depth, this fills in the columns, and moves on
 * in scratch and in what is fetched ahead. */
INLINE void gemm_strip_panel(const int kind, const struct gemm *g, struct gemm_tile *t, long rows, long panel,
                             long first_depth, const float *b, start_hook *start, finish_hook *finish,
                             const void *context) {
    long width = panels_width(g->columns, panel);
    b += panels_offset(g->depth, panel) + first_depth * width;
    t->b_depth = width;
    for (long c = 0; c < width; c += GEMM_COLUMNS) {
        t->b = b + c;
        t->column = panel * PANEL_COLUMNS + c;
        t->width = gemm_smaller(width - c, GEMM_COLUMNS);
        t->lanes = gemm_smaller(g->columns - t->column, GEMM_COLUMNS);
        gemm_tile_run(kind, rows, t, start, finish, context);
        if (t->partial) t->partial += GEMM_ROWS * GEMM_COLUMNS;
        if (t->ahead) t->ahead += t->ahead_step * t->depth;
    }
}

/* The block of B [group of panels, chunk of depth] that the next one follows in memory: the rate at which the strips of
 * this block fetch the next, in bytes for each step of k, and from where. */
INLINE void gemm_look_ahead(const struct gemm *g, const struct gemm_range *range, const float *b, long first_depth,
                            struct gemm_tile *t) {
    long first = range->first_panel * PANEL_COLUMNS, last = range->last_panel * PANEL_COLUMNS;
    long columns = panels_round_up(gemm_smaller(g->columns, last) - first, 8);
    long begin = panels_offset(g->depth, range->first_panel) + first_depth * gemm_smaller(columns, PANEL_COLUMNS);
    long end = panels_size(g->depth, gemm_smaller(g->columns, range->known_panel * PANEL_COLUMNS));
    long size = columns * t->depth, left = end - begin - size;
    long tiles = (range->last_strip - range->first_strip) * gemm_ceil_divide(columns, GEMM_COLUMNS);
    if (left <= 0 || tiles * t->depth == 0) return;
    t->ahead = (const char *)(b + begin + size);
    t->ahead_step = gemm_ceil_divide(gemm_smaller(size, left) * (long)sizeof *b, tiles * t->depth);
}

/* One chunk of depth of a group of panels. */
INLINE void gemm_chunk(const int kind, const struct gemm *g, const struct gemm_range *range, long batch,
                       long first_depth, long last_depth, float *scratch, start_hook *start, finish_hook *finish,
                       const void *context) {
    const float *a = g->a + batch * g->a_batch + first_depth * g->a_depth, *b = g->b + batch * g->b_batch;
    struct gemm_tile t = {.a_row = g->a_row, .a_depth = g->a_depth, .depth = last_depth - first_depth,
                          .first = first_depth == 0, .last = last_depth == g->depth, .partial = scratch};
    gemm_look_ahead(g, range, b, first_depth, &t);
    for (long strip = range->first_strip; strip < range->last_strip; strip++) {
        t.row = part_begin(g->rows, range->strips, strip);
        t.a = a + t.row * g->a_row;
        long rows = part_begin(g->rows, range->strips, strip + 1) - t.row;
        for (long panel = range->first_panel; panel < range->last_panel; panel++)
            gemm_strip_panel(kind, g, &t, rows, panel, first_depth, b, start, finish, context);
    }
}

INLINE void gemm_item_as(const int kind, const struct gemm *g, const struct gemm_tiling *tiling, long item,
                         float *scratch, start_hook *start, finish_hook *finish, const void *context) {
    struct gemm_range range = gemm_item_range(g, tiling, item);
    long batch = gemm_item_batch(tiling, item), chunks = g->depth ? gemm_ceil_divide(g->depth, GEMM_DEPTH) : 1;
    for (; range.first_panel < range.end_panel; range.first_panel = range.last_panel) {
        range.last_panel = gemm_smaller(range.first_panel + tiling->group, range.end_panel);
        for (long chunk = 0; chunk < chunks; chunk++)
            gemm_chunk(kind, g, &range, batch, part_begin(g->depth, chunks, chunk),
                       part_begin(g->depth, chunks, chunk + 1), scratch, start, finish, context);
    }
}

/* One item, 0 <= item < tiling->items. `scratch`: gemm_scratch_size floats, or null if that is 0. The hooks' rows and
 * columns are those of one matrix; gemm_item_batch tells the caller which. */
INLINE void gemm_item(const struct gemm *g, const struct gemm_tiling *tiling, long item, float *scratch,
                      start_hook *start, finish_hook *finish, const void *context) {
    gemm_item_as(GEMM_FLOATS, g, tiling, item, scratch, start, finish, context);
}

#endif
