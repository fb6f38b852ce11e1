/* Offsets for buffers whose lifetimes are known, so that those that never live together share bytes: the twin in C of
 * runtime/memory.py, which describes it (best fit over time) and gives the same offsets.
 */
#ifndef FUSIBLE_ARENA_H
#define FUSIBLE_ARENA_H

#include <stdint.h>

#define ARENA_ALIGNMENT 64

/* Room for one buffer's part in the search; arena_place needs count + 1 of them. */
struct arena_scratch {
    int32_t order; /* buffers by the time they come alive */
    int32_t alive;
    int64_t hole, hole_bytes; /* free ranges, by offset, never adjacent */
};

static inline int64_t arena_rounded(int64_t bytes) {
    return ((bytes > 1 ? bytes : 1) + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

static inline int arena_before(const int64_t *bytes, const int32_t *first, int32_t a, int32_t b) {
    if (first[a] != first[b]) return first[a] < first[b];
    return bytes[a] != bytes[b] ? bytes[a] > bytes[b] : a < b;
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

/* The size of the arena; offsets[n] is that of buffer n, which lives from step first[n] to last[n]. */
static inline int64_t arena_place(int count, const int64_t *bytes, const int32_t *first, const int32_t *last,
                                  int64_t *offsets, struct arena_scratch *s) {
    int64_t peak = 0;
    int holes = 0, living = 0;
    for (int32_t n = 0; n < count; n++) {
        int at = n;
        for (; at > 0 && arena_before(bytes, first, n, s[at - 1].order); at--) s[at].order = s[at - 1].order;
        s[at].order = n;
    }
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

#endif
