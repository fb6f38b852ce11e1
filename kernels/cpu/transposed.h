/* Transposed convolution, fp32, channels-last.
 *
 *   y[n][iy * sy - top + ky * dy][ix * sx - left + kx * dx][o] += x[n][iy][ix][c] * w[c][o][ky][kx]
 *
 * In gather form: the output pixels fall into sy * sx phases by (oy + top) mod sy and (ox + left) mod sx, and a phase
 * sees only the taps with ky * dy = phase_y (mod sy) and kx * dx = phase_x (mod sx). In descending order they are a
 * convolution with stride 1 whose output pixels lie sy rows and sx columns apart, so convolution.h does the work, with
 * no multiplication by zero. A phase may have no taps (a stride above the kernel): its pixels are the start hook's
 * value.
 *
 * x: [images][height][width][groups * channels] with strides; panels: from pack_transposed of convolution_weights.py,
 * phase after phase; y is the finish hook's business, row (n * OH + oy) * OW + ox and column group * outputs + o.
 * An item is (image, phase, group, band, panels).
 */
#ifndef FUSIBLE_TRANSPOSED_H
#define FUSIBLE_TRANSPOSED_H

#include "convolution.h"

struct transposed {
    const float *x;         /* image 0, pixel (0, 0), channel 0 */
    const float *panels;
    long images, height, width;
    long groups, channels, outputs;                       /* channels and outputs of one group */
    long kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x;
    long pad_top, pad_left, out_height, out_width;
    long image_stride, row_stride, pixel_stride;          /* floats */
    long band, panels_per_item;                           /* output pixels of one phase and panels of an item */
};

/* One axis of one phase as a convolution: output pixels first, first + stride, ... (count of them). */
struct transposed_axis {
    long first, count, taps, dilation, pad;
};

INLINE struct transposed_axis transposed_axis_of(long phase, long kernel, long stride, long dilation, long pad,
                                                 long size) {
    struct transposed_axis a = {.first = ((phase - pad) % stride + stride) % stride, .dilation = 1};
    a.count = a.first < size ? ceiling_divide(size - a.first, stride) : 0;
    long last = 0, step = 0;      /* the last tap, which comes first, and the distance of two */
    for (long k = 0; k < kernel; k++)
        if (k * dilation % stride == phase) {
            step = a.taps ? k - last : 0;
            last = k;
            a.taps++;
        }
    if (step) a.dilation = step * dilation / stride;
    if (a.taps) a.pad = (last * dilation - pad - a.first) / stride;
    return a;
}

/* The convolution of a phase; its panels are those of the whole, to which the offset is still to be added. */
INLINE struct convolution transposed_phase(const struct transposed *t, const struct transposed_axis *y,
                                           const struct transposed_axis *x) {
    return (struct convolution){
        .x = t->x, .panels = t->panels, .images = t->images, .height = t->height, .width = t->width,
        .groups = t->groups, .channels = t->channels, .outputs = t->outputs, .kernel_height = y->taps,
        .kernel_width = x->taps, .stride_y = 1, .stride_x = 1, .dilation_y = y->dilation, .dilation_x = x->dilation,
        .pad_top = y->pad, .pad_left = x->pad, .out_height = y->count, .out_width = x->count, .planes = 1,
        .image_stride = t->image_stride, .row_stride = t->row_stride, .pixel_stride = t->pixel_stride,
        .band = t->band, .panels_per_item = t->panels_per_item};
}

INLINE struct transposed_axis transposed_y(const struct transposed *t, long phase) {
    return transposed_axis_of(phase, t->kernel_height, t->stride_y, t->dilation_y, t->pad_top, t->out_height);
}
INLINE struct transposed_axis transposed_x(const struct transposed *t, long phase) {
    return transposed_axis_of(phase, t->kernel_width, t->stride_x, t->dilation_x, t->pad_left, t->out_width);
}

/* Bands of the largest phase; others may leave the last ones empty. */
INLINE long transposed_bands(const struct transposed *t) {
    long pixels = ceiling_divide(t->out_height, t->stride_y) * ceiling_divide(t->out_width, t->stride_x);
    return ceiling_divide(pixels, t->band);
}
INLINE long transposed_panel_groups(const struct transposed *t) {
    return ceiling_divide(panels_count(t->outputs), t->panels_per_item);
}
INLINE long transposed_items(const struct transposed *t) {
    return t->images * t->stride_y * t->stride_x * t->groups * transposed_bands(t) * transposed_panel_groups(t);
}

INLINE long transposed_scratch_bytes(const struct transposed *t) {
    long most = 0;
    for (long phase = 0; phase < t->stride_y * t->stride_x; phase++) {
        struct transposed_axis y = transposed_y(t, phase / t->stride_x), x = transposed_x(t, phase % t->stride_x);
        struct convolution c = transposed_phase(t, &y, &x);
        long bytes = convolution_scratch_bytes(&c);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* Floats of the panels of all phases before this one. */
INLINE long transposed_panels_before(const struct transposed *t, long phase) {
    long floats = 0;
    for (long p = 0; p < phase; p++) {
        long taps = transposed_y(t, p / t->stride_x).taps * transposed_x(t, p % t->stride_x).taps;
        floats += t->groups * panels_size(taps * t->channels, t->outputs);
    }
    return floats;
}

/* Compute item 0 <= item < transposed_items(t); scratch: transposed_scratch_bytes(t), aligned to 64 bytes. */
INLINE void transposed_item(const struct transposed *t, long item, void *scratch, start_hook *start,
                            finish_hook *finish, const void *context) {
    long part = item % transposed_panel_groups(t), rest = item / transposed_panel_groups(t);
    long band = rest % transposed_bands(t), group = rest / transposed_bands(t) % t->groups;
    rest = rest / transposed_bands(t) / t->groups;
    long phase = rest % (t->stride_y * t->stride_x), image = rest / (t->stride_y * t->stride_x);
    struct transposed_axis y = transposed_y(t, phase / t->stride_x), x = transposed_x(t, phase % t->stride_x);
    if (band * t->band >= y.count * x.count) return;
    struct convolution c = transposed_phase(t, &y, &x);
    c.panels += transposed_panels_before(t, phase);
    struct convolution_band b = convolution_band_of(&c, image, group, band, scratch);
    convolution_point(&c, &b, image);
    for (long slot = 0; slot < b.count; slot++) {
        long oy = y.first + (b.first + slot) / x.count * t->stride_y;
        long ox = x.first + (b.first + slot) % x.count * t->stride_x;
        b.rows[slot] = (image * t->out_height + oy) * t->out_width + ox;
    }
    convolution_panels(0, &c, &b, group, part, start, finish, context);
}

#endif
