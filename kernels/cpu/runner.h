/* Runs native steps one after the other: the part of a plan that needs no Python. */
#ifndef FUSIBLE_RUNNER_H
#define FUSIBLE_RUNNER_H

#include <stdint.h>

#include "pool.h"

typedef void runner_kernel(struct pool *pool, void *const *buffers, const int64_t *dims, int *error);

/* kernel: what runs. Its buffers are values[slots[first_slot]] ... in order, its dims begin at dims[first_dim]. */
struct runner_step {
    runner_kernel *kernel;
    int32_t first_slot, slots, first_dim;
};

/* The number of steps done; fewer than `steps` if one noted an error, which stands in *error. */
long runner_run(struct pool *pool, const struct runner_step *step, long steps, void *const *values,
                const int32_t *slots, const int64_t *dims, int *error);

#endif
