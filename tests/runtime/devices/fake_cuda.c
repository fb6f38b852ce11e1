/* A stand-in for the library of CUDA's driver, on host memory. An image is the text "ADDRESS SCRATCH TYPES" of a kernel
 * that was lowered to C, types being p (pointer), i (32 bits) or l (64 bits). It refuses what the real one would refuse
 * of how it is called: a thread without context, dynamic shared memory that was not asked for, odd blocks. */
#include <stdio.h>
#include <stdlib.h>

#include "tile.h"

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NO_BINARY = 209, NOT_FOUND = 500 };
enum { ARGUMENTS = 32, LAUNCHES = 256, STREAMS = 64, GRAPHS = 64, WITHOUT_ASKING = 49152 };

struct function {
    void (*run)(const struct launch *launch);
    long scratch;
    int shared;
    char types[ARGUMENTS];
};
struct recorded {
    struct function *function;
    int64_t arguments[ARGUMENTS], programs;
};
struct list {
    int count;
    struct recorded launches[LAUNCHES];
};

static __thread void *context;
static struct list *capturing[STREAMS];
static struct list *graphs[GRAPHS];
static int graph_count, launch_count, started;

EXPORT int fake_launches(void) { return launch_count; }

EXPORT int cuInit(unsigned flags) { return started = 1, flags == 0 ? OK : INVALID_VALUE; }
EXPORT int cuGetErrorName(int error, const char **text) {
    *text = error == NO_BINARY ? "CUDA_ERROR_NO_BINARY_FOR_GPU" : "CUDA_ERROR_OTHER";
    return OK;
}
EXPORT int cuGetErrorString(int error, const char **text) { return *text = "what it means", error ? OK : INVALID_VALUE; }
EXPORT int cuDeviceGet(int *device, int index) { return *device = index + 7, started && index >= 0 ? OK : INVALID_VALUE; }
EXPORT int cuDevicePrimaryCtxRetain(void **made, int device) { return *made = (void *)(intptr_t)(device << 8), OK; }
EXPORT int cuCtxGetCurrent(void **found) { return *found = context, OK; }
EXPORT int cuCtxSetCurrent(void *wanted) { return context = wanted, OK; }

EXPORT int cuModuleLoadData(void **module, const void *image) {
    struct function *made = calloc(1, sizeof *made);
    unsigned long address;
    if (context == NULL) return INVALID_CONTEXT;
    if (sscanf(image, "%lx %ld %31s", &address, &made->scratch, made->types) != 3) return NO_BINARY;
    made->run = (void (*)(const struct launch *))address;
    made->shared = WITHOUT_ASKING;
    *module = made;
    return OK;
}
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
    return *function = module, name[0] ? OK : NOT_FOUND;
}
EXPORT int cuFuncSetAttribute(struct function *function, int attribute, int value) {
    if (attribute != 8) return INVALID_VALUE;
    return function->shared = value, OK;
}

static void run(const struct recorded *launch) {
    struct function *function = launch->function;
    int64_t findings[1 + FINDING_FIELDS] = {0};
    char *memory = malloc(function->scratch + 128);
    struct launch given = {.arguments = launch->arguments, .findings = findings, .grid = {launch->programs, 1, 1}};
    given.scratch = (char *)(((uintptr_t)memory + 63) / 64 * 64), given.scratch_bytes = function->scratch;
    function->run(&given);
    free(memory);
    __atomic_fetch_add(&launch_count, 1, __ATOMIC_RELAXED);
}

EXPORT int cuLaunchKernel(struct function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, intptr_t stream, void **parameters, void **extra) {
    struct recorded launch = {function, {0}, gx};
    if (context == NULL) return INVALID_CONTEXT;
    if (gx == 0 || gy != 1 || gz != 1 || bx % 32 || bx == 0 || by != 1 || bz != 1 || extra) return INVALID_VALUE;
    if ((int)shared > function->shared || stream <= 0 || stream >= STREAMS) return INVALID_VALUE;
    int count = 0;
    for (const char *type = function->types; *type; type++, count++)
        launch.arguments[count] = *type == 'i' ? *(int32_t *)parameters[count] : *(int64_t *)parameters[count];
    if (*(void **)parameters[count] != NULL || *(void **)parameters[count + 1] != NULL) return INVALID_VALUE;
    if (capturing[stream]) capturing[stream]->launches[capturing[stream]->count++] = launch;
    else run(&launch);
    return OK;
}

EXPORT void fake_capture_begin(int stream) { capturing[stream] = calloc(1, sizeof(struct list)); }
EXPORT int fake_capture_end(int stream) {
    int graph = __atomic_fetch_add(&graph_count, 1, __ATOMIC_RELAXED);
    graphs[graph] = capturing[stream], capturing[stream] = NULL;
    return graph;
}
EXPORT void fake_replay(int graph) {
    for (int n = 0; n < graphs[graph]->count; n++) run(graphs[graph]->launches + n);
}

/* While a stream is captured nothing else may happen to it. */
static int copied(void *target, const void *source, size_t bytes, intptr_t stream) {
    if (context == NULL) return INVALID_CONTEXT;
    if (stream <= 0 || stream >= STREAMS || capturing[stream]) return INVALID_VALUE;
    return memcpy(target, source, bytes), OK;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t bytes, intptr_t stream) {
    return copied((void *)target, source, bytes, stream);
}
EXPORT int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t bytes, intptr_t stream) {
    return copied(target, (void *)source, bytes, stream);
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t target, uint64_t source, size_t bytes, intptr_t stream) {
    return copied((void *)target, (void *)source, bytes, stream);
}
EXPORT int cuMemsetD8Async(uint64_t target, unsigned char byte, size_t bytes, intptr_t stream) {
    if (context == NULL || stream <= 0) return INVALID_CONTEXT;
    return memset((void *)target, byte, bytes), OK;
}
EXPORT int cuStreamCreate(intptr_t *stream, unsigned flags) {
    static intptr_t made;
    if (context == NULL || flags != 1) return INVALID_CONTEXT;
    *stream = __atomic_add_fetch(&made, 1, __ATOMIC_SEQ_CST);
    return OK;
}
EXPORT int cuStreamSynchronize(intptr_t stream) { return context && stream > 0 ? OK : INVALID_CONTEXT; }
