/* 3x3 convolution with stride 1 by Winograd's minimal filtering, fp32, channels-last: F(2x2, 3x3) and F(4x4, 3x3) of
 * Lavin and Gray 2016 ("Fast Algorithms for Convolutional Neural Networks").
 *
 *   Y = A' [ (G g G') . (B' d B) ] A      d: (m + 2)^2 input pixels, Y: m^2 output pixels, summed over the channels
 *
 * x: [images][height][width][channels] with strides; weights: from winograd.py, for each panel of 32 output columns
 * [(m + 2)^2][channels][width]; y is the finish hook's business, row (n * OH + oy) * OW + ox and column o. F(2x2) takes
 * 2.25 times fewer multiplications than the direct sum at no loss of accuracy, F(4x4) 4 times fewer at an error about
 * ten times larger.
 *
 * An item is (image, block of tiles, panels), panels innermost. The tiles of a block are transformed into V [(m + 2)^2]
 * [tile][channel], which should stay in L2, by each thread that has items of the block, once; for each panel all the
 * products M = V U are computed, then their output transforms, then the hooks: the start hook's value is added to each
 * output. Each block reads all the weights once more, which come from memory if they are many.
 */
#ifndef FUSIBLE_WINOGRAD_H
#define FUSIBLE_WINOGRAD_H

#include "register_tile.h"

struct winograd {
    const float *x;        /* image 0, pixel (0, 0), channel 0 */
    const float *weights;
    long images, height, width, channels, outputs;
    long pad_top, pad_left, out_height, out_width;
    long image_stride, row_stride, pixel_stride;     /* floats */
    long blocks, tiles_per_item, panels_per_item;    /* of an image, nearly equal; tiles of a block, at most */
};

INLINE long winograd_parts(long whole, long part) { return (whole + part - 1) / part; }
INLINE long winograd_tiles(const int m, const struct winograd *w) {
    return winograd_parts(w->out_height, m) * winograd_parts(w->out_width, m);
}
INLINE long winograd_items(const int m, const struct winograd *w) {
    (void)m;
    return w->images * w->blocks * winograd_parts(panels_count(w->outputs), w->panels_per_item);
}

/* Floats from one matrix of V or M to the next: 64 bytes more than their size, lest all of them meet in one L1 set. */
INLINE long winograd_input_stride(const struct winograd *w) { return w->tiles_per_item * w->channels + 16; }
INLINE long winograd_output_stride(const struct winograd *w) {
    return (w->tiles_per_item + TILE_ROWS) * PANEL_COLUMNS + 16;
}
INLINE long winograd_bytes(const struct winograd *w, long matrices) {
    long floats = matrices * (winograd_output_stride(w) + winograd_input_stride(w) + 16);
    return SCRATCH_HEAD + floats * (long)sizeof(float) + (w->tiles_per_item + TILE_ROWS) * (long)sizeof(float *);
}
INLINE long winograd_scratch_bytes(const int m, const struct winograd *w) {
    return winograd_bytes(w, (m + 2) * (m + 2));
}

/* An item's part of the work, and of the scratch memory. */
struct winograd_block {
    long *number;     /* of the block that V holds, of all images */
    vf *m;
    float *v;
    const float **table;
    long image, first, count;
};

INLINE struct winograd_block winograd_block_of(const struct winograd *w, long matrices, long tiles, long number,
                                               void *scratch) {
    long block = number % w->blocks;
    struct winograd_block b = {scratch, (vf *)((char *)scratch + SCRATCH_HEAD), .image = number / w->blocks,
                               .first = part_begin(tiles, w->blocks, block)};
    b.count = part_begin(tiles, w->blocks, block + 1) - b.first;
    b.v = (float *)b.m + matrices * winograd_output_stride(w);
    b.table = (const float **)(b.v + matrices * (winograd_input_stride(w) + 16));
    return b;
}
/* Whether the block's tiles have yet to be transformed; then they will have been. */
INLINE int winograd_is_new(const struct winograd_block *b, long number) {
    int is_new = *b->number != number;
    *b->number = number;
    return is_new;
}

/* out = B' in, for a vector of m + 2 values. */
INLINE void winograd_input_vector(const int m, const vf *in, vf *out) {
    if (m == 2) {
        out[0] = in[0] - in[2];
        out[1] = in[1] + in[2];
        out[2] = in[2] - in[1];
        out[3] = in[1] - in[3];
        return;
    }
    vf a = in[4] - 4.0f * in[2], b = in[3] - 4.0f * in[1], c = in[4] - in[2], d = 2.0f * (in[3] - in[1]);
    out[0] = 4.0f * in[0] - 5.0f * in[2] + in[4];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = c + d;
    out[4] = c - d;
    out[5] = 4.0f * in[1] - 5.0f * in[3] + in[5];
}

/* out = A' in, m values from m + 2. */
INLINE void winograd_output_vector(const int m, const vf *in, vf *out) {
    if (m == 2) {
        out[0] = in[0] + in[1] + in[2];
        out[1] = in[1] - in[2] - in[3];
        return;
    }
    vf a = in[1] + in[2], b = in[1] - in[2], c = in[3] + in[4], d = in[3] - in[4];
    out[0] = in[0] + a + c;
    out[1] = b + 2.0f * d;
    out[2] = a + 4.0f * c;
    out[3] = b + 8.0f * d + in[5];
}

/* `lanes` channels of the pixel (y, x), zero outside the image. */
INLINE vf winograd_pixel(const struct winograd *w, const float *image, long y, long x, long lanes) {
    if (y < 0 || y >= w->height || x < 0 || x >= w->width) return (vf){0};
    return vf_load_first(image + y * w->row_stride + x * w->pixel_stride, lanes);
}

/* B' d B for `lanes` channels of the tile whose first input pixel is (top, left), into v + matrix * stride. */
INLINE void winograd_input_tile(const int m, const int inside, const struct winograd *w, const float *image, long top,
                                long left, long lanes, float *v) {
    vf half[6][6], column[6], out[6];
    long stride = winograd_input_stride(w);
    for (int x = 0; x < m + 2; x++) {
        UNROLL for (int y = 0; y < m + 2; y++)
            column[y] = inside ? vf_load(image + (top + y) * w->row_stride + (left + x) * w->pixel_stride)
                               : winograd_pixel(w, image, top + y, left + x, lanes);
        winograd_input_vector(m, column, out);
        UNROLL for (int y = 0; y < m + 2; y++) half[y][x] = out[y];
    }
    for (int y = 0; y < m + 2; y++) {
        winograd_input_vector(m, half[y], out);
        UNROLL for (int x = 0; x < m + 2; x++) vf_store_first(v + (y * (m + 2) + x) * stride, out[x], lanes);
    }
}

/* Transform the tiles of a block into V, and point the table at the first matrix. */
INLINE void winograd_input(const int m, const struct winograd *w, const struct winograd_block *b) {
    long across = winograd_parts(w->out_width, m);
    const float *image = w->x + b->image * w->image_stride;
    for (long tile = 0; tile < b->count; tile++) {
        long top = (b->first + tile) / across * m - w->pad_top, left = (b->first + tile) % across * m - w->pad_left;
        float *v = b->v + tile * w->channels;
        int inside = top >= 0 && left >= 0 && top + m + 2 <= w->height && left + m + 2 <= w->width;
        long c = 0;
        if (inside)
            for (; c + VL <= w->channels; c += VL) winograd_input_tile(m, 1, w, image + c, top, left, VL, v + c);
        for (; c < w->channels; c += VL) {
            long lanes = w->channels - c < VL ? w->channels - c : VL;
            winograd_input_tile(m, 0, w, image + c, top, left, lanes, v + c);
        }
    }
    for (long tile = 0; tile < b->count + TILE_ROWS; tile++)
        b->table[tile] = b->v + (tile < b->count ? tile : b->count - 1) * w->channels;
}

/* M = V U for one chunk of a panel, all matrices; `m_of` is the chunk's part of M, [matrix][tile][chunk->vectors]. */
INLINE void winograd_multiply(const struct winograd *w, const struct winograd_block *b, const struct tile_chunk *chunk,
                              const float *panel, long width, long matrix, vf *m_of) {
    struct tile_split split = tile_split_of(chunk, b->count);
    for (long number = 0, tile = 0, rows; tile < b->count; number++, tile += rows) {
        rows = tile_rows_of(&split, number);
        struct tile_operands o = {.table = b->table + tile, .slots = 0, .segments = 1,
                                  .offset = matrix * winograd_input_stride(w), .length = w->channels,
                                  .panel = panel + chunk->column, .width = width, .fresh = 1};
        tile_prefetch(&o, chunk, &split, number, w->channels);
        tile_run(TILE_FLOATS, chunk, rows, &o, m_of + tile * chunk->vectors);
    }
}

#define WINOGRAD_FUNCTION static __attribute__((noinline, unused)) void

WINOGRAD_FUNCTION winograd_input_2(const struct winograd *w, const struct winograd_block *b) {
    winograd_input(2, w, b);
}
WINOGRAD_FUNCTION winograd_input_4(const struct winograd *w, const struct winograd_block *b) {
    winograd_input(4, w, b);
}

/* All the products of a panel; a chunk's part of a matrix begins at its first column. */
WINOGRAD_FUNCTION winograd_products(const struct winograd *w, const struct winograd_block *b, long matrices,
                                    const float *panel, long width) {
    long rows = w->tiles_per_item + TILE_ROWS;
    for (long matrix = 0; matrix < matrices; matrix++, panel += w->channels * width) {
        float *m = (float *)b->m + matrix * winograd_output_stride(w);
        struct tile_chunk chunk;
        for (long at = 0; at < width; at += tile_chunk_columns(&chunk)) {
            chunk = tile_chunk_at(at, width);
            winograd_multiply(w, b, &chunk, panel, width, matrix, (vf *)(m + at * rows));
        }
    }
}

/* A' M A of one tile and vector; `step` floats lie between matrices. */
INLINE void winograd_output_tile(const int m, const float *from, long step, vf *out) {
    vf half[4][6], column[6], part[4];
    for (int x = 0; x < m + 2; x++) {
        UNROLL for (int y = 0; y < m + 2; y++) column[y] = vf_load(from + (y * (m + 2) + x) * step);
        winograd_output_vector(m, column, part);
        UNROLL for (int y = 0; y < m; y++) half[y][x] = part[y];
    }
    for (int y = 0; y < m; y++) winograd_output_vector(m, half[y], out + y * m);
}

/* The output pixels of a tile for `lanes` columns: transform, start hook, finish hook. */
INLINE void winograd_finish(const int m, const struct winograd *w, const struct winograd_block *b, long tile,
                            const float *from, long column, long lanes, start_hook *start, finish_hook *finish,
                            const void *context) {
    vf out[16];
    winograd_output_tile(m, from, winograd_output_stride(w), out);
    long across = winograd_parts(w->out_width, m);
    long oy = (b->first + tile) / across * m, ox = (b->first + tile) % across * m;
    for (long y = 0; y < m && oy + y < w->out_height; y++)
        for (long x = 0; x < m && ox + x < w->out_width; x++) {
            long row = (b->image * w->out_height + oy + y) * w->out_width + ox + x;
            finish(context, start(context, row, column, lanes) + out[y * m + x], row, column, lanes);
        }
}

INLINE void winograd_panel(const int m, const struct winograd *w, const struct winograd_block *b, long first,
                           start_hook *start, finish_hook *finish, const void *context) {
    long matrices = (m + 2) * (m + 2), width = panels_width(w->outputs, first / PANEL_COLUMNS);
    long rows = w->tiles_per_item + TILE_ROWS;
    winograd_products(w, b, matrices, w->weights + matrices * w->channels * first, width);
    struct tile_chunk chunk;
    for (long at = 0; at < width; at += tile_chunk_columns(&chunk)) {
        chunk = tile_chunk_at(at, width);
        for (long tile = 0; tile < b->count; tile++)
            for (long j = 0; j < chunk.vectors; j++) {
                long column = first + at + j * VL, left = w->outputs - column;
                const float *from = (const float *)b->m + at * rows + (tile * chunk.vectors + j) * VL;
                if (left >= VL) winograd_finish(m, w, b, tile, from, column, VL, start, finish, context);
                else if (left > 0) winograd_finish(m, w, b, tile, from, column, left, start, finish, context);
            }
    }
}

/* Compute item 0 <= item < winograd_items(m, w) with m = 2 or 4, a constant; scratch: winograd_scratch_bytes(m, w),
 * aligned to 64 bytes. */
INLINE void winograd_item(const int m, const struct winograd *w, long item, void *scratch, start_hook *start,
                          finish_hook *finish, const void *context) {
    long panel_groups = winograd_parts(panels_count(w->outputs), w->panels_per_item);
    long part = item % panel_groups, number = item / panel_groups;
    struct winograd_block b = winograd_block_of(w, (m + 2) * (m + 2), winograd_tiles(m, w), number, scratch);
    if (winograd_is_new(&b, number)) {
        if (m == 2) winograd_input_2(w, &b);
        else winograd_input_4(w, &b);
    }
    long end = (part + 1) * w->panels_per_item;
    if (end > panels_count(w->outputs)) end = panels_count(w->outputs);
    for (long p = part * w->panels_per_item; p < end; p++)
        winograd_panel(m, w, &b, p * PANEL_COLUMNS, start, finish, context);
}

#endif
