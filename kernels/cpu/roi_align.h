/* RoiAlign, fp32: each region of an image is pooled to a fixed number of bins (He et al. 2017, Mask R-CNN).
 *
 *   y[r][c][i][j] = mean over the samples of bin (i, j) of x[number[r]][c], read bilinearly, or their largest corner
 *
 * rois[r] = x1, y1, x2, y2, times a scale in pixels, less 0.5 for half_pixel. A bin has `ratio` samples along each
 * axis, or for 0 as many as it has pixels. Samples more than a pixel outside the image are 0; others are pulled into
 * it. A corner is one of the four pixels of a sample, times its weight.
 *
 * Samples and their means are separable, and so is the largest corner, no weight being negative: an axis is a list of
 * pixels with weights for each bin, in which a pixel that several samples read stands once. For the mean its weights
 * are added up; for the maximum the smallest and the largest are kept (one between gives no larger product). Of large
 * regions only those samples are gone through that may be inside, as in kernels/numpy/roi.py, so work and memory are
 * bounded by image, bins and ratio. Coordinates are those of NumPy, bit for bit.
 *
 * Images stored channels last are read as vectors of channels, pixel by pixel; of planes the rows of a bin are put
 * together first, as vectors of columns, which are turned into vectors of channels. Where NumPy multiplies an infinity
 * by a weight of 0, the maximum may be a number here: it is found along one axis after the other. An item is (some
 * regions, some channels).
 */
#ifndef FUSIBLE_ROI_ALIGN_H
#define FUSIBLE_ROI_ALIGN_H

#include "elements.h"
#include "four.h"
#include "pool.h"

enum roi_mode { ROI_MEAN, ROI_LARGEST };

#define ROI_MOST_SAMPLES 0x1p30f /* along an axis of a bin */
#define ROI_FEW_SAMPLES 64       /* that are looked at without asking which may be inside the image */
#define ROI_TOGETHER 4           /* vectors of channels */
#define ROI_ITEM 65536           /* multiplications that are worth an item */
#define ROI_MOST_SCRATCH 1e15    /* floats; no machine has them, and sizes in bytes do not overflow */

/* Strides in floats. Either x_channel or x_pixel is 1. */
struct roi_align {
    const float *x, *rois;
    const int64_t *numbers; /* of the image of each region: data that may be wrong */
    float *y;
    long images, channels, height, width, regions, bins_height, bins_width;
    long x_image, x_row, x_pixel, x_channel;
    long y_region, y_row, y_pixel, y_channel;
    long ratio;
    float scale;
    int half_pixel, *error;
    const struct pool *pool;
    float *scratch; /* roi_align_scratch_floats */
    long regions_per_item, channels_per_item;
};

/* The samples of a region along an axis. Entries begin[b] .. begin[b + 1] - 1 are the pixels of bin b; `weight` is the
 * sum or the largest, `least` the smallest one. outside[b]: whether it has samples that read nothing. */
struct roi_axis {
    long number, bins, first, last; /* samples of a bin; the pixels that entries name lie in first .. last - 1 */
    long *begin;
    int32_t *pixel, *outside;
    float *weight, *least;
};

/* A product that is rounded before it is used: contracted into a multiply-add it would make another coordinate. */
INLINE float roi_rounded(float product) {
    __asm__("" : "+m"(product));
    return product;
}

/* Entries of an axis at most, before they are cut to what fits a long. */
INLINE double roi_entries(const struct roi_align *r, long size, long bins) {
    long most = r->ratio ? long_min(2 * r->ratio, size) : size;
    return (double)bins * (double)most;
}
/* Floats of the lists of an axis: 64-bit and 32-bit numbers a bin, three words an entry. */
INLINE double roi_axis_floats(const struct roi_align *r, long size, long bins) {
    return 3.0 * (double)bins + 2.0 + 3.0 * roi_entries(r, size, bins);
}
INLINE long roi_thread_floats(const struct roi_align *r) {
    double floats = roi_axis_floats(r, r->height, r->bins_height) + roi_axis_floats(r, r->width, r->bins_width);
    floats += 2.0 * VL * ((double)r->width + VL) + 2.0;
    return floats > ROI_MOST_SCRATCH ? (long)ROI_MOST_SCRATCH : ((long)floats + 15) / 16 * 16;
}
INLINE long roi_align_scratch_floats(const struct roi_align *r, long threads) { return threads * roi_thread_floats(r); }

/* The lists in scratch, which is left behind them. */
INLINE float *roi_place_axis(const struct roi_align *r, struct roi_axis *a, long size, long bins, float *scratch) {
    long entries = (long)roi_entries(r, size, bins);
    a->bins = bins;
    a->begin = (long *)(void *)scratch;
    a->outside = (int32_t *)(a->begin + bins + 1);
    a->pixel = a->outside + bins;
    a->weight = (float *)(a->pixel + entries);
    a->least = a->weight + entries;
    float *end = a->least + entries;
    return end + ((end - scratch) & 1); /* what comes next may be 64-bit numbers */
}

/* A pixel of the bin whose entries begin at `begin`. Samples come in order, so it is one of the last two or new. */
INLINE long roi_add(const int mode, struct roi_axis *a, long begin, long count, int32_t pixel, float weight) {
    for (long k = count - 1; k >= begin && k >= count - 2; k--)
        if (a->pixel[k] == pixel) {
            a->least[k] = weight < a->least[k] ? weight : a->least[k];
            a->weight[k] = mode == ROI_MEAN ? a->weight[k] + weight : weight > a->weight[k] ? weight : a->weight[k];
            return count;
        }
    a->pixel[count] = pixel;
    a->weight[count] = a->least[count] = weight;
    return count + 1;
}

/* Samples first .. last - 1 of a bin may be inside the image, those before and behind are not. */
INLINE void roi_near(const struct roi_axis *a, float start, float step, long bin, long size, long *first, long *last) {
    *first = 0, *last = a->number;
    if (a->number <= ROI_FEW_SAMPLES || !(step > 0.0f)) return;
    double origin = (double)start + (double)bin * (double)step, apart = (double)step / (double)a->number;
    double error = 0x1p-20 * (__builtin_fabs((double)start) + __builtin_fabs(origin) + (double)step);
    double from = __builtin_floor((-1.0 - origin - error) / apart) - 2.0;
    double to = __builtin_ceil(((double)size - origin + error) / apart) + 2.0;
    if (from > 0.0) *first = from < (double)a->number ? (long)from : a->number;
    if (to < (double)a->number) *last = to > (double)*first ? (long)to : *first;
}

/* One bin. Returns the number of entries, or -1 if a sample would read where there are no pixels. */
INLINE long roi_bin(const int mode, struct roi_axis *a, float start, float step, long bin, long size, long count) {
    long first, last, begin = count, inside = 0;
    roi_near(a, start, step, bin, size, &first, &last);
    float origin = start + roi_rounded((float)bin * step), number = (float)long_max(1, a->number);
    for (long n = first; n < last; n++) {
        long nth = step < 0.0f ? last - 1 - (n - first) : n; /* in the order of pixels */
        float x = origin + ((float)nth + 0.5f) * step / number;
        if (!(x >= -1.0f && x <= (float)size)) continue;
        if (size <= 0) return -1;
        x = x < 0.0f ? 0.0f : x > (float)(size - 1) ? (float)(size - 1) : x;
        long low = long_min((long)x, size - 1), high = long_min(low + 1, size - 1);
        float fraction = x - (float)low;
        count = roi_add(mode, a, begin, count, (int32_t)low, 1.0f - fraction);
        count = roi_add(mode, a, begin, count, (int32_t)high, fraction);
        inside++;
    }
    for (long k = begin; mode == ROI_MEAN && k < count; k++) a->weight[k] /= number;
    a->outside[bin] = inside < a->number;
    return count;
}

/* The axis of a region from start to end. Returns 0 if it is not finite, or reads where there are no pixels, or where
 * numbers of pixels do not fit. */
INLINE int roi_axis_of(const int mode, const struct roi_align *r, struct roi_axis *a, float start, float end,
                       long size) {
    float length = end - start;
    if (size > INT32_MAX) return 0;
    if (!r->half_pixel && 1.0f > length) length = 1.0f;
    float step = length / (float)a->bins;
    if (!r->ratio && !(step < ROI_MOST_SAMPLES && step >= -__FLT_MAX__)) return 0;
    a->number = r->ratio ? r->ratio : step > 0.0f ? (long)__builtin_ceilf(step) : 0;
    a->first = size, a->last = 0;
    long count = 0;
    for (long bin = 0; bin < a->bins; bin++) {
        a->begin[bin] = count;
        count = roi_bin(mode, a, start, step, bin, size, count);
        if (count < 0) return 0;
    }
    a->begin[a->bins] = count;
    for (long k = 0; k < count; k++) {
        a->first = long_min(a->first, a->pixel[k]);
        a->last = long_max(a->last, a->pixel[k] + 1);
    }
    return 1;
}

/* A value with the weights of entry k, put to what there is. */
INLINE vf roi_put(const int mode, const struct roi_axis *a, long k, vf value, vf before) {
    if (mode == ROI_MEAN) return before + value * a->weight[k];
    return vf_max(before, vf_max(value * a->weight[k], value * a->least[k]));
}
/* What a bin begins with. */
INLINE float roi_begin(const int mode, int outside) { return mode == ROI_MEAN || outside ? 0.0f : -__builtin_inff(); }

INLINE void roi_store(const struct roi_align *r, float *y, vf value, long lanes) {
    if (r->y_channel == 1) vf_store_first(y, value, lanes);
    else vf_store_step(y, r->y_channel, value, lanes);
}

/* `vectors` vectors of channels, of the last of which there are `lanes`, of bin (i, j). x, y: the first channel. */
INLINE void roi_bin_last(const int mode, const int vectors, const struct roi_align *r, const struct roi_axis *down,
                         const struct roi_axis *across, long i, long j, const float *x, float *y, long lanes) {
    vf found[ROI_TOGETHER], row[ROI_TOGETHER];
    float start = roi_begin(mode, down->outside[i] | across->outside[j]), none = roi_begin(mode, 0);
    UNROLL for (int v = 0; v < vectors; v++) found[v] = vf_all(start);
    for (long k = down->begin[i]; k < down->begin[i + 1]; k++) {
        const float *from = x + down->pixel[k] * r->x_row;
        UNROLL for (int v = 0; v < vectors; v++) row[v] = vf_all(none);
        for (long l = across->begin[j]; l < across->begin[j + 1]; l++) {
            const float *at = from + across->pixel[l] * r->x_pixel;
            UNROLL for (int v = 0; v < vectors; v++)
                row[v] = roi_put(mode, across, l, vf_load_first(at + v * VL, vectors > 1 ? VL : lanes), row[v]);
        }
        if (across->begin[j] == across->begin[j + 1]) continue;
        UNROLL for (int v = 0; v < vectors; v++) found[v] = roi_put(mode, down, k, row[v], found[v]);
    }
    UNROLL for (int v = 0; v < vectors; v++)
        roi_store(r, y + v * VL * r->y_channel, found[v], vectors > 1 ? VL : lanes);
}

/* Channels c .. end - 1 of a region of an image that is stored channels last. */
INLINE void roi_region_last(const int mode, const struct roi_align *r, const struct roi_axis *down,
                            const struct roi_axis *across, const float *x, float *y, long first, long end) {
    for (long i = 0; i < r->bins_height; i++)
        for (long j = 0; j < r->bins_width; j++) {
            float *to = y + i * r->y_row + j * r->y_pixel;
            long c = first;
            for (; c + ROI_TOGETHER * VL <= end; c += ROI_TOGETHER * VL)
                roi_bin_last(mode, ROI_TOGETHER, r, down, across, i, j, x + c, to + c * r->y_channel, VL);
            for (; c < end; c += VL)
                roi_bin_last(mode, 1, r, down, across, i, j, x + c, to + c * r->y_channel, long_min(VL, end - c));
        }
}

/* The rows of bin row i of a plane put together: columns first .. last - 1 that `across` reads, to line[0] on. */
INLINE void roi_rows(const int mode, const struct roi_align *r, const struct roi_axis *down,
                     const struct roi_axis *across, long i, const float *plane, float *line) {
    for (long column = across->first; column < across->last; column += VL) {
        long lanes = long_min(VL, across->last - column);
        vf found = vf_all(roi_begin(mode, 0));
        for (long k = down->begin[i]; k < down->begin[i + 1]; k++)
            found = roi_put(mode, down, k, vf_load_first(plane + down->pixel[k] * r->x_row + column, lanes), found);
        vf_store(line + column - across->first, found);
    }
}

/* Floats of a line that roi_rows writes. */
INLINE long roi_line(const struct roi_align *r) { return (r->width + VL - 1) / VL * VL; }

/* The columns put together, for a vector of channels of which there are `lanes`; the columns are vectors. */
INLINE void roi_columns(const int mode, const struct roi_align *r, const struct roi_axis *down,
                        const struct roi_axis *across, long i, const float *columns, float *y, long lanes) {
    int any = down->begin[i] < down->begin[i + 1];
    for (long j = 0; j < r->bins_width; j++, y += r->y_pixel) {
        vf found = vf_all(roi_begin(mode, down->outside[i] | across->outside[j]));
        for (long l = across->begin[j]; any && l < across->begin[j + 1]; l++)
            found = roi_put(mode, across, l, vf_load(columns + (across->pixel[l] - across->first) * VL), found);
        roi_store(r, y, found, lanes);
    }
}

/* Channels first .. end - 1 of a region of an image that is stored plane by plane. lines: 2 * VL of them. */
INLINE void roi_region_planes(const int mode, const struct roi_align *r, const struct roi_axis *down,
                              const struct roi_axis *across, const float *x, float *y, float *lines, long first,
                              long end) {
    long line = roi_line(r);
    float *columns = lines + VL * line;
    for (long c = first; c < end; c += VL) {
        long lanes = long_min(VL, end - c);
        for (long i = 0; i < r->bins_height; i++) {
            for (long lane = 0; lane < lanes && down->begin[i] < down->begin[i + 1]; lane++)
                roi_rows(mode, r, down, across, i, x + (c + lane) * r->x_channel, lines + lane * line);
            for (long lane = 0; lane < lanes; lane += 4)
                for (long column = 0; column < across->last - across->first; column += 4)
                    four_transpose(lines + lane * line + column, line, columns + column * VL + lane, VL);
            roi_columns(mode, r, down, across, i, columns, y + c * r->y_channel + i * r->y_row, lanes);
        }
    }
}

/* Nothing to take a mean of. */
INLINE void roi_region_zeros(const struct roi_align *r, float *y, long first, long end) {
    for (long c = first; c < end; c++)
        for (long i = 0; i < r->bins_height; i++)
            for (long j = 0; j < r->bins_width; j++) y[c * r->y_channel + i * r->y_row + j * r->y_pixel] = 0.0f;
}

/* Channels first .. end - 1 of a region. Notes error 1 for one that names no image or is not finite. */
INLINE void roi_region(const int mode, const int planes, const struct roi_align *r, long region, long first, long end) {
    const float *box = r->rois + region * 4;
    float offset = r->half_pixel ? 0.5f : 0.0f, corner[4];
    for (int k = 0; k < 4; k++) corner[k] = roi_rounded(box[k] * r->scale) - offset;
    struct roi_axis down, across;
    float *scratch = r->scratch + pool_thread(r->pool) * roi_thread_floats(r);
    scratch = roi_place_axis(r, &down, r->height, r->bins_height, scratch);
    scratch = roi_place_axis(r, &across, r->width, r->bins_width, scratch);
    int64_t number = r->numbers[region];
    if (number < 0 || number >= r->images || !roi_axis_of(mode, r, &down, corner[1], corner[3], r->height) ||
        !roi_axis_of(mode, r, &across, corner[0], corner[2], r->width)) {
        __atomic_store_n(r->error, 1, __ATOMIC_RELAXED);
        return;
    }
    const float *x = r->x + number * r->x_image;
    float *y = r->y + region * r->y_region;
    if (!down.number || !across.number) roi_region_zeros(r, y, first, end);
    else if (planes) roi_region_planes(mode, r, &down, &across, x, y, scratch, first, end);
    else roi_region_last(mode, r, &down, &across, x, y, first, end);
}

/* Cut the work for a number of threads: where regions are few, their channels are shared out. */
INLINE void roi_align_cut(struct roi_align *r, long threads) {
    double work = 16.0 * (double)r->channels * (double)r->bins_height * (double)r->bins_width;
    long together = work < ROI_ITEM ? (long)(ROI_ITEM / (work + 1.0)) + 1 : 1;
    r->regions_per_item = long_max(1, long_min(together, r->regions / (4 * threads)));
    long parts = threads > 1 && r->regions < 2 * threads ? 2 * threads / long_max(1, r->regions) : 1;
    r->channels_per_item = long_max(1, (r->channels / parts + VL - 1) / VL) * VL;
}

INLINE long roi_align_parts(const struct roi_align *r) {
    return (r->channels + r->channels_per_item - 1) / r->channels_per_item;
}
INLINE long roi_align_items(const struct roi_align *r) {
    return (r->regions + r->regions_per_item - 1) / r->regions_per_item * roi_align_parts(r);
}

/* Compute item 0 <= item < roi_align_items(r). mode and planes (1 if x_pixel is 1, 0 if x_channel is) are literals. */
INLINE void roi_align_item(const int mode, const int planes, const struct roi_align *r, long item) {
    long parts = roi_align_parts(r), region = item / parts * r->regions_per_item;
    long first = item % parts * r->channels_per_item, end = long_min(first + r->channels_per_item, r->channels);
    for (long last = long_min(region + r->regions_per_item, r->regions); region < last; region++)
        roi_region(mode, planes, r, region, first, end);
}

#endif
