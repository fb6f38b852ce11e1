/* bf16 in pairs: the operands of products that add up in fp32.
 *
 * Two elements that are neighbours along the depth K share a word of 32 bits, the first one in the lower half; what an
 * odd K lacks is zero. So a matrix of pairs is a matrix of words with half the depth, in the same panels, tiles and
 * tables as floats, and typed as floats: kernels count words where they would count floats.
 *
 * With AVX512_BF16 a product of words is one instruction (vdpbf16ps: two products a lane, added in fp32). It takes
 * subnormal operands for zero and rounds subnormal sums to zero, and so does the one that rounds floats. Elsewhere a
 * word is taken apart into two floats, exactly, and the rest is fp32.
 */
#ifndef FUSIBLE_BF16_H
#define FUSIBLE_BF16_H

#include "vector.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && VL == 16
#define BF16_INSTRUCTIONS 1
#endif

typedef int32_t bf16_word __attribute__((may_alias));
typedef uint16_t bf16_element __attribute__((may_alias));

/* Words for `elements` elements. */
INLINE long bf16_pairs(long elements) { return (elements + 1) / 2; }

/* The word at `at` in every lane, and the words of a vector that was loaded as floats. */
INLINE vi bf16_all(const float *at) { return vi_all(*(const bf16_word *)at); }

/* The first and the second element of each word. */
INLINE vf bf16_first(vi words) { return (vf)(words << 16); }
INLINE vf bf16_second(vi words) { return (vf)(words & vi_all((int32_t)0xffff0000u)); }
INLINE vf bf16_half(const int second, vi words) { return second ? bf16_second(words) : bf16_first(words); }

#ifdef BF16_INSTRUCTIONS
/* sum + the products of both pairs of elements. */
INLINE vf bf16_dot(vf sum, vi a, vi b) { return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
#endif

/* The nearest bf16, to even; a NaN keeps its sign and upper bits and becomes quiet. */
INLINE uint16_t bf16_round(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* Round `count` floats, `step` apart, to bf16_pairs(count) words. `to` may be `from`, if step is 1. */
static __attribute__((noinline, unused)) void bf16_round_row(float *to, const float *from, long step, long count) {
    bf16_element *half = (bf16_element *)to;
    long k = 0;
    if (step == 1) {
#ifdef BF16_INSTRUCTIONS
        for (; k + 32 <= count; k += 32) {
            __m512 first = _mm512_loadu_ps(from + k), second = _mm512_loadu_ps(from + k + 16);
            _mm512_storeu_si512(half + k, (__m512i)_mm512_cvtne2ps_pbh(second, first));
        }
        for (; k < count; k += 16) {
            long left = count - k < 16 ? count - k : 16;
            __m256i rounded = (__m256i)_mm512_cvtneps_pbh((__m512)vf_load_first(from + k, left));
            _mm512_mask_storeu_epi16(half + k, (1u << left) - 1, _mm512_castsi256_si512(rounded));
        }
#else
        for (; k < count; k++) half[k] = bf16_round(from[k]);
#endif
    } else {
        for (; k < count; k++) half[k] = bf16_round(from[k * step]);
    }
    if (count % 2) half[count] = 0;
}

#endif
