/* Hooks: what generated code puts around a kernel.
 *
 * They are function pointers that are compile-time constants at the call of an always-inlined kernel, so the compiler
 * inlines them. A vector is `lanes` consecutive columns of `row` from `column` on; lanes from `lanes` to VL hold
 * nothing of worth, and neither hook may touch memory for them. Rows are pixels or tokens, columns are channels.
 * `lanes` is the constant VL nearly everywhere but in tails, so a hook that says vf_load_first and vf_store_first pays
 * for them there only.
 */
#ifndef FUSIBLE_HOOKS_H
#define FUSIBLE_HOOKS_H

#include "vector.h"

/* The values that a kernel starts from: what the sums of a product begin with (a bias, or zero), the input of a row kernel
 * (with its scale, mask or residual). Each is asked for once, before the finish hook of the same element, which may
 * store where it was read; other elements may be finished by then. */
typedef vf start_hook(const void *context, long row, long column, long lanes);
/* What happens to a result: the epilogue, and the store. It is called once for each element, since what it reads may
 * lie where it stores. */
typedef void finish_hook(const void *context, vf value, long row, long column, long lanes);

INLINE vf start_zero(const void *context, long row, long column, long lanes) {
    (void)context, (void)row, (void)column, (void)lanes;
    return (vf){0};
}

/* With few registers the tiles of gemm.h and register_tile.h add the start hook's values to sums that are complete: they
 * are functions without hooks, whose sums then need not come from memory. */
#define START_LAST (VECTOR_REGISTERS == 16)
/* Depth up to which the sums of a whole tile stay in registers until the finish hook has them. Of 16 the hooks' values
 * leave too few; sums that wait in memory for every step cost more than their one way through it, if there are many. */
#define WHOLE_DEPTH (VECTOR_REGISTERS == 16 ? 64 : 1L << 30)

/* The end of a product's sums; integers: they and the start hook's values are the bits of int32. */
INLINE void finish_sum(const int integers, vf sum, long row, long column, long lanes, start_hook *start,
                       finish_hook *finish, const void *context) {
    if (START_LAST && start != start_zero) {
        vf first = start(context, row, column, lanes);
        sum = integers ? (vf)((vu)first + (vu)sum) : first + sum;
    }
    finish(context, sum, row, column, lanes);
}

#define SCRATCH_HEAD 64 /* bytes, of scratch memory that begins with the number of what an item leaves for the next one */
/* Before a run: such memory, of the threads one after the other, holds nothing yet. */
INLINE void scratch_begin(void *scratch, long bytes, long threads) {
    for (long thread = 0; thread < threads; thread++) *(long *)((char *)scratch + thread * bytes) = -1;
}

#endif
