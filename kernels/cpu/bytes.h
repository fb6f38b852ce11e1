/* Bytes in fours: the operands of products that add up in int32.
 *
 * Four elements that are neighbours along the depth K share a word of 32 bits, the first one in the lowest byte; what a
 * depth that is no multiple of 4 lacks is zero in B. So a matrix of bytes is a matrix of words with a quarter of the
 * depth, in the same panels, tiles and tables as floats, and typed as floats. A is unsigned, B signed.
 *
 * With AVX-512 VNNI or AVX-VNNI a product of words is one instruction (vpdpbusd). With AVX2 or AVX-512 alone the even
 * and the odd bytes are multiplied as int16 in pairs (vpmaddwd), elsewhere each byte as int32: exactly the same sums,
 * which wrap as those of int32 do.
 */
#ifndef FUSIBLE_BYTES_H
#define FUSIBLE_BYTES_H

#include "vector.h"

#if defined(__has_builtin)
#define BYTES_HAS(name) __has_builtin(name)
#else
#define BYTES_HAS(name) 0
#endif

typedef int16_t bytes_halves __attribute__((vector_size(VL * 4)));

/* BYTES_PARTS: how often a word is taken apart; bytes_left, bytes_right: the parts of words of A and of B; bytes_add:
 * sum + the products of one part. */
#if defined(__AVX512VNNI__) && VL == 16
#define BYTES_PARTS 1
INLINE vi bytes_left(const int part, vi words) { return (void)part, words; }
INLINE vi bytes_right(const int part, vi words) { return (void)part, words; }
INLINE vi bytes_add(vi sum, vi left, vi right) {
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)left, (__m512i)right);
}
#elif defined(__AVXVNNI__) && VL == 8 && BYTES_HAS(__builtin_ia32_vpdpbusd_v8si)
#define BYTES_PARTS 1
INLINE vi bytes_left(const int part, vi words) { return (void)part, words; }
INLINE vi bytes_right(const int part, vi words) { return (void)part, words; }
INLINE vi bytes_add(vi sum, vi left, vi right) { return __builtin_ia32_vpdpbusd_v8si(sum, left, right); }
#elif (defined(__AVX512BW__) && VL == 16) || (defined(__AVX2__) && VL == 8 && BYTES_HAS(__builtin_ia32_pmaddwd256))
#define BYTES_PARTS 2
INLINE vi bytes_left(const int part, vi words) { return (vi)((vu)words >> (8 * part) & vi_all(0x00ff00ff)); }
INLINE vi bytes_right(const int part, vi words) {
    bytes_halves halves = (bytes_halves)words;
    return (vi)(part ? halves >> 8 : (bytes_halves)(words << 8) >> 8);
}
INLINE vi bytes_add(vi sum, vi left, vi right) {
#if VL == 16
    return sum + (vi)_mm512_madd_epi16((__m512i)left, (__m512i)right);
#else
    typedef short pairs __attribute__((vector_size(32)));
    return sum + (vi)__builtin_ia32_pmaddwd256((pairs)left, (pairs)right);
#endif
}
#else
#define BYTES_PARTS 4
INLINE vi bytes_left(const int part, vi words) { return (vi)((vu)words >> (8 * part) & 0xffu); }
INLINE vi bytes_right(const int part, vi words) { return words << (24 - 8 * part) >> 24; }
INLINE vi bytes_add(vi sum, vi left, vi right) { return (vi)((vu)sum + (vu)left * (vu)right); }
#endif

/* Words for `elements` elements. */
INLINE long bytes_words(long elements) { return (elements + 3) / 4; }

#endif
