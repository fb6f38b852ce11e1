/* Non-maximum suppression: of the boxes of each image and class, by falling score, those that overlap none taken before.
 *
 * Scores that pass make a heap, of which only as many are taken out as are looked at. A box is compared with those that
 * were taken, a vector of them at a time. The arithmetic is that of the definition, step by step in float, so that the
 * choice is the same on every machine: no product and sum are one step.
 *
 * Items are a class of an image; each writes to a block of its own, and the blocks are moved together at the end.
 */
#ifndef FUSIBLE_SUPPRESS_H
#define FUSIBLE_SUPPRESS_H

#include <string.h>

#include "lanes.h"
#include "pool.h"
#include "vector.h"

/* boxes [batch][n][4], scores [batch][classes][n]; rows [batch * classes * most][3]: image, class, box. */
struct suppress {
    const float *boxes, *scores;
    int64_t *rows, *count;
    long batch, classes, n, most; /* most: boxes of a class */
    float iou, least;             /* a score must exceed `least`, if there is one */
    int has_least, centred;       /* centred: boxes are centre and size, x before y; else two opposite corners */
    struct pool *pool;
    float *scratch;
};

#define SUPPRESS_PLANES 5 /* of boxes that were taken: both corners, area */

INLINE int suppress_fits(const struct suppress *s) {
    return s->batch >= 0 && s->classes >= 0 && s->n >= 0 && s->n < INT32_MAX && s->most >= 0 && s->most <= s->n;
}
/* Boxes that a plane has room for: vectors read beyond those taken. */
INLINE long suppress_room(const struct suppress *s) { return (s->most + 2 * VL - 1) / VL * VL; }
INLINE long suppress_thread_floats(const struct suppress *s) {
    return (2 * s->n + SUPPRESS_PLANES * suppress_room(s) + 15) / 16 * 16;
}
/* Of each thread a heap and planes; of each item how many it took. */
INLINE long suppress_floats(const struct suppress *s) {
    return suppress_thread_floats(s) * pool_threads(s->pool) + 2 * s->batch * s->classes;
}

/* Larger for a higher score and, of equal ones, a lower index; NaN is the lowest. */
INLINE uint64_t suppress_key(float score, long index) {
    union { float value; uint32_t bits; } ordered = {score + 0.0f}; /* -0 becomes 0 */
    uint32_t key = ordered.bits >> 31 ? ~ordered.bits : ordered.bits | 0x80000000u;
    if (score != score) key = 0;
    return (uint64_t)key << 32 | (uint32_t)~(uint32_t)index;
}
INLINE long suppress_index(uint64_t key) { return (long)(uint32_t)~(uint32_t)key; }

/* Sink the key at a place of a heap whose largest is first. */
INLINE void suppress_sink(uint64_t *heap, long count, long place) {
    const uint64_t key = heap[place];
    for (long child; (child = 2 * place + 1) < count; place = child) {
        if (child + 1 < count && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= key) break;
        heap[place] = heap[child];
    }
    heap[place] = key;
}

/* The smaller and the larger as NumPy has it: NaN if either is. */
INLINE float suppress_min(float a, float b) { return a != a || a < b ? a : b; }
INLINE float suppress_max(float a, float b) { return a != a || a > b ? a : b; }

/* low 0, low 1, high 0, high 1. */
INLINE void suppress_corners(const struct suppress *s, const float *box, float *corner) {
    if (s->centred) {
        const float width = box[2] / 2, height = box[3] / 2;
        corner[0] = box[1] - height, corner[1] = box[0] - width;
        corner[2] = box[1] + height, corner[3] = box[0] + width;
        return;
    }
    corner[0] = suppress_min(box[0], box[2]), corner[1] = suppress_min(box[1], box[3]);
    corner[2] = suppress_max(box[0], box[2]), corner[3] = suppress_max(box[1], box[3]);
}

/* Whether a box shares more than `iou` of the union with one of those taken; never empty boxes. */
INLINE int suppress_overlaps(const struct suppress *s, const float *taken, long count, const float *corner, float area) {
    const long room = suppress_room(s);
    const vf low0 = vf_all(corner[0]), low1 = vf_all(corner[1]), high0 = vf_all(corner[2]), high1 = vf_all(corner[3]);
    const vf zero = vf_all(0.0f), own = vf_all(area), iou = vf_all(s->iou);
    for (long n = 0; n < count; n += VL) {
        const vf height = vf_min(high0, vf_load(taken + 2 * room + n)) - vf_max(low0, vf_load(taken + n));
        const vf width = vf_min(high1, vf_load(taken + 3 * room + n)) - vf_max(low1, vf_load(taken + room + n));
        const vf shared = vf_loaded(vf_max(height, zero) * vf_max(width, zero)), other = vf_load(taken + 4 * room + n);
        const vf whole = (own + other) - shared;
        vi over = (vi)(shared > zero) & (vi)(own > zero) & (vi)(other > zero) & (vi)(whole > zero);
        over &= (vi)(shared / whole > iou) & vi_first_lanes(long_min(VL, count - n));
        int any = 0;
        for (int lane = 0; lane < VL; lane++) any |= over[lane];
        if (any) return 1;
    }
    return 0;
}

/* One class of one image. */
static void suppress_task(void *context, long item) {
    const struct suppress *s = context;
    float *own = s->scratch + suppress_thread_floats(s) * pool_thread(s->pool), *taken = own + 2 * s->n;
    uint64_t *heap = (uint64_t *)own;
    const long image = item / s->classes, room = suppress_room(s);
    const float *scores = s->scores + item * s->n;
    int64_t *row = s->rows + 3 * s->most * item;
    long left = 0, count = 0;
    if (s->most > 0)
        for (long n = 0; n < s->n; n++)
            if (!s->has_least || scores[n] > s->least) heap[left++] = suppress_key(scores[n], n);
    for (long n = left / 2; n-- > 0;) suppress_sink(heap, left, n);
    while (left > 0 && count < s->most) {
        const long best = suppress_index(heap[0]);
        heap[0] = heap[--left];
        suppress_sink(heap, left, 0);
        float corner[4];
        suppress_corners(s, s->boxes + 4 * (image * s->n + best), corner);
        const float area = (corner[2] - corner[0]) * (corner[3] - corner[1]);
        if (suppress_overlaps(s, taken, count, corner, area)) continue;
        for (int side = 0; side < 4; side++) taken[side * room + count] = corner[side];
        taken[4 * room + count] = area;
        row[3 * count] = image, row[3 * count + 1] = item % s->classes, row[3 * count + 2] = best;
        count++;
    }
    ((int64_t *)(s->scratch + suppress_thread_floats(s) * pool_threads(s->pool)))[item] = count;
}

/* All of them; what follows the rows that were found is zeros. scratch: `suppress_floats`, at a multiple of 8 bytes. */
static inline void suppress_run(struct suppress *s, float *scratch) {
    const long items = s->batch * s->classes;
    s->scratch = scratch;
    pool_run(s->pool, suppress_task, s, items);
    const int64_t *counts = (const int64_t *)(scratch + suppress_thread_floats(s) * pool_threads(s->pool));
    long found = 0;
    for (long item = 0; item < items; item++) {
        memmove(s->rows + 3 * found, s->rows + 3 * s->most * item, (size_t)counts[item] * 3 * sizeof *s->rows);
        found += counts[item];
    }
    memset(s->rows + 3 * found, 0, (size_t)(items * s->most - found) * 3 * sizeof *s->rows);
    *s->count = found;
}

#endif
