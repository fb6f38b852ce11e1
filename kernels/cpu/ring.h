/* A convolution, the depthwise convolution of its result, and perhaps a 1x1 convolution of that: a few rows at a time.
 *
 * The image between the first two, many channels wide, exists as a ring of rows in scratch memory: as many as the
 * windows of the next `step` output rows see. What the depthwise convolution makes of them is either stored, or the band
 * (band.h) that the 1x1 convolution reads. All of it stays in L2.
 *
 * An item is a run of output rows. A thread that goes on with the next item finds the rows above its windows in its ring;
 * else they are computed once more than by their own item, so items are long.
 */
#ifndef FUSIBLE_RING_H
#define FUSIBLE_RING_H

#include "band.h"
#include "convolution_bf16.h"
#include "planar.h"

#define RING_BYTES (224 * 1024)   /* of ring and band together */
#define RING_TAPS 16              /* rows of a window, at most */

struct ring {
    long images, height;                          /* of the output */
    long in_height, in_width;                     /* of the image in the ring */
    long kernel_height, stride_y, dilation_y, pad_top;
    long rows, step, parts;                       /* rows of the ring; output rows at a time; items of an image */
};

/* `d` is the depthwise convolution; its pixels, in the ring as in the band, have `stride` floats. */
INLINE struct ring ring_of(const struct depthwise *d, long stride, long threads) {
    struct ring r = {d->images, d->out_height, d->height, d->width, d->kernel_height, d->stride_y, d->dilation_y,
                     d->pad_top, 0, 1, 1};
    long window = (d->kernel_height - 1) * d->dilation_y + 1, floats = stride * (long)sizeof(float);
    long fixed = window - d->stride_y, fits = RING_BYTES / long_max(1, floats) - fixed * d->width;
    r.step = long_max(1, fits / long_max(1, d->stride_y * d->width + d->out_width));
    long items = threads > 1 ? ceiling_divide(2 * threads, long_max(1, d->images)) : 1;
    r.parts = even_parts(long_min(items, d->out_height), d->out_height, d->images, threads);
    r.step = long_max(1, long_min(r.step, ceiling_divide(d->out_height, long_max(1, r.parts))));
    r.rows = (r.step - 1) * d->stride_y + window;
    return r;
}

/* What a thread's ring holds, at the head of its scratch memory: all that item `next` needs of the rows before `row`. */
struct ring_state {
    long next, row;
};

INLINE long ring_items(const struct ring *r) { return r->images * r->parts; }

/* The rows of an item. */
INLINE struct band_rows ring_rows_of(const struct ring *r, long item) {
    long part = item % r->parts, first = part_begin(r->height, r->parts, part);
    return (struct band_rows){.image = item / r->parts, .first = first, .last = part_begin(r->height, r->parts, part + 1)};
}

/* The first image row under the window of output row oy, and the one after its last. */
INLINE long ring_first(const struct ring *r, long oy) { return long_max(0, oy * r->stride_y - r->pad_top); }
INLINE long ring_end(const struct ring *r, long oy) {
    return long_min(r->in_height, oy * r->stride_y - r->pad_top + (r->kernel_height - 1) * r->dilation_y + 1);
}

/* The first image row that an item has to compute. */
INLINE long ring_begin_row(const struct ring *r, const struct ring_state *state, long item, long oy) {
    long first = ring_first(r, oy);
    return state->next == item && item % r->parts != 0 ? long_max(state->row, first) : first;
}

/* Rows from `row` to the next end of the ring, but not beyond `end`. */
INLINE long ring_run(const struct ring *r, long row, long end) { return long_min(end - row, r->rows - row % r->rows); }

/* Output rows first ... first + count - 1 of a convolution of one image; `c` has room for so many. Its hooks see their
 * pixels from 0 on. bf16, a constant: the panels are words, and scratch is that of convolution_bf16.h. */
INLINE void ring_convolution(const int bf16, const struct convolution *c, long image, long first, long count,
                             void *scratch, start_hook *start, finish_hook *finish, const void *context) {
    struct convolution k = *c;
    k.x += image * c->image_stride;
    k.images = 1, k.out_height = count, k.pad_top = c->pad_top - first * c->stride_y;
    if (!bf16) {
        convolution_item(&k, 0, scratch, start, finish, context);
        return;
    }
    scratch_begin(scratch, 0, 1); /* item 0 has other rows each time */
    convolution_bf16_item(&k, 0, scratch, start, finish, context);
}

/* The same for an image stored channels first (planar.h); scratch: ring_planar_bytes for the rows of the ring. */
INLINE struct planar ring_planar_rows(const struct planar *p, long image, long first, long count) {
    struct planar k = *p;
    k.x += image * p->image_stride;
    k.images = k.bands = 1, k.out_height = count, k.pad_top = p->pad_top - first * p->stride_y;
    return k;
}
INLINE void ring_planar(const int bf16, const struct planar *p, long image, long first, long count, void *scratch,
                        start_hook *start, finish_hook *finish, const void *context) {
    const struct planar k = ring_planar_rows(p, image, first, count);
    planar_item_of(bf16, &k, 0, scratch, start, finish, context);
}
INLINE long ring_planar_bytes(const int bf16, const struct planar *p, long rows) {
    const struct planar most = ring_planar_rows(p, 0, 0, rows);
    return bf16 ? planar_bf16_scratch_bytes(&most) : planar_scratch_bytes(&most);
}

/* Output rows of the depthwise convolution whose image is the ring at `d->x`, all channels. */
INLINE void ring_depthwise(const struct depthwise *d, const struct ring *r, long image, long oy, long last,
                           start_hook *start, finish_hook *finish, const void *context) {
    for (; oy < last; oy++) {
        struct depthwise_row row = depthwise_row_of(d, 0, oy);
        const float *taps[RING_TAPS];
        for (long ky = row.first_tap; ky < row.end_tap; ky++)
            taps[ky] = d->x + (oy * d->stride_y - d->pad_top + ky * d->dilation_y) % r->rows * d->row_stride;
        row.taps = taps;
        row.row = (image * d->out_height + oy) * d->out_width;
        for (long first = 0; first < d->channels; first += d->channels_per_item) {
            long end = long_min(first + d->channels_per_item, d->channels);
            depthwise_one_row(d, &row, first, end, start, finish, context);
        }
    }
}

#endif
