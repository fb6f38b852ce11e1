/* Convolution of an image stored channels first, of few channels: the first layer of a network. fp32 and bf16.
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
 *
 * In bf16 (bf16.h) a word has the elements of two kernel rows, one below the other, and K runs over (c, pair of rows, kx).
 * The copy is made of such words: lines of an image row with the one below it, and where kernels have an odd number of
 * rows lines of one row with zeros, for the last. Panels are pack_planar_bf16's of convolution_weights.py.
 */
#ifndef FUSIBLE_PLANAR_H
#define FUSIBLE_PLANAR_H

#include "bf16.h"
#include "register_tile.h"

struct planar {
    const float *x, *panels;
    long images, planes, height, width, outputs;
    long kernel_height, kernel_width, stride_y, stride_x, pad_top, pad_left, out_height, out_width;
    long image_stride, plane_stride, row_stride; /* floats */
    long bands;                                  /* parts of the output rows, an item each */
};

#define PLANAR_PIXELS TILE_WHOLE_ROWS

INLINE long planar_items(const struct planar *p) { return p->out_width > 0 ? p->images * p->bands : 0; }

/* Floats of a copied row: whole tiles of pixels. Copied rows of a plane. */
INLINE long planar_width(const struct planar *p) {
    if (p->out_width <= 0) return 0;
    long pixels = (p->out_width + PLANAR_PIXELS - 1) / PLANAR_PIXELS * PLANAR_PIXELS;
    return (pixels - 1) * p->stride_x + p->kernel_width;
}
INLINE long planar_rows(const struct planar *p) {
    if (p->out_height == 0) return p->kernel_height; /* bands may be 0 too */
    return ((p->out_height + p->bands - 1) / p->bands - 1) * p->stride_y + p->kernel_height;
}

/* Rows of the kernel, or pairs of them. Copied lines of a plane, and those for each row. */
INLINE long planar_taps(const int bf16, const struct planar *p) {
    return bf16 ? bf16_pairs(p->kernel_height) : p->kernel_height;
}
INLINE long planar_lines(const int bf16, const struct planar *p) { return bf16 && p->kernel_height % 2 ? 2 : 1; }
/* From a tile's first line to that under tap ky of `planar_taps`. */
INLINE long planar_line(const int bf16, const struct planar *p, long ky) {
    if (!bf16) return ky;
    return planar_lines(1, p) * 2 * ky + (p->kernel_height % 2 && 2 * ky == p->kernel_height - 1);
}
INLINE long planar_floats(const int bf16, const struct planar *p) {
    return p->planes * planar_rows(p) * planar_lines(bf16, p) * planar_width(p);
}
INLINE long planar_half_row(const struct planar *p) { return planar_width(p) / 2 * 2 + 2; }
INLINE long planar_scratch_bytes(const struct planar *p) { return planar_floats(0, p) * (long)sizeof(float); }
INLINE long planar_bf16_scratch_bytes(const struct planar *p) {
    return planar_floats(1, p) * (long)sizeof(float) + planar_rows(p) * planar_half_row(p) * (long)sizeof(bf16_element);
}

/* A copied row: `before` zeros, `inside` elements of the image from `skipped` on (padding may be negative), zeros. */
struct planar_copied {
    long before, skipped, inside;
};
INLINE struct planar_copied planar_copied(const struct planar *p) {
    struct planar_copied c = {p->pad_left > 0 ? p->pad_left : 0, p->pad_left < 0 ? -p->pad_left : 0, 0};
    long room = planar_width(p) - c.before, given = p->width - c.skipped;
    if (room > 0 && given > 0) c.inside = room < given ? room : given;
    return c;
}

/* The elements of the image in row `row` of the copy, of which `first` is the first output row; null outside. */
INLINE const float *planar_source(const struct planar *p, long image, long first, long plane, long row) {
    long y = first * p->stride_y - p->pad_top + row;
    if (y < 0 || y >= p->height) return NULL;
    return p->x + image * p->image_stride + plane * p->plane_stride + y * p->row_stride + planar_copied(p).skipped;
}

/* Copy the image rows under output rows `first` and after, as far as they are inside, to `to`. */
static __attribute__((noinline, unused)) void planar_copy(const struct planar *p, long image, long first, float *to) {
    long width = planar_width(p), rows = planar_rows(p);
    struct planar_copied copied = planar_copied(p);
    for (long c = 0; c < p->planes; c++)
        for (long row = 0; row < rows; row++, to += width) {
            const float *from = planar_source(p, image, first, c, row);
            if (!from || copied.inside == 0) {
                memset(to, 0, (size_t)width * sizeof *to);
                continue;
            }
            long end = copied.before + copied.inside;
            memset(to, 0, (size_t)copied.before * sizeof *to);
            memcpy(to + copied.before, from, (size_t)copied.inside * sizeof *to);
            memset(to + end, 0, (size_t)(width - end) * sizeof *to);
        }
}

/* Round the rows of a plane to `half`, zeros around them. */
INLINE void planar_round(const struct planar *p, long image, long first, long plane, bf16_element *half) {
    long row_length = planar_half_row(p);
    struct planar_copied copied = planar_copied(p);
    for (long row = 0; row < planar_rows(p); row++, half += row_length) {
        const float *from = planar_source(p, image, first, plane, row);
        memset(half, 0, (size_t)row_length * sizeof *half);
        if (from && copied.inside) bf16_round_row((float *)(half + copied.before), from, 1, copied.inside);
    }
}

/* The same as planar_copy in words; those that no tap reads are left as they are. */
static __attribute__((noinline, unused)) void planar_copy_bf16(const struct planar *p, long image, long first,
                                                               float *to) {
    long width = planar_width(p), rows = planar_rows(p), row_length = planar_half_row(p);
    const int odd = p->kernel_height % 2;
    bf16_element *halves = (bf16_element *)(to + planar_floats(1, p));
    for (long c = 0; c < p->planes; c++) {
        planar_round(p, image, first, c, halves);
        for (long row = 0; row < rows; row++) {
            const bf16_element *half = halves + row * row_length, *below = half + row_length;
            bf16_word *words = (bf16_word *)to;
            if (row + 1 < rows && (p->stride_y % 2 || row % 2 == 0))
                for (long i = 0; i < width; i++) words[i] = (int32_t)(half[i] | (uint32_t)below[i] << 16);
            to += width;
            if (!odd) continue;
            words = (bf16_word *)to;
            long last = row - p->kernel_height + 1;
            if (last >= 0 && last % p->stride_y == 0)
                for (long i = 0; i < width; i++) words[i] = half[i];
            to += width;
        }
    }
}

/* Where a tile stands: its output row and column, as the hooks see them, and how much of it there is. */
struct planar_place {
    long row, pixels, column, outputs;
};

/* sum += element * column for a tile, of floats or of words. */
INLINE void planar_step(const int bf16, const int pixels, const int vectors, const struct planar *p, const float *a,
                        const vf *column, vf *sum) {
    if (!bf16) {
        UNROLL for (int i = 0; i < pixels; i++) {
            vf element = vf_all(a[i * p->stride_x]);
            UNROLL for (int j = 0; j < vectors; j++) ADD_PRODUCT(sum[i * vectors + j], element, column[j]);
        }
        return;
    }
#ifdef BF16_INSTRUCTIONS
    UNROLL for (int i = 0; i < pixels; i++)
        UNROLL for (int j = 0; j < vectors; j++)
            sum[i * vectors + j] = bf16_dot(sum[i * vectors + j], bf16_all(a + i * p->stride_x), (vi)column[j]);
#else
    UNROLL for (int second = 0; second < 2; second++)
        UNROLL for (int i = 0; i < pixels; i++) {
            vf element = bf16_half(second, bf16_all(a + i * p->stride_x));
            UNROLL for (int j = 0; j < vectors; j++)
                sum[i * vectors + j] += element * bf16_half(second, (vi)column[j]);
        }
#endif
}

/* sum += the products of a tile of `pixels`: `from` is tap 0 of its first pixel, `panel` its first column at k = 0. */
INLINE void planar_multiply(const int bf16, const int pixels, const int vectors, const int lanes,
                            const struct planar *p, const float *from, const float *panel, long panel_width, vf *sum) {
    const long width = planar_width(p), plane = planar_rows(p) * planar_lines(bf16, p) * width;
    const long rows = planar_taps(bf16, p);
    for (long c = 0; c < p->planes; c++)
        for (long ky = 0; ky < rows; ky++) {
            const float *a = from + c * plane + planar_line(bf16, p, ky) * width;
            /* Taps of neighbours are the same elements: a compiler that sees it, or that mixes iterations, keeps more of
             * them than there are registers. */
            long taps = p->kernel_width;
            __asm__("" : "+r"(taps));
            _Pragma("GCC unroll 1") for (long kx = 0; kx < taps; kx++, a++, panel += panel_width) {
                __asm__("" : "+r"(a));
                vf column[2];
                UNROLL for (int j = 0; j < vectors; j++)
                    column[j] = vf_loaded(tile_load_lanes(panel + j * VL, j == vectors - 1 ? lanes : VL));
                planar_step(bf16, pixels, vectors, p, a, column, sum);
            }
        }
}

/* A tile of which some pixels or columns do not exist: accumulators travel through memory. */
INLINE void planar_edge(const int bf16, const int vectors, const int lanes, const struct planar *p,
                        const float *from, const float *panel, long panel_width, const struct planar_place *at,
                        start_hook *start, finish_hook *finish, const void *context) {
    vf kept[2 * PLANAR_PIXELS] = {{0}}, sum[2 * PLANAR_PIXELS];
    for (long i = 0; i < at->pixels; i++)
        for (long j = 0; j < vectors; j++) {
            long column = at->column + j * VL, left = at->outputs - column;
            if (left > 0) kept[i * vectors + j] = start(context, at->row + i, column, left < VL ? left : VL);
        }
    UNROLL for (int i = 0; i < PLANAR_PIXELS * vectors; i++) sum[i] = kept[i];
    planar_multiply(bf16, PLANAR_PIXELS, vectors, lanes, p, from, panel, panel_width, sum);
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
INLINE void planar_whole(const int bf16, const int vectors, const int lanes, const struct planar *p,
                         const float *from, const float *panel, long panel_width, const struct planar_place *at,
                         start_hook *start, finish_hook *finish, const void *context) {
    vf sum[2 * PLANAR_PIXELS];
    UNROLL for (int i = 0; i < 2 * PLANAR_PIXELS; i++)
        sum[i] = start(context, at->row + i / vectors, at->column + i % vectors * VL,
                       i % vectors == vectors - 1 ? lanes : VL);
    planar_multiply(bf16, PLANAR_WHOLE(vectors), vectors, lanes, p, from, panel, panel_width, sum);
    UNROLL for (int i = 0; i < 2 * PLANAR_PIXELS; i++)
        finish(context, sum[i], at->row + i / vectors, at->column + i % vectors * VL,
               i % vectors == vectors - 1 ? lanes : VL);
}

/* The tiles of `vectors` vectors of columns from at->column on, the last of `lanes` lanes, of one output row. */
INLINE void planar_row(const int bf16, const int vectors, const int lanes, const struct planar *p,
                       const float *line, const float *panel, long panel_width, struct planar_place at,
                       start_hook *start, finish_hook *finish, const void *context) {
    const int whole = at.column + (vectors - 1) * VL + lanes <= p->outputs;
    for (long ox = 0; ox < p->out_width; ox += at.pixels, at.row += at.pixels) {
        const float *from = line + ox * p->stride_x;
        at.pixels = PLANAR_WHOLE(vectors);
        if (whole && p->out_width - ox >= at.pixels) {
            planar_whole(bf16, vectors, lanes, p, from, panel, panel_width, &at, start, finish, context);
            continue;
        }
        at.pixels = p->out_width - ox < PLANAR_PIXELS ? p->out_width - ox : PLANAR_PIXELS;
        planar_edge(bf16, vectors, lanes, p, from, panel, panel_width, &at, start, finish, context);
    }
}

INLINE void planar_item_of(const int bf16, const struct planar *p, long item, void *scratch, start_hook *start,
                           finish_hook *finish, const void *context) {
    long image = item / p->bands, band = item % p->bands;
    long first = part_begin(p->out_height, p->bands, band), last = part_begin(p->out_height, p->bands, band + 1);
    long width = planar_width(p), depth = p->planes * planar_taps(bf16, p) * p->kernel_width;
    const struct planar elsewhere = *p; /* the caller's may be a local one whose numbers the compiler knows */
    if (bf16) planar_copy_bf16(&elsewhere, image, first, scratch);
    else planar_copy(&elsewhere, image, first, scratch);
    const long step = p->stride_y * planar_lines(bf16, p) * width;
    for (long column = 0; column < p->outputs;) {
        long panel_width = panels_width(p->outputs, column / PANEL_COLUMNS), within = column % PANEL_COLUMNS;
        const float *panel = p->panels + depth * (column - within) + within;
        long left = panel_width - within;
        long columns = left >= 2 * VL ? 2 * VL : left;
        for (long oy = first; oy < last; oy++) {
            const float *line = (const float *)scratch + (oy - first) * step;
            struct planar_place at = {(image * p->out_height + oy) * p->out_width, 0, column, p->outputs};
#define PLANAR_CASE(VECTORS, LANES)                                                                   \
    if (columns == (VECTORS - 1) * VL + LANES)                                                        \
        planar_row(bf16, VECTORS, LANES, p, line, panel, panel_width, at, start, finish, context);
            PLANAR_CASE(2, VL)
#if VL == 16
            PLANAR_CASE(2, 8)
            PLANAR_CASE(1, 16)
#endif
#if VL >= 8
            PLANAR_CASE(1, 8)
#endif
#undef PLANAR_CASE
        }
        column += columns;
    }
}

/* Compute item 0 <= item < planar_items(p); scratch: planar_scratch_bytes(p), aligned to 64 bytes. */
INLINE void planar_item(const struct planar *p, long item, void *scratch, start_hook *start, finish_hook *finish,
                        const void *context) {
    planar_item_of(0, p, item, scratch, start, finish, context);
}
/* The same in bf16; scratch: planar_bf16_scratch_bytes(p). */
INLINE long planar_bf16_items(const struct planar *p) { return planar_items(p); }
INLINE void planar_bf16_item(const struct planar *p, long item, void *scratch, start_hook *start, finish_hook *finish,
                             const void *context) {
    planar_item_of(1, p, item, scratch, start, finish, context);
}

#endif
