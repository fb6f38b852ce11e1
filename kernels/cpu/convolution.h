/* Convolution, fp32, channels-last.
 *
 *   y[n][oy][ox][o] = sum over ky, kx, c of
 *                     x[n][oy * sy - top + ky * dy][ox * sx - left + kx * dx][c] * w[ky][kx][c][o]
 *
 * x: [images][height][width][groups * channels] with strides; w: for each group panels of 32 of its `outputs` columns,
 * [K][width] floats each, K in the order (ky, kx, c); y is the finish hook's business, row (n * OH + oy) * OW + ox and
 * column group * outputs + o. Any kernel, stride, dilation and padding; 1x1 is the case of a single tap.
 *
 * An image of few channels may be stored channels first (a model's input is): as several planes of one channel each, K
 * then in the order (plane, ky, kx). The kernel's rows in all the planes are one list of rows.
 *
 * An implicit GEMM without im2col, after Dukhan 2019 ("The Indirect Convolution Algorithm"): for a band of output
 * pixels a table holds a pointer for each tap and pixel, at the input pixel or, in the padding, at a row of zeros. The
 * taps of one kernel row are adjacent in memory, if pixels are contiguous and the dilation is 1: tiles whose pixels
 * touch no padding at the left or right run over them as one segment of K. The band's pixels run on over the ends of
 * image rows, so that 7x7 images fill the tiles as well as large ones.
 *
 * An item is (image, group, band, panels): for each half panel, which stays in L1 or L2, all the tiles of the band.
 */
#ifndef FUSIBLE_CONVOLUTION_H
#define FUSIBLE_CONVOLUTION_H

#include "register_tile.h"

struct convolution {
    const float *x;         /* image 0, pixel (0, 0), channel 0 */
    const float *panels;
    long images, height, width;
    long groups, channels, outputs;                       /* channels and outputs of one group */
    long kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x;
    long pad_top, pad_left, out_height, out_width;        /* padding at the bottom and right follows from the sizes */
    long planes, plane_stride;                            /* 1 plane of all channels, or one for each */
    long image_stride, row_stride, pixel_stride;          /* floats, as plane_stride */
    long band, panels_per_item;                           /* output pixels and panels of an item */
    int fill;                                             /* each byte in the padding: not 0 with bytes alone */
};

INLINE long ceiling_divide(long a, long b) { return (a + b - 1) / b; }

INLINE long convolution_bands(const struct convolution *c) {
    return ceiling_divide(c->out_height * c->out_width, c->band);
}
INLINE long convolution_panel_groups(const struct convolution *c) {
    return ceiling_divide(panels_count(c->outputs), c->panels_per_item);
}
INLINE long convolution_items(const struct convolution *c) {
    return c->images * c->groups * convolution_bands(c) * convolution_panel_groups(c);
}

/* Rows of the kernel, in all planes; taps; K. */
INLINE long convolution_kernel_rows(const struct convolution *c) { return c->planes * c->kernel_height; }
INLINE long convolution_taps(const struct convolution *c) { return convolution_kernel_rows(c) * c->kernel_width; }
INLINE long convolution_depth(const struct convolution *c) { return convolution_taps(c) * c->channels; }

INLINE int convolution_single_tap(const struct convolution *c) { return convolution_taps(c) == 1; }

/* Floats of K in a block, more or less; 128 bytes of a panel each. */
#define CONVOLUTION_DEPTH 1536

/* The parts of the scratch memory: accumulators, the table of pointers, the output row of each pixel, a row of zeros,
 * and whether a pixel has taps beyond the left or right end of the image. */
struct convolution_band {
    vf *accumulators;
    const float **table;          /* [tap][slot] */
    long *rows;                   /* [slot] */
    float *zeros;
    unsigned char *clipped;       /* [slot] */
    long slots, first, count;     /* pixels first ... first + count - 1 of the image */
    const float *x;               /* the image, at the group's first channel */
};

INLINE long convolution_zeros(const struct convolution *c) { return (c->kernel_width * c->channels + 15) / 16 * 16; }
INLINE long convolution_slots(const struct convolution *c) { return (c->band + TILE_ROWS + 7) / 8 * 8; }
/* Tiles of a band for a chunk, at most, and room for four chunks of a panel if K has several blocks. */
INLINE long convolution_tiles(const struct convolution *c) {
    return convolution_depth(c) > CONVOLUTION_DEPTH ? c->band / 3 + 1 : 1;
}
INLINE long convolution_scratch_bytes(const struct convolution *c) {
    long taps = convolution_taps(c), slots = convolution_slots(c);
    return 4 * convolution_tiles(c) * TILE_SIZE * (long)sizeof(vf) +
           slots * (taps * (long)sizeof(float *) + (long)sizeof(long) + 1) + convolution_zeros(c) * (long)sizeof(float);
}

INLINE struct convolution_band convolution_band_of(const struct convolution *c, long image, long group, long band,
                                                   void *scratch) {
    long taps = convolution_taps(c), pixels = c->out_height * c->out_width;
    struct convolution_band b = {.slots = convolution_slots(c), .first = band * c->band};
    b.count = pixels - b.first < c->band ? pixels - b.first : c->band;
    b.accumulators = scratch;
    b.table = (const float **)(b.accumulators + 4 * convolution_tiles(c) * TILE_SIZE);
    b.rows = (long *)(b.table + taps * b.slots);
    b.zeros = (float *)(b.rows + b.slots);
    b.clipped = (unsigned char *)(b.zeros + convolution_zeros(c));
    b.x = c->x + image * c->image_stride + group * c->channels;
    return b;
}

/* Image rows that a band sees, at most. */
INLINE long convolution_most_rows(const struct convolution *c) {
    long out_rows = c->out_width ? (c->band + c->out_width - 2) / c->out_width + 1 : 1;
    if (out_rows > c->out_height) out_rows = c->out_height;
    long rows = (out_rows - 1) * c->stride_y + (c->kernel_height - 1) * c->dilation_y + 1;
    return rows < c->height ? rows : c->height;
}

/* The rows of the image that a band sees. */
struct convolution_rows {
    long first, end;
};
INLINE struct convolution_rows convolution_rows_of(const struct convolution *c, long band) {
    long pixels = c->out_height * c->out_width, from = band * c->band;
    long to = from + c->band < pixels ? from + c->band : pixels;
    long first = from / c->out_width * c->stride_y - c->pad_top;
    long end = (to - 1) / c->out_width * c->stride_y - c->pad_top + (c->kernel_height - 1) * c->dilation_y + 1;
    if (first < 0) first = 0;
    if (end > c->height) end = c->height;
    return (struct convolution_rows){first, end < first ? first : end};
}

/* The first of `run` pixels, `stride` columns apart from `column` on, that does not lie left of column `bound`. */
INLINE long convolution_first_from(long column, long stride, long bound, long run) {
    if (column >= bound) return 0;
    long first = ceiling_divide(bound - column, stride);
    return first < run ? first : run;
}

/* Pointers of one tap for a run of pixels, the first at `column` of the image row (null: a row of padding). */
INLINE void convolution_point_tap(const struct convolution *c, const float *zeros, const float *row, long column,
                                  long run, const float **to) {
    long inside = convolution_first_from(column, c->stride_x, 0, run);
    long end = convolution_first_from(column, c->stride_x, c->width, run), step = c->stride_x * c->pixel_stride;
    if (!row) inside = end = run;
    for (long i = 0; i < inside; i++) to[i] = zeros;
    if (inside < end) {
        const float *x = row + column * c->pixel_stride;
        for (long i = inside; i < end; i++) to[i] = x + i * step;
    }
    for (long i = end; i < run; i++) to[i] = zeros;
}

/* The pointers of pixels slot ... slot + run - 1, which lie in output row oy from column ox on. */
INLINE void convolution_point_run(const struct convolution *c, const struct convolution_band *b, long slot, long run,
                                  long oy, long ox) {
    long left = ox * c->stride_x - c->pad_left, right = left + (c->kernel_width - 1) * c->dilation_x;
    long inside = convolution_first_from(left, c->stride_x, 0, run);
    long end = convolution_first_from(right, c->stride_x, c->width, run);
    for (long i = 0; i < run; i++) b->clipped[slot + i] = i < inside || i >= end;
    for (long r = 0; r < convolution_kernel_rows(c); r++) {
        long plane = r / c->kernel_height, iy = oy * c->stride_y - c->pad_top + r % c->kernel_height * c->dilation_y;
        const float *row = iy < 0 || iy >= c->height ? 0 : b->x + plane * c->plane_stride + iy * c->row_stride;
        for (long kx = 0; kx < c->kernel_width; kx++)
            convolution_point_tap(c, b->zeros, row, left + kx * c->dilation_x, run,
                                  b->table + (r * c->kernel_width + kx) * b->slots + slot);
    }
}

/* Fill the scratch memory of a band. The slots after the last pixel repeat it: a tile may run over them. */
static __attribute__((noinline, unused)) void convolution_point(const struct convolution *c,
                                                                const struct convolution_band *b, long image) {
    memset(b->zeros, c->fill, (size_t)convolution_zeros(c) * sizeof(float));
    for (long slot = 0; slot < b->count;) {
        long pixel = b->first + slot, oy = pixel / c->out_width, ox = pixel % c->out_width;
        long run = c->out_width - ox < b->count - slot ? c->out_width - ox : b->count - slot;
        convolution_point_run(c, b, slot, run, oy, ox);
        for (long i = 0; i < run; i++) b->rows[slot + i] = image * c->out_height * c->out_width + pixel + i;
        slot += run;
    }
    for (long slot = b->count; slot < b->count + TILE_ROWS; slot++) {
        b->clipped[slot] = b->clipped[b->count - 1];
        for (long tap = 0; tap < convolution_taps(c); tap++)
            b->table[tap * b->slots + slot] = b->table[tap * b->slots + b->count - 1];
    }
}

/* Whether kernel rows are single segments where nothing is clipped, and whether nothing is for `rows` pixels. */
INLINE int convolution_contiguous(const struct convolution *c) {
    return c->kernel_width > 1 && c->dilation_x == 1 && c->pixel_stride == c->channels;
}
INLINE int convolution_unclipped(const struct convolution_band *b, long slot, long rows) {
    int clipped = 0;
    for (long i = 0; i < rows; i++) clipped |= b->clipped[slot + i];
    return !clipped;
}

/* K in blocks, of whole kernel rows or, for a single tap, of channels: a block's part of a panel stays in L2 while each
 * chunk runs over all the tiles, whose accumulators wait in the scratch memory. */
struct convolution_block {
    long kernel_row, kernel_rows, channel, channels;
    int first, last;
};

/* The channels of a tap, or the kernel rows, that a block has. */
INLINE long convolution_block_size(const struct convolution *c) {
    long whole = convolution_single_tap(c) ? c->channels : convolution_kernel_rows(c);
    long floats = convolution_single_tap(c) ? 1 : c->kernel_width * c->channels;
    long blocks = ceiling_divide(whole * floats, CONVOLUTION_DEPTH);
    return ceiling_divide(whole, blocks < 1 ? 1 : blocks < whole ? blocks : whole);
}
INLINE long convolution_blocks(const struct convolution *c) {
    long size = convolution_block_size(c);
    return size ? ceiling_divide(convolution_single_tap(c) ? c->channels : convolution_kernel_rows(c), size) : 1;
}

INLINE struct convolution_block convolution_block_of(const struct convolution *c, long block) {
    long size = convolution_block_size(c), from = block * size;
    struct convolution_block b = {0, convolution_kernel_rows(c), 0, c->channels,
                                  block == 0, block == convolution_blocks(c) - 1};
    long *first = convolution_single_tap(c) ? &b.channel : &b.kernel_row;
    long *count = convolution_single_tap(c) ? &b.channels : &b.kernel_rows;
    *count = *count - from < size ? *count - from : size;
    *first = from;
    return b;
}

/* The operands of the tile at `slot`; `panel` is the chunk's first column at k = 0. */
INLINE struct tile_operands convolution_operands(const struct convolution *c, const struct convolution_band *b,
                                                 const struct convolution_block *block, long slot, int merge,
                                                 const float *panel, long width) {
    long taps = merge ? 1 : c->kernel_width;
    long depth = block->kernel_row * c->kernel_width * c->channels + block->channel;
    return (struct tile_operands){.table = b->table + block->kernel_row * c->kernel_width * b->slots + slot,
                                  .slots = b->slots * (merge ? c->kernel_width : 1),
                                  .segments = block->kernel_rows * taps,
                                  .offset = block->channel,
                                  .length = merge ? c->kernel_width * c->channels : block->channels,
                                  .panel = panel + depth * width,
                                  .width = width};
}

/* Where a chunk stands among the columns that the hooks see: those of all groups. */
struct convolution_columns {
    long first, end;
};

/* A block of K for all the tiles of a band and one chunk of a panel. */
INLINE void convolution_chunk(const int kind, const struct convolution *c, const struct convolution_band *b,
                              const struct convolution_block *block, const struct tile_chunk *chunk,
                              const float *panel, long width, struct convolution_columns columns, start_hook *start,
                              finish_hook *finish, const void *context) {
    vf *accumulators = b->accumulators + chunk->column / 8 * convolution_tiles(c) * TILE_SIZE;
    int contiguous = convolution_contiguous(c);
    struct tile_split split = tile_split_of(chunk, b->count);
    for (long tile = 0, slot = 0, rows; slot < b->count; tile++, slot += rows) {
        rows = tile_rows_of(&split, tile);
        int merge = contiguous && convolution_unclipped(b, slot, tile_rows_run(chunk, rows));
        struct tile_operands o = convolution_operands(c, b, block, slot, merge, panel, width);
        tile_prefetch(&o, chunk, &split, tile, o.segments * o.length);
        if (block->first && block->last && tile_is_whole(chunk, &o, rows, columns.first, columns.end)) {
            tile_whole(kind, &o, b->rows + slot, columns.first, start, finish, context);
            continue;
        }
        o.fresh = START_LAST && block->first;
        if (!START_LAST && block->first)
            tile_start(chunk, b->rows + slot, rows, columns.first, columns.end, start, context, accumulators);
        tile_run(kind, chunk, rows, &o, accumulators);
        if (block->last)
            tile_finish(kind, chunk, b->rows + slot, rows, columns.first, columns.end, start, finish, context,
                        accumulators);
        if (!block->first || !block->last) accumulators += TILE_SIZE;
    }
}

/* A panel for a band: `first` is its first column among the group's. */
INLINE void convolution_panel(const int kind, const struct convolution *c, const struct convolution_band *b,
                              long group, long first, start_hook *start, finish_hook *finish, const void *context) {
    long depth = convolution_depth(c);
    long width = panels_width(c->outputs, first / PANEL_COLUMNS);
    const float *panel = c->panels + group * panels_size(depth, c->outputs) + depth * first;
    for (long k = 0; k < convolution_blocks(c); k++) {
        struct convolution_block block = convolution_block_of(c, k);
        struct tile_chunk chunk;
        for (long at = 0; at < width; at += tile_chunk_columns(&chunk)) {
            chunk = tile_chunk_at(at, width);
            struct convolution_columns columns = {group * c->outputs + first + at, (group + 1) * c->outputs};
            convolution_chunk(kind, c, b, &block, &chunk, panel + at, width, columns, start, finish, context);
        }
    }
}

/* The panels of part `part` for a band whose scratch memory is filled. kind, here and above: image and panels are words
 * (convolution_bf16.h, convolution_bytes.h); a constant wherever it is given. */
INLINE void convolution_panels(const int kind, const struct convolution *c, const struct convolution_band *b,
                               long group, long part, start_hook *start, finish_hook *finish, const void *context) {
    long end = (part + 1) * c->panels_per_item;
    if (end > panels_count(c->outputs)) end = panels_count(c->outputs);
    for (long p = part * c->panels_per_item; p < end; p++)
        convolution_panel(kind, c, b, group, p * PANEL_COLUMNS, start, finish, context);
}

INLINE void convolution_item_of(const int kind, const struct convolution *c, long item, void *scratch,
                                start_hook *start, finish_hook *finish, const void *context) {
    long panel_groups = convolution_panel_groups(c), bands = convolution_bands(c);
    long part = item % panel_groups, band = item / panel_groups % bands;
    long group = item / panel_groups / bands % c->groups, image = item / panel_groups / bands / c->groups;
    struct convolution_band b = convolution_band_of(c, image, group, band, scratch);
    convolution_point(c, &b, image);
    convolution_panels(kind, c, &b, group, part, start, finish, context);
}

/* Compute item 0 <= item < convolution_items(c); scratch: convolution_scratch_bytes(c), aligned to 64 bytes. */
INLINE void convolution_item(const struct convolution *c, long item, void *scratch, start_hook *start,
                             finish_hook *finish, const void *context) {
    convolution_item_of(TILE_FLOATS, c, item, scratch, start, finish, context);
}

#endif
