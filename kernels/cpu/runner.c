/* What runner.h declares. */

#include "runner.h"

#include <stddef.h>

#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif
#define RUNNER_BUFFERS 256 /* operands and results of one step at most; the loader checks it */

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
