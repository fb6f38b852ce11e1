/* The roofs of a machine: fused multiply-adds on registers, and reading memory. Built with the flags of kernels. */

#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES (BYTES / sizeof(float))
#define CHAINS 12 /* independent chains: more than latency (4-5 cycles) times issue width (2) */

typedef float vector __attribute__((vector_size(BYTES)));
typedef float unaligned __attribute__((vector_size(BYTES), aligned(4)));

/* Runs `rounds` rounds of CHAINS fused multiply-adds; returns the flops done. `sink` keeps the work from being removed. */
EXPORT double fusible_fma(long rounds, float *sink) {
    vector chain[CHAINS], factor, term;
    for (size_t lane = 0; lane < LANES; lane++) {
        factor[lane] = 0.999999f;
        term[lane] = 1e-6f;
        for (int c = 0; c < CHAINS; c++)
            chain[c][lane] = 1.0f + (float)c;
    }
    for (long round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            chain[c] = chain[c] * factor + term;
    }
    float sum = 0;
    for (int c = 0; c < CHAINS; c++)
        for (size_t lane = 0; lane < LANES; lane++)
            sum += chain[c][lane];
    *sink = sum;
    return 2.0 * CHAINS * LANES * (double)rounds;
}

/* Reads `count` floats once. */
EXPORT void fusible_read(const float *data, size_t count, float *sink) {
    vector sum[8] = {0};
    size_t index = 0;
    for (; index + 8 * LANES <= count; index += 8 * LANES) {
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++)
            sum[c] += *(const unaligned *)(data + index + c * LANES);
    }
    float total = 0;
    for (; index < count; index++)
        total += data[index];
    for (int c = 0; c < 8; c++)
        for (size_t lane = 0; lane < LANES; lane++)
            total += sum[c][lane];
    *sink = total;
}
