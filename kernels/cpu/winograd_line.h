/* Convolution along lines, with 3 or 5 taps and stride 1, by Winograd's minimal filtering, fp32, channels-last:
 * F(4, 3) and F(4, 5), the one-dimensional algorithms of winograd.h.
 *
 *   Y = A' [ (G g) . (B' d) ]      d: taps + 3 input pixels, Y: 4 output pixels, summed over the channels
 *
 * The interpolation points are 0, 1, -1, 2, -2 and infinity, for 5 taps 1/2 and -1/2 besides. There are 2 or 2.5 times
 * fewer multiplications than in the direct sum; as the transforms are applied once only, the error stays within three
 * times that of the direct sum.
 *
 * A line is a row of pixels, or a column: its pixels lie `step` floats apart, lines `line_stride`. weights: from
 * winograd.py, for each panel of 32 output columns [taps + 3][channels][width]; the row that the hooks see of pixel p
 * of line l of image n is n * lines * out_length + l * row_line + p * row_step. Items are as in winograd.h.
 */
#ifndef FUSIBLE_WINOGRAD_LINE_H
#define FUSIBLE_WINOGRAD_LINE_H

#include "winograd.h"

#define LINE_TILE 4

struct winograd_line {
    const float *x;        /* image 0, line 0, pixel 0, channel 0 */
    const float *weights;
    long images, lines, length, channels, outputs;
    long pad, out_length;
    long image_stride, line_stride, step;            /* floats */
    long row_line, row_step;
    long blocks, tiles_per_item, panels_per_item;    /* as winograd.h's */
};

/* As the functions of winograd.h see it that know no pixels. */
INLINE struct winograd winograd_line_shape(const struct winograd_line *l) {
    return (struct winograd){.x = l->x, .weights = l->weights, .images = l->images, .channels = l->channels,
                             .outputs = l->outputs, .blocks = l->blocks,
                             .tiles_per_item = l->tiles_per_item, .panels_per_item = l->panels_per_item};
}
INLINE long winograd_line_tiles(const struct winograd_line *l) {
    return l->lines * winograd_parts(l->out_length, LINE_TILE);
}
INLINE long winograd_line_items(const int taps, const struct winograd_line *l) {
    (void)taps;
    return l->images * l->blocks * winograd_parts(panels_count(l->outputs), l->panels_per_item);
}
INLINE long winograd_line_scratch_bytes(const int taps, const struct winograd_line *l) {
    struct winograd w = winograd_line_shape(l);
    return winograd_bytes(&w, taps + 3);
}

/* out = B' in. */
INLINE void winograd_line_input_vector(const int taps, const vf *in, vf *out) {
    if (taps == 3) {
        winograd_input_vector(4, in, out);
        return;
    }
    vf even = in[2] - 4.25f * in[4] + in[6], odd = in[1] - 4.25f * in[3] + in[5];
    out[0] = in[0] - in[6] + 5.25f * (in[4] - in[2]);
    out[1] = even + odd;
    out[2] = even - odd;
    even = 0.25f * in[2] - 1.25f * in[4] + in[6];
    odd = 0.5f * in[1] - 2.5f * in[3] + 2.0f * in[5];
    out[3] = even + odd;
    out[4] = even - odd;
    even = 4.0f * in[2] - 5.0f * in[4] + in[6];
    odd = 2.0f * in[1] - 2.5f * in[3] + 0.5f * in[5];
    out[5] = even + odd;
    out[6] = even - odd;
    out[7] = in[7] - in[1] + 5.25f * (in[3] - in[5]);
}

/* out = A' in: 4 values. */
INLINE void winograd_line_output_vector(const int taps, const vf *in, vf *out) {
    if (taps == 3) {
        winograd_output_vector(4, in, out);
        return;
    }
    vf a = in[1] + in[2], b = in[1] - in[2], c = in[3] + in[4], d = in[3] - in[4], e = in[5] + in[6], f = in[5] - in[6];
    out[0] = in[0] + a + c + e;
    out[1] = b + 2.0f * d + 0.5f * f;
    out[2] = a + 4.0f * c + 0.25f * e;
    out[3] = b + 8.0f * d + 0.125f * f + in[7];
}

/* B' d for `lanes` channels of the tile that begins at pixel `first` of a line, into v + point * stride. */
INLINE void winograd_line_input_tile(const int taps, const int inside, const struct winograd_line *l, const float *line,
                                     long first, long lanes, float *v, long stride) {
    vf in[8], out[8];
    UNROLL for (int p = 0; p < taps + 3; p++) {
        long at = first + p;
        in[p] = inside ? vf_load(line + at * l->step)
                : at < 0 || at >= l->length ? (vf){0} : vf_load_first(line + at * l->step, lanes);
    }
    winograd_line_input_vector(taps, in, out);
    UNROLL for (int p = 0; p < taps + 3; p++) vf_store_first(v + p * stride, out[p], lanes);
}

/* Transform the tiles of a block into V, and point the table at the first matrix. */
INLINE void winograd_line_input(const int taps, const struct winograd_line *l, const struct winograd_block *b) {
    struct winograd w = winograd_line_shape(l);
    long along = winograd_parts(l->out_length, LINE_TILE), stride = winograd_input_stride(&w);
    for (long tile = 0; tile < b->count; tile++) {
        const float *line = l->x + b->image * l->image_stride + (b->first + tile) / along * l->line_stride;
        long first = (b->first + tile) % along * LINE_TILE - l->pad, c = 0;
        float *v = b->v + tile * l->channels;
        if (first >= 0 && first + taps + 3 <= l->length)
            for (; c + VL <= l->channels; c += VL)
                winograd_line_input_tile(taps, 1, l, line + c, first, VL, v + c, stride);
        for (; c < l->channels; c += VL) {
            long lanes = l->channels - c < VL ? l->channels - c : VL;
            winograd_line_input_tile(taps, 0, l, line + c, first, lanes, v + c, stride);
        }
    }
    for (long tile = 0; tile < b->count + TILE_ROWS; tile++)
        b->table[tile] = b->v + (tile < b->count ? tile : b->count - 1) * l->channels;
}

WINOGRAD_FUNCTION winograd_line_input_3(const struct winograd_line *l, const struct winograd_block *b) {
    winograd_line_input(3, l, b);
}
WINOGRAD_FUNCTION winograd_line_input_5(const struct winograd_line *l, const struct winograd_block *b) {
    winograd_line_input(5, l, b);
}

/* The output pixels of a tile for `lanes` columns: transform, start hook, finish hook. */
INLINE void winograd_line_finish(const int taps, const struct winograd_line *l, const struct winograd_block *b,
                                 long tile, const float *from, long step, long column, long lanes, start_hook *start,
                                 finish_hook *finish, const void *context) {
    vf in[8], out[LINE_TILE];
    UNROLL for (int p = 0; p < taps + 3; p++) in[p] = vf_load(from + p * step);
    winograd_line_output_vector(taps, in, out);
    long along = winograd_parts(l->out_length, LINE_TILE), line = (b->first + tile) / along;
    long first = (b->first + tile) % along * LINE_TILE;
    for (long p = 0; p < LINE_TILE && first + p < l->out_length; p++) {
        long row = b->image * l->lines * l->out_length + line * l->row_line + (first + p) * l->row_step;
        finish(context, start(context, row, column, lanes) + out[p], row, column, lanes);
    }
}

INLINE void winograd_line_panel(const int taps, const struct winograd_line *l, const struct winograd_block *b,
                                long first, start_hook *start, finish_hook *finish, const void *context) {
    struct winograd w = winograd_line_shape(l);
    long width = panels_width(l->outputs, first / PANEL_COLUMNS), rows = w.tiles_per_item + TILE_ROWS;
    winograd_products(&w, b, taps + 3, w.weights + (taps + 3) * w.channels * first, width);
    struct tile_chunk chunk;
    for (long at = 0; at < width; at += tile_chunk_columns(&chunk)) {
        chunk = tile_chunk_at(at, width);
        for (long tile = 0; tile < b->count; tile++)
            for (long j = 0; j < chunk.vectors; j++) {
                long column = first + at + j * VL, left = l->outputs - column, step = winograd_output_stride(&w);
                const float *from = (const float *)b->m + at * rows + (tile * chunk.vectors + j) * VL;
                if (left >= VL)
                    winograd_line_finish(taps, l, b, tile, from, step, column, VL, start, finish, context);
                else if (left > 0)
                    winograd_line_finish(taps, l, b, tile, from, step, column, left, start, finish, context);
            }
    }
}

/* Compute item 0 <= item < winograd_line_items(taps, l) with taps = 3 or 5, a constant; scratch:
 * winograd_line_scratch_bytes(taps, l), aligned to 64 bytes. */
INLINE void winograd_line_item(const int taps, const struct winograd_line *l, long item, void *scratch,
                               start_hook *start, finish_hook *finish, const void *context) {
    struct winograd w = winograd_line_shape(l);
    long groups = winograd_parts(panels_count(l->outputs), l->panels_per_item);
    long part = item % groups, number = item / groups;
    struct winograd_block b = winograd_block_of(&w, taps + 3, winograd_line_tiles(l), number, scratch);
    if (winograd_is_new(&b, number)) {
        if (taps == 3) winograd_line_input_3(l, &b);
        else winograd_line_input_5(l, &b);
    }
    long end = (part + 1) * l->panels_per_item;
    if (end > panels_count(l->outputs)) end = panels_count(l->outputs);
    for (long p = part * l->panels_per_item; p < end; p++)
        winograd_line_panel(taps, l, &b, p * PANEL_COLUMNS, start, finish, context);
}

#endif
