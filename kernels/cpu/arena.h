/* Offsets for buffers whose lifetimes are known, so that those that never live together share bytes: the twin in C of
 * runtime/memory.py, which describes the ways of it and gives the same offsets.
 */
#ifndef FUSIBLE_ARENA_H
#define FUSIBLE_ARENA_H

#include <stdint.h>

#define ARENA_ALIGNMENT 64
#define ARENA_MOST_BY_WEIGHT 2000

/* Room for one buffer's part in the search; arena_place needs count + 1 of them. */
struct arena_scratch {
    int32_t order; /* buffers, in the order in which they are placed */
    int32_t alive; /* in time: those that live; by weight: those that are placed, by offset */
    int64_t hole, hole_bytes; /* free ranges, by offset, never adjacent */
    int64_t offset; /* by weight */
};

static inline int64_t arena_rounded(int64_t bytes) {
    return ((bytes > 1 ? bytes : 1) + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

enum arena_way { ARENA_IN_TIME, ARENA_BY_SIZE, ARENA_BY_SPAN }; /* a span: bytes times the steps that they live */

static inline int64_t arena_weight(const int64_t *bytes, const int32_t *first, const int32_t *last, enum arena_way way,
                                   int32_t n) {
    return way == ARENA_BY_SIZE ? bytes[n] : bytes[n] * (last[n] - first[n] + 1);
}

/* Whether a is placed before b. */
static inline int arena_before(const int64_t *bytes, const int32_t *first, const int32_t *last, enum arena_way way,
                               int32_t a, int32_t b) {
    if (way != ARENA_IN_TIME) {
        int64_t weight = arena_weight(bytes, first, last, way, a), other = arena_weight(bytes, first, last, way, b);
        if (weight != other) return weight > other;
    }
    if (first[a] != first[b]) return first[a] < first[b];
    return way == ARENA_IN_TIME && bytes[a] != bytes[b] ? bytes[a] > bytes[b] : a < b;
}

static inline void arena_sort(int count, const int64_t *bytes, const int32_t *first, const int32_t *last,
                              enum arena_way way, struct arena_scratch *s) {
    for (int32_t n = 0; n < count; n++) {
        int at = n;
        for (; at > 0 && arena_before(bytes, first, last, way, n, s[at - 1].order); at--)
            s[at].order = s[at - 1].order;
        s[at].order = n;
    }
}

/* The most bytes that live at once: no arena is smaller. Some buffer comes alive where they do. */
static inline int64_t arena_least(int count, const int64_t *bytes, const int32_t *first, const int32_t *last) {
    int64_t peak = 0;
    for (int n = 0; n < count; n++) {
        int64_t alive = 0;
        for (int k = 0; k < count; k++)
            if (first[k] <= first[n] && first[n] <= last[k]) alive += arena_rounded(bytes[k]);
        if (alive > peak) peak = alive;
    }
    return peak;
}

static inline void arena_insert_hole(struct arena_scratch *s, int at, int holes, int64_t offset, int64_t bytes) {
    for (int n = holes; n > at; n--) s[n].hole = s[n - 1].hole, s[n].hole_bytes = s[n - 1].hole_bytes;
    s[at].hole = offset;
    s[at].hole_bytes = bytes;
}

static inline void arena_remove_hole(struct arena_scratch *s, int at, int holes) {
    for (int n = at; n + 1 < holes; n++) s[n].hole = s[n + 1].hole, s[n].hole_bytes = s[n + 1].hole_bytes;
}

/* Gives a range back, merged with the holes that it touches; the new number of holes. */
static inline int arena_release(struct arena_scratch *s, int holes, int64_t offset, int64_t bytes) {
    int at = 0;
    while (at < holes && s[at].hole < offset) at++;
    if (at < holes && offset + bytes == s[at].hole) {
        bytes += s[at].hole_bytes;
        arena_remove_hole(s, at, holes--);
    }
    if (at > 0 && s[at - 1].hole + s[at - 1].hole_bytes == offset) {
        s[at - 1].hole_bytes += bytes;
        return holes;
    }
    arena_insert_hole(s, at, holes, offset, bytes);
    return holes + 1;
}

/* In the order of time, best fit; the size of the arena. */
static inline int64_t arena_in_time(int count, const int64_t *bytes, const int32_t *first, const int32_t *last,
                                    int64_t *offsets, struct arena_scratch *s) {
    int64_t peak = 0;
    int holes = 0, living = 0;
    arena_sort(count, bytes, first, last, ARENA_IN_TIME, s);
    for (int k = 0; k < count; k++) {
        int32_t number = s[k].order;
        for (int n = 0; n < living;) {
            int32_t other = s[n].alive;
            if (last[other] >= first[number]) {
                n++;
                continue;
            }
            holes = arena_release(s, holes, offsets[other], arena_rounded(bytes[other]));
            s[n].alive = s[--living].alive;
        }
        int64_t wanted = arena_rounded(bytes[number]);
        int fit = -1;
        for (int n = 0; n < holes; n++)
            if (s[n].hole_bytes >= wanted && (fit < 0 || s[n].hole_bytes < s[fit].hole_bytes)) fit = n;
        if (fit >= 0) {
            offsets[number] = s[fit].hole;
            s[fit].hole += wanted;
            s[fit].hole_bytes -= wanted;
            if (s[fit].hole_bytes == 0) arena_remove_hole(s, fit, holes--);
        } else {
            offsets[number] = peak;
            if (holes && s[holes - 1].hole + s[holes - 1].hole_bytes == peak) offsets[number] = s[--holes].hole;
            peak = offsets[number] + wanted;
        }
        s[living++].alive = number;
    }
    return peak;
}

/* The weightiest buffers first, each into the smallest gap; offsets in `s`, the size of the arena is returned. */
static inline int64_t arena_by_weight(int count, const int64_t *bytes, const int32_t *first, const int32_t *last,
                                      enum arena_way way, struct arena_scratch *s) {
    int64_t peak = 0;
    arena_sort(count, bytes, first, last, way, s);
    for (int k = 0; k < count; k++) {
        int32_t number = s[k].order;
        int64_t wanted = arena_rounded(bytes[number]), at = 0, best = -1, least = 0;
        for (int n = 0; n < k; n++) {
            int32_t other = s[n].alive;
            if (first[other] > last[number] || last[other] < first[number]) continue;
            int64_t gap = s[other].offset - at, end = s[other].offset + arena_rounded(bytes[other]);
            if (gap >= wanted && (best < 0 || gap < least)) best = at, least = gap;
            if (end > at) at = end;
        }
        s[number].offset = best < 0 ? at : best;
        int place = k;
        for (; place > 0 && s[s[place - 1].alive].offset > s[number].offset; place--) s[place].alive = s[place - 1].alive;
        s[place].alive = number;
        if (s[number].offset + wanted > peak) peak = s[number].offset + wanted;
    }
    return peak;
}

/* The size of the arena; offsets[n] is that of buffer n, which lives from step first[n] to last[n]. */
static inline int64_t arena_place(int count, const int64_t *bytes, const int32_t *first, const int32_t *last,
                                  int64_t *offsets, struct arena_scratch *s) {
    int64_t peak = arena_in_time(count, bytes, first, last, offsets, s);
    int64_t least = arena_least(count, bytes, first, last);
    for (int way = ARENA_BY_SIZE; way <= ARENA_BY_SPAN && count <= ARENA_MOST_BY_WEIGHT && peak > least; way++) {
        int64_t other = arena_by_weight(count, bytes, first, last, (enum arena_way)way, s);
        if (other >= peak) continue;
        peak = other;
        for (int n = 0; n < count; n++) offsets[n] = s[n].offset;
    }
    return peak;
}

#endif
