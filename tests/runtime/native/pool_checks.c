/* What the tests of the thread pool run on it. As a library each function is called from Python; with -DSTRESS it is a
 * program for sanitizers, which returns 0 if everything held. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool.h"

#define EXPORT __attribute__((visibility("default")))

static void spend_a_microsecond(void) {
    for (volatile int spent = 0; spent < 2000; spent++) {}
}

/* Not atomic on purpose: an item done twice at once, or unseen by the caller, is a data race. */
static void count_item(void *context, long item) { ((int *)context)[item]++; }

/* Adds one to each of `items` counts. */
EXPORT void count(struct pool *pool, int *counts, long items) { pool_run(pool, count_item, counts, items); }

/* Does so `runs` times; returns how many counts are wrong after any of the runs. */
EXPORT long many_runs(struct pool *pool, long runs, long items) {
    int *counts = calloc((size_t)items, sizeof *counts);
    long wrong = 0;
    for (long run = 1; run <= runs; run++) {
        pool_run(pool, count_item, counts, items);
        for (long item = 0; item < items; item++) wrong += counts[item] != run;
    }
    free(counts);
    return wrong;
}

struct tally {
    struct pool *pool;
    int *of_thread, *of_item;
};

static void tally_item(void *context, long item) {
    struct tally *tally = context;
    tally->of_thread[16 * pool_thread(tally->pool)]++;
    tally->of_item[item] = pool_thread(tally->pool);
    spend_a_microsecond();
}

/* Counts the items of each thread (of_thread, 16 apart) and notes the thread of each item. */
EXPORT void threads_of_items(struct pool *pool, int *of_thread, int *of_item, long items) {
    struct tally tally = {pool, of_thread, of_item};
    pool_run(pool, tally_item, &tally, items);
}

struct nest {
    struct pool *outer, *inner;
    int *counts;
    long width;
    pthread_t thread;
    int strangers; /* items done by another thread than the one that started the run, or whose number is none of it */
};

static void inner_item(void *context, long item) {
    struct nest *nest = context;
    int thread = pool_thread(nest->inner);
    if (thread < 0 || thread >= pool_threads(nest->inner)) nest->strangers++;
    if (!pthread_equal(pthread_self(), nest->thread)) nest->strangers++;
    nest->counts[item]++;
    spend_a_microsecond();
}

static void outer_item(void *context, long item) {
    struct nest own = *(struct nest *)context;
    own.counts += item * own.width;
    own.thread = pthread_self();
    own.strangers = 0;
    pool_run(own.inner, inner_item, &own, own.width);
    if (own.strangers) own.counts[0] = -1000;
}

/* Each of `items` items of a run on `outer` starts a run on `inner` that counts `width` counts of its own. */
EXPORT void nested(struct pool *outer, struct pool *inner, int *counts, long items, long width) {
    struct nest nest = {.outer = outer, .inner = inner, .counts = counts, .width = width};
    pool_run(outer, outer_item, &nest, items);
}

static void wait_item(void *context, long item) {
    (void)item;
    const struct timespec *time = context;
    nanosleep(time, NULL);
}

/* `items` items that sleep so long. */
EXPORT void wait_together(struct pool *pool, long items, long nanoseconds) {
    struct timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    pool_run(pool, wait_item, &time, items);
}

struct meeting {
    struct pool *pool;
    int *threads; /* which thread did each item */
    int arrived, expected;
};

/* Waits, a second at most, until as many threads have an item as are expected. */
static void meet_item(void *context, long item) {
    struct meeting *meeting = context;
    meeting->threads[item] = pool_thread(meeting->pool);
    __atomic_add_fetch(&meeting->arrived, 1, __ATOMIC_RELAXED);
    for (int n = 0; n < 1000000 && __atomic_load_n(&meeting->arrived, __ATOMIC_RELAXED) < meeting->expected; n++)
        spend_a_microsecond();
}

/* Who did each of `items` items, if every thread is there when the first ones are done. */
EXPORT void meet(struct pool *pool, int *threads, long items) {
    struct meeting meeting = {pool, threads, 0, pool_threads(pool)};
    pool_run(pool, meet_item, &meeting, items);
}

static void halve_item(void *context, long item) {
    volatile float *value = (float *)context + item;
    *value = *value / 2.0f;
    spend_a_microsecond();
}

/* Halves each value, in the floating-point mode of the caller. */
EXPORT void halve(struct pool *pool, float *values, long items) { pool_run(pool, halve_item, values, items); }

/* The floating-point control word of this thread. */
EXPORT unsigned float_control(void) {
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr() & ~0x3fu;
#elif defined(__aarch64__)
    unsigned long control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return (unsigned)control;
#else
    return 0;
#endif
}

EXPORT void set_float_control(unsigned control) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(control);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)control));
#else
    (void)control;
#endif
}

/* The same word with denormals taken for zero, and made zero. */
EXPORT unsigned flushing(unsigned control) {
#if defined(__x86_64__)
    return control | 0x8040;
#elif defined(__aarch64__)
    return control | 1u << 24;
#else
    return control;
#endif
}

/* Whether the functions above know this processor. */
EXPORT int knows_float_control(void) {
#if defined(__x86_64__) || defined(__aarch64__)
    return 1;
#else
    return 0;
#endif
}

#if defined(STRESS)
#include <sys/wait.h>
#include <unistd.h>

static void *runs_in_a_thread(void *pool) { return (void *)many_runs(pool, 2000, 37); }

static long side_by_side(struct pool *a, struct pool *b) {
    pthread_t one, other;
    void *wrong_in_one, *wrong_in_other;
    pthread_create(&one, NULL, runs_in_a_thread, a);
    pthread_create(&other, NULL, runs_in_a_thread, b);
    pthread_join(one, &wrong_in_one);
    pthread_join(other, &wrong_in_other);
    return (long)wrong_in_one + (long)wrong_in_other;
}

static long runs_of_sleepers(struct pool *pool) {
    long wrong = 0;
    for (int run = 0; run < 40; run++) {
        struct timespec pause = {0, 10000L * run}; /* up to twice the time that workers spin */
        nanosleep(&pause, NULL);
        wrong += many_runs(pool, 3, run);
    }
    wait_together(pool, 7, 1000000); /* longer than the caller spins */
    return wrong;
}

static long nested_runs(struct pool *a, struct pool *b) {
    int counts[50 * 20] = {0};
    nested(a, b, counts, 50, 20);
    nested(a, a, counts, 50, 20);
    long wrong = 0;
    for (int i = 0; i < 50 * 20; i++) wrong += counts[i] != 2;
    return wrong;
}

static long in_a_child(struct pool *pool) {
    pid_t child = fork();
    if (child == 0) {
        long wrong = many_runs(pool, 100, 37);
        pool_destroy(pool);
        _exit(wrong != 0);
    }
    int status;
    waitpid(child, &status, 0);
    return status != 0;
}

int main(int count, char **arguments) {
    struct pool *a = pool_create(3, NULL), *b = pool_create(2, NULL);
    if (a == NULL || b == NULL) return 2;
    long wrong = many_runs(a, 20000, 5) + many_runs(b, 100, 10000);
    wrong += side_by_side(a, b) + side_by_side(a, a) + runs_of_sleepers(a) + nested_runs(a, b);
    int forks = count < 2 || strcmp(arguments[1], "no-fork") != 0;
    if (forks) wrong += in_a_child(a) + many_runs(a, 100, 37);
    pool_destroy(a);
    pool_destroy(b);
    for (int threads = 1; threads < 20; threads++) {
        struct pool *pool = pool_create(threads, NULL);
        wrong += many_runs(pool, 2, 50);
        pool_destroy(pool);
    }
    return wrong != 0;
}
#endif
