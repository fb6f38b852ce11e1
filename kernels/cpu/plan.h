/* How layers are cut into work items, from their sizes, the lanes of a vector and the number of threads.
 *
 * An item must be large enough to reuse what it loads, small enough that its data stays in L2, and there must be several
 * for each thread, so that no thread waits long for the last one. Each function sets the members of a struct that say so;
 * all others are set. They run at each call, when sizes and threads are known: a few nanoseconds, or one or two
 * microseconds for Winograd's layers, which take a hundred times as long.
 */
#ifndef FUSIBLE_PLAN_H
#define FUSIBLE_PLAN_H

#include "convolution.h"
#include "depthwise.h"
#include "lanes.h"
#include "planar.h"
#include "winograd.h"
#include "winograd_line.h"

#define PLAN_ITEMS 4                    /* of a thread */
#define PLAN_TILE (VL == 16 ? 14 : 6)   /* rows of the usual register tile */

INLINE long plan_items(long threads) { return threads > 1 ? PLAN_ITEMS * threads : 1; }

/* Parts of `height` output rows: of at most `most` rows, as many for each thread. */
INLINE long plan_bands(long height, long most, long images, long threads) {
    long shared = long_min(ceiling_divide(plan_items(threads), long_max(1, images)), height);
    return even_parts(long_max(ceiling_divide(height, most), shared), height, images, threads);
}

#define PLAN_PLANAR_ROWS 8 /* the image rows under so many output rows stay in L2 */

INLINE void planar_cut(struct planar *p, long threads) {
    p->bands = plan_bands(p->out_height, PLAN_PLANAR_ROWS, p->images, threads);
}

#define PLAN_L1 (24 * 1024)
#define PLAN_DEPTHWISE_ROWS 14
#define PLAN_DEPTHWISE_CHANNELS 64 /* where all of them would leave L1 but these do not */

INLINE void depthwise_cut(struct depthwise *d, long threads) {
    long row = d->kernel_height * d->width * (long)sizeof(float);
    int in_parts = row * d->channels > PLAN_L1 && row * PLAN_DEPTHWISE_CHANNELS <= PLAN_L1;
    d->channels_per_item = in_parts ? PLAN_DEPTHWISE_CHANNELS : d->channels;
    long parts = depthwise_parts(d->channels, d->channels_per_item);
    d->bands = plan_bands(d->out_height, PLAN_DEPTHWISE_ROWS, d->images * parts, threads);
}

/* Pixels of a band: enough to read a panel from L3 without waiting, and more where K is so short that setting up an item
 * counts. */
#define PLAN_PIXELS 96
#define PLAN_PIXELS_SHORT 384
#define PLAN_SHORT_DEPTH 64

/* Bands of whole register tiles. Small images have a single one: its panels are shared out among the threads, and only
 * then it is divided. */
INLINE void convolution_cut(struct convolution *c, long threads) {
    long pixels = c->out_height * c->out_width, wanted = plan_items(threads), panels = panels_count(c->outputs);
    long images = long_max(1, c->images * c->groups);
    long usual = convolution_depth(c) <= PLAN_SHORT_DEPTH ? PLAN_PIXELS_SHORT : PLAN_PIXELS;
    long bands = long_max(1, (pixels + usual / 2) / usual);
    long parts = long_min(panels, ceiling_divide(wanted, images * bands));
    if (images * bands * parts < wanted)
        bands = long_max(bands, long_min(ceiling_divide(wanted, images * parts), pixels / (2 * PLAN_TILE)));
    long whole_tiles = ceiling_divide(pixels, bands * PLAN_TILE) * PLAN_TILE;
    c->band = long_max(1, long_min(whole_tiles, pixels));
    c->panels_per_item = ceiling_divide(panels, parts);
}

/* For the time of Winograd's convolutions, measured on Zen 5 and about right elsewhere, per nanosecond: operations; bytes
 * of weights from memory, or of many from L3, and from L2; of few weights from L3, which all blocks but the first read;
 * of tiles and sums from L3; of tiles that are transformed. */
#define PLAN_FLOPS (VL == 16 ? 270.0 : 100.0)
#define PLAN_STREAMED 45.0
#define PLAN_FROM_L2 200.0
#define PLAN_KEPT 90.0
#define PLAN_FROM_L3 150.0
#define PLAN_TRANSFORMED 35.0
#define PLAN_WEIGHTS_L2 (256.0 * 1024)       /* bytes of weights that stay in L2 ... */
#define PLAN_WEIGHTS_L3 (4.0 * 1024 * 1024)  /* ... and in L3 */
#define PLAN_TILES_L2 (VL == 16 ? 480.0 * 1024 : 420.0 * 1024)
#define PLAN_TILE_START 512.0 /* what beginning with a register tile is worth, in rows times channels */
#define PLAN_IN_THE_WAY 0.35  /* of the time of weights is not hidden behind that of products, and the other way round */
#define PLAN_MOST_TILES 112   /* of a block: transformed tiles of larger ones leave L3 as well */

/* A layer of `matrices` products of [tiles, channels] and [channels, outputs] for each image. */
struct winograd_layer {
    long matrices, tiles, channels, outputs, images, threads;
};

/* Rows of the smallest register tile of TILE_SHAPES for `rows`: there are fewer of them for panels that are not whole. */
INLINE long winograd_tile_rows(const struct winograd_layer *l, long rows) {
#if VL == 16
    if (rows <= 4 && l->outputs > 16) return 4;
    if (l->outputs > 24) return (rows + 1) / 2 * 2;
    return rows <= 8 ? 8 : 14;
#else
    (void)l;
    return rows;
#endif
}

/* The rows of the register tiles that compute `rows`, and what beginning with each of them is worth. */
INLINE double winograd_rows_computed(const struct winograd_layer *l, long rows) {
    long tiles = ceiling_divide(rows, PLAN_TILE), fewer = rows / tiles, more = rows % tiles;
    long computed = (tiles - more) * winograd_tile_rows(l, fewer);
    if (more) computed += more * winograd_tile_rows(l, fewer + 1);
    return (double)computed + (double)tiles * PLAN_TILE_START / (double)l->channels;
}

/* What a thread takes for its blocks, in nanoseconds: transforms, which all threads compute that share a block; register
 * tiles that are not full; weights once for each block; tiles that leave L2. */
INLINE double winograd_time(const struct winograd_layer *l, long blocks) {
    double count = (double)(l->images * blocks), threads = (double)l->threads, columns = (double)panels_count(l->outputs);
    long rows = ceiling_divide(l->tiles, blocks);
    double sharing = threads / count < columns ? threads / count : columns; /* threads that work on a block */
    if (sharing < 1.0) sharing = 1.0;
    double elements = (double)(l->matrices * l->channels * l->outputs) / sharing, bytes = 4.0 * elements;
    double products = 2.0 * elements * winograd_rows_computed(l, rows) / PLAN_FLOPS;
    double passes = count > threads ? count / threads : 1.0;
    double kept = bytes <= PLAN_WEIGHTS_L2 ? PLAN_FROM_L2 : bytes <= PLAN_WEIGHTS_L3 ? PLAN_KEPT : PLAN_STREAMED;
    double weights = bytes * (1.0 / PLAN_STREAMED + (passes - 1.0) / kept) / passes;
    double values = 4.0 * (double)(l->matrices * rows * l->channels);
    double sums = 4.0 * (double)(l->matrices * (rows + PLAN_TILE) * PANEL_COLUMNS);
    double moved = values + columns / sharing * (values + 2.0 * sums);
    double spilled = values + sums <= PLAN_TILES_L2 ? 0.0 : moved / PLAN_FROM_L3;
    double hidden = (1.0 - PLAN_IN_THE_WAY) * (products < weights ? products : weights);
    return passes * (values / PLAN_TRANSFORMED + products + weights - hidden + spilled);
}

/* Threads get as many blocks, or share one, or there are so many that it does not matter. */
INLINE int winograd_is_even(const struct winograd_layer *l, long blocks) {
    long count = l->images * blocks;
    return l->threads % count == 0 || count % l->threads == 0 || count > PLAN_ITEMS * l->threads;
}

/* The blocks of an image that take the least time, of those that are even if any are; 0 if there are no tiles. */
static __attribute__((noinline, unused)) long winograd_blocks(const struct winograd_layer *l) {
    if (l->tiles <= 0 || l->images <= 0) return 0;
    long least = ceiling_divide(l->tiles, PLAN_MOST_TILES), most = ceiling_divide(l->tiles, PLAN_TILE / 2);
    long best = 0, best_is_even = 0;
    double least_time = 0;
    for (long blocks = least; blocks < long_min(most + l->threads, l->tiles + 1); blocks++) {
        int is_even = winograd_is_even(l, blocks);
        if (is_even < best_is_even) continue;
        double time = winograd_time(l, blocks);
        if (best && is_even == best_is_even && time >= least_time) continue;
        best = blocks, best_is_even = is_even, least_time = time;
    }
    return best;
}

/* Panels of an item, once the blocks are known: divided for the threads. */
INLINE long winograd_panels(const struct winograd_layer *l, long blocks) {
    long panels = panels_count(l->outputs), count = long_max(1, l->images * blocks);
    return ceiling_divide(panels, long_min(panels, ceiling_divide(plan_items(l->threads), count)));
}

INLINE void winograd_cut(const int m, struct winograd *w, long threads) {
    long tiles = winograd_tiles(m, w);
    struct winograd_layer layer = {(m + 2) * (m + 2), tiles, w->channels, w->outputs, w->images, threads};
    w->blocks = winograd_blocks(&layer);
    w->tiles_per_item = w->blocks ? ceiling_divide(tiles, w->blocks) : 1;
    w->panels_per_item = winograd_panels(&layer, w->blocks);
}

INLINE void winograd_line_cut(const int taps, struct winograd_line *w, long threads) {
    long tiles = winograd_line_tiles(w);
    struct winograd_layer layer = {taps + 3, tiles, w->channels, w->outputs, w->images, threads};
    w->blocks = winograd_blocks(&layer);
    w->tiles_per_item = w->blocks ? ceiling_divide(tiles, w->blocks) : 1;
    w->panels_per_item = winograd_panels(&layer, w->blocks);
}

#endif
