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

INLINE void panels_pack_element(const struct panels_source *source, float *to, long k, long column) {
    *to = column < source->columns ? source->data[k * source->depth_stride + column * source->column_stride] : 0;
}

/* One k after another: for columns that are neighbours in memory. */
INLINE void panels_pack_rows(const struct panels_source *source, float *to, long first, long width) {
    long whole = source->columns - first < width ? 0 : width;
    for (long k = 0; k < source->depth; k++, to += width) {
        const float *from = source->data + k * source->depth_stride + first;
        for (long c = 0; c < whole; c += 8) memcpy(to + c, from + c, 8 * sizeof *to);
        for (long c = whole; c < width; c++) panels_pack_element(source, to + c, k, first + c);
    }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define PANELS_SHUFFLE 1
#endif
#endif

#ifdef PANELS_SHUFFLE
typedef float panels_quad __attribute__((vector_size(16), aligned(4), may_alias));

/* to[k * width + c] = from[c * stride + k] for 4 x 4 elements. */
INLINE void panels_transpose_4x4(const float *from, long stride, float *to, long width) {
    typedef float quad __attribute__((vector_size(16)));
    quad r0 = *(const panels_quad *)from, r1 = *(const panels_quad *)(from + stride);
    quad r2 = *(const panels_quad *)(from + 2 * stride), r3 = *(const panels_quad *)(from + 3 * stride);
    quad low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    quad low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
    *(panels_quad *)to = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    *(panels_quad *)(to + width) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    *(panels_quad *)(to + 2 * width) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    *(panels_quad *)(to + 3 * width) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}
#else
INLINE void panels_transpose_4x4(const float *from, long stride, float *to, long width) {
    for (long k = 0; k < 4; k++)
        for (long c = 0; c < 4; c++) to[k * width + c] = from[c * stride + k];
}
#endif

/* Any strides; blocks of 4 x 4 where k runs through neighbours in memory (B is a transpose). */
INLINE void panels_pack_transposed(const struct panels_source *source, float *to, long first, long width) {
    long real = source->columns - first < width ? source->columns - first : width;
    int blocked = source->depth_stride == 1;
    long whole_columns = blocked ? real / 4 * 4 : 0, whole_depth = blocked ? source->depth / 4 * 4 : 0;
    for (long c = 0; c < whole_columns; c += 4)
        for (long k = 0; k < whole_depth; k += 4)
            panels_transpose_4x4(source->data + (first + c) * source->column_stride + k, source->column_stride,
                                 to + k * width + c, width);
    for (long k = 0; k < source->depth; k++)
        for (long c = k < whole_depth ? whole_columns : 0; c < width; c++)
            panels_pack_element(source, to + k * width + c, k, first + c);
}

/* Pack one panel, 0 <= panel < panels_count(columns), into its place in `packed`: the panels are independent items. */
INLINE void panels_pack(const struct panels_source *source, float *packed, long panel) {
    float *to = packed + panels_offset(source->depth, panel);
    long width = panels_width(source->columns, panel);
    if (source->column_stride == 1) panels_pack_rows(source, to, panel * PANEL_COLUMNS, width);
    else panels_pack_transposed(source, to, panel * PANEL_COLUMNS, width);
}

#endif
