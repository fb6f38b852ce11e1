/* TopK: the k best elements of each line of x [outer][size][inner], best first, and their indices; float or int32_t.
 *
 * Every element has a 32-bit key that orders as the elements do, so that a larger key is better: -0 equals 0, NaN is
 * greatest. Of equal keys the lower index is better. A line that is long beside k is scanned for the elements whose
 * keys reach a floor. At first that is the k-th best of as many bests of disjoint groups of elements, of which there
 * are a few times k: at least k elements reach it, and not many more if they lie at random. Candidates are kept in the
 * order of their indices; whenever their buffer is full, all but the k best are dropped, and what comes later must be
 * better than the k-th. The buffer holds some times k, so this takes linear time, whatever the order of the elements.
 *
 * The k-th best key is found bit by bit, by counting. Few candidates are sorted by counting for each those before it,
 * many by merging runs of them.
 *
 * Items are some lines each.
 */
#ifndef FUSIBLE_TOP_K_H
#define FUSIBLE_TOP_K_H

#include "lanes.h"
#include "pool.h"
#include "vector.h"

enum { TOP_K_F32, TOP_K_I32 };

#define TOP_K_NAN 0x7f800001 /* the key of any NaN: next to that of infinity */
#define TOP_K_STEP (4 * VL)  /* elements that are compared with the floor at once */
#define TOP_K_FEW (8 * VL)   /* that are sorted by counting, at most */
#define TOP_K_ROUNDS 64      /* elements of a group whose best says where the floor lies, at most */
#define TOP_K_COLUMNS 16     /* lines that are made contiguous at once: a cache line of their elements */
#define TOP_K_COPIED (1 << 18) /* elements of them, at most, if they are several */
#define TOP_K_LITTLE 16384   /* elements of an item, at least */

/* x, values: float or int32_t. The lines of each of `outer` follow each other `inner` times, element by element. */
struct top_k {
    const void *x;
    void *values;     /* [outer][k][inner] */
    int64_t *indices; /* the same */
    long outer, size, inner, k;
    /* Filled in by top_k_plan. */
    struct pool *pool;
    long lines_per_item, columns, capacity;
    float *scratch;
};

/* Candidates of a line in the order of their indices, and room to sort them. Vectors beyond `count` are written. */
struct top_k_kept {
    int32_t *keys, *at; /* [capacity + TOP_K_STEP] */
    int64_t *sorted, *other; /* [k or TOP_K_FEW] */
    long count;
};

/* Whether there are k elements in a line, which 31 bits count. */
INLINE int top_k_fits(const struct top_k *t) { return t->k >= 0 && t->k <= t->size && t->size <= INT32_MAX; }

INLINE vi top_k_keys(const int kind, const int largest, vi bits) {
    vi key = bits;
    if (kind == TOP_K_F32) {
        const vf x = vi_bits(bits);
        const vi ordered = vf_bits(x + vf_all(0.0f)); /* -0 becomes 0 */
        key = ordered ^ (vi)((vu)(ordered >> 31) >> 1);
        key = vi_select((vi)(x == x), key, vi_all(TOP_K_NAN));
    }
    return largest ? key : ~key;
}

/* The element of a key; NaN for what is no key. */
INLINE float top_k_float(const int largest, int32_t key) {
    const int32_t own = largest ? key : ~key, bits = own ^ (int32_t)((uint32_t)(own >> 31) >> 1);
    float element;
    memcpy(&element, &bits, sizeof element);
    return element;
}

INLINE int top_k_any(vi mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(AVX_BUILTINS)
    return __builtin_ia32_movmskps256((vf)mask) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps((__m256)mask) != 0;
#else
    typedef int64_t pairs __attribute__((vector_size(VL * 4)));
    int64_t any = 0;
    for (int pair = 0; pair < VL / 2; pair++) any |= ((pairs)mask)[pair];
    return any != 0;
#endif
}

/* Whether any of a step's elements may have a key of the floor or above: surely not, if its elements are below `limit`,
 * the floor's own. */
INLINE int top_k_seen(const int kind, const int largest, const int32_t *x, int32_t floor, float limit) {
#if defined(__AVX512F__)
    if (kind == TOP_K_F32) {
        __mmask16 seen = 0;
        UNROLL for (int v = 0; v < TOP_K_STEP; v += VL) {
            const __m512 element = (__m512)vi_bits(vi_load(x + v)), all = (__m512)vf_all(limit);
            seen |= largest ? _mm512_cmp_ps_mask(element, all, _CMP_NLT_UQ)
                            : _mm512_cmp_ps_mask(element, all, _CMP_NGT_UQ); /* the comparison must be a literal */
        }
        return seen != 0;
    }
#endif
    vi below = vi_all(-1);
    UNROLL for (int v = 0; v < TOP_K_STEP; v += VL) {
        const vi bits = vi_load(x + v);
        const vf element = vi_bits(bits);
        if (kind == TOP_K_I32) below &= (vi)(top_k_keys(kind, largest, bits) < vi_all(floor));
        else below &= largest ? (vi)(element < vf_all(limit)) : (vi)(element > vf_all(limit));
    }
    return top_k_any(~below);
}

/* Add those of the first `lanes` elements whose keys are not below the floor. */
INLINE void top_k_add(struct top_k_kept *kept, vi keys, vi at, long lanes, int32_t floor) {
#if defined(__AVX512F__)
    const __mmask16 chosen = _mm512_cmpge_epi32_mask((__m512i)keys, (__m512i)vi_all(floor)) & ((1u << lanes) - 1);
    vi_store(kept->keys + kept->count, (vi)_mm512_maskz_compress_epi32(chosen, (__m512i)keys));
    vi_store(kept->at + kept->count, (vi)_mm512_maskz_compress_epi32(chosen, (__m512i)at));
    kept->count += __builtin_popcount(chosen);
#else
    int32_t key[VL], index[VL];
    long count = kept->count;
    if (!top_k_any((vi)(keys >= vi_all(floor)))) return;
    vi_store(key, keys), vi_store(index, at);
    for (long lane = 0; lane < lanes; lane++) {
        kept->keys[count] = key[lane], kept->at[count] = index[lane];
        count += key[lane] >= floor;
    }
    kept->count = count;
#endif
}

/* How many of the first `count` keys, after which vectors are filled with the least, are not below the bound. */
INLINE long top_k_reach(const int32_t *keys, long count, int32_t bound) {
    vi sum = {0};
    for (long i = 0; i < count; i += VL) sum -= (vi)(vi_load(keys + i) >= vi_all(bound));
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32((__m512i)sum);
#else
    int32_t part[VL], reach = 0;
    vi_store(part, sum);
    for (int lane = 0; lane < VL; lane++) reach += part[lane];
    return reach;
#endif
}

/* The least key that is not below the bound. */
INLINE int32_t top_k_least(const int32_t *keys, long count, int32_t bound) {
    vi least = vi_all(INT32_MAX);
    for (long i = 0; i < count; i += VL) {
        const vi key = vi_load(keys + i);
        least = vi_select((vi)(key >= vi_all(bound)) & (vi)(key < least), key, least);
    }
    int32_t part[VL], found = INT32_MAX;
    vi_store(part, least);
    for (int lane = 0; lane < VL; lane++) found = part[lane] < found ? part[lane] : found;
    return found;
}

/* The k-th largest key, 1 <= k <= count, bit by bit from the top: the largest bound that k keys reach, or the least of
 * the keys that reach one, if they are k. */
INLINE int32_t top_k_kth(int32_t *keys, long count, long k) {
    vi_store(keys + count, vi_all(INT32_MIN));
    uint32_t found = 0x80000000u;
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
        const int32_t bound = (int32_t)(found + bit);
        const long reach = top_k_reach(keys, count, bound);
        if (reach == k) return top_k_least(keys, count, bound);
        if (reach > k) found += bit;
    }
    return (int32_t)found;
}

/* Drop all candidates but the k best; the k-th best key. */
INLINE int32_t top_k_drop(struct top_k_kept *kept, long k) {
    int32_t *keys = kept->keys, *at = kept->at;
    const long candidates = kept->count;
    const int32_t worst = top_k_kth(keys, candidates, k);
    kept->count = 0;
    if (top_k_reach(keys, candidates, worst) == k) {
        for (long i = 0; i < candidates; i += VL)
            top_k_add(kept, vi_load(keys + i), vi_load(at + i), long_min(VL, candidates - i), worst);
        return worst;
    }
    long room = k - (worst < INT32_MAX ? top_k_reach(keys, candidates, worst + 1) : 0), count = 0;
    for (long i = 0; i < candidates; i++) {
        const int32_t key = keys[i], index = at[i];
        const int equal = key == worst;
        keys[count] = key, at[count] = index;
        count += (key > worst) | (equal & (room > 0));
        room -= equal;
    }
    kept->count = k;
    return worst;
}

/* A key and an index in one number: a larger one is better. */
INLINE int64_t top_k_pair(int32_t key, int32_t index) {
    return (int64_t)((uint64_t)(uint32_t)key << 32 | (uint32_t)~index);
}
INLINE long top_k_index(int64_t pair) { return (long)(uint32_t)~pair; }

/* Pairs, sorted, of at most TOP_K_FEW candidates; each goes to the place of which so many stand before it. */
INLINE void top_k_sort_few(const int32_t *keys, const int32_t *at, long count, int64_t *sorted) {
    for (long i = 0; i < count; i += VL) {
        const vi own = vi_load(keys + i);
        const long end = long_min(i + VL, count);
        int32_t place[VL];
        vi before = {0};
        long j = 0;
        for (; j < i; j++) before -= (vi)(vi_all(keys[j]) >= own);
        for (; j < end; j++) {
            const vi other = vi_all(keys[j]), earlier = (vi)(vi_all((int32_t)(j - i)) < vi_lanes());
            before -= (vi)(other > own) | ((vi)(other == own) & earlier);
        }
        for (; j < count; j++) before -= (vi)(vi_all(keys[j]) > own);
        vi_store(place, before);
        for (j = i; j < end; j++) sorted[place[j - i]] = top_k_pair(keys[j], at[j]);
    }
}

/* Merge two runs of the same length: half of them from the front and half from the back, in two chains of operations
 * that wait for nothing of each other. Neither can leave its run before it has done its half. */
INLINE void top_k_merge_equal(const int64_t *a, long length, int64_t *to) {
    const int64_t *b = a + length, *a_last = b - 1, *b_last = b + length - 1;
    int64_t *last = to + 2 * length - 1;
    for (long i = 0; i < length; i++) {
        const int64_t first = *a, second = *b, left = first > second;
        *to++ = left ? first : second;
        a += left, b += 1 - left;
        const int64_t a_worst = *a_last, b_worst = *b_last, right = a_worst > b_worst;
        *last-- = right ? b_worst : a_worst;
        b_last -= right, a_last -= 1 - right;
    }
}

/* Merge two runs that follow each other. */
INLINE void top_k_merge(const int64_t *a, long a_count, long b_count, int64_t *to) {
    const int64_t *b = a + a_count, *const a_end = b, *const b_end = b + b_count;
    while (a < a_end && b < b_end) {
        const int64_t first = *a, second = *b, left = first > second;
        *to++ = left ? first : second;
        a += left, b += 1 - left;
    }
    while (a < a_end) *to++ = *a++;
    while (b < b_end) *to++ = *b++;
}

/* Sort all candidates; where their pairs stand. */
INLINE const int64_t *top_k_sort(struct top_k_kept *kept) {
    const long count = kept->count;
    int64_t *from = kept->sorted, *to = kept->other;
    for (long run = 0; run < count; run += TOP_K_FEW)
        top_k_sort_few(kept->keys + run, kept->at + run, long_min(TOP_K_FEW, count - run), from + run);
    for (long length = TOP_K_FEW; length < count; length *= 2) {
        for (long run = 0; run < count; run += 2 * length) {
            const long rest = count - run, first = long_min(length, rest);
            if (rest >= 2 * length) top_k_merge_equal(from + run, length, to + run);
            else top_k_merge(from + run, first, long_min(length, rest - first), to + run);
        }
        int64_t *sorted = to;
        to = from, from = sorted;
    }
    return from;
}

/* Groups whose bests say where the floor of a long line lies, in elements between two of the same group. */
INLINE long top_k_groups(long k) { return (long_max(k > 64 ? 2 * k : 4 * k, 2 * VL) + VL - 1) / VL * VL; }

/* A key that k elements reach. The bests of groups need only be elements of theirs: NaN may be overlooked. */
INLINE int32_t top_k_floor(const int kind, const int largest, const int32_t *x, long size, long k,
                           struct top_k_kept *kept) {
    const long groups = top_k_groups(k), rounds = long_min(size / groups, TOP_K_ROUNDS);
    for (long g = 0; g < groups; g += VL) {
        vi best = vi_load(x + g);
        for (long round = 1; round < rounds; round++) {
            const vi next = vi_load(x + round * groups + g);
            const vf a = vi_bits(best), b = vi_bits(next);
            if (kind == TOP_K_F32) best = vf_bits(largest ? vf_max_number(a, b) : vf_min_number(a, b));
            else best = vi_select(largest ? (vi)(best > next) : (vi)(best < next), best, next);
        }
        vi_store(kept->keys + g, top_k_keys(kind, largest, best));
    }
    if (groups > TOP_K_FEW) return top_k_kth(kept->keys, groups, k);
    top_k_sort_few(kept->keys, kept->keys, groups, kept->sorted);
    return (int32_t)(kept->sorted[k - 1] >> 32);
}

/* Keep the elements of a line that may be among the k best. */
INLINE void top_k_scan(const int kind, const int largest, const int32_t *x, long size, long k, long capacity,
                       struct top_k_kept *kept) {
    int32_t floor = top_k_floor(kind, largest, x, size, k, kept);
    float limit = top_k_float(largest, floor);
    long i = 0;
    for (; i + TOP_K_STEP <= size; i += TOP_K_STEP) {
        if (!top_k_seen(kind, largest, x + i, floor, limit)) continue;
        if (kept->count + TOP_K_STEP > capacity) {
            const int32_t worst = top_k_drop(kept, k);
            if (worst == INT32_MAX) return; /* nothing is better */
            floor = worst + 1, limit = top_k_float(largest, floor);
        }
        UNROLL for (int v = 0; v < TOP_K_STEP; v += VL)
            top_k_add(kept, top_k_keys(kind, largest, vi_load(x + i + v)), vi_lanes() + vi_all((int32_t)(i + v)), VL,
                      floor);
    }
    if (kept->count + TOP_K_STEP > capacity) top_k_drop(kept, k);
    for (; i < size; i += VL) {
        const long lanes = long_min(VL, size - i);
        const vi bits = vf_bits(vf_load_first((const float *)(x + i), lanes));
        top_k_add(kept, top_k_keys(kind, largest, bits), vi_lanes() + vi_all((int32_t)i), lanes, floor);
    }
}

/* Keep all elements of a line. */
INLINE void top_k_take(const int kind, const int largest, const int32_t *x, long size, struct top_k_kept *kept) {
    for (long i = 0; i < size; i += VL) {
        const vi bits = vf_bits(vf_load_first((const float *)(x + i), long_min(VL, size - i)));
        vi_store(kept->keys + i, top_k_keys(kind, largest, bits));
        vi_store(kept->at + i, vi_lanes() + vi_all((int32_t)i));
    }
    kept->count = size;
}

/* One contiguous line; its results lie `inner` apart. */
INLINE void top_k_line(const int kind, const int largest, const struct top_k *t, const int32_t *x, int32_t *values,
                       int64_t *indices, struct top_k_kept *kept) {
    kept->count = 0;
    if (t->capacity == t->size) top_k_take(kind, largest, x, t->size, kept);
    else top_k_scan(kind, largest, x, t->size, t->k, t->capacity, kept);
    if (kept->count > long_max(t->k, TOP_K_FEW)) top_k_drop(kept, t->k);
    const int64_t *sorted = top_k_sort(kept);
    for (long i = 0; i < t->k; i++) {
        const long index = top_k_index(sorted[i]);
        values[i * t->inner] = x[index];
        indices[i * t->inner] = index;
    }
}

INLINE long top_k_lines(const struct top_k *t) { return t->outer * t->inner; }
INLINE long top_k_items(const struct top_k *t) { return (top_k_lines(t) + t->lines_per_item - 1) / t->lines_per_item; }
INLINE long top_k_candidates(const struct top_k *t) { return (t->capacity + TOP_K_STEP + 15) / 16 * 16; }
INLINE long top_k_pairs(const struct top_k *t) { return (long_max(t->k, TOP_K_FEW) + 7) / 8 * 8; }

/* Floats of scratch memory of a thread. */
INLINE long top_k_part(const struct top_k *t) {
    const long copied = t->inner == 1 ? 0 : (t->columns * t->size + 15) / 16 * 16;
    return copied + 2 * top_k_candidates(t) + 4 * top_k_pairs(t);
}
INLINE long top_k_floats(const struct top_k *t) { return pool_threads(t->pool) * top_k_part(t); }

/* Cut the work for the threads of a pool. */
INLINE void top_k_plan(struct top_k *t, struct pool *pool) {
    const long lines = top_k_lines(t), threads = pool_threads(pool);
    const long wanted = threads == 1 ? 1 : long_min(lines * t->size / TOP_K_LITTLE, 4 * threads);
    const long parts = long_max(1, long_min(wanted, lines));
    t->pool = pool;
    t->lines_per_item = long_max(1, (lines + parts - 1) / parts);
    t->columns = t->inner == 1 ? 1 : long_max(1, long_min(TOP_K_COLUMNS, TOP_K_COPIED / long_max(1, t->size)));
    const long capacity = long_max(top_k_groups(t->k), t->k + 2 * TOP_K_STEP);
    t->capacity = t->size <= 2 * capacity ? t->size : capacity;
}

/* Lines of one of `outer`, from `first` on, made contiguous. */
INLINE void top_k_copy(const struct top_k *t, const int32_t *first, long lines, int32_t *to) {
    for (long i = 0; i < t->size; i++)
        for (long line = 0; line < lines; line++) to[line * t->size + i] = first[i * t->inner + line];
}

/* Compute item 0 <= item < top_k_items(t); `kind` and `largest` are constants. */
INLINE void top_k_item(const int kind, const int largest, const struct top_k *t, long item) {
    float *scratch = t->scratch + pool_thread(t->pool) * top_k_part(t);
    int32_t *keys = (int32_t *)scratch, *at = keys + top_k_candidates(t);
    int64_t *sorted = (int64_t *)(at + top_k_candidates(t)), *other = sorted + top_k_pairs(t);
    struct top_k_kept kept = {keys, at, sorted, other, 0};
    int32_t *copies = (int32_t *)(other + top_k_pairs(t));
    const long end = long_min((item + 1) * t->lines_per_item, top_k_lines(t));
    for (long line = item * t->lines_per_item, lines; line < end; line += lines) {
        const long outer = line / t->inner, column = line % t->inner;
        const int32_t *x = (const int32_t *)t->x + outer * t->size * t->inner + column;
        lines = long_min(t->columns, long_min(end - line, t->inner - column));
        if (t->inner > 1) top_k_copy(t, x, lines, copies);
        for (long n = 0; n < lines; n++) {
            const long to = outer * t->k * t->inner + column + n;
            top_k_line(kind, largest, t, t->inner > 1 ? copies + n * t->size : x, (int32_t *)t->values + to,
                       t->indices + to, &kept);
        }
    }
}

/* Run a planned call; task: top_k_item of a struct top_k. scratch: top_k_floats, aligned to 64 bytes. */
INLINE void top_k_run(struct top_k *t, pool_task *task, float *scratch) {
    t->scratch = scratch;
    if (t->k > 0) pool_run(t->pool, task, t, top_k_items(t));
}

#endif
