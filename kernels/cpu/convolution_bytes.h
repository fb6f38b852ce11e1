/* convolution.h over bytes: sums of int32, the image of uint8, weights of int8 in panels of words (bytes.h).
 *
 * Channels are padded to a multiple of 4, so that words never run from one tap to the next: K = (ky, kx, c), and everything
 * of convolution.h holds for words in the place of floats. Where pixels are words already the image is read where it
 * lies; else an item copies the rows that its band sees, of its group's channels, into scratch memory, and takes them for
 * the image; a thread that goes on with other panels of the same band finds it copied.
 *
 * In the padding each byte is `fill`, the zero point. What it takes from each sum is the start hook's business.
 *
 * `struct convolution` as in convolution.h, x pointing to bytes, `channels` and strides in bytes; panels from
 * pack_convolution_bytes of convolution_weights.py. One plane: not for images stored channels first.
 */
#ifndef FUSIBLE_CONVOLUTION_BYTES_H
#define FUSIBLE_CONVOLUTION_BYTES_H

#include "convolution.h"

/* Words from one copied pixel to the next. Pixels a multiple of 1 KiB apart would crowd into a few sets of L1. */
INLINE long convolution_bytes_pixel(const struct convolution *c) {
    long words = bytes_words(c->channels);
    return words > 0 && words % 256 == 0 ? words + 16 : words;
}

INLINE int convolution_bytes_direct(const struct convolution *c) {
    return c->channels % 4 == 0 && c->pixel_stride % 4 == 0 && c->pixel_stride % 1024 != 0;
}

/* The convolution of words at `x`, where pixels, rows and images lie. */
INLINE struct convolution convolution_bytes_words(const struct convolution *c, const float *x, long pixel) {
    struct convolution words = *c;
    words.x = x;
    words.channels = bytes_words(c->channels);
    words.pixel_stride = pixel;
    words.row_stride = c->width * pixel;
    words.image_stride = 0;
    return words;
}

INLINE long convolution_bytes_image_floats(const struct convolution *c) {
    if (convolution_bytes_direct(c)) return 0;
    return (convolution_most_rows(c) * c->width * convolution_bytes_pixel(c) + 15) / 16 * 16;
}
INLINE long convolution_bytes_items(const struct convolution *c) { return convolution_items(c); }
INLINE long convolution_bytes_scratch_bytes(const struct convolution *c) {
    struct convolution words = convolution_bytes_words(c, NULL, 0);
    return SCRATCH_HEAD + convolution_bytes_image_floats(c) * (long)sizeof(float) + convolution_scratch_bytes(&words);
}

/* Copy `rows` image rows from `first` on, the channels of one group at x. */
static __attribute__((noinline, unused)) void convolution_bytes_copy(const struct convolution *c, const uint8_t *x,
                                                                      long first, long rows, float *to) {
    const long pixel = 4 * convolution_bytes_pixel(c), rest = 4 * bytes_words(c->channels) - c->channels;
    for (long y = first; y < first + rows; y++)
        for (long i = 0; i < c->width; i++) {
            uint8_t *pixels = (uint8_t *)to + ((y - first) * c->width + i) * pixel;
            memcpy(pixels, x + y * c->row_stride + i * c->pixel_stride, (size_t)c->channels);
            memset(pixels + c->channels, 0, (size_t)rest);
        }
}

/* Compute item 0 <= item < convolution_bytes_items(c); scratch: convolution_bytes_scratch_bytes(c), aligned to 64 bytes,
 * of which scratch_begin has set the head. */
INLINE void convolution_bytes_item(const struct convolution *c, long item, void *scratch, start_hook *start,
                                   finish_hook *finish, const void *context) {
    long panel_groups = convolution_panel_groups(c), bands = convolution_bands(c);
    long part = item % panel_groups, band = item / panel_groups % bands;
    long group = item / panel_groups / bands % c->groups, image = item / panel_groups / bands / c->groups;
    const uint8_t *x = (const uint8_t *)c->x + image * c->image_stride + group * c->channels;
    float *copied = (float *)((char *)scratch + SCRATCH_HEAD);
    struct convolution words;
    if (convolution_bytes_direct(c)) {
        words = convolution_bytes_words(c, (const float *)x, c->pixel_stride / 4);
    } else {
        const struct convolution_rows rows = convolution_rows_of(c, band);
        long *held = scratch;
        if (*held != item / panel_groups) convolution_bytes_copy(c, x, rows.first, rows.end - rows.first, copied);
        *held = item / panel_groups;
        words = convolution_bytes_words(c, copied, convolution_bytes_pixel(c));
        words.height = rows.end - rows.first;
        words.pad_top = c->pad_top + rows.first;
    }
    struct convolution_band b =
        convolution_band_of(&words, 0, 0, band, copied + convolution_bytes_image_floats(c));
    convolution_point(&words, &b, image);
    convolution_panels(TILE_BYTES, &words, &b, group, part, start, finish, context);
}

#endif
