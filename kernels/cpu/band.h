/* What a 1x1 convolution reads, computed into scratch memory a band of output rows at a time just before it is read.
 *
 * The band, [pixels][stride] floats, stays in L2, where the whole image would leave it. `fill` makes it: a depthwise
 * convolution, or element-wise code. The convolution takes the band for an image of one row, and its hooks see the
 * band's pixels from 0 on; `base` is the number of the first one among all the pixels of all images.
 */
#ifndef FUSIBLE_BAND_H
#define FUSIBLE_BAND_H

#include "convolution.h"
#include "depthwise.h"
#include "lanes.h"

#define BAND_BYTES (160 * 1024)   /* of the band: panels and the rows that fill reads share L2 with it */
#define BAND_PIXELS 24            /* fewer do not pay for reading the panels once more */

struct band {
    long images, height, width;   /* of the output */
    long stride;                  /* floats of a pixel in the band */
    long rows, count;             /* of a band, at most; bands of an image, nearly equal */
    long pieces;                  /* of a band of one row: items, where there are few rows for the threads */
};

/* A pixel's floats: rows that lie a multiple of 4 KiB apart would displace each other in L1. */
INLINE long band_stride(long channels) {
    long stride = (channels + 7) / 8 * 8;
    return stride % 1024 == 0 ? stride + 16 : stride;
}

INLINE struct band band_of(long images, long height, long width, long channels, long threads) {
    struct band b = {images, height, width, band_stride(channels), 1, 0, 1};
    b.rows = long_max(1, BAND_BYTES / long_max(1, width * b.stride * (long)sizeof(float)));
    if (threads > 1) {
        long least = ceiling_divide(BAND_PIXELS, long_max(1, width));
        long shared = ceiling_divide(height * images, 4 * threads);
        b.rows = long_min(b.rows, long_max(least, shared));
    }
    b.count = even_parts(ceiling_divide(height, b.rows), height, images, threads);
    b.rows = b.count > 0 ? ceiling_divide(height, b.count) : 1;
    long bands = images * b.count;
    if (b.rows == 1 && bands % threads != 0 && bands < 4 * threads && width >= threads * BAND_PIXELS) b.pieces = threads;
    return b;
}

INLINE long band_items(const struct band *b) { return b->width > 0 ? b->images * b->count * b->pieces : 0; }
INLINE long band_floats(const struct band *b) { return (b->rows * b->width * b->stride + 15) / 16 * 16; }

/* The pixels of an item: image, first and last row, their columns, the first pixel among those of all images, and their
 * number. */
struct band_rows {
    long image, first, last, left, right, base, pixels;
};
INLINE struct band_rows band_rows_of(const struct band *b, long item) {
    long piece = item % b->pieces, image = item / b->pieces / b->count, number = item / b->pieces % b->count;
    struct band_rows r = {image, part_begin(b->height, b->count, number), part_begin(b->height, b->count, number + 1),
                          part_begin(b->width, b->pieces, piece), part_begin(b->width, b->pieces, piece + 1), 0, 0};
    r.base = (image * b->height + r.first) * b->width + r.left;
    r.pixels = (r.last - r.first) * (r.right - r.left);
    return r;
}

/* All the channels of a band by a depthwise convolution, `channels_per_item` at a time. */
INLINE void band_depthwise(const struct depthwise *d, const struct band_rows *r, start_hook *start, finish_hook *finish,
                           const void *context) {
    for (long first = 0; first < d->channels; first += d->channels_per_item) {
        long end = long_min(first + d->channels_per_item, d->channels);
        for (long oy = r->first; oy < r->last; oy++) {
            struct depthwise_row row = depthwise_row_of(d, r->image, oy);
            row.left = r->left, row.right = r->right;
            depthwise_one_row(d, &row, first, end, start, finish, context);
        }
    }
}

/* The 1x1 convolution of a band, for all its outputs. `c` has the sizes of the weights, panels, and room for the
 * largest band; scratch as for convolution_item. bf16, a constant: the panels are words (bf16.h), and the band's pixels
 * are rounded where they lie. */
INLINE void band_convolution(const int bf16, const struct convolution *c, const struct band *b,
                             const struct band_rows *r, float *band, void *scratch, start_hook *start,
                             finish_hook *finish, const void *context) {
    struct convolution k = *c;
    if (bf16) {
        for (long i = 0; i < r->pixels; i++) bf16_round_row(band + i * b->stride, band + i * b->stride, 1, c->channels);
        k.channels = bf16_pairs(c->channels);
    }
    k.x = band, k.width = k.out_width = r->pixels;
    k.images = k.height = k.out_height = k.groups = 1;
    k.kernel_height = k.kernel_width = k.stride_y = k.stride_x = k.dilation_y = k.dilation_x = 1;
    k.pad_top = k.pad_left = 0;
    k.image_stride = k.row_stride = 0, k.pixel_stride = b->stride;
    convolution_item_of(bf16, &k, 0, scratch, start, finish, context);
}

#endif
