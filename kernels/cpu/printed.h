/* What every printed translation unit includes: vectors and their mathematics, the pool, and the cut of rows into items.
 *
 * A printed function takes the pool, the addresses of its operands and results, the values of its shape symbols, and
 * where to note an index out of range.
 */
#ifndef FUSIBLE_PRINTED_H
#define FUSIBLE_PRINTED_H

#include <stdlib.h>

#include "attention.h"
#include "band.h"
#include "convolution.h"
#include "convolution_bf16.h"
#include "convolution_bytes.h"
#include "depthwise.h"
#include "elements.h"
#include "gemm.h"
#include "gemm_bf16.h"
#include "gemm_bytes.h"
#include "gemv.h"
#include "grid_sample.h"
#include "lanes.h"
#include "planar.h"
#include "plan.h"
#include "pool.h"
#include "recurrent.h"
#include "resize_image.h"
#include "ring.h"
#include "roi_align.h"
#include "scatter.h"
#include "suppress.h"
#include "top_k.h"
#include "turn.h"
#include "winograd.h"
#include "winograd_line.h"

#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif

/* Points that an item should have at least, so that claiming it costs next to nothing. */
#define NEST_ITEM_POINTS 8192

INLINE long nest_items(long rows, long points, long threads) {
    if (points <= 0 || rows <= 0) return rows > 0 && points == 0 ? 1 : 0;
    long wanted = long_max(1, long_min(long_min(points / NEST_ITEM_POINTS, threads > 1 ? 4 * threads : 1), rows));
    return wanted > threads ? wanted - wanted % threads : wanted;
}

/* Scratch for the time of one call; 1 unless memory is short, which is noted as error 2. */
INLINE int scratch_get(float **scratch, long floats, int *error) {
    *scratch = NULL;
    if (floats == 0) return 1;
    *scratch = aligned_alloc(64, (size_t)(floats * 4 + 63) / 64 * 64);
    if (*scratch == NULL) __atomic_store_n(error, 2, __ATOMIC_RELAXED);
    return *scratch != NULL;
}
INLINE void scratch_give(float *scratch) { free(scratch); }

INLINE float vf_product(vf value) {
    float product = 1.0f;
    for (int lane = 0; lane < VL; lane++) product *= value[lane];
    return product;
}

#endif
