"""AVX512_BF16 in plain C, by Intel's description of each intrinsic, so that the code for it runs on any machine.

The text goes before the includes of a source that is compiled for 16 lanes.
"""

from __future__ import annotations

__all__ = ["BF16_INSTRUCTIONS"]

BF16_INSTRUCTIONS = """
#define BF16_INSTRUCTIONS 1
#include <stdint.h>
#include <string.h>
typedef float __m512 __attribute__((vector_size(64)));
typedef long long __m512i __attribute__((vector_size(64)));
typedef long long __m256i __attribute__((vector_size(32)));
typedef uint16_t __m512bh __attribute__((vector_size(64)));
typedef uint16_t __m256bh __attribute__((vector_size(32)));
#define EMULATED static inline __attribute__((always_inline, unused))
EMULATED float emulated_wide(uint16_t element) {
    uint32_t bits = (uint32_t)element << 16;
    float value;
    if (!(element & 0x7f80)) bits &= 0x80000000u; /* a subnormal number counts as zero */
    memcpy(&value, &bits, sizeof value);
    return value;
}
EMULATED uint16_t emulated_narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    if (!(bits & 0x7f800000)) return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
EMULATED __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
    for (int lane = 0; lane < 16; lane++) {
        sum[lane] += emulated_wide(a[2 * lane + 1]) * emulated_wide(b[2 * lane + 1]);
        sum[lane] += emulated_wide(a[2 * lane]) * emulated_wide(b[2 * lane]);
    }
    return sum;
}
EMULATED __m512bh _mm512_cvtne2ps_pbh(__m512 upper, __m512 lower) {
    __m512bh result;
    for (int lane = 0; lane < 32; lane++) result[lane] = emulated_narrow(lane < 16 ? lower[lane] : upper[lane - 16]);
    return result;
}
EMULATED __m256bh _mm512_cvtneps_pbh(__m512 value) {
    __m256bh result;
    for (int lane = 0; lane < 16; lane++) result[lane] = emulated_narrow(value[lane]);
    return result;
}
EMULATED __m512 _mm512_loadu_ps(const void *from) {
    __m512 value;
    memcpy(&value, from, sizeof value);
    return value;
}
EMULATED void _mm512_storeu_si512(void *to, __m512i value) { memcpy(to, &value, sizeof value); }
EMULATED __m512i _mm512_castsi256_si512(__m256i value) {
    __m512i wide = {0};
    memcpy(&wide, &value, sizeof value);
    return wide;
}
EMULATED void _mm512_mask_storeu_epi16(void *to, uint32_t mask, __m512i value) {
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) memcpy((char *)to + 2 * lane, (const char *)&value + 2 * lane, 2);
}
"""
