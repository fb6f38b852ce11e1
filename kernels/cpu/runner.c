/* Runs native steps one after the other: the part of a plan that needs no Python. */

#include <stddef.h>
#include <stdint.h>

#include "pool.h"

#define EXPORT __attribute__((visibility("default")))
#define RUNNER_BUFFERS 256 /* operands and results of one step at most; the loader checks it */

typedef void runner_kernel(struct pool *pool, void *const *buffers, const int64_t *dims, int *error);

/* kernel: what runs. Its buffers are values[slots[first_slot]] ... in order, its dims begin at dims[first_dim]. */
struct runner_step {
    runner_kernel *kernel;
    int32_t first_slot, slots, first_dim;
};

/* The number of steps done; fewer than `steps` if one noted an error, which stands in *error. */
EXPORT long runner_run(struct pool *pool, const struct runner_step *step, long steps, void *const *values,
                       const int32_t *slots, const int64_t *dims, int *error) {
    for (long n = 0; n < steps; n++, step++) {
        void *buffers[RUNNER_BUFFERS];
        for (int32_t k = 0; k < step->slots; k++) buffers[k] = values[slots[step->first_slot + k]];
        step->kernel(pool, buffers, dims + step->first_dim, error);
        if (__atomic_load_n(error, __ATOMIC_RELAXED)) return n;
    }
    return steps;
}
