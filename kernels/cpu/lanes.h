/* What printed code needs besides vectors and their mathematics: functions of libm lane by lane, masks in memory, and
 * integer arithmetic that rounds as Python's does.
 *
 * The lane-wise functions are as exact as the system's libm and as slow; they stand for what vector_math.h has not.
 */
#ifndef FUSIBLE_LANES_H
#define FUSIBLE_LANES_H

#include <math.h>

#include "vector_math.h"

INLINE long long_min(long a, long b) { return a < b ? a : b; }
INLINE long long_max(long a, long b) { return a > b ? a : b; }
INLINE long long_broadcast(long a, long b) { return a == 1 ? b : a; }
INLINE long long_floor_divide(long a, long b) { return a / b - (a % b != 0 && (a % b < 0) != (b < 0)); }
INLINE long long_modulo(long a, long b) { return a - b * long_floor_divide(a, b); }

/* An index that data gave: outside 0 .. size - 1 it becomes 0 and the error is noted, for nobody may read there. */
INLINE long index_within(long index, long size, int *error) {
    if (index >= 0 && index < size) return index;
    __atomic_store_n(error, 1, __ATOMIC_RELAXED);
    return 0;
}

#define LANEWISE1(name, function)                                              \
    INLINE vf name(vf x) {                                                     \
        for (int lane = 0; lane < VL; lane++) x[lane] = function(x[lane]);     \
        return x;                                                              \
    }
#define LANEWISE2(name, function)                                              \
    INLINE vf name(vf x, vf y) {                                               \
        for (int lane = 0; lane < VL; lane++) x[lane] = function(x[lane], y[lane]); \
        return x;                                                              \
    }
LANEWISE1(vf_sin, sinf)
LANEWISE1(vf_cos, cosf)
LANEWISE1(vf_tan, tanf)
LANEWISE1(vf_asin, asinf)
LANEWISE1(vf_acos, acosf)
LANEWISE1(vf_atan, atanf)
LANEWISE1(vf_sinh, sinhf)
LANEWISE1(vf_cosh, coshf)
LANEWISE1(vf_asinh, asinhf)
LANEWISE1(vf_acosh, acoshf)
LANEWISE1(vf_atanh, atanhf)
LANEWISE2(vf_pow, powf)
LANEWISE2(vf_fmod, fmodf)

/* The remainder with the sign of the divisor. */
INLINE float float_modulo(float x, float y) {
    float rest = fmodf(x, y);
    if (rest == 0) return copysignf(0.0f, y);
    return (rest < 0) != (y < 0) ? rest + y : rest;
}
LANEWISE2(vf_mod, float_modulo)

INLINE vf vf_ceil(vf x) { return -vf_floor(-x); }
INLINE vf vf_trunc(vf x) { return vf_select((vi)(x < 0), vf_ceil(x), vf_floor(x)); }
INLINE vf vf_sign(vf x) { return vf_select((vi)(x > 0), vf_all(1), vf_select((vi)(x < 0), vf_all(-1), x)); }
INLINE vi vf_isnan(vf x) { return (vi)(x != x); }
INLINE vi vf_isinf(vf x) { return (vi)(vf_abs(x) == vf_infinity()); }

/* The lanes from `first` to `last` - 1 of memory, `fill` in the others; only those lanes are read. */
INLINE vf vf_load_interval(const float *from, long lanes, long first, long last, float fill) {
    if (first <= 0 && last >= lanes) return vf_load_first(from, lanes);
    vf value = vf_all(fill);
    for (long lane = long_max(first, 0); lane < long_min(last, lanes); lane++) value[lane] = from[lane];
    return value;
}

/* Elements `step` floats apart; only the first `lanes`. What lies between them is not written: it may be another
 * thread's. */
#if defined(__AVX512F__)
#define EVEN_LANES(lanes) (((1u << (lanes)) - 1) & 0x5555u)
INLINE vf vf_load_second(const float *from, long lanes) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    long low = lanes < 8 ? 2 * lanes : 16, high = 2 * lanes - low;
    __m512 first = _mm512_maskz_loadu_ps((__mmask16)EVEN_LANES(low), from);
    return (vf)_mm512_permutex2var_ps(first, even, _mm512_maskz_loadu_ps((__mmask16)EVEN_LANES(high), from + 16));
}
INLINE void vf_store_second(float *to, vf value, long lanes) {
    const __m512i first = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512i second = _mm512_setr_epi32(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
    long low = lanes < 8 ? 2 * lanes : 16, high = 2 * lanes - low;
    _mm512_mask_storeu_ps(to, (__mmask16)EVEN_LANES(low), _mm512_permutexvar_ps(first, (__m512)value));
    _mm512_mask_storeu_ps(to + 16, (__mmask16)EVEN_LANES(high), _mm512_permutexvar_ps(second, (__m512)value));
}
#endif
INLINE vf vf_load_step(const float *from, long step, long lanes) {
#if defined(__AVX512F__)
    if (__builtin_constant_p(step == 2) && step == 2) return vf_load_second(from, lanes);
#endif
    vf value = {0};
    if (lanes == VL) {
        UNROLL for (int lane = 0; lane < VL; lane++) value[lane] = from[lane * step];
    } else {
        for (long lane = 0; lane < lanes; lane++) value[lane] = from[lane * step];
    }
    return value;
}
INLINE void vf_store_step(float *to, long step, vf value, long lanes) {
#if defined(__AVX512F__)
    if (__builtin_constant_p(step == 2) && step == 2) {
        vf_store_second(to, value, lanes);
        return;
    }
#endif
    if (lanes == VL) {
        UNROLL for (int lane = 0; lane < VL; lane++) to[lane * step] = value[lane];
    } else {
        for (long lane = 0; lane < lanes; lane++) to[lane * step] = value[lane];
    }
}

/* Truth values in memory are bytes 0 and 1; in vectors lanes of no and of all bits. */
INLINE vi mask_load(const uint8_t *from, long lanes) {
    vi mask = {0};
    for (long lane = 0; lane < lanes; lane++) mask[lane] = from[lane] ? -1 : 0;
    return mask;
}
INLINE void mask_store(uint8_t *to, vi mask, long lanes) {
    for (long lane = 0; lane < lanes; lane++) to[lane] = mask[lane] != 0;
}
INLINE vi mask_all(int truth) { return vi_all(truth ? -1 : 0); }

#endif
