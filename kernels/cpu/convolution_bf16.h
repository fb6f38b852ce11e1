/* convolution.h in bf16: the panels are words (bf16.h), sums are fp32.
 *
 * Channels are padded with one of zeros if they are odd, so that pairs never run from one tap to the next: K = (ky, kx,
 * c) then is even, and everything of convolution.h holds for words in the place of floats. The image is stored as
 * floats: an item rounds the rows that its band sees, of its group's channels, into scratch memory, and takes them for
 * the image. Rows that two bands see are rounded for both, which is little beside the products; a thread that goes on with
 * other panels of the same band finds it rounded.
 *
 * `struct convolution` as in convolution.h, `channels` and strides in floats; panels from pack_convolution_bf16 of
 * convolution_weights.py. One plane: not for images stored channels first.
 */
#ifndef FUSIBLE_CONVOLUTION_BF16_H
#define FUSIBLE_CONVOLUTION_BF16_H

#include "convolution.h"

/* Words from one rounded pixel to the next. Pixels a multiple of 1 KiB apart would crowd into a few sets of L1. */
INLINE long convolution_bf16_pixel(const struct convolution *c) {
    long words = bf16_pairs(c->channels);
    return words > 0 && words % 256 == 0 ? words + 16 : words;
}

/* The convolution of `rows` rounded image rows at `x`, of which the first is `first` of the image. */
INLINE struct convolution convolution_bf16_words(const struct convolution *c, const float *x, long first, long rows) {
    struct convolution words = *c;
    words.x = x;
    words.channels = bf16_pairs(c->channels);
    words.pixel_stride = convolution_bf16_pixel(c);
    words.row_stride = c->width * words.pixel_stride;
    words.image_stride = 0;
    words.height = rows;
    words.pad_top = c->pad_top + first;
    return words;
}

INLINE long convolution_bf16_image_floats(const struct convolution *c) {
    return (convolution_most_rows(c) * c->width * convolution_bf16_pixel(c) + 15) / 16 * 16;
}
INLINE long convolution_bf16_items(const struct convolution *c) { return convolution_items(c); }
INLINE long convolution_bf16_scratch_bytes(const struct convolution *c) {
    struct convolution words = convolution_bf16_words(c, NULL, 0, 0);
    return SCRATCH_HEAD + convolution_bf16_image_floats(c) * (long)sizeof(float) + convolution_scratch_bytes(&words);
}

/* Round `rows` image rows from `first` on, the channels of one group at x. */
static __attribute__((noinline, unused)) void convolution_bf16_round(const struct convolution *c, const float *x,
                                                                     long first, long rows, float *to) {
    const long pixel = convolution_bf16_pixel(c);
    const int whole = c->pixel_stride == c->channels && pixel == bf16_pairs(c->channels) && c->channels % 2 == 0;
    for (long y = first; y < first + rows; y++, to += c->width * pixel) {
        const float *from = x + y * c->row_stride;
        if (whole) bf16_round_row(to, from, 1, c->width * c->channels);
        else
            for (long i = 0; i < c->width; i++)
                bf16_round_row(to + i * pixel, from + i * c->pixel_stride, 1, c->channels);
    }
}

/* Compute item 0 <= item < convolution_bf16_items(c); scratch: convolution_bf16_scratch_bytes(c), aligned to 64 bytes, of
 * which scratch_begin has set the head. */
INLINE void convolution_bf16_item(const struct convolution *c, long item, void *scratch, start_hook *start,
                                  finish_hook *finish, const void *context) {
    long panel_groups = convolution_panel_groups(c), bands = convolution_bands(c);
    long part = item % panel_groups, band = item / panel_groups % bands;
    long group = item / panel_groups / bands % c->groups, image = item / panel_groups / bands / c->groups;
    const struct convolution_rows rows = convolution_rows_of(c, band);
    const long first = rows.first, end = rows.end;
    float *rounded = (float *)((char *)scratch + SCRATCH_HEAD);
    long *held = scratch;
    const float *x = c->x + image * c->image_stride + group * c->channels;
    if (*held != item / panel_groups) convolution_bf16_round(c, x, first, end - first, rounded);
    *held = item / panel_groups;
    struct convolution words = convolution_bf16_words(c, rounded, first, end - first);
    struct convolution_band b =
        convolution_band_of(&words, 0, 0, band, rounded + convolution_bf16_image_floats(c));
    convolution_point(&words, &b, image);
    convolution_panels(TILE_HALVES, &words, &b, group, part, start, finish, context);
}

#endif
