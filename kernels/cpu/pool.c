/* The thread pool of pool.h, on Linux futexes.
 *
 * One 32-bit word, `state`, carries the protocol:
 *
 *     bits 0-9    INSIDE    workers that are inside the present run
 *     bits 10-19  ASLEEP    workers that sleep, or are about to
 *     bit  20     CLOSED    no run is going on, or its items are used up: who comes now must not touch it
 *     bit  21     WAITING   the caller sleeps until INSIDE is 0
 *     bit  22     STOP      workers return
 *     bits 23-31  RUN       number of the run, so that a worker takes part in each run once
 *
 * The caller writes the run's task, context and items, then opens it by one addition to `state` (release). A worker
 * enters by adding one to INSIDE (acquire); if the value that this returns says CLOSED it leaves again without having
 * looked at the run. Items lie in shares, ranges of equal size: a thread claims those of its own share, one by one by
 * adding to `next`, then those that other shares have left. So it works on the same part of the data in one run after
 * the other, and finds in its own cache what it wrote: another core's may be far away. When all are used up the caller
 * closes the run and waits until nobody is inside: then every claimed item is done, and the fields may be written
 * again. A run never waits for a worker that has not entered it, so a worker that the system does not schedule costs
 * nothing but its help.
 *
 * RUN wraps around after 512 runs: a worker that sleeps through exactly 512 of them misses one, which is harmless.
 *
 * Waiting threads spin first, because a futex takes some 50 microseconds to wake a thread and the parallel parts of a
 * model follow each other within a few; after SPIN_NANOSECONDS they sleep. All sleepers use `state` as their futex,
 * told apart by the bit set of FUTEX_WAIT_BITSET: whoever changes `state` so that a sleeper must wake sees in the value
 * it replaced that there is a sleeper, so no wake-up is lost and no fence is needed.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif
#define CACHE_LINE 64

#define SPIN_NANOSECONDS 200000
#define YIELD_NANOSECONDS 20000
#define MAX_THREADS 1024
#define MOST_SHARES 16 /* each is written when a run begins */
#define STACK_BYTES (2 << 20)

#define ONE_INSIDE 1u
#define INSIDE 0x3ffu
#define ONE_ASLEEP (1u << 10)
#define ASLEEP (0x3ffu << 10)
#define CLOSED (1u << 20)
#define WAITING (1u << 21)
#define STOP (1u << 22)
#define ONE_RUN (1u << 23)
#define RUN (~0u << 23)

/* Bit sets of the futex. */
#define WORKERS 1u
#define CALLER 2u

struct worker {
    struct workers *all;
    pthread_t handle;
    int thread;   /* its number, from 1 */
    unsigned run; /* that before its first one, as in `state` */
};

/* Items from `next` to before `end`, which threads claim by adding to `next`. */
struct share {
    _Alignas(CACHE_LINE) atomic_long next;
    long end;
};

/* What stands behind a struct pool. */
struct workers {
    struct pool pool; /* first: a pointer to one is a pointer to the other */
    int started;
    int forks; /* the process, counted by forks, that the workers belong to */
    struct worker *worker;
    int *processors;
    atomic_int owner; /* 1 + the forks of the process that has a run going on, else 0 */

    _Alignas(CACHE_LINE) atomic_uint state;
    unsigned float_control;
    pool_task *task;
    void *context;
    int shares;
    struct share share[MOST_SHARES];
};

/* The pool whose items this thread works on, and its number there. */
static _Thread_local struct {
    const struct workers *all;
    int thread;
} here;

/* Counted in the child, where there is one thread; pools of an older count have lost their workers. */
static int forks;
static void count_fork(void) { forks++; }

static pthread_once_t registered = PTHREAD_ONCE_INIT;
static int registration_error;
static void register_fork_count(void) { registration_error = pthread_atfork(NULL, NULL, count_fork); }

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Rounding, denormals and traps of this thread, without the flags that operations leave behind. */
static unsigned float_control(void) {
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

static void set_float_control(unsigned control) {
    if (control == float_control()) return;
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(control);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"((unsigned long)control));
#endif
}

static void sleep_while(atomic_uint *state, unsigned value, unsigned who) {
    syscall(SYS_futex, state, FUTEX_WAIT_BITSET_PRIVATE, value, NULL, NULL, who);
}

static void wake(atomic_uint *state, int count, unsigned who) {
    syscall(SYS_futex, state, FUTEX_WAKE_BITSET_PRIVATE, count, NULL, NULL, who);
}

static long nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Whether a worker whose last run was `run` has something to do. */
static int may_enter(unsigned state, unsigned run) {
    return (state & STOP) || (!(state & CLOSED) && (state & RUN) != run);
}

/* Whether the caller may go on. */
static int nobody_inside(unsigned state, unsigned unused) {
    (void)unused;
    return !(state & INSIDE);
}

/* Spins until ready(state, run) or the time is up; returns whether it is ready. Yields, lest on a crowded processor it
 * keeps from running the very thread that it waits for. */
static inline int spin(atomic_uint *state, int (*ready)(unsigned, unsigned), unsigned run) {
    long start = nanoseconds(), waited = 0;
    while (waited < SPIN_NANOSECONDS) {
        for (int round = 0; round < 64; round++) {
            if (ready(atomic_load_explicit(state, memory_order_acquire), run)) return 1;
            relax();
        }
        if (waited > YIELD_NANOSECONDS) sched_yield();
        waited = nanoseconds() - start;
    }
    return 0;
}

static inline void sleep_until(atomic_uint *state, int (*ready)(unsigned, unsigned), unsigned run, unsigned who) {
    unsigned value = atomic_load_explicit(state, memory_order_acquire);
    while (!ready(value, run)) {
        sleep_while(state, value, who);
        value = atomic_load_explicit(state, memory_order_acquire);
    }
}

static void wait_for_run(struct workers *all, unsigned run) {
    if (spin(&all->state, may_enter, run)) return;
    atomic_fetch_add_explicit(&all->state, ONE_ASLEEP, memory_order_relaxed);
    sleep_until(&all->state, may_enter, run, WORKERS);
    atomic_fetch_sub_explicit(&all->state, ONE_ASLEEP, memory_order_relaxed);
}

static void wait_for_workers(struct workers *all) {
    if (spin(&all->state, nobody_inside, 0)) return;
    atomic_fetch_or_explicit(&all->state, WAITING, memory_order_relaxed);
    sleep_until(&all->state, nobody_inside, 0, CALLER);
    atomic_fetch_and_explicit(&all->state, ~WAITING, memory_order_relaxed);
}

static void do_items(struct workers *all, int thread) {
    pool_task *task = all->task;
    void *context = all->context;
    for (int n = 0; n < all->shares; n++) {
        struct share *share = &all->share[(thread + n) % all->shares];
        long end = share->end, item;
        while ((item = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed)) < end) task(context, item);
    }
}

static void *work(void *argument) {
    const struct worker *self = argument;
    struct workers *all = self->all;
    unsigned run = self->run;
    here.all = all;
    here.thread = self->thread;
    for (;;) {
        wait_for_run(all, run);
        unsigned state = atomic_fetch_add_explicit(&all->state, ONE_INSIDE, memory_order_acquire);
        if (!(state & (CLOSED | STOP))) {
            run = state & RUN;
            set_float_control(all->float_control);
            do_items(all, self->thread);
        }
        unsigned before = atomic_fetch_sub_explicit(&all->state, ONE_INSIDE, memory_order_release);
        if ((before & INSIDE) == ONE_INSIDE && (before & WAITING)) wake(&all->state, 1, CALLER);
        if (state & STOP) return NULL;
    }
}

static int pin_worker(pthread_t thread, int processor) {
    if (processor < 0 || processor >= CPU_SETSIZE) return EINVAL;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return errno;
    if (!CPU_ISSET(processor, &set)) return EINVAL;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    return pthread_setaffinity_np(thread, sizeof set, &set);
}

static int pin_workers(struct workers *all) {
    int error = 0;
    for (int i = 0; all->processors && !error && i < all->started; i++)
        error = pin_worker(all->worker[i].handle, all->processors[i]);
    return error;
}

/* Signals that the kernel sends to a process are the host program's business, so its own threads must take them (Python
 * handles Ctrl-C in its main thread); those that an instruction raises must reach whoever executed it. */
static void block_signals(sigset_t *before) {
    sigset_t blocked;
    sigfillset(&blocked);
    const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, before);
}

static int start_worker(struct workers *all, const pthread_attr_t *attributes) {
    struct worker *self = &all->worker[all->started];
    self->all = all;
    self->thread = all->started + 1;
    self->run = atomic_load_explicit(&all->state, memory_order_relaxed) & RUN;
    int error = pthread_create(&self->handle, attributes, work, self);
    if (error) return error;
    all->started++;
    char name[16]; /* what debuggers and `top -H` show */
    snprintf(name, sizeof name, "fusible-%d", self->thread);
    pthread_setname_np(self->handle, name);
    return 0;
}

static int start_workers(struct workers *all) {
    atomic_store_explicit(&all->state, CLOSED, memory_order_relaxed);
    all->started = 0;
    all->forks = forks;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error) return error;
    sigset_t before;
    block_signals(&before);
    error = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (!error && all->started < all->pool.threads - 1) error = start_worker(all, &attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

static void stop_workers(struct workers *all) {
    if (all->forks != forks) return; /* they are the parent's */
    atomic_fetch_or_explicit(&all->state, STOP, memory_order_release);
    wake(&all->state, INT_MAX, WORKERS);
    for (int i = 0; i < all->started; i++) pthread_join(all->worker[i].handle, NULL);
}

/* Makes the run the caller's; not if another thread of this process has one. A run that a fork interrupted is void. */
static int acquire(struct workers *all) {
    int owner = atomic_load_explicit(&all->owner, memory_order_relaxed);
    if (owner == forks + 1) return 0;
    return atomic_compare_exchange_strong_explicit(&all->owner, &owner, forks + 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

static void open_run(struct workers *all, pool_task *task, void *context, long items) {
    all->task = task;
    all->context = context;
    all->float_control = float_control();
    all->shares = all->pool.threads < MOST_SHARES ? all->pool.threads : MOST_SHARES;
    for (long n = 0; n < all->shares; n++) {
        atomic_store_explicit(&all->share[n].next, items * n / all->shares, memory_order_relaxed);
        all->share[n].end = items * (n + 1) / all->shares;
    }
    unsigned before = atomic_fetch_add_explicit(&all->state, ONE_RUN - CLOSED, memory_order_release);
    if (before & ASLEEP) wake(&all->state, items - 1 < all->started ? (int)(items - 1) : all->started, WORKERS);
}

static void run(struct pool *pool, pool_task *task, void *context, long items) {
    struct workers *all = (struct workers *)pool;
    if (items <= 0) return;
    if (here.all || !acquire(all)) {
        for (long item = 0; item < items; item++) task(context, item);
        return;
    }
    if (all->forks != forks) {
        /* With fewer workers, or unpinned ones, a run is slower and as correct. */
        (void)start_workers(all);
        (void)pin_workers(all);
    }
    here.all = all;
    here.thread = 0;
    open_run(all, task, context, items);
    do_items(all, 0);
    atomic_fetch_or_explicit(&all->state, CLOSED, memory_order_relaxed);
    wait_for_workers(all);
    here.all = NULL;
    atomic_store_explicit(&all->owner, 0, memory_order_release);
}

static int thread(const struct pool *pool) { return here.all == (const struct workers *)pool ? here.thread : 0; }

static void release(struct workers *all) {
    free(all->worker);
    free(all->processors);
    free(all);
}

static struct workers *allocate(int threads, const int *processors) {
    struct workers *all = aligned_alloc(CACHE_LINE, sizeof *all);
    if (all == NULL) return NULL;
    memset(all, 0, sizeof *all);
    all->pool = (struct pool){threads, run, thread};
    size_t workers = (size_t)threads - 1;
    all->worker = calloc(workers + 1, sizeof *all->worker);
    if (processors) all->processors = calloc(workers + 1, sizeof *processors);
    if (all->worker == NULL || (processors && all->processors == NULL)) {
        release(all);
        return NULL;
    }
    if (processors) memcpy(all->processors, processors, workers * sizeof *processors);
    return all;
}

EXPORT struct pool *pool_create(int threads, const int *processors) {
    if (threads < 1 || threads > MAX_THREADS) {
        errno = EINVAL;
        return NULL;
    }
    pthread_once(&registered, register_fork_count);
    struct workers *all = allocate(threads, processors);
    if (all == NULL) return NULL;
    int error = registration_error ? registration_error : start_workers(all);
    if (!error) error = pin_workers(all);
    if (!error) return &all->pool;
    stop_workers(all);
    release(all);
    errno = error;
    return NULL;
}

EXPORT void pool_destroy(struct pool *pool) {
    struct workers *all = (struct workers *)pool;
    if (all == NULL) return;
    stop_workers(all);
    release(all);
}
