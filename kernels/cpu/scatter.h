/* ScatterElements and ScatterND: a copy of x with elements, or rows, at places that indices name set to updates, or
 * combined with them by a reduction.
 *
 *   elements   y[i][index[i][j][k]][k] = updates[i][j][k]           (along axis 1)
 *   rows       y[index[j][0]][index[j][1]]... = updates[j]          (rows of `inner` elements)
 *
 * Updates of one element are made in the order in which they stand, by one thread: an item owns a slice of y, so the
 * result depends on nothing else. A negative index counts from the end; an update whose index is out of range is left
 * out, and noted as error 1.
 */
#ifndef FUSIBLE_SCATTER_H
#define FUSIBLE_SCATTER_H

#include <string.h>

#include "lanes.h"
#include "pool.h"

/* With SCATTER_NONE only the size of elements matters, and an unsigned type stands for all of that size. */
enum { SCATTER_NONE, SCATTER_ADD, SCATTER_MUL, SCATTER_MAX, SCATTER_MIN };
enum { SCATTER_F32, SCATTER_I32, SCATTER_I64, SCATTER_U8, SCATTER_U16 };

#define SCATTER_RANK 16
#define SCATTER_LITTLE 16384 /* elements that an item copies or updates, at least */
#define SCATTER_COPIED (64 * 1024) /* bytes that an item copies at once */

INLINE long scatter_bytes(const int type) {
    return type == SCATTER_U8 ? 1 : type == SCATTER_U16 ? 2 : type == SCATTER_I64 ? 8 : 4;
}

/* Index number `at` of int32_t or, `wide`, int64_t, counted from the beginning; -1 if it is not in 0 .. size - 1. */
INLINE long scatter_index(const int wide, const void *indices, long at, long size, int *error) {
    long index = wide ? (long)((const int64_t *)indices)[at] : (long)((const int32_t *)indices)[at];
    if (index < 0) index += size;
    if (index >= 0 && index < size) return index;
    __atomic_store_n(error, 1, __ATOMIC_RELAXED);
    return -1;
}

/* What an element becomes. Of equal ones the larger and the smaller are the old one; NaN is both. */
#define SCATTER_COMBINE(name, type, arithmetic)                                                    \
    INLINE type name(const int reduction, type old, type update) {                                 \
        switch (reduction) {                                                                       \
        case SCATTER_ADD: return (type)((arithmetic)old + (arithmetic)update);                     \
        case SCATTER_MUL: return (type)((arithmetic)old * (arithmetic)update);                     \
        case SCATTER_MAX: return ((old >= update) | (old != old)) ? old : update;                  \
        case SCATTER_MIN: return ((old <= update) | (old != old)) ? old : update;                  \
        default: return update;                                                                    \
        }                                                                                          \
    }
SCATTER_COMBINE(scatter_f32, float, float)
SCATTER_COMBINE(scatter_i32, int32_t, uint32_t)
SCATTER_COMBINE(scatter_i64, int64_t, uint64_t)

/* Element `to` of y and element `from` of the updates. */
INLINE void scatter_one(const int type, const int reduction, void *y, long to, const void *updates, long from) {
    switch (type) {
    case SCATTER_U8: ((uint8_t *)y)[to] = ((const uint8_t *)updates)[from]; break;
    case SCATTER_U16: ((uint16_t *)y)[to] = ((const uint16_t *)updates)[from]; break;
    case SCATTER_I32: {
        int32_t *own = (int32_t *)y + to;
        *own = scatter_i32(reduction, *own, ((const int32_t *)updates)[from]);
        break;
    }
    case SCATTER_I64: {
        int64_t *own = (int64_t *)y + to;
        *own = scatter_i64(reduction, *own, ((const int64_t *)updates)[from]);
        break;
    }
    default: {
        float *own = (float *)y + to;
        *own = scatter_f32(reduction, *own, ((const float *)updates)[from]);
    }
    }
}

/* `count` elements that follow each other. y and updates do not overlap. */
INLINE void scatter_row(const int type, const int reduction, void *restrict y, long to, const void *restrict updates,
                        long from, long count) {
    const long bytes = scatter_bytes(type);
    if (reduction == SCATTER_NONE && count > 1)
        memcpy((char *)y + to * bytes, (const char *)updates + from * bytes, (size_t)(count * bytes));
    else
        for (long i = 0; i < count; i++) scatter_one(type, reduction, y, to + i, updates, from + i);
}

/* Rows. x, y: [sizes[0]]...[sizes[depth - 1]][inner]; indices: [count][depth]; updates: [count][inner]. */
struct scatter_rows {
    const void *x, *indices, *updates;
    void *y;
    const int64_t *sizes; /* [depth] */
    long depth, inner, count;
    int *error;
    /* Filled in by scatter_rows_run. */
    long rows, items;
};

/* Which row an index vector names, or -1. */
INLINE long scatter_place(const int wide, const struct scatter_rows *s, const int depth, long vector) {
    long place = 0;
    int within = 1;
    for (int d = 0; d < depth; d++) {
        const long index = scatter_index(wide, s->indices, vector * depth + d, s->sizes[d], s->error);
        within &= index >= 0;
        place = place * s->sizes[d] + index;
    }
    return within ? place : -1;
}

/* An item is some rows of y: all their updates. `depth` is a constant too. */
INLINE void scatter_rows_item(const int type, const int reduction, const int wide, const int depth,
                              const struct scatter_rows *s, long item) {
    const long bytes = scatter_bytes(type), row = s->inner * bytes;
    const long begin = part_begin(s->rows, s->items, item), end = part_begin(s->rows, s->items, item + 1);
    if (s->x != s->y && end > begin && row > 0)
        memcpy((char *)s->y + begin * row, (const char *)s->x + begin * row, (size_t)((end - begin) * row));
    for (long vector = 0; vector < s->count; vector++) {
        const long place = scatter_place(wide, s, depth, vector);
        if (place >= begin && place < end)
            scatter_row(type, reduction, s->y, place * s->inner, s->updates, vector * s->inner, s->inner);
    }
}

/* task: scatter_rows_item of a struct scatter_rows. Every item reads all indices, so rows must be worth it. */
INLINE void scatter_rows_run(struct scatter_rows *s, struct pool *pool, pool_task *task) {
    s->rows = 1;
    for (long d = 0; d < s->depth; d++) s->rows *= s->sizes[d];
    const long threads = pool_threads(pool);
    const long worth = long_min(s->rows, (s->rows * s->inner + s->count * s->inner) / SCATTER_LITTLE);
    s->items = threads == 1 ? 1 : long_max(1, long_min(threads, worth));
    pool_run(pool, task, s, s->items);
}

/* Elements. x, y: [shape[0]]...[shape[rank - 1]]; indices, updates: [places[0]]..., within x but for the axis. */
struct scatter_elements {
    const void *x, *indices, *updates;
    void *y;
    const int64_t *shape, *places; /* [rank] */
    long rank, axis, element;      /* bytes of an element */
    int *error;
    /* Filled in by scatter_elements_run: the same tensors with as few dimensions as say where they lie. */
    long sizes[SCATTER_RANK], counts[SCATTER_RANK], steps[SCATTER_RANK], dimensions, along, cut, items;
    long elements;
};

INLINE int scatter_elements_fit(const struct scatter_elements *s) {
    for (long d = 0; d < s->rank; d++)
        if (d != s->axis && s->places[d] > s->shape[d]) return 0;
    return 1;
}

/* Dimensions that follow each other, neither of them the axis and the second whole, are one. */
INLINE void scatter_flatten(struct scatter_elements *s) {
    long last = -1;
    for (long d = 0; d < s->rank; d++) {
        if (last >= 0 && d != s->axis && last != s->along && s->places[d] == s->shape[d]) {
            s->sizes[last] *= s->shape[d], s->counts[last] *= s->places[d];
            continue;
        }
        last++;
        s->sizes[last] = s->shape[d], s->counts[last] = s->places[d];
        if (d == s->axis) s->along = last;
    }
    s->dimensions = last + 1;
    s->elements = 1;
    for (long d = last; d >= 0; d--) s->steps[d] = s->elements, s->elements *= s->sizes[d];
}

/* Updates along the last dimension, from `begin` to before `end`; `from` is the first of the line, `to` its place. */
INLINE void scatter_line(const int type, const int reduction, const int wide, const struct scatter_elements *s,
                         long from, long to, long begin, long end) {
    const long step = s->steps[s->along], size = s->sizes[s->along], beside = s->along != s->dimensions - 1;
    for (long i = begin; i < end; i++) {
        const long index = scatter_index(wide, s->indices, from + i, size, s->error);
        if (index >= 0) scatter_one(type, reduction, s->y, to + index * step + (beside ? i : 0), s->updates, from + i);
    }
}

/* An item is a part of one dimension other than the axis. */
INLINE void scatter_elements_item(const int type, const int reduction, const int wide,
                                  const struct scatter_elements *s, long item) {
    long at[SCATTER_RANK], first[SCATTER_RANK], end[SCATTER_RANK];
    const long last = s->dimensions - 1;
    for (long d = 0; d <= last; d++) {
        const long parts = d == s->cut ? s->items : 1, part = d == s->cut ? item : 0;
        at[d] = first[d] = part_begin(s->counts[d], parts, part), end[d] = part_begin(s->counts[d], parts, part + 1);
        if (first[d] == end[d]) return;
    }
    for (long d = 0; d >= 0;) {
        long from = 0, to = 0;
        for (d = 0; d <= last; d++) {
            from = from * s->counts[d] + (d < last ? at[d] : 0);
            to += d < last && d != s->along ? at[d] * s->steps[d] : 0;
        }
        scatter_line(type, reduction, wide, s, from, to, first[last], end[last]);
        for (d = last - 1; d >= 0 && ++at[d] == end[d]; d--) at[d] = first[d];
    }
}

static __attribute__((unused)) void scatter_copy(void *context, long item) {
    const struct scatter_elements *s = context;
    const long begin = item * SCATTER_COPIED, bytes = long_min(SCATTER_COPIED, s->elements * s->element - begin);
    memcpy((char *)s->y + begin, (const char *)s->x + begin, (size_t)bytes);
}

/* task: scatter_elements_item of a struct scatter_elements, which fits. */
INLINE void scatter_elements_run(struct scatter_elements *s, struct pool *pool, pool_task *task) {
    s->along = -1;
    scatter_flatten(s);
    if (s->x != s->y) pool_run(pool, scatter_copy, s, (s->elements * s->element + SCATTER_COPIED - 1) / SCATTER_COPIED);
    long updates = 1;
    s->cut = -1;
    for (long d = 0; d < s->dimensions; d++) {
        updates *= s->counts[d];
        if (d != s->along && (s->cut < 0 || s->counts[d] > s->counts[s->cut])) s->cut = d;
    }
    const long most = s->cut < 0 ? 1 : long_min(s->counts[s->cut], updates / SCATTER_LITTLE);
    s->items = pool_threads(pool) == 1 ? 1 : long_max(1, long_min(4 * pool_threads(pool), most));
    pool_run(pool, task, s, s->items);
}

#endif
