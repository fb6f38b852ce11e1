/* The register tile of the convolution family: a few pixels times a few vectors of output channels.
 *
 *   accumulators[row][column] += sum over s, k of  table[s][row][k] * panel[s * length + k][column]
 *
 * A row of the tile is an output pixel, and K is cut into segments of `length` consecutive floats of the input: `table`
 * points at the start of each segment for each pixel (the indirection buffer of Dukhan 2019, "The Indirect
 * Convolution Algorithm"), so pixels may lie anywhere, in several image rows or in a row of zeros. The panel holds
 * [K][width] floats, k outermost; a tile multiplies a chunk of its columns, as many as accumulators fit in registers:
 *
 *   AVX-512 14 x 32 and 14 x 16 (the last 16 columns possibly halved)   AVX2 6 x 16, 4 x 24 and 8 x 8
 *   32 registers of 4 lanes 6 x 16, 8 x 8                               16 registers of 4 lanes 6 x 8
 *
 * The tiles are functions of their own, never inlined and without hooks: a translation unit holds each once, however
 * many layers it has. Their accumulators travel through a small array, which costs as much as a few steps of k. The
 * largest tile is also there with hooks and accumulators in registers, inlined into each layer (WHOLE_DEPTH).
 *
 * Each tile is there for floats and for words of bf16 (bf16.h) and of bytes (bytes.h), where `length` and K count words;
 * sums of bytes are the bits of int32.
 */
#ifndef FUSIBLE_REGISTER_TILE_H
#define FUSIBLE_REGISTER_TILE_H

#include "bf16.h"
#include "bytes.h"
#include "hooks.h"
#include "panels.h"

/* What operands hold: `kind`, here and in convolution.h, a constant wherever it is given. */
enum tile_kind { TILE_FLOATS, TILE_HALVES, TILE_BYTES };

/* One chunk: which columns of a panel a tile multiplies at once. */
struct tile_chunk {
    long column;     /* first, in the panel */
    long vectors;    /* of VL lanes */
    long last;       /* lanes of the last vector that the panel has: VL, or 8 of 16 */
    long rows;       /* of the largest tile of this shape */
};

struct tile_operands {
    const float *const *table;    /* [segments][slots]: the first pixel of the tile at table[s * slots] */
    long slots, segments;
    long offset, length;          /* of the part of each segment that is multiplied */
    const float *panel;           /* at the chunk's first column */
    long width;                   /* floats from k to k + 1 */
    const char *ahead;            /* weights needed later, brought to L2 meanwhile: `ahead_step` bytes for each k */
    long ahead_step;
    int fresh;                    /* sums begin at zero, whatever the accumulators hold */
};

/* TILE_SIZE: accumulators of the largest tile. */
#if VL == 16
#define TILE_ROWS 14
#define TILE_VECTORS 2
#define TILE_SIZE 28
#define TILE_SHAPES(X) \
    X(4, 2, 16) X(6, 2, 16) X(8, 2, 16) X(10, 2, 16) X(12, 2, 16) X(14, 2, 16) \
    X(4, 2, 8) X(8, 2, 8) X(14, 2, 8) X(8, 1, 16) X(14, 1, 16) X(8, 1, 8) X(14, 1, 8)
#elif VL == 8
#define TILE_ROWS 8
#define TILE_VECTORS 3
#define TILE_SIZE 12
#define TILE_SHAPES(X) X(4, 2, 8) X(5, 2, 8) X(6, 2, 8) X(3, 3, 8) X(4, 3, 8) X(4, 1, 8) X(8, 1, 8)
#elif VECTOR_REGISTERS == 32
#define TILE_ROWS 8
#define TILE_VECTORS 4
#define TILE_SIZE 24
#define TILE_SHAPES(X) X(2, 4, 4) X(3, 4, 4) X(4, 4, 4) X(5, 4, 4) X(6, 4, 4) X(4, 2, 4) X(6, 2, 4) X(8, 2, 4)
#else
#define TILE_ROWS 6
#define TILE_VECTORS 2
#define TILE_SIZE 12
#define TILE_SHAPES(X) X(4, 2, 4) X(5, 2, 4) X(6, 2, 4)
#endif

/* The chunk that starts at `column` of a panel of `width` columns (both multiples of 8, column < width). */
INLINE struct tile_chunk tile_chunk_at(long column, long width) {
    long left = width - column;
#if VL == 16
    if (left > 16) return (struct tile_chunk){column, 2, left >= 32 ? 16 : 8, 14};
    return (struct tile_chunk){column, 1, left, 14};
#elif VL == 8
    if (left == 24) return (struct tile_chunk){column, 3, 8, 4};
    if (left == 8) return (struct tile_chunk){column, 1, 8, 8};
    return (struct tile_chunk){column, 2, 8, 6};
#elif VECTOR_REGISTERS == 32
    if (left == 8) return (struct tile_chunk){column, 2, 4, 8};
    return (struct tile_chunk){column, 4, 4, 6};
#else
    (void)left;
    return (struct tile_chunk){column, 2, 4, 6};
#endif
}

/* Columns from a chunk's first to the next chunk's. */
INLINE long tile_chunk_columns(const struct tile_chunk *chunk) { return (chunk->vectors - 1) * VL + chunk->last; }

INLINE vf tile_load_lanes(const float *from, const int lanes) {
    return lanes == VL ? vf_load(from) : vf_load_first(from, lanes);
}

/* Bring the lines of a panel that are TILE_PREFETCH steps ahead into L1, where a step is shorter than their way from L2
 * (measured with AVX-512 only). */
#define TILE_PREFETCH 48
INLINE void tile_fetch_ahead(const int vectors, const float *b, long width) {
#if VL == 16
    UNROLL for (int j = 0; j < vectors * VL; j += 16) prefetch(b + TILE_PREFETCH * width + j);
#else
    (void)vectors, (void)b, (void)width;
#endif
}

/* sum += the product, for accumulators that the caller keeps in registers. */
INLINE void tile_multiply_steps(const int rows, const int vectors, const int last, const struct tile_operands *o,
                                vf *sum) {
    const float *b = o->panel;
    const char *ahead = o->ahead;
    for (long s = 0; s < o->segments; s++) {
        const float *a[TILE_ROWS];
        UNROLL for (int i = 0; i < rows; i++) a[i] = o->table[s * o->slots + i] + o->offset;
        for (long k = 0; k < o->length; k++, b += o->width, ahead += o->ahead_step) {
            __builtin_prefetch(ahead, 0, 2);
            tile_fetch_ahead(vectors, b, o->width);
            vf column[TILE_VECTORS];
            UNROLL for (int j = 0; j < vectors; j++)
                column[j] = tile_load_lanes(b + j * VL, j == vectors - 1 ? last : VL);
            UNROLL for (int i = 0; i < rows; i++)
                UNROLL for (int j = 0; j < vectors; j++)
                    sum[i * vectors + j] = PLUS_PRODUCT(sum[i * vectors + j], vf_all(a[i][k]), column[j]);
        }
    }
}

/* Step k of a segment, for vectors that are whole; b: its line of the panel. */
INLINE void tile_step(const int rows, const int vectors, const float *const *a, long k, const float *b, vf *sum) {
    vf column[TILE_VECTORS];
    UNROLL for (int j = 0; j < vectors; j++) {
        column[j] = vf_load(b + j * VL);
        LOADED_ONCE(column[j]);
    }
    UNROLL for (int i = 0; i < rows; i++) {
        vf element = vf_all(a[i][k]);
        UNROLL for (int j = 0; j < vectors; j++) ADD_PRODUCT(sum[i * vectors + j], element, column[j]);
    }
}

/* The same product with four steps at once, as in gemm.h. */
INLINE void tile_multiply_fours(const int rows, const int vectors, const struct tile_operands *o, vf *sum) {
    const float *b = o->panel;
    const char *ahead = o->ahead;
    const long end = o->length - 3, ahead_step = 4 * o->ahead_step;
    long width = o->width;
    for (long s = 0; s < o->segments; s++) {
        const float *a[TILE_ROWS];
        UNROLL for (int i = 0; i < rows; i++) a[i] = o->table[s * o->slots + i] + o->offset;
        long k = 0;
        for (; k < end; k += 4, ahead += ahead_step) {
            __builtin_prefetch(ahead, 0, 2);
            OPAQUE(width);
            OPAQUE(k);
            UNROLL for (int step = 0; step < 4; step++) {
                tile_step(rows, vectors, a, k + step, b + step % 2 * width, sum);
                if (step % 2) b += 2 * width;
            }
        }
        for (; k < o->length; k++, b += width) tile_step(rows, vectors, a, k, b, sum);
    }
}

INLINE void tile_multiply(const int rows, const int vectors, const int last, const struct tile_operands *o, vf *sum) {
    if (VL < 16 && VECTOR_REGISTERS == 16 && o->ahead_step <= 16) tile_multiply_fours(rows, vectors, o, sum);
    else tile_multiply_steps(rows, vectors, last, o, sum);
}

/* The same for words of bf16. */
INLINE void tile_multiply_bf16(const int rows, const int vectors, const int last, const struct tile_operands *o,
                               vf *sum) {
    const float *b = o->panel;
    const char *ahead = o->ahead;
    for (long s = 0; s < o->segments; s++) {
        const float *a[TILE_ROWS];
        UNROLL for (int i = 0; i < rows; i++) a[i] = o->table[s * o->slots + i] + o->offset;
        for (long k = 0; k < o->length; k++, b += o->width, ahead += o->ahead_step) {
            __builtin_prefetch(ahead, 0, 2);
            tile_fetch_ahead(vectors, b, o->width);
#ifdef BF16_INSTRUCTIONS
            vi column[TILE_VECTORS];
            UNROLL for (int j = 0; j < vectors; j++)
                column[j] = (vi)tile_load_lanes(b + j * VL, j == vectors - 1 ? last : VL);
            UNROLL for (int i = 0; i < rows; i++) {
                vi element = bf16_all(a[i] + k);
                UNROLL for (int j = 0; j < vectors; j++)
                    sum[i * vectors + j] = bf16_dot(sum[i * vectors + j], element, column[j]);
            }
#else
            UNROLL for (int second = 0; second < 2; second++) {
                vf column[TILE_VECTORS];
                UNROLL for (int j = 0; j < vectors; j++)
                    column[j] = bf16_half(second, (vi)tile_load_lanes(b + j * VL, j == vectors - 1 ? last : VL));
                UNROLL for (int i = 0; i < rows; i++) {
                    vf element = bf16_half(second, bf16_all(a[i] + k));
                    UNROLL for (int j = 0; j < vectors; j++) sum[i * vectors + j] += element * column[j];
                }
            }
#endif
        }
    }
}

/* The same for words of bytes. */
INLINE void tile_multiply_bytes(const int rows, const int vectors, const int last, const struct tile_operands *o,
                                vf *sum) {
    const float *b = o->panel;
    const char *ahead = o->ahead;
    vi accumulator[TILE_SIZE]; /* of their own type: they would not stay in registers */
    UNROLL for (int i = 0; i < rows * vectors; i++) accumulator[i] = (vi)sum[i];
    for (long s = 0; s < o->segments; s++) {
        const float *a[TILE_ROWS];
        UNROLL for (int i = 0; i < rows; i++) a[i] = o->table[s * o->slots + i] + o->offset;
        for (long k = 0; k < o->length; k++, b += o->width, ahead += o->ahead_step) {
            __builtin_prefetch(ahead, 0, 2);
            tile_fetch_ahead(vectors, b, o->width);
            UNROLL for (int part = 0; part < BYTES_PARTS; part++) {
                vi column[TILE_VECTORS];
                UNROLL for (int j = 0; j < vectors; j++)
                    column[j] = bytes_right(part, (vi)tile_load_lanes(b + j * VL, j == vectors - 1 ? last : VL));
                UNROLL for (int i = 0; i < rows; i++) {
                    vi element = bytes_left(part, bf16_all(a[i] + k));
                    UNROLL for (int j = 0; j < vectors; j++)
                        accumulator[i * vectors + j] = bytes_add(accumulator[i * vectors + j], element, column[j]);
                }
            }
        }
    }
    UNROLL for (int i = 0; i < rows * vectors; i++) sum[i] = (vf)accumulator[i];
}

#define TILE_FUNCTION(NAME, ROWS, VECTORS, LAST, MULTIPLY)                                                      \
    static __attribute__((noinline, unused)) void NAME##_##ROWS##_##VECTORS##_##LAST(                           \
        const struct tile_operands *o, vf *accumulators) {                                                      \
        vf sum[TILE_SIZE] = {{0}};                                                                              \
        if (!o->fresh)                                                                                          \
            UNROLL for (int i = 0; i < ROWS * VECTORS; i++) sum[i] = accumulators[i];                           \
        MULTIPLY(ROWS, VECTORS, LAST, o, sum);                                                                  \
        UNROLL for (int i = 0; i < ROWS * VECTORS; i++) accumulators[i] = sum[i];                               \
    }
#define TILE_FUNCTIONS(ROWS, VECTORS, LAST)                  \
    TILE_FUNCTION(tile, ROWS, VECTORS, LAST, tile_multiply)  \
    TILE_FUNCTION(tile_bf16, ROWS, VECTORS, LAST, tile_multiply_bf16) \
    TILE_FUNCTION(tile_bytes, ROWS, VECTORS, LAST, tile_multiply_bytes)
TILE_SHAPES(TILE_FUNCTIONS)
#undef TILE_FUNCTIONS
#undef TILE_FUNCTION

/* Multiply `rows` pixels, 1 <= rows <= chunk->rows, into accumulators [rows][chunk->vectors]. The smallest tile that
 * holds them runs: it reads the table, and writes accumulators, for up to TILE_ROWS pixels. */
#define TILE_CALL(NAME, ROWS, VECTORS, LAST)                                          \
    if (chunk->vectors == VECTORS && chunk->last == LAST && rows <= ROWS) {           \
        NAME##_##ROWS##_##VECTORS##_##LAST(o, accumulators);                          \
        return;                                                                       \
    }
#define TILE_CALL_FLOATS(ROWS, VECTORS, LAST) TILE_CALL(tile, ROWS, VECTORS, LAST)
#define TILE_CALL_HALVES(ROWS, VECTORS, LAST) TILE_CALL(tile_bf16, ROWS, VECTORS, LAST)
#define TILE_CALL_BYTES(ROWS, VECTORS, LAST) TILE_CALL(tile_bytes, ROWS, VECTORS, LAST)
INLINE void tile_run(const int kind, const struct tile_chunk *chunk, long rows, const struct tile_operands *o,
                     vf *accumulators) {
    if (kind == TILE_BYTES) {
        TILE_SHAPES(TILE_CALL_BYTES)
    } else if (kind == TILE_HALVES) {
        TILE_SHAPES(TILE_CALL_HALVES)
    } else {
        TILE_SHAPES(TILE_CALL_FLOATS)
    }
}
#undef TILE_CALL
#undef TILE_CALL_FLOATS
#undef TILE_CALL_HALVES
#undef TILE_CALL_BYTES

/* The rows that tile_run computes for `rows`: as many or a few more. */
INLINE long tile_rows_run(const struct tile_chunk *chunk, long rows) {
#define TILE_SIZE_OF(ROWS, VECTORS, LAST) \
    if (chunk->vectors == VECTORS && chunk->last == LAST && rows <= ROWS) return ROWS;
    TILE_SHAPES(TILE_SIZE_OF)
#undef TILE_SIZE_OF
    return chunk->rows;
}

/* The pixels of a band in tiles of nearly equal size, none far below the largest. Computed once for all the tiles, as is
 * the share of the next block of K that each brings to L2 meanwhile: weights that stream from memory would stop the
 * first tile of a block otherwise. */
struct tile_split {
    long rows, larger;    /* tiles have `rows` pixels, the first `larger` of them one more */
    long ahead_step;      /* bytes for each k */
};

INLINE struct tile_split tile_split_of(const struct tile_chunk *chunk, long pixels) {
    long tiles = (pixels + chunk->rows - 1) / chunk->rows;
    return (struct tile_split){pixels / tiles, pixels % tiles,
                               (tile_chunk_columns(chunk) * (long)sizeof(float) + tiles - 1) / tiles};
}
INLINE long tile_rows_of(const struct tile_split *split, long tile) { return split->rows + (tile < split->larger); }

/* Set o->ahead for a tile: the next block follows the `depth` rows at o->panel, of which the chunk is a part. */
INLINE void tile_prefetch(struct tile_operands *o, const struct tile_chunk *chunk, const struct tile_split *split,
                          long tile, long depth) {
    long skipped = depth * (o->width + chunk->column) - chunk->column;
    o->ahead = (const char *)(o->panel + skipped) + tile * depth * split->ahead_step;
    o->ahead_step = split->ahead_step;
}

INLINE void tile_start_vectors(const int vectors, const long *rows_of, long rows, long column, long columns,
                               start_hook *start, const void *context, vf *accumulators) {
    if (column + vectors * VL <= columns) {
        for (long i = 0; i < rows; i++)
            UNROLL for (long j = 0; j < vectors; j++)
                accumulators[i * vectors + j] = start(context, rows_of[i], column + j * VL, VL);
        return;
    }
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < vectors; j++) {
            long left = columns - column - j * VL;
            accumulators[i * vectors + j] =
                left > 0 ? start(context, rows_of[i], column + j * VL, left < VL ? left : VL) : (vf){0};
        }
}

/* Accumulators from the start hook for `rows` pixels, whose output rows are rows_of[0 ... rows - 1]; columns from
 * `columns` on are zero, as are the rows that the tile computes in vain. */
INLINE void tile_start(const struct tile_chunk *chunk, const long *rows_of, long rows, long column, long columns,
                       start_hook *start, const void *context, vf *accumulators) {
    if (rows < tile_rows_run(chunk, rows)) memset(accumulators, 0, TILE_SIZE * sizeof(vf));
    if (chunk->vectors == 2) tile_start_vectors(2, rows_of, rows, column, columns, start, context, accumulators);
    else tile_start_vectors((int)chunk->vectors, rows_of, rows, column, columns, start, context, accumulators);
}

INLINE void tile_finish_vectors(const int kind, const int vectors, const long *rows_of, long rows, long column,
                                long columns, start_hook *start, finish_hook *finish, const void *context,
                                const vf *sums) {
    if (column + vectors * VL <= columns) {
        for (long i = 0; i < rows; i++) {
            const long row = rows_of[i];
            UNROLL for (long j = 0; j < vectors; j++)
                finish_sum(kind == TILE_BYTES, sums[i * vectors + j], row, column + j * VL, VL, start, finish, context);
        }
        return;
    }
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < vectors; j++) {
            long at = column + j * VL, lanes = columns - at < VL ? columns - at : VL;
            if (lanes > 0)
                finish_sum(kind == TILE_BYTES, sums[i * vectors + j], rows_of[i], at, lanes, start, finish, context);
        }
}

/* The finish hook for the same pixels, where START_LAST says so after the start hook. */
INLINE void tile_finish(const int kind, const struct tile_chunk *chunk, const long *rows_of, long rows, long column,
                        long columns, start_hook *start, finish_hook *finish, const void *context, const vf *sums) {
    if (chunk->vectors == 2)
        tile_finish_vectors(kind, 2, rows_of, rows, column, columns, start, finish, context, sums);
    else
        tile_finish_vectors(kind, (int)chunk->vectors, rows_of, rows, column, columns, start, finish, context, sums);
}

/* The largest tile of whole vectors, hooks included and accumulators never leaving the registers: for short K, where
 * the hooks are a good part of the work. */
#define TILE_WHOLE_ROWS (TILE_SIZE / 2 < TILE_ROWS ? TILE_SIZE / 2 : TILE_ROWS)
INLINE int tile_is_whole(const struct tile_chunk *chunk, const struct tile_operands *o, long rows, long column,
                         long columns) {
    return chunk->vectors == 2 && rows == TILE_WHOLE_ROWS && column + 2 * VL <= columns &&
           o->segments * o->length <= WHOLE_DEPTH;
}
INLINE void tile_whole(const int kind, const struct tile_operands *o, const long *rows_of, long column,
                       start_hook *start, finish_hook *finish, const void *context) {
    vf sum[TILE_SIZE];
    UNROLL for (int i = 0; i < TILE_WHOLE_ROWS * 2; i++)
        sum[i] = START_LAST ? (vf){0} : start(context, rows_of[i / 2], column + i % 2 * VL, VL);
    if (kind == TILE_BYTES) tile_multiply_bytes(TILE_WHOLE_ROWS, 2, VL, o, sum);
    else if (kind == TILE_HALVES) tile_multiply_bf16(TILE_WHOLE_ROWS, 2, VL, o, sum);
    else tile_multiply_steps(TILE_WHOLE_ROWS, 2, VL, o, sum);
    long rows[TILE_WHOLE_ROWS]; /* read at once: the compiler would read them again after each store */
    UNROLL for (int i = 0; i < TILE_WHOLE_ROWS; i++) rows[i] = rows_of[i];
    UNROLL for (int i = 0; i < TILE_WHOLE_ROWS * 2; i++)
        finish_sum(kind == TILE_BYTES, sum[i], rows[i / 2], column + i % 2 * VL, VL, start, finish, context);
}

#endif
