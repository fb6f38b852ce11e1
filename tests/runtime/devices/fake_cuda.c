/* A stand-in for the library of CUDA's driver, on host memory. An image is the text "ADDRESS SCRATCH TYPES" of a kernel
 * that was lowered to C, types being p (pointer), i (32 bits), l (64 bits) or, at the end, t (the map of a tensor whose
 * first element the first pointer points to, its sizes and its strides). It refuses what the real one would refuse
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
static int overlapping_count;
EXPORT int fake_overlapping(void) { return overlapping_count; }

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

struct attribute { int kind, pad, value[16]; };
struct config { unsigned gx, gy, gz, bx, by, bz, shared; intptr_t stream; struct attribute *attributes; unsigned count; };
struct map { uint64_t address, rank, shape[5], strides[5]; };
EXPORT int cuTensorMapEncodeTiled(struct map *made, int kind, unsigned rank, void *address, const uint64_t *shape,
                                  const uint64_t *strides, const unsigned *box, const unsigned *steps, int interleave,
                                  int swizzle, int promotion, int fill) {
    if ((uintptr_t)made % 64 || kind != 7 || rank < 1 || rank > 5 || (uintptr_t)address % 16) return INVALID_VALUE;
    if (interleave != 0 || swizzle < 0 || swizzle > 3 || promotion > 3 || fill != 0) return INVALID_VALUE;
    *made = (struct map){(uintptr_t)address, rank};
    for (unsigned n = 0; n < rank; n++) {
        if (box[n] < 1 || box[n] > 256 || steps[n] != 1 || (n && strides[n - 1] % 16)) return INVALID_VALUE;
        made->shape[n] = shape[n], made->strides[n] = n ? strides[n - 1] / sizeof(float) : 1;
    }
    return OK;
}

/* Whether parameters are a map as it was made, sizes and strides, the slowest first; how many they are, 0 if not. */
static int described(void **parameters, int64_t address) {
    const struct map *map = parameters[0];
    int rank = (int)map->rank;
    if (map->address != (uint64_t)address) return 0;
    for (int n = 0; n < rank; n++) {
        if (*(int32_t *)parameters[1 + n] != (int32_t)map->shape[rank - 1 - n]) return 0;
        if (*(int64_t *)parameters[1 + rank + n] != (int64_t)map->strides[rank - 1 - n]) return 0;
    }
    return 1 + 2 * rank;
}

EXPORT int cuLaunchKernelEx(const struct config *config, struct function *function, void **parameters, void **extra) {
    unsigned gx = config->gx, gy = config->gy, gz = config->gz, bx = config->bx, by = config->by, bz = config->bz;
    unsigned shared = config->shared;
    intptr_t stream = config->stream;
    struct recorded launch = {function, {0}, gx};
    if (context == NULL) return INVALID_CONTEXT;
    if (config->count > 1) return INVALID_VALUE;
    if (config->count && (config->attributes->kind != 6 || config->attributes->value[0] != 1)) return INVALID_VALUE;
    overlapping_count += config->count;
    if (gx == 0 || gy != 1 || gz != 1 || bx % 32 || bx == 0 || by != 1 || bz != 1 || extra) return INVALID_VALUE;
    if ((int)shared > function->shared || stream <= 0 || stream >= STREAMS) return INVALID_VALUE;
    int count = 0;
    for (const char *type = function->types; *type && *type != 't'; type++, count++)
        launch.arguments[count] = *type == 'i' ? *(int32_t *)parameters[count] : *(int64_t *)parameters[count];
    for (const char *type = function->types + count; *type; type++) {
        int taken = described(parameters + count, launch.arguments[0]);
        if (taken == 0) return INVALID_VALUE;
        count += taken;
    }
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
