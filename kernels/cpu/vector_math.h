/* Elementary functions of vectors: exp, expm1, log, log1p, tanh, erf, sigmoid, and the activations made of them.
 *
 * Argument reduction is that of Cody and Waite ("Software Manual for the Elementary Functions", 1980): the multiple of
 * log 2 is subtracted in two parts. Polynomials are our own minimax fits with rounded coefficients; erf follows the
 * split of Juffa (odd polynomial near zero, 1 - exp(-polynomial) beyond).
 *
 * NaN gives NaN, infinities and signed zeros give what the C library gives, subnormal arguments and results keep to the
 * same bounds. The figure next to each function bounds its error for all 2^32 arguments, in units in the last place
 * (ulp) of the exact result, with fused multiply-add and without; tests/kernels/cpu/test_vector_math.py asserts it.
 * There is no branch and no table, so time does not depend on values.
 */
#ifndef FUSIBLE_VECTOR_MATH_H
#define FUSIBLE_VECTOR_MATH_H

#include "vector.h"

#define LOG2_E 1.44269504f
/* log 2 in two parts; the first has few enough bits that a product with an exponent is exact. */
#define LOG_2_HIGH 0.693359375f
#define LOG_2_LOW (-2.12194440e-4f)

INLINE vf vf_infinity(void) { return vi_bits(vi_all(0x7f800000)); }
INLINE vf vf_nan(void) { return vi_bits(vi_all(0x7fc00000)); }
INLINE vf vf_copysign(vf magnitude, vf sign) {
    return vi_bits((vf_bits(magnitude) & vi_all(0x7fffffff)) | (vf_bits(sign) & vi_all(INT32_MIN)));
}
/* 2^n for -127 < n < 128; 0 for n = -127. */
INLINE vf vf_power_of_two(vi n) { return vi_bits((n + 127) << 23); }

/* Horner's rule, highest power first: coefficients[0] x^(count - 1) + ... + coefficients[count - 1]. */
INLINE vf vf_polynomial(vf x, const float *coefficients, const int count) {
    vf sum = vf_all(coefficients[0]);
    UNROLL for (int i = 1; i < count; i++) sum = sum * x + vf_all(coefficients[i]);
    return sum;
}

/* x = n log 2 + r with |r| <= log 2 / 2, for |x| < 2^21; and exp(r) - 1 = r + r^2 q(r), which is returned. Adding
 * 1.5 * 2^23 leaves the rounded quotient in the low bits of the sum, without a conversion. power: n as a float. */
INLINE vf vf_exp_parts(vf x, vi *n, vf *power) {
    static const float q[] = {0.00139418675f, 0.00836867932f, 0.0416663885f, 0.166665211f, 0.5f};
    const vf magic = vf_all(12582912.0f);
    vf shifted = x * LOG2_E + magic;
    vf multiple = shifted - magic;
    vf r = x - multiple * LOG_2_HIGH;
    r = r - multiple * LOG_2_LOW;
    *n = (vi)((vu)vf_bits(shifted) - (vu)vf_bits(magic)); /* unsigned: without meaning for x beyond the bounds */
    *power = multiple;
    return r * r * vf_polynomial(r, q, 5) + r;
}
INLINE vf vf_exp_reduced(vf x, vi *n) {
    vf power;
    return vf_exp_parts(x, n, &power);
}

/* exp(x): 1.05 ulp. Scaled by one instruction, or twice by half the exponent, so that subnormal results and overflow
 * come by themselves. */
INLINE vf vf_exp(vf x) {
    vi n;
    vf power;
    x = vf_max_number(vf_all(-104.0f), vf_min_number(vf_all(89.0f), x));
    vf less_one = vf_exp_parts(x, &n, &power);
#if VL == 16 && defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)(less_one + 1.0f), (__m512)power);
#else
    vi half = n >> 1;
    return (less_one + 1.0f) * vf_power_of_two(half) * vf_power_of_two(n - half);
#endif
}

/* exp(x) for x <= 0 or NaN: 1.05 ulp, save that results below the smallest normal number are zero. For softmax. */
INLINE vf vf_exp_negative(vf x) {
#if VL == 16 && defined(__AVX512F__)
    vi n;
    vf power, value = vf_exp_parts(x, &n, &power) + 1.0f;
    __mmask16 is_normal = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-87.33654f), _CMP_NLT_UQ); /* or NaN */
    return (vf)_mm512_maskz_scalef_ps(is_normal, (__m512)value, (__m512)power);
#else
    vi n;
    vf clamped = vf_max_number(vf_all(-88.0f), x);
    vf value = (vf_exp_reduced(clamped, &n) + 1.0f) * vf_power_of_two(n);
    return vf_select(x < -87.33654f, vf_all(0.0f), value);
#endif
}

/* exp(x) - 1 for -25 <= x <= 89, save that subnormal x lose their last bit. */
INLINE vf vf_expm1_bounded(vf x) {
    vi n;
    vf less_one = vf_exp_reduced(x, &n);
    vf half = vf_power_of_two(n - 1);
    return 2.0f * (half * less_one + (half - 0.5f));
}

/* exp(x) - 1: 1.75 ulp. */
INLINE vf vf_expm1(vf x) {
    vf bounded = vf_select(x > 89.0f, vf_all(89.0f), x);
    bounded = vf_select(bounded < -25.0f, vf_all(-25.0f), bounded);
    return vf_select(vf_abs(x) < 2.0e-8f, x, vf_expm1_bounded(bounded));
}

/* x = 2^exponent * m with m in [sqrt(1/2), sqrt(2)), for positive normal x. */
INLINE vf vf_log_split(vf x, vi *exponent) {
    vi above = (vi)((vu)vf_bits(x) - (vu)vi_all(0x3f3504f3)); /* unsigned: of negative x it wraps around */
    *exponent = above >> 23;
    return vi_bits((vi)((vu)vf_bits(x) - (vu)(above & vi_all((int32_t)0xff800000u))));
}

/* exponent * log 2 + log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)). */
INLINE vf vf_log_sum(vf f, vf exponent) {
    static const float p[] = {-0.0763575062f, 0.127618611f, -0.131596833f, 0.142016277f,
                              -0.166234076f, 0.200012401f, -0.250008196f, 0.333333313f};
    vf square = f * f;
    vf sum = f * square * vf_polynomial(f, p, 8);
    sum = sum + exponent * LOG_2_LOW;
    sum = sum - square * 0.5f;
    return exponent * LOG_2_HIGH + (sum + f);
}

/* `value` where x is positive and finite, else what log gives. */
INLINE vf vf_log_special(vf x, vf value) {
    vf outside = vf_select(x == 0.0f, -vf_infinity(), vf_nan());
    return vf_select(x > 0.0f, vf_select(x == vf_infinity(), x, value), outside);
}

/* log(x): 0.9 ulp. */
INLINE vf vf_log(vf x) {
    vi exponent, subnormal = (vi)(x < 1.17549435e-38f);
    vf m = vf_log_split(vf_select(subnormal, x * 8388608.0f, x), &exponent);
    vf power = vi_to_float(exponent) - vf_select(subnormal, vf_all(23.0f), vf_all(0.0f));
    return vf_log_special(x, vf_log_sum(m - 1.0f, power));
}

/* log(1 + x): 1.5 ulp. The part of x that the sum 1 + x rounds away is added to the reduced argument. */
INLINE vf vf_log1p(vf x) {
    vi exponent;
    vf sum = x + 1.0f;
    vf lost = x - (sum - 1.0f);
    vf m = vf_log_split(sum, &exponent);
    vi smaller = vi_select(exponent > 126, vi_all(126), exponent); /* nothing that matters is lost beyond */
    vf f = (m - 1.0f) + lost * vf_power_of_two(-smaller);
    vf value = vf_log_special(sum, vf_log_sum(f, vi_to_float(exponent)));
    return vf_select(vf_abs(x) < 2.0e-8f, x, value);
}

/* tanh(x) = expm1(2 |x|) / (expm1(2 |x|) + 2), with the sign of x: 2.65 ulp. */
INLINE vf vf_tanh(vf x) {
    vf size = vf_abs(x);
    size = vf_select(size > 10.0f, vf_all(10.0f), size);
    vf e = vf_expm1_bounded(size + size);
    return vf_copysign(e / (e + 2.0f), x);
}

/* erf(x): 1.25 ulp. */
INLINE vf vf_erf(vf x) {
    static const float near[] = {-0.000595957856f, 0.00498735206f, -0.0267629661f,
                                 0.11281731f,      -0.376124889f,  0.128379151f};
    static const float far[] = {1.152186e-05f, -0.000325649657f, 0.00365375844f, -0.0237853508f,
                                0.106263168f,  0.635135889f,     0.12865217f};
    vf size = vf_abs(x);
    vf bounded = vf_select(size > 4.0f, vf_all(4.0f), size);
    vf small = x * vf_polynomial(x * x, near, 6) + x;
    vf large = 1.0f - vf_exp_negative(-(bounded * vf_polynomial(bounded, far, 7) + bounded));
    return vf_select(size < 0.925f, small, vf_copysign(large, x));
}

/* 1 / (1 + exp(-x)), without overflow on either side: 2.5 ulp. */
INLINE vf vf_sigmoid(vf x) {
    vf e = vf_exp(-vf_abs(x));
    return vf_select(x < 0.0f, e, vf_all(1.0f)) / (e + 1.0f);
}

/* log(1 + exp(x)): 2 ulp. */
INLINE vf vf_softplus(vf x) { return vf_max(x, vf_all(0.0f)) + vf_log1p(vf_exp(-vf_abs(x))); }

/* The activations below multiply by x: their errors are in ulp of x, because the result may be as small as one pleases.
 * At -infinity they are NaN, as the formulas say. */

/* 1/2 + x p(x^2) / q(x^2) for |x| <= most, 0 below and what it is at `most` above: a step whose error is small beside 1,
 * which is all that a factor of x needs. The quotients are our own minimax fits of the odd half of a step. */
INLINE vf vf_step(vf x, const float *p, const float *q, const int count, const float most) {
    vf bounded = vf_max_number(vf_all(-most), vf_min_number(vf_all(most), x));
    vf square = bounded * bounded;
    vf half = bounded * vf_polynomial(square, p, count) / vf_polynomial(square, q, count);
    return vi_bits(~(vi)(x < -most) & vf_bits(half + 0.5f));
}

/* sigmoid(x) up to an error of 1.7e-7. */
INLINE vf vf_sigmoid_step(vf x) {
    static const float p[] = {1.37688203e-11f, 8.25062614e-08f, 5.50909681e-05f, 0.0083788801f, 0.249999985f};
    static const float q[] = {3.15376325e-09f, 5.21202219e-06f, 0.0016244466f, 0.116848797f, 1.0f};
    return vf_step(x, p, q, 5, 17.0f);
}

/* x sigmoid(x): 2.9 ulp of x. */
INLINE vf vf_silu(vf x) { return x * vf_sigmoid_step(x); }

/* x (1 + erf(x / sqrt(2))) / 2: 3.4 ulp of x. */
INLINE vf vf_gelu(vf x) {
    static const float p[] = {2.21449827e-08f, 6.3562984e-06f, 0.000173840497f,
                              0.00470719673f,  0.0343752876f,  0.398942232f};
    static const float q[] = {1.18018477e-06f, 7.50977561e-05f, 0.00191292178f,
                              0.0289395861f,   0.252831787f,    1.0f};
    return x * vf_step(x, p, q, 6, 5.6f);
}

/* x (1 + tanh(u)) / 2 = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3): 2.9 ulp of x. */
INLINE vf vf_gelu_tanh(vf x) {
    vf cubic = x * x * 0.0713548163f + 1.59576912f;
    return x * vf_sigmoid_step(x * cubic);
}

#endif
