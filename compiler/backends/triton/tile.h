/* What the C of a lowered Triton kernel is written in: elements and their conversions, integer division, products of
 * tiles, atomic updates, the launch over a thread pool, and the checks of the checking mode.
 *
 * A value of 16 or 8 bits that is a float is held as its bits and computed in fp32, rounded after each operation to
 * nearest, ties to even. Addresses are int64_t. Integers wrap: compiled with -fwrapv.
 */
#ifndef FUSIBLE_TILE_H
#define FUSIBLE_TILE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "pool.h"
#include "vector_math.h"

#define OUTLINED static __attribute__((noinline, unused))
#define EXPORT __attribute__((visibility("default")))
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* ---- Bits and floats ---- */

INLINE uint32_t f32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
INLINE float f32_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
INLINE uint64_t f64_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
INLINE double f64_of_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* fp64 to fp32, rounded to odd: what rounds once more, to fewer bits, then rounds as if it had seen the fp64. */
INLINE float f64_to_odd_f32(double value) {
    float near = (float)value;
    uint32_t bits = f32_bits(near);
    if (near != near || (double)near == value || (bits & 1)) return near;
    int away = fabs((double)near) > fabs(value); /* then the neighbour nearer to zero is odd and on the other side */
    return f32_of_bits(away ? bits - 1 : bits + 1);
}

INLINE float bf16_to_f32(uint16_t brief) { return f32_of_bits((uint32_t)brief << 16); }
INLINE uint16_t f32_to_bf16(float value) {
    uint32_t bits = f32_bits(value), rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return (uint16_t)((value != value ? (bits & 0x80000000u) | 0x7fc00000u : rounded) >> 16);
}

/* A small float of `mantissa` bits with exponents from 1 - bias on, `width` bits in all. Finite numbers are below `top`,
 * the bits of infinity or, where there is none, of NaN. The sum with 2^(24 - bias - mantissa) rounds a subnormal, since
 * an ulp of that is the least number. */
#define SMALL_FLOAT(name, type, width, mantissa, bias, top, nan)                                                     \
    INLINE float name##_to_f32(type small) {                                                                         \
        int32_t magnitude = small & ((1 << (width - 1)) - 1);                                                        \
        uint32_t sign = ((uint32_t)small >> (width - 1)) << 31;                                                      \
        uint32_t bits = ((uint32_t)magnitude << (23 - mantissa)) + ((127u - bias) << 23);                            \
        uint32_t little = f32_bits((float)magnitude * f32_of_bits((uint32_t)(127 + 1 - bias - mantissa) << 23));     \
        uint32_t special = magnitude == top && top != nan ? 0x7f800000u : 0x7fc00000u;                               \
        bits = magnitude < (1 << mantissa) ? little : bits;                                                          \
        return f32_of_bits((magnitude >= top ? special : bits) | sign);                                              \
    }                                                                                                                \
    INLINE type f32_to_##name(float value) {                                                                         \
        uint32_t all = f32_bits(value), bits = all & 0x7fffffffu, sign = (all >> 31) << (width - 1);                 \
        float magic = f32_of_bits((uint32_t)(127 + 24 - bias - mantissa) << 23);                                     \
        uint32_t half = (1u << (22 - mantissa)) - 1 + ((bits >> (23 - mantissa)) & 1);                               \
        uint32_t normal = (bits - ((127u - bias) << 23) + half) >> (23 - mantissa);                                  \
        uint32_t little = f32_bits(f32_of_bits(bits) + magic) - f32_bits(magic);                                     \
        uint32_t small = bits < ((uint32_t)(127 + 1 - bias) << 23) ? little : normal;                                \
        small = small > top ? top : small;                                                                           \
        return (type)((bits > 0x7f800000u ? nan : small) | sign);                                                    \
    }
SMALL_FLOAT(f16, uint16_t, 16, 10, 15, 0x7c00, 0x7e00)
SMALL_FLOAT(f8e5m2, uint8_t, 8, 2, 15, 0x7c, 0x7e)
SMALL_FLOAT(f8e4m3, uint8_t, 8, 3, 7, 0x7f, 0x7f)

/* To the 10 bits of mantissa that tensor cores read in tf32 mode: nearest, ties away from zero. */
INLINE float f32_to_tf32(float value) {
    uint32_t bits = f32_bits(value), rounded = (bits + 0x1000u) & ~0x1fffu;
    return f32_of_bits((bits & 0x7f800000u) == 0x7f800000u ? bits : rounded); /* compared as integers, by vectors */
}

/* ---- Arithmetic ---- */

/* The other operand if one is NaN (maxnum), or NaN (maximum). */
#define FLOATS(type, suffix, square_root)                                                            \
    INLINE type maxnum_##suffix(type a, type b) { return b > a || a != a ? b : a; }                  \
    INLINE type minnum_##suffix(type a, type b) { return b < a || a != a ? b : a; }                  \
    INLINE type maximum_##suffix(type a, type b) { return a > b || a != a ? a : b; }                 \
    INLINE type minimum_##suffix(type a, type b) { return a < b || a != a ? a : b; }                 \
    INLINE type rsqrt_##suffix(type a) { return 1 / square_root(a); }
FLOATS(double, f64, sqrt)
FLOATS(float, f32, sqrtf)

/* By zero a GPU gives some number and a CPU a signal: lanes that are masked off may well divide by zero. */
#define DIVISION(type, unsigned_type, suffix)                                                                        \
    INLINE type div_##suffix(type a, type b) { return b == 0 ? 0 : b == -1 ? (type)(0 - (unsigned_type)a) : a / b; } \
    INLINE type rem_##suffix(type a, type b) { return b == 0 || b == -1 ? 0 : a % b; }                               \
    INLINE type udiv_##suffix(type a, type b) {                                                                      \
        return b == 0 ? 0 : (type)((unsigned_type)a / (unsigned_type)b);                                             \
    }                                                                                                                \
    INLINE type urem_##suffix(type a, type b) {                                                                      \
        return b == 0 ? 0 : (type)((unsigned_type)a % (unsigned_type)b);                                             \
    }
DIVISION(int8_t, uint8_t, i8)
DIVISION(int16_t, uint16_t, i16)
DIVISION(int32_t, uint32_t, i32)
DIVISION(int64_t, uint64_t, i64)
#define div_index div_i64
#define rem_index rem_i64
#define udiv_index udiv_i64
#define urem_index urem_i64

INLINE int32_t umulhi_i32(int32_t a, int32_t b) { return (int32_t)(((uint64_t)(uint32_t)a * (uint32_t)b) >> 32); }
INLINE int64_t umulhi_i64(int64_t a, int64_t b) {
    return (int64_t)(((unsigned __int128)(uint64_t)a * (uint64_t)b) >> 64);
}

/* `old` becomes what lay at the address, and there is put what `updated` computes from it. */
#define ATOMIC_UPDATE(type, address, old, updated)                                                               \
    do {                                                                                                         \
        type *place_ = (type *)(address), next_;                                                                 \
        __atomic_load(place_, &old, __ATOMIC_SEQ_CST);                                                           \
        do {                                                                                                     \
            next_ = (updated);                                                                                   \
        } while (!__atomic_compare_exchange(place_, &old, &next_, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));       \
    } while (0)

/* ---- Products: c[m, n] += a[m, k] b[k, n], all stored by rows ---- */

#define PRODUCT(name, type)                                                                                       \
    INLINE void name(long m, long n, long k, const type *restrict a, const type *restrict b, type *restrict c) {  \
        for (long i = 0; i < m; i++)                                                                              \
            for (long p = 0; p < k; p++) {                                                                        \
                const type left = a[i * k + p];                                                                   \
                for (long j = 0; j < n; j++) c[i * n + j] += left * b[p * n + j];                                 \
            }                                                                                                     \
    }
PRODUCT(product_f64, double)
PRODUCT(product_i32, int32_t)
PRODUCT(product_narrow_f32, float)

/* A block of `rows` rows and `vectors` vectors, both known to the compiler: its sums stay in registers. */
#define PRODUCT_ROWS (VECTOR_REGISTERS / 4)
INLINE void product_block(const int rows, const int vectors, long n, long k, const float *restrict a,
                          const float *restrict b, float *restrict c) {
    vf sum[PRODUCT_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vf_load(c + r * n + v * VL);
    for (long p = 0; p < k; p++) {
        vf right[2];
        UNROLL for (int v = 0; v < vectors; v++) right[v] = vf_load(b + p * n + v * VL);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vectors; v++) sum[r][v] += a[r * k + p] * right[v];
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) vf_store(c + r * n + v * VL, sum[r][v]);
}

INLINE void product_f32(long m, long n, long k, const float *restrict a, const float *restrict b, float *restrict c) {
    if (n % VL != 0 || m % PRODUCT_ROWS != 0) {
        product_narrow_f32(m, n, k, a, b, c);
        return;
    }
    for (long j = 0; j < n; j += n % (2 * VL) == 0 ? 2 * VL : VL)
        for (long i = 0; i < m; i += PRODUCT_ROWS) {
            if (n % (2 * VL) == 0) product_block(PRODUCT_ROWS, 2, n, k, a + i * k, b + j, c + i * n + j);
            else product_block(PRODUCT_ROWS, 1, n, k, a + i * k, b + j, c + i * n + j);
        }
}

/* ---- Products of fp32 as three of tf32, as matrix units and Triton make them (F32DotTC) ---- */

/* x = high + low: high to nearest; of low, which is exact, the bits that matrix units read. Returns whether a low part is
 * no number: x was none, or high is infinite. */
INLINE int split_tf32(long count, const float *restrict x, float *restrict high, float *restrict low) {
    uint32_t wrong = 0;
    for (long i = 0; i < count; i++) {
        high[i] = f32_to_tf32(x[i]);
        uint32_t bits = f32_bits(x[i] - high[i]) & ~0x1fffu;
        low[i] = f32_of_bits(bits);
        wrong |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return wrong != 0;
}

/* In any order, small products apart: their sum counts as 0 where it is NaN. */
OUTLINED void product_special_tf32x3(long m, long n, long k, const float *a_high, const float *a_low,
                                     const float *b_high, const float *b_low, float *c) {
    for (long i = 0; i < m; i++)
        for (long j = 0; j < n; j++) {
            float small = 0, large = 0;
            for (long p = 0; p < k; p++)
                small += a_low[i * k + p] * b_high[p * n + j] + a_high[i * k + p] * b_low[p * n + j];
            for (long p = 0; p < k; p++) large += a_high[i * k + p] * b_high[p * n + j];
            c[i * n + j] += small != small ? large : large + small;
        }
}

/* high (high + low) + low high: two multiplications for the three, as a sum of both parts is what fp32 holds. */
INLINE void product_block_tf32x3(const int rows, const int vectors, long n, long k, const float *restrict a_high,
                                 const float *restrict a_low, const float *restrict b_high,
                                 const float *restrict b_low, float *restrict c) {
    vf sum[PRODUCT_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vf_all(0.0f);
    for (long p = 0; p < k; p++) {
        vf high[2], both[2];
        UNROLL for (int v = 0; v < vectors; v++) {
            high[v] = vf_load(b_high + p * n + v * VL);
            both[v] = high[v] + vf_load(b_low + p * n + v * VL);
        }
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vectors; v++) {
                sum[r][v] += a_low[r * k + p] * high[v];
                sum[r][v] += a_high[r * k + p] * both[v];
            }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++)
            vf_store(c + r * n + v * VL, vf_load(c + r * n + v * VL) + sum[r][v]);
}

/* parts: memory for 2 k (m + n) numbers. */
INLINE void product_tf32x3(long m, long n, long k, float *restrict parts, const float *restrict a,
                           const float *restrict b, float *restrict c) {
    float *a_high = parts, *a_low = a_high + m * k, *b_high = a_low + m * k, *b_low = b_high + k * n;
    int special = split_tf32(m * k, a, a_high, a_low) | split_tf32(k * n, b, b_high, b_low);
    if (special || n % VL != 0 || m % PRODUCT_ROWS != 0) {
        product_special_tf32x3(m, n, k, a_high, a_low, b_high, b_low, c);
        return;
    }
    for (long j = 0; j < n; j += n % (2 * VL) == 0 ? 2 * VL : VL)
        for (long i = 0; i < m; i += PRODUCT_ROWS) {
            const float *high = a_high + i * k, *low = a_low + i * k;
            if (n % (2 * VL) == 0)
                product_block_tf32x3(PRODUCT_ROWS, 2, n, k, high, low, b_high + j, b_low + j, c + i * n + j);
            else product_block_tf32x3(PRODUCT_ROWS, 1, n, k, high, low, b_high + j, b_low + j, c + i * n + j);
        }
}

/* ---- Functions of whole tiles ---- */

/* values[i] = function(values[i]) for a function of vectors. */
#define MAP(function, values, count)                                                                       \
    for (long m_ = 0; m_ < (count); m_ += VL) {                                                            \
        long rest_ = (count) - m_;                                                                         \
        if (rest_ >= VL) vf_store(values + m_, function(vf_load(values + m_)));                            \
        else vf_store_first(values + m_, function(vf_load_first(values + m_, rest_)), rest_);              \
    }

/* 2^x: the whole part becomes the exponent, exactly, and the rest goes by exp. */
INLINE vf tile_exp2(vf x) {
    vi n;
    x = vf_select(x > 129.0f, vf_all(129.0f), x);
    x = vf_select(x < -151.0f, vf_all(-151.0f), x);
    const vf magic = vf_all(12582912.0f);
    vf shifted = x + magic;
    vi whole = vf_bits(shifted) - vf_bits(magic);
    vf less_one = vf_exp_reduced((x - (shifted - magic)) * 0.693147181f, &n);
    vi half = (whole + n) >> 1;
    return (less_one + 1.0f) * vf_power_of_two(half) * vf_power_of_two(whole + n - half);
}

/* ---- Launch ---- */

/* The memory of one pointer argument. writers: for each element the program that wrote it, plus 1; null if not asked. */
struct buffer {
    int64_t base, bytes, element_bytes;
    int32_t *writers;
};

/* findings: their number, then capacity times kind, site, program, the other program or the address, argument. */
struct launch {
    const int64_t *arguments;
    const struct buffer *buffers;
    int64_t buffer_count;
    int64_t *findings;
    int64_t capacity;
    int64_t grid[3];
    char *scratch;
    int64_t scratch_bytes;
    struct pool *pool;
};

typedef void program_body(const struct launch *launch, const int32_t *program, char *scratch);

/* In the set of buffers, argument 63 and those after it share the last bit. */
INLINE int in_set(uint64_t set, int64_t argument) { return (set >> (argument < 63 ? argument : 63)) & 1; }

enum finding_kind { OUT_OF_RANGE_READ, OUT_OF_RANGE_WRITE, WRITTEN_TWICE, ASSERTION };
#define FINDING_FIELDS 5

INLINE int64_t program_number(const struct launch *launch, const int32_t *program) {
    return (program[2] * launch->grid[1] + program[1]) * launch->grid[0] + program[0];
}

OUTLINED void note(const struct launch *launch, const int32_t *program, enum finding_kind kind, int64_t site,
                   int64_t detail, int64_t argument) {
    int64_t place = __atomic_fetch_add(launch->findings, 1, __ATOMIC_RELAXED);
    if (place >= launch->capacity) return;
    int64_t *entry = launch->findings + 1 + place * FINDING_FIELDS;
    entry[0] = kind, entry[1] = site, entry[2] = program_number(launch, program), entry[3] = detail, entry[4] = argument;
}

/* Whether `bytes` bytes at the address lie in one of the buffers of the set (bit b: argument b); notes it if not. */
OUTLINED int may_access(const struct launch *launch, const int32_t *program, enum finding_kind kind, int64_t site,
                        uint64_t set, int64_t address, int64_t bytes) {
    int64_t last = -1;
    for (int64_t b = 0; b < launch->buffer_count; b++) {
        const struct buffer *buffer = launch->buffers + b;
        if (buffer->base == 0 || !in_set(set, b)) continue;
        if (address >= buffer->base && address + bytes <= buffer->base + buffer->bytes) return 1;
        last = b;
    }
    note(launch, program, kind, site, address, last);
    return 0;
}

/* Remembers who wrote the element at an address that may be accessed; notes it if another program did before. */
OUTLINED void note_write(const struct launch *launch, const int32_t *program, int64_t site, uint64_t set,
                         int64_t address) {
    for (int64_t b = 0; b < launch->buffer_count; b++) {
        const struct buffer *buffer = launch->buffers + b;
        if (buffer->base == 0 || !in_set(set, b) || buffer->writers == NULL) continue;
        if (address < buffer->base || address >= buffer->base + buffer->bytes) continue;
        int32_t mine = (int32_t)(program_number(launch, program) + 1);
        int64_t element = (address - buffer->base) / buffer->element_bytes;
        int32_t before = __atomic_exchange_n(buffer->writers + element, mine, __ATOMIC_RELAXED);
        if (before != 0 && before != mine) note(launch, program, WRITTEN_TWICE, site, before - 1, b);
        return;
    }
}

struct launch_run {
    const struct launch *launch;
    program_body *body;
    long programs, chunk;
};

OUTLINED void run_chunk(void *context, long item) {
    const struct launch_run *run = context;
    const struct launch *launch = run->launch;
    char *scratch = launch->scratch + pool_thread(launch->pool) * launch->scratch_bytes;
    long end = (item + 1) * run->chunk < run->programs ? (item + 1) * run->chunk : run->programs;
    for (long number = item * run->chunk; number < end; number++) {
        int32_t program[3] = {(int32_t)(number % launch->grid[0]),
                              (int32_t)(number / launch->grid[0] % launch->grid[1]),
                              (int32_t)(number / launch->grid[0] / launch->grid[1])};
        run->body(launch, program, scratch);
    }
}

/* Programs that follow each other share an item, so that claiming one costs little; 16 items a thread balance. */
OUTLINED void launch_programs(const struct launch *launch, program_body *body) {
    long programs = launch->grid[0] * launch->grid[1] * launch->grid[2];
    long chunk = programs / (16L * pool_threads(launch->pool));
    struct launch_run run = {launch, body, programs, chunk < 1 ? 1 : chunk};
    pool_run(launch->pool, run_chunk, &run, (programs + run.chunk - 1) / run.chunk);
}

/* ---- Tensor descriptors ---- */

#define DESCRIPTOR_RANK 5
struct descriptor {
    int64_t base, shape[DESCRIPTOR_RANK], strides[DESCRIPTOR_RANK];
};

#endif
