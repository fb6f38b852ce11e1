/* A thread pool: calls task(context, item) for every item of 0 .. items - 1, each exactly once, on several threads.
 *
 * pool_run returns when all items are done, and what the items wrote is visible to the caller. Threads claim items one
 * by one, so items should be tiles of some microseconds, and what an item computes must not depend on its thread.
 * Scratch memory goes by pool_thread(pool): 0 for the caller, else at most threads - 1; no two threads that work on the
 * same run share a number. Workers compute with the caller's floating-point control word (rounding, denormals).
 *
 * A run whose pool is busy with another thread's run, and a run started from within an item, is done by its caller
 * alone. After fork() the child's first run starts workers of its own. A null pool has one thread: the caller.
 *
 * Libraries that only include this header may use a pool made by the library that holds pool.c: everything goes through
 * the pointers in `struct pool`, so code and thread-local state exist once.
 */
#ifndef FUSIBLE_POOL_H
#define FUSIBLE_POOL_H

#include <stddef.h>

typedef void pool_task(void *context, long item);

struct pool {
    int threads;
    void (*run)(struct pool *pool, pool_task *task, void *context, long items);
    int (*thread)(const struct pool *pool);
};

/* A pool of `threads` threads, the caller of pool_run being one of them: threads - 1 workers are started. Worker w is
 * pinned to processors[w - 1]; with a null pointer the system places the workers. On failure NULL and errno: EINVAL for
 * a number of threads outside 1 .. 1024 or a processor that this process may not use, EAGAIN, ENOMEM. */
struct pool *pool_create(int threads, const int *processors);

/* Stops the workers and frees the pool; no run may be going on. */
void pool_destroy(struct pool *pool);

static inline int pool_threads(const struct pool *pool) { return pool ? pool->threads : 1; }

/* The number, among the threads of the pool's present run, of the thread that asks. */
static inline int pool_thread(const struct pool *pool) { return pool ? pool->thread(pool) : 0; }

static inline void pool_run(struct pool *pool, pool_task *task, void *context, long items) {
    if (pool == NULL || pool->threads == 1 || items == 1)
        for (long item = 0; item < items; item++) task(context, item);
    else
        pool->run(pool, task, context, items);
}

#endif
