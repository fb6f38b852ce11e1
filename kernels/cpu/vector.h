/* Vectors of floats and of 32-bit integers, as wide as the instruction set allows.
 *
 * GCC and Clang vector extensions carry the arithmetic (+, -, *, /, comparisons), so the same source compiles for
 * AVX-512 (16 lanes), AVX2 (8), NEON and SSE (4) and, by the compiler's own lowering, for a machine without vectors.
 * Intrinsics stand behind feature tests, only where the extensions say too little. `-ffp-contract=fast` makes a*b + c a
 * fused multiply-add; no code here needs -ffast-math, which would break NaN and infinity.
 *
 * Every function is a pure leaf and safe for pointers that are aligned to 4 bytes only. Loads and stores of `count`
 * lanes touch no byte beyond them.
 */
#ifndef FUSIBLE_VECTOR_H
#define FUSIBLE_VECTOR_H

#include <stdint.h>
#include <string.h>

/* GCC's own names for the few instructions of AVX2 that are needed: to read immintrin.h takes half a second for each
 * translation unit, as long as to compile a kernel. */
#if defined(__AVX2__) && !defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__) && defined(__has_builtin)
#if __has_builtin(__builtin_ia32_maskloadps256) && __has_builtin(__builtin_ia32_maskstoreps256) && \
    __has_builtin(__builtin_ia32_blendvps256) && __has_builtin(__builtin_ia32_roundps256) &&       \
    __has_builtin(__builtin_ia32_maxps256) && __has_builtin(__builtin_ia32_minps256) &&            \
    __has_builtin(__builtin_ia32_sqrtps256) && __has_builtin(__builtin_ia32_vfmaddps256)
#define AVX_BUILTINS
#endif
#endif
#if defined(AVX_BUILTINS)
#define AVX_BLEND(no, yes, mask) __builtin_ia32_blendvps256(no, yes, (vf)(mask))
#define AVX_MASKED_LOAD(from, mask) __builtin_ia32_maskloadps256((const vf *)(from), mask)
#define AVX_MASKED_STORE(to, mask, value) __builtin_ia32_maskstoreps256((vf *)(to), mask, value)
#define AVX_MAX(a, b) __builtin_ia32_maxps256(a, b)
#define AVX_MIN(a, b) __builtin_ia32_minps256(a, b)
#define AVX_ROUND(value, how) __builtin_ia32_roundps256(value, how)
#define AVX_SQRT(value) __builtin_ia32_sqrtps256(value)
#define AVX_FMA(a, b, c) __builtin_ia32_vfmaddps256(a, b, c)
#elif defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#define AVX_BLEND(no, yes, mask) ((vf)_mm256_blendv_ps((__m256)(no), (__m256)(yes), (__m256)(mask)))
#define AVX_MASKED_LOAD(from, mask) ((vf)_mm256_maskload_ps(from, (__m256i)(mask)))
#define AVX_MASKED_STORE(to, mask, value) _mm256_maskstore_ps(to, (__m256i)(mask), (__m256)(value))
#define AVX_MAX(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define AVX_MIN(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define AVX_ROUND(value, how) ((vf)_mm256_round_ps((__m256)(value), how))
#define AVX_SQRT(value) ((vf)_mm256_sqrt_ps((__m256)(value)))
#define AVX_FMA(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#endif

/* A test may set VL itself, to run a width without the instruction set that suggests it. */
#if defined(VL)
#elif defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

/* Vector registers that a microkernel may count on. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define VECTOR_REGISTERS 32
#else
#define VECTOR_REGISTERS 16
#endif

#define INLINE static inline __attribute__((always_inline, unused))

/* Where part `index` of `parts` nearly equal ones of `total` things begins; that after the last is `total`. */
INLINE long part_begin(long total, long parts, long index) { return total * index / parts; }

/* At least `parts` parts, at most `most`, of each of `images` so that each of `threads` threads gets as many. */
INLINE long even_parts(long parts, long most, long images, long threads) {
    for (long even = parts; even <= most && even < parts + threads; even++)
        if (images * even % threads == 0) return even;
    return parts;
}
#define UNROLL _Pragma("GCC unroll 32")

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef float vf_unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE vf vf_load(const float *from) { return *(const vf_unaligned *)from; }
INLINE void vf_store(float *to, vf value) { *(vf_unaligned *)to = value; }
INLINE vi vi_load(const int32_t *from) { return *(const vi_unaligned *)from; }
INLINE void vi_store(int32_t *to, vi value) { *(vi_unaligned *)to = value; }

/* Not (vf){0} + value: that adds, before it broadcasts, and makes -0 positive. */
#if VL == 16
#define VECTOR_OF(value) {value, value, value, value, value, value, value, value, \
                          value, value, value, value, value, value, value, value}
#elif VL == 8
#define VECTOR_OF(value) {value, value, value, value, value, value, value, value}
#else
#define VECTOR_OF(value) {value, value, value, value}
#endif
INLINE vf vf_all(float value) { return (vf)VECTOR_OF(value); }
INLINE vi vi_all(int32_t value) { return (vi)VECTOR_OF(value); }

/* The same bits as the other type. */
INLINE vi vf_bits(vf value) { return (vi)value; }
INLINE vf vi_bits(vi value) { return (vf)value; }

/* A comparison gives lanes of all ones or all zeros: vi_select picks by them. */
INLINE vf vf_select(vi mask, vf yes, vf no) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    return AVX_BLEND(no, yes, mask);
#else
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
#endif
}
INLINE vi vi_select(vi mask, vi yes, vi no) { return (mask & yes) | (~mask & no); }

/* 0, 1, ... VL - 1, and the lanes below `count`: all ones there, zeros in the others. */
INLINE vi vi_lanes(void) {
    static const int32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vi_load(numbers);
}
INLINE vi vi_first_lanes(long count) { return (vi)(vi_lanes() < vi_all((int32_t)count)); }

/* The first `count` lanes of memory, 0 <= count <= VL; the others are zero. */
INLINE vf vf_load_first(const float *from, long count) {
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#elif defined(__AVX2__)
    if (__builtin_constant_p(count == VL) && count == VL) return vf_load(from);
    return AVX_MASKED_LOAD(from, vi_first_lanes(count));
#else
    vf value = {0};
    if (count >= VL) return vf_load(from);
    for (long lane = 0; lane < count; lane++) value[lane] = from[lane];
    return value;
#endif
}

INLINE void vf_store_first(float *to, vf value, long count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
#elif defined(__AVX2__)
    if (__builtin_constant_p(count == VL) && count == VL) vf_store(to, value);
    else AVX_MASKED_STORE(to, vi_first_lanes(count), value);
#else
    if (count >= VL) {
        vf_store(to, value);
        return;
    }
    for (long lane = 0; lane < count; lane++) to[lane] = value[lane];
#endif
}

/* The larger and the smaller; a NaN in either operand gives NaN, as NumPy's maximum and minimum do. */
INLINE vf vf_max(vf a, vf b) {
#if defined(__AVX512F__)
    vf larger = (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    vf larger = AVX_MAX(a, b);
#else
    vf larger = vf_select(a > b, a, b);
#endif
    return vf_select(a == a, larger, a);
}
INLINE vf vf_min(vf a, vf b) {
#if defined(__AVX512F__)
    vf smaller = (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    vf smaller = AVX_MIN(a, b);
#else
    vf smaller = vf_select(a < b, a, b);
#endif
    return vf_select(a == a, smaller, a);
}

/* The same where `number` is known not to be NaN: one instruction, which gives its second operand for a NaN. */
INLINE vf vf_max_number(vf number, vf value) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)number, (__m512)value);
#elif defined(__AVX2__)
    return AVX_MAX(number, value);
#else
    return vf_select(number > value, number, value);
#endif
}
INLINE vf vf_min_number(vf number, vf value) {
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)number, (__m512)value);
#elif defined(__AVX2__)
    return AVX_MIN(number, value);
#else
    return vf_select(number < value, number, value);
#endif
}

INLINE vf vf_abs(vf value) { return (vf)((vi)value & vi_all(0x7fffffff)); }

/* Nearest integer, ties to even. */
INLINE vf vf_round(vf value) {
#if defined(__AVX512F__)
    return (vf)_mm512_roundscale_ps((__m512)value, 8);
#elif defined(__AVX2__)
    return AVX_ROUND(value, 8);
#else
    vf rounded;
    for (int lane = 0; lane < VL; lane++) rounded[lane] = __builtin_rintf(value[lane]);
    return rounded;
#endif
}

INLINE vf vf_floor(vf value) {
#if defined(__AVX512F__)
    return (vf)_mm512_roundscale_ps((__m512)value, 9);
#elif defined(__AVX2__)
    return AVX_ROUND(value, 9);
#else
    vf rounded;
    for (int lane = 0; lane < VL; lane++) rounded[lane] = __builtin_floorf(value[lane]);
    return rounded;
#endif
}

INLINE vf vf_sqrt(vf value) {
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)value);
#elif defined(__AVX2__)
    return AVX_SQRT(value);
#else
    vf root;
    for (int lane = 0; lane < VL; lane++) root[lane] = __builtin_sqrtf(value[lane]);
    return root;
#endif
}

/* Truncated to an integer; the value must fit. */
INLINE vi vf_to_int(vf value) { return __builtin_convertvector(value, vi); }
INLINE vf vi_to_float(vi value) { return __builtin_convertvector(value, vf); }

/* Over the lanes, pairwise: the order is fixed, so the result does not depend on anything else. */
INLINE float vf_sum(vf value) {
#if defined(AVX_BUILTINS)
    vf four = value + __builtin_shuffle(value, (vi){4, 5, 6, 7, 4, 5, 6, 7});
    vf two = four + __builtin_shuffle(four, (vi){2, 3, 2, 3, 2, 3, 2, 3});
    return two[0] + two[1];
#elif defined(__AVX2__)
#if defined(__AVX512F__)
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd((__m512)value), 1));
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256((__m512)value), high);
#else
    __m256 eight = (__m256)value;
#endif
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
    float part[VL];
    vf_store(part, value);
    for (int half = VL / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) part[lane] += part[lane + half];
    return part[0];
#endif
}
INLINE float vf_largest(vf value) {
    float part[VL];
    vf_store(part, value);
    for (int half = VL / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) {
            float other = part[lane + half];
            part[lane] = part[lane] != part[lane] || part[lane] > other ? part[lane] : other;
        }
    return part[0];
}

/* A value that was loaded for several uses. GCC would rather load it anew for each, as a memory operand of the
 * arithmetic, until the load ports are the limit; an empty instruction keeps it in its register. */
INLINE vf vf_loaded(vf value) {
#if VL == 16 && defined(__AVX512F__)
    __asm__("" : "+v"(value));
#elif (VL == 8 && defined(__AVX2__)) || (VL == 4 && defined(__SSE2__))
    __asm__("" : "+x"(value));
#endif
    return value;
}

/* VF_FMA(a, b, c): a b + c, rounded once, where there is one instruction for a vector of our lanes. */
#if VL == 16 && defined(__AVX512F__)
#define VF_FMA(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#elif VL == 8 && defined(__AVX2__) && defined(__FMA__)
#define VF_FMA(a, b, c) AVX_FMA(a, b, c)
#elif VL == 4 && defined(__aarch64__)
INLINE vf vf_fma(vf a, vf b, vf c) {
    for (int lane = 0; lane < VL; lane++) c[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
    return c;
}
#define VF_FMA(a, b, c) vf_fma(a, b, c)
#endif

/* value / divisor for a constant divisor, not near the limits of fp32, and its rounded reciprocal, for quantisations: the
 * bits of a division, in a fifth of its time, but for the sign of zeros and for values below 1e-30. The quotient by the
 * reciprocal is corrected by its rest, which fused operations have exactly (Markstein, "Computation of elementary
 * functions on the IBM RISC System/6000 processor", IBM J. R&D 34, 1990). Infinities have no rest: their quotient stays. */
INLINE vf vf_divide(vf value, float divisor, float reciprocal) {
#ifdef VF_FMA
    const vf quotient = value * vf_all(reciprocal), rest = VF_FMA(-quotient, vf_all(divisor), value);
    const vf corrected = VF_FMA(rest, vf_all(reciprocal), quotient);
    return vf_select(corrected == corrected, corrected, quotient);
#else
    (void)reciprocal;
    return value / vf_all(divisor);
#endif
}

INLINE void prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }

/* What the compiler must not know of a pointer or number: that it does not change in a loop. It would keep a register for
 * each sum of a stride and an offset, more than there are, where an address has room for both. */
#define OPAQUE(value) __asm__("" : "+r"(value))

/* sum += a * b, and a vector that is loaded once: where nearly every register holds a sum, GCC copies sums to and fro,
 * spills them, and loads operands again for each use. PLUS_PRODUCT is the same in C, fused wherever ADD_PRODUCT is. */
#if defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__) && VL == 8
#define ADD_PRODUCT(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b))
#define PLUS_PRODUCT(sum, a, b) AVX_FMA(a, b, sum)
#define LOADED_ONCE(value) __asm__("" : "+x"(value))
#else
#define ADD_PRODUCT(sum, a, b) (void)((sum) += (a) * (b))
#define PLUS_PRODUCT(sum, a, b) ((sum) + (a) * (b))
#define LOADED_ONCE(value) (void)(value)
#endif

#endif
