/* Elements that are no floats of 32 bits: their vectors, their arithmetic, and how they lie in memory.
 *
 * Integers of up to 32 bits are computed as int32, longer ones as int64, and wrap as NumPy's do; what is stored in fewer
 * bits is cut down after each step. fp16 and bf16 are computed in fp32 and rounded after each step, to nearest, ties to
 * even, by arithmetic on their bits. fp64 has the functions of libm, lane by lane. Loads and stores of `lanes` elements
 * that lie `step` apart touch no others.
 */
#ifndef FUSIBLE_ELEMENTS_H
#define FUSIBLE_ELEMENTS_H

#include <math.h>

#include "lanes.h"

/* These vectors are wider than the machine's. Every function that takes or gives one is inlined: no call's ABI matters. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

typedef int64_t vl __attribute__((vector_size(VL * 8)));
typedef double vd __attribute__((vector_size(VL * 8)));
typedef uint32_t vector_u32 __attribute__((vector_size(VL * 4)));
typedef uint64_t vector_u64 __attribute__((vector_size(VL * 8)));

INLINE vl vl_all(int64_t value) { return (vl)VECTOR_OF(value); }
INLINE vd vd_all(double value) { return (vd)VECTOR_OF(value); }
INLINE vl vl_lanes(void) { return __builtin_convertvector(vi_lanes(), vl); }

/* Lanes of no or of all bits, of 32 from 64 bits and the other way round. */
INLINE vi vl_truth(vl mask) { return __builtin_convertvector(mask, vi); }
INLINE vl vl_mask(vi mask) { return __builtin_convertvector(mask, vl); }
INLINE vl vl_select(vi mask, vl yes, vl no) {
    vl wide = vl_mask(mask);
    return (wide & yes) | (~wide & no);
}
INLINE vd vd_select(vi mask, vd yes, vd no) { return (vd)vl_select(mask, (vl)yes, (vl)no); }

/* Integers: overflow wraps, and division truncates; by zero it gives 0. */
#define INTEGERS(scalar, vector, type, unsigned_type, unsigned_vector)                                           \
    INLINE type scalar##_add(type a, type b) { return (type)((unsigned_type)a + (unsigned_type)b); }             \
    INLINE type scalar##_sub(type a, type b) { return (type)((unsigned_type)a - (unsigned_type)b); }             \
    INLINE type scalar##_mul(type a, type b) { return (type)((unsigned_type)a * (unsigned_type)b); }             \
    INLINE vector vector##_add(vector a, vector b) { return (vector)((unsigned_vector)a + (unsigned_vector)b); } \
    INLINE vector vector##_sub(vector a, vector b) { return (vector)((unsigned_vector)a - (unsigned_vector)b); } \
    INLINE vector vector##_mul(vector a, vector b) { return (vector)((unsigned_vector)a * (unsigned_vector)b); } \
    INLINE type scalar##_neg(type a) { return scalar##_sub(0, a); }                                              \
    INLINE type scalar##_abs(type a) { return a < 0 ? scalar##_neg(a) : a; }                                     \
    INLINE type scalar##_sign(type a) { return (a > 0) - (a < 0); }                                              \
    INLINE type scalar##_larger(type a, type b) { return a > b ? a : b; }                                        \
    INLINE type scalar##_smaller(type a, type b) { return a < b ? a : b; }                                       \
    INLINE type scalar##_div(type a, type b) { return b == 0 ? 0 : b == -1 ? scalar##_neg(a) : a / b; }          \
    INLINE type scalar##_fmod(type a, type b) { return b == 0 || b == -1 ? 0 : a % b; }                          \
    INLINE type scalar##_mod(type a, type b) {                                                                   \
        type rest = scalar##_fmod(a, b);                                                                         \
        return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;                                             \
    }                                                                                                            \
    INLINE type scalar##_shift_left(type a, type b) {                                                            \
        return b < 0 || b >= (type)sizeof(type) * 8 ? 0 : (type)((unsigned_type)a << b);                         \
    }                                                                                                            \
    INLINE type scalar##_shift_right(type a, type b) {                                                           \
        return b < 0 || b >= (type)sizeof(type) * 8 ? (a < 0 ? -1 : 0) : a >> b;                                 \
    }                                                                                                            \
    INLINE vector vector##_neg(vector a) { return vector##_sub((vector){0}, a); }
INTEGERS(int, vi, int32_t, uint32_t, vector_u32)
INTEGERS(long, vl, int64_t, uint64_t, vector_u64)

#define LANES1(vector, scalar, name)                                                        \
    INLINE vector vector##_##name(vector a) {                                               \
        for (int lane = 0; lane < VL; lane++) a[lane] = scalar##_##name(a[lane]);           \
        return a;                                                                           \
    }
#define LANES2(vector, scalar, name)                                                        \
    INLINE vector vector##_##name(vector a, vector b) {                                     \
        for (int lane = 0; lane < VL; lane++) a[lane] = scalar##_##name(a[lane], b[lane]);  \
        return a;                                                                           \
    }
#define INTEGER_LANES(vector, scalar)                                                       \
    LANES1(vector, scalar, abs) LANES1(vector, scalar, sign)                                \
    LANES2(vector, scalar, larger) LANES2(vector, scalar, smaller)                          \
    LANES2(vector, scalar, div) LANES2(vector, scalar, mod) LANES2(vector, scalar, fmod)    \
    LANES2(vector, scalar, shift_left) LANES2(vector, scalar, shift_right)
INTEGER_LANES(vi, int)
INTEGER_LANES(vl, long)

/* fp64. */
INLINE double double_abs(double x) { return fabs(x); }
INLINE double double_exp(double x) { return exp(x); }
INLINE double double_log(double x) { return log(x); }
INLINE double double_sqrt(double x) { return sqrt(x); }
INLINE double double_floor(double x) { return floor(x); }
INLINE double double_ceil(double x) { return ceil(x); }
INLINE double double_round(double x) { return rint(x); }
INLINE double double_trunc(double x) { return trunc(x); }
INLINE double double_sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
INLINE double double_sin(double x) { return sin(x); }
INLINE double double_cos(double x) { return cos(x); }
INLINE double double_tan(double x) { return tan(x); }
INLINE double double_asin(double x) { return asin(x); }
INLINE double double_acos(double x) { return acos(x); }
INLINE double double_atan(double x) { return atan(x); }
INLINE double double_sinh(double x) { return sinh(x); }
INLINE double double_cosh(double x) { return cosh(x); }
INLINE double double_tanh(double x) { return tanh(x); }
INLINE double double_asinh(double x) { return asinh(x); }
INLINE double double_acosh(double x) { return acosh(x); }
INLINE double double_atanh(double x) { return atanh(x); }
INLINE double double_erf(double x) { return erf(x); }
INLINE double double_sigmoid(double x) { return 1 / (1 + exp(-x)); }
INLINE double double_log1p(double x) { return log1p(x); }
INLINE double double_expm1(double x) { return expm1(x); }
INLINE double double_pow(double x, double y) { return pow(x, y); }
INLINE double double_fmod(double x, double y) { return fmod(x, y); }
INLINE double double_mod(double x, double y) {
    double rest = fmod(x, y);
    if (rest == 0) return copysign(0.0, y);
    return (rest < 0) != (y < 0) ? rest + y : rest;
}
/* A NaN in either operand gives NaN. */
INLINE double double_max(double x, double y) { return x != x || x > y ? x : y; }
INLINE double double_min(double x, double y) { return x != x || x < y ? x : y; }
LANES1(vd, double, abs) LANES1(vd, double, exp) LANES1(vd, double, log) LANES1(vd, double, sqrt)
LANES1(vd, double, floor) LANES1(vd, double, ceil) LANES1(vd, double, round) LANES1(vd, double, trunc)
LANES1(vd, double, sign) LANES1(vd, double, sin) LANES1(vd, double, cos) LANES1(vd, double, tan)
LANES1(vd, double, asin) LANES1(vd, double, acos) LANES1(vd, double, atan) LANES1(vd, double, sinh)
LANES1(vd, double, cosh) LANES1(vd, double, tanh) LANES1(vd, double, asinh) LANES1(vd, double, acosh)
LANES1(vd, double, atanh) LANES1(vd, double, erf) LANES1(vd, double, sigmoid) LANES1(vd, double, log1p)
LANES1(vd, double, expm1) LANES2(vd, double, pow) LANES2(vd, double, fmod) LANES2(vd, double, mod)
LANES2(vd, double, max) LANES2(vd, double, min)
INLINE vi vd_isnan(vd x) { return vl_truth((vl)(x != x)); }
INLINE vi vd_isinf(vd x) { return vl_truth((vl)(vd_abs(x) == vd_all((double)INFINITY))); }

/* A float whose bits a plan hands over among sizes. */
INLINE float float_of_word(int64_t word) {
    const int32_t bits = (int32_t)word;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* fp16 as 16 bits of an int32, to and from fp32. */
INLINE vf f16_widened(vi half) {
    vi magnitude = half & vi_all(0x7fff);
    vi bits = (magnitude << 13) + vi_all(112 << 23);
    bits = vi_select((vi)(magnitude >= vi_all(0x7c00)), bits + vi_all(112 << 23), bits);
    vf small = vi_to_float(magnitude) * vf_all(0x1p-24f);
    bits = vi_select((vi)(magnitude < vi_all(0x0400)), vf_bits(small), bits);
    return vi_bits(bits | ((half & vi_all(0x8000)) << 16));
}
INLINE vi f16_narrowed(vf value) {
    vi sign = (vf_bits(value) >> 16) & vi_all(0x8000), bits = vf_bits(value) & vi_all(0x7fffffff);
    vi half = (bits - vi_all(112 << 23) + vi_all(0x0fff) + ((bits >> 13) & vi_all(1))) >> 13;
    vi small = vf_bits(vi_bits(bits) + vf_all(0.5f)) - vf_bits(vf_all(0.5f)); /* the sum's ulp is fp16's least number */
    half = vi_select((vi)(bits < vi_all(0x38800000)), small, half);
    half = vi_select((vi)(bits >= vi_all(0x477ff000)), vi_all(0x7c00), half);
    return vi_select((vi)(bits > vi_all(0x7f800000)), vi_all(0x7e00), half) | sign;
}
INLINE vf bf16_widened(vi brief) { return vi_bits(brief << 16); }
INLINE vi bf16_narrowed(vf value) {
    vi bits = vf_bits(value);
    vi rounded = (vi)((vector_u32)bits + (vector_u32)vi_all(0x7fff) + (vector_u32)((bits >> 16) & vi_all(1))) >> 16;
    return vi_select((vi)(value != value), ((bits >> 16) & vi_all(0x8000)) | vi_all(0x7fc0), rounded) & vi_all(0xffff);
}
INLINE vf vf_as_f16(vf value) { return f16_widened(f16_narrowed(value)); }
INLINE vf vf_as_bf16(vf value) { return bf16_widened(bf16_narrowed(value)); }
INLINE float float_of_f16(uint16_t half) { return f16_widened(vi_all(half))[0]; }
INLINE float float_of_bf16(uint16_t brief) { return bf16_widened(vi_all(brief))[0]; }
INLINE uint16_t f16_of_float(float value) { return (uint16_t)f16_narrowed(vf_all(value))[0]; }
INLINE uint16_t bf16_of_float(float value) { return (uint16_t)bf16_narrowed(vf_all(value))[0]; }

/* Memory. */
#define ELEMENTS(name, type, vector)                                                        \
    INLINE vector load_##name(const type *from, long step, long lanes) {                    \
        vector value = {0};                                                                 \
        if (lanes == VL && step == 1) {                                                     \
            UNROLL for (int lane = 0; lane < VL; lane++) value[lane] = from[lane];          \
        } else {                                                                            \
            for (long lane = 0; lane < lanes; lane++) value[lane] = from[lane * step];      \
        }                                                                                   \
        return value;                                                                       \
    }                                                                                       \
    INLINE void store_##name(type *to, long step, vector value, long lanes) {               \
        if (lanes == VL && step == 1) {                                                     \
            UNROLL for (int lane = 0; lane < VL; lane++) to[lane] = (type)value[lane];      \
        } else {                                                                            \
            for (long lane = 0; lane < lanes; lane++) to[lane * step] = (type)value[lane];  \
        }                                                                                   \
    }
ELEMENTS(f64, double, vd)
ELEMENTS(i64, int64_t, vl)
ELEMENTS(u32, uint32_t, vl)
ELEMENTS(i32, int32_t, vi)
ELEMENTS(u16, uint16_t, vi)
ELEMENTS(i16, int16_t, vi)
ELEMENTS(u8, uint8_t, vi)
ELEMENTS(i8, int8_t, vi)
#define HALVES(name)                                                                        \
    INLINE vf load_##name(const uint16_t *from, long step, long lanes) {                    \
        return name##_widened(load_u16(from, step, lanes));                                 \
    }                                                                                       \
    INLINE void store_##name(uint16_t *to, long step, vf value, long lanes) {               \
        store_u16(to, step, name##_narrowed(value), lanes);                                 \
    }
HALVES(f16)
HALVES(bf16)

/* Over the lanes, in order. */
#define FOLDS(vector, type, name, merge)                                                    \
    INLINE type vector##_fold_##name(vector value) {                                        \
        type total = value[0];                                                              \
        for (int lane = 1; lane < VL; lane++) total = merge(total, value[lane]);            \
        return total;                                                                       \
    }
INLINE double double_add(double a, double b) { return a + b; }
INLINE double double_mul(double a, double b) { return a * b; }
FOLDS(vd, double, sum, double_add) FOLDS(vd, double, prod, double_mul)
FOLDS(vd, double, max, double_max) FOLDS(vd, double, min, double_min)
FOLDS(vi, int32_t, sum, int_add) FOLDS(vi, int32_t, prod, int_mul)
FOLDS(vi, int32_t, max, int_larger) FOLDS(vi, int32_t, min, int_smaller)
FOLDS(vl, int64_t, sum, long_add) FOLDS(vl, int64_t, prod, long_mul)
FOLDS(vl, int64_t, max, long_larger) FOLDS(vl, int64_t, min, long_smaller)

#endif
