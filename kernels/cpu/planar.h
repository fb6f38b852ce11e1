/* Convolution of an image stored channels first, of few channels: the first layer of a network. fp32.
 *
 *   y[n][oy][ox][o] = sum over c, ky, kx of x[n][c][oy * sy - top + ky][ox * sx - left + kx] * w[c][ky][kx][o]
 *
 * x: [images][planes][height][width]; w: panels of 32 of the `outputs` columns, [K][width] floats each, K in the order
 * (c, ky, kx); y is the finish hook's business, row (n * OH + oy) * OW + ox and column o.
 *
 * K is short, so what counts is how little is done beside the products. An item copies the image rows that its output
 * rows read into scratch memory, zeros around them; no tap is then outside, and the pixels of a tile, neighbours in an
 * output row, lie `stride_x` floats apart: one address serves a whole kernel row, the rest are constants where the
 * kernel's width and stride are. The copy is a few per cent of the work.
 */
#ifndef FUSIBLE_PLANAR_H
#define FUSIBLE_PLANAR_H

#include "register_tile.h"

struct planar {
    const float *x, *panels;
    long images, planes, height, width, outputs;
    long kernel_height, kernel_width, stride_y, stride_x, pad_top, pad_left, out_height, out_width;
    long image_stride, plane_stride, row_stride; /* floats */
    long bands;                                  /* parts of the output rows, an item each */
};

#define PLANAR_PIXELS TILE_WHOLE_ROWS

INLINE long planar_items(const struct planar *p) { return p->images * p->bands; }

/* Floats of a copied row: whole tiles of pixels. Copied rows of a plane. */
INLINE long planar_width(const struct planar *p) {
    long pixels = (p->out_width + PLANAR_PIXELS - 1) / PLANAR_PIXELS * PLANAR_PIXELS;
    return (pixels - 1) * p->stride_x + p->kernel_width;
}
INLINE long planar_rows(const struct planar *p) {
    if (p->out_height == 0) return p->kernel_height; /* bands may be 0 too */
    return ((p->out_height + p->bands - 1) / p->bands - 1) * p->stride_y + p->kernel_height;
}
INLINE long planar_scratch_bytes(const struct planar *p) {
    return p->planes * planar_rows(p) * planar_width(p) * (long)sizeof(float);
}

/* Copy the image rows under output rows `first` and after, as far as they are inside, to `to`. */
static __attribute__((noinline, unused)) void planar_copy(const struct planar *p, long image, long first, float *to) {
    long width = planar_width(p), rows = planar_rows(p);
    long inside = width - p->pad_left < p->width ? width - p->pad_left : p->width;
    for (long c = 0; c < p->planes; c++)
        for (long row = 0; row < rows; row++, to += width) {
            long y = first * p->stride_y - p->pad_top + row;
            const float *from = p->x + image * p->image_stride + c * p->plane_stride + y * p->row_stride;
            if (y < 0 || y >= p->height || inside <= 0) {
                memset(to, 0, (size_t)width * sizeof *to);
                continue;
            }
            memset(to, 0, (size_t)p->pad_left * sizeof *to);
            memcpy(to + p->pad_left, from, (size_t)inside * sizeof *to);
            memset(to + p->pad_left + inside, 0, (size_t)(width - p->pad_left - inside) * sizeof *to);
        }
}

/* Where a tile stands: its output row and column, as the hooks see them, and how much of it there is. */
struct planar_place {
    long row, pixels, column, outputs;
};

/* sum += the products of a tile of `pixels`: `from` is tap 0 of its first pixel, `panel` its first column at k = 0. */
INLINE void planar_multiply(const int pixels, const int vectors, const int lanes, const struct planar *p,
                            const float *from, const float *panel, long panel_width, vf *sum) {
    const long width = planar_width(p), plane = planar_rows(p) * width;
    for (long c = 0; c < p->planes; c++)
        for (long ky = 0; ky < p->kernel_height; ky++) {
            const float *a = from + c * plane + ky * width;
            /* Taps of neighbours are the same elements: a compiler that sees it, or that mixes iterations, keeps more of
             * them than there are registers. */
            long taps = p->kernel_width;
            __asm__("" : "+r"(taps));
            _Pragma("GCC unroll 1") for (long kx = 0; kx < taps; kx++, a++, panel += panel_width) {
                __asm__("" : "+r"(a));
                vf column[2];
                UNROLL for (int j = 0; j < vectors; j++)
                    column[j] = vf_loaded(tile_load_lanes(panel + j * VL, j == vectors - 1 ? lanes : VL));
                UNROLL for (int i = 0; i < pixels; i++)
                    UNROLL for (int j = 0; j < vectors; j++)
                        sum[i * vectors + j] += vf_all(a[i * p->stride_x]) * column[j];
            }
        }
}

/* A tile of which some pixels or columns do not exist: accumulators travel through memory. */
INLINE void planar_edge(const int vectors, const int lanes, const struct planar *p, const float *from,
                        const float *panel, long panel_width, const struct planar_place *at, start_hook *start,
                        finish_hook *finish, const void *context) {
    vf kept[2 * PLANAR_PIXELS] = {{0}}, sum[2 * PLANAR_PIXELS];
    for (long i = 0; i < at->pixels; i++)
        for (long j = 0; j < vectors; j++) {
            long column = at->column + j * VL, left = at->outputs - column;
            if (left > 0) kept[i * vectors + j] = start(context, at->row + i, column, left < VL ? left : VL);
        }
    UNROLL for (int i = 0; i < PLANAR_PIXELS * vectors; i++) sum[i] = kept[i];
    planar_multiply(PLANAR_PIXELS, vectors, lanes, p, from, panel, panel_width, sum);
    UNROLL for (int i = 0; i < PLANAR_PIXELS * vectors; i++) kept[i] = sum[i];
    for (long i = 0; i < at->pixels; i++)
        for (long j = 0; j < vectors; j++) {
            long column = at->column + j * VL, left = at->outputs - column;
            if (left > 0) finish(context, kept[i * vectors + j], at->row + i, column, left < VL ? left : VL);
        }
}

/* A tile of as many accumulators as there are registers for, all of it inside, the last of its vectors with `lanes`
 * columns: they stay in registers from the start hook to the finish hook. */
#define PLANAR_WHOLE(vectors) (2 * PLANAR_PIXELS / (vectors))
INLINE void planar_whole(const int vectors, const int lanes, const struct planar *p, const float *from,
                         const float *panel, long panel_width, const struct planar_place *at, start_hook *start,
                         finish_hook *finish, const void *context) {
    vf sum[2 * PLANAR_PIXELS];
    UNROLL for (int i = 0; i < 2 * PLANAR_PIXELS; i++)
        sum[i] = start(context, at->row + i / vectors, at->column + i % vectors * VL,
                       i % vectors == vectors - 1 ? lanes : VL);
    planar_multiply(PLANAR_WHOLE(vectors), vectors, lanes, p, from, panel, panel_width, sum);
    UNROLL for (int i = 0; i < 2 * PLANAR_PIXELS; i++)
        finish(context, sum[i], at->row + i / vectors, at->column + i % vectors * VL,
               i % vectors == vectors - 1 ? lanes : VL);
}

/* The tiles of `vectors` vectors of columns from at->column on, the last of `lanes` lanes, of one output row. */
INLINE void planar_row(const int vectors, const int lanes, const struct planar *p, const float *line,
                       const float *panel, long panel_width, struct planar_place at, start_hook *start,
                       finish_hook *finish, const void *context) {
    const int whole = at.column + (vectors - 1) * VL + lanes <= p->outputs;
    for (long ox = 0; ox < p->out_width; ox += at.pixels, at.row += at.pixels) {
        const float *from = line + ox * p->stride_x;
        at.pixels = PLANAR_WHOLE(vectors);
        if (whole && p->out_width - ox >= at.pixels) {
            planar_whole(vectors, lanes, p, from, panel, panel_width, &at, start, finish, context);
            continue;
        }
        at.pixels = p->out_width - ox < PLANAR_PIXELS ? p->out_width - ox : PLANAR_PIXELS;
        planar_edge(vectors, lanes, p, from, panel, panel_width, &at, start, finish, context);
    }
}

/* Compute item 0 <= item < planar_items(p); scratch: planar_scratch_bytes(p), aligned to 64 bytes. */
INLINE void planar_item(const struct planar *p, long item, void *scratch, start_hook *start, finish_hook *finish,
                        const void *context) {
    long image = item / p->bands, band = item % p->bands;
    long first = part_begin(p->out_height, p->bands, band), last = part_begin(p->out_height, p->bands, band + 1);
    long width = planar_width(p), depth = p->planes * p->kernel_height * p->kernel_width;
    const struct planar elsewhere = *p; /* the caller's may be a local one whose numbers the compiler knows */
    planar_copy(&elsewhere, image, first, scratch);
    for (long column = 0; column < p->outputs;) {
        long panel_width = panels_width(p->outputs, column / PANEL_COLUMNS), within = column % PANEL_COLUMNS;
        const float *panel = p->panels + depth * (column - within) + within;
        long left = panel_width - within;
        long columns = left >= 2 * VL ? 2 * VL : left;
        for (long oy = first; oy < last; oy++) {
            const float *line = (const float *)scratch + (oy - first) * p->stride_y * width;
            struct planar_place at = {(image * p->out_height + oy) * p->out_width, 0, column, p->outputs};
#define PLANAR_CASE(VECTORS, LANES)                                                                  \
    if (columns == (VECTORS - 1) * VL + LANES)                                                       \
        planar_row(VECTORS, LANES, p, line, panel, panel_width, at, start, finish, context);
            PLANAR_CASE(2, VL)
#if VL == 16
            PLANAR_CASE(2, 8)
            PLANAR_CASE(1, 16)
#endif
            PLANAR_CASE(1, (VL < 8 ? VL : 8))
#undef PLANAR_CASE
        }
        column += columns;
    }
}

#endif
