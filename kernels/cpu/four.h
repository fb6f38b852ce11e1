/* Vectors of four floats, which every machine with vectors has: for data that come in fours where vf may be wider. */
#ifndef FUSIBLE_FOUR_H
#define FUSIBLE_FOUR_H

#include "vector.h"

typedef float four __attribute__((vector_size(16)));
typedef int32_t four_mask __attribute__((vector_size(16)));
typedef double four_halves __attribute__((vector_size(16)));
typedef float four_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
typedef double four_half __attribute__((aligned(4), may_alias)); /* two floats, to be moved as one */

INLINE four four_load(const float *from) { return *(const four_unaligned *)from; }
INLINE void four_store(float *to, four value) { *(four_unaligned *)to = value; }

/* Two floats from one address and two from another. */
INLINE four four_load_halves(const float *a, const float *b) {
    return (four)(four_halves){*(const four_half *)a, *(const four_half *)b};
}

/* Elements of a (0 .. 3) and b (4 .. 7) by literal numbers. */
#if defined(__clang__) || __GNUC__ >= 12
#define FOUR_OF(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FOUR_OF(a, b, ...) __builtin_shuffle(a, b, (four_mask){__VA_ARGS__})
#endif

/* a0 + a1, a2 + a3, b0 + b1, b2 + b3. */
INLINE four four_pair_sums(four a, four b) { return FOUR_OF(a, b, 0, 2, 4, 6) + FOUR_OF(a, b, 1, 3, 5, 7); }

/* Four rows of four, `from_step` floats apart, become four columns: rows `to_step` apart. */
INLINE void four_transpose(const float *from, long from_step, float *to, long to_step) {
    four a = four_load(from), b = four_load(from + from_step);
    four c = four_load(from + 2 * from_step), d = four_load(from + 3 * from_step);
    four ab = FOUR_OF(a, b, 0, 4, 1, 5), cd = FOUR_OF(c, d, 0, 4, 1, 5);
    four_store(to, FOUR_OF(ab, cd, 0, 1, 4, 5));
    four_store(to + to_step, FOUR_OF(ab, cd, 2, 3, 6, 7));
    ab = FOUR_OF(a, b, 2, 6, 3, 7), cd = FOUR_OF(c, d, 2, 6, 3, 7);
    four_store(to + 2 * to_step, FOUR_OF(ab, cd, 0, 1, 4, 5));
    four_store(to + 3 * to_step, FOUR_OF(ab, cd, 2, 3, 6, 7));
}

#endif
