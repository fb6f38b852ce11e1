/* Packed operands: B [K, N] as panels of 32 columns.
 *
 *   packed[32 * K * p + width(p) * k + c] = B[k, 32 * p + c]
 *   p < ceil(N / 32), width(p) = min(32, N - 32 p rounded up to a multiple of 8); zeros beyond column N
 *
 * One format serves all instruction sets: a microkernel takes a panel whole (AVX-512), in halves (AVX2) or in quarters
 * (4 lanes), reading consecutive memory (the packed B of Goto and van de Geijn, "Anatomy of High-Performance Matrix
 * Multiplication", 2008). Constants are packed by packing.py; `panels_pack` packs an activation at run time. Data
 * aligned to 64 bytes is faster, but nothing depends on it.
 */
#ifndef FUSIBLE_PANELS_H
#define FUSIBLE_PANELS_H

#include "hooks.h"
#include "turn.h"
#include "vector.h"

#define PANEL_COLUMNS 32

INLINE long panels_round_up(long value, long multiple) { return (value + multiple - 1) / multiple * multiple; }

INLINE long panels_count(long columns) { return (columns + PANEL_COLUMNS - 1) / PANEL_COLUMNS; }

/* Columns that a panel stores. */
INLINE long panels_width(long columns, long panel) {
    long left = columns - panel * PANEL_COLUMNS;
    return left < PANEL_COLUMNS ? panels_round_up(left, 8) : PANEL_COLUMNS;
}

/* Floats before a panel, and of all panels. */
INLINE long panels_offset(long depth, long panel) { return depth * PANEL_COLUMNS * panel; }
INLINE long panels_size(long depth, long columns) { return depth * panels_round_up(columns, 8); }

/* Vector `vector` of a line of a panel with `width` columns from `line` on: of 16 lanes, only 8 may be stored. */
INLINE vf panels_load(const float *line, long vector, long width) {
#if VL == 16
    return vf_load_first(line + vector * VL, width - vector * VL < VL ? width - vector * VL : VL);
#else
    (void)width;
    return vf_load(line + vector * VL);
#endif
}

/* A matrix [depth, columns] in memory; element [k, c] stands at data[k * depth_stride + c * column_stride]. */
struct panels_source {
    const float *data;
    long depth, columns;
    long depth_stride, column_stride;
};

/* Store the first of a vector that have a place in a line of `width` columns, from column `c` on. */
INLINE void panels_put(float *line, long c, long width, vf value) {
    if (width - c >= VL) vf_store(line + c, value);
    else vf_store_first(line + c, value, width - c);
}

/* One k after another: for columns that are neighbours in memory; `real` of them are there. */
INLINE void panels_pack_rows(const struct panels_source *source, float *to, long first, long width) {
    const long real = source->columns - first < width ? source->columns - first : width;
    for (long k = 0; k < source->depth; k++, to += width) {
        const float *from = source->data + k * source->depth_stride + first;
        for (long c = 0; c < width; c += VL) {
            const long lanes = real - c < VL ? real - c : VL;
            panels_put(to, c, width, lanes == VL ? vf_load(from + c) : vf_load_first(from + c, lanes > 0 ? lanes : 0));
        }
    }
}

/* Squares of as many columns as a vector has lanes, of which k runs through neighbours in memory: B is a transpose. */
INLINE void panels_pack_transposed(const struct panels_source *source, float *to, long first, long width) {
    const long real = source->columns - first < width ? source->columns - first : width, step = source->column_stride;
    for (long c = 0; c < width; c += VL)
        for (long k = 0; k < source->depth; k += VL) {
            const float *from = source->data + (first + c) * step + k;
            const long count = source->depth - k < VL ? source->depth - k : VL;
            vf square[VL];
            for (long n = 0; n < VL; n++)
                square[n] = c + n < real ? vf_load_first(from + n * step, count) : vf_all(0.0f);
            vf_turn(square);
            for (long n = 0; n < count; n++) panels_put(to + (k + n) * width, c, width, square[n]);
        }
}

/* Any strides. */
INLINE void panels_pack_elements(const struct panels_source *source, float *to, long first, long width) {
    for (long k = 0; k < source->depth; k++)
        for (long c = first; c < first + width; c++)
            *to++ = c < source->columns ? source->data[k * source->depth_stride + c * source->column_stride] : 0;
}

/* Pack one panel, 0 <= panel < panels_count(columns), into its place in `packed`: the panels are independent items. */
INLINE void panels_pack(const struct panels_source *source, float *packed, long panel) {
    float *to = packed + panels_offset(source->depth, panel);
    long width = panels_width(source->columns, panel);
    if (source->column_stride == 1) panels_pack_rows(source, to, panel * PANEL_COLUMNS, width);
    else if (source->depth_stride == 1) panels_pack_transposed(source, to, panel * PANEL_COLUMNS, width);
    else panels_pack_elements(source, to, panel * PANEL_COLUMNS, width);
}

#endif
