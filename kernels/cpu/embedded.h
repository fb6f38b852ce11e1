/* What every exported model has in common: weights mapped from a file, sessions with an arena, runs of a table of steps.
 *
 * The generated model.c defines the tables, and two functions over shapes: `bind` reads the symbols off the inputs,
 * `measure` evaluates all sizes that depend on them. Sizes are computed in 128 bits and must fit the model's limits.
 */
#ifndef FUSIBLE_EMBEDDED_H
#define FUSIBLE_EMBEDDED_H

#ifndef _GNU_SOURCE
#error "sched_getaffinity needs _GNU_SOURCE before the first header"
#endif
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "fusible.h"
#include "pool.h"
#include "runner.h"

typedef __int128 wide;

#define EMBEDDED_MOST_DIMENSION 0x7fffffff /* products of four stay within 128 bits */

static inline wide wide_floordiv(wide a, wide b, int *error) {
    if (b == 0) return *error = FUSIBLE_BAD_SHAPE, 0;
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
static inline wide wide_mod(wide a, wide b, int *error) { return a - wide_floordiv(a, b, error) * b; }
static inline wide wide_max(wide a, wide b) { return a > b ? a : b; }
static inline wide wide_min(wide a, wide b) { return a < b ? a : b; }
static inline wide wide_bcast(wide a, wide b, int *error) {
    if (a != 1 && a != b && b != 1) *error = FUSIBLE_BAD_SHAPE;
    return b == 1 ? a : b;
}

/* The first bytes of a file of weights; `id` is also in the library. */
struct embedded_header {
    char magic[8]; /* "FUSIBLEW" */
    uint8_t id[32];
    uint64_t bytes; /* of the whole file */
};

/* to takes what `from` has: a reshape (the same memory), or a copy into an output (its number in `to`). */
struct embedded_move { int32_t to, from; };

struct embedded_tables {
    int inputs, outputs, values, constants, buffers, symbols, steps, dims, aliases, copies;
    const struct fusible_spec *input, *output;
    const int32_t *input_value, *output_value; /* of an output that is a copy: -1 */
    const int32_t *constant_value;
    const uint64_t *constant_offset;           /* in the file of weights */
    const int32_t *arena_value; /* a value, its buffer, which of `dims` is its place there in bytes or -1; ends with -1 */
    const int32_t *first, *last;               /* lifetimes of buffers */
    const struct runner_step *step;
    const char *const *step_name;
    const int32_t *slot;
    const struct embedded_move *alias, *copy;
    uint8_t id[32];
    int64_t most_bytes_of_a_tensor, most_bytes;
    int (*bind)(const struct fusible_tensor *inputs, wide *symbols);
    /* bytes of the buffers, dims of the steps and places of values, dimensions of the outputs, FUSIBLE_MAX_RANK for each */
    int (*measure)(const wide *symbols, wide *bytes, wide *dims, wide *shapes);
};

struct embedded_model {
    const struct embedded_tables *tables;
    struct pool *pool;
    void *weights;
    size_t weights_bytes;
};

struct embedded_session {
    struct embedded_model *model;
    int laid_out;
    wide *symbols, *asked, *wide_bytes, *wide_dims, *wide_shapes;
    int64_t *bytes, *offsets, *dims;
    struct arena_scratch *scratch;
    void **values;
    char *arena;
    size_t arena_bytes;
    const char *failed; /* the step of the last run that failed, or NULL */
};

static inline size_t embedded_item(enum fusible_type type) {
    static const unsigned char sizes[] = {0, 8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};
    return sizes[type];
}

static inline const char *embedded_status_text(int status) {
    static const char *const texts[] = {
        "done", "an argument is a null pointer, has a wrong rank or too little memory for its shape",
        "a dimension contradicts the signature or another input", "a dimension lies outside its bounds",
        "the memory given for an output is too small", "these shapes need more memory than the limits allow",
        "out of memory", "an index that the inputs gave is out of range",
        "the weights are missing, cut short or another model's", "the system refuses threads"};
    return status >= 0 && status < (int)(sizeof texts / sizeof *texts) ? texts[status] : "no such status";
}

/* Models */

static inline void embedded_close(struct embedded_model *model) {
    if (model == NULL) return;
    if (model->weights) munmap(model->weights, model->weights_bytes);
    if (model->pool) pool_destroy(model->pool);
    free(model);
}

static inline int embedded_map(struct embedded_model *model, const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return FUSIBLE_BAD_WEIGHTS;
    struct stat facts;
    const struct embedded_header *header = NULL;
    if (fstat(file, &facts) == 0 && facts.st_size >= (off_t)sizeof *header) {
        void *mapped = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED) {
            model->weights = mapped;
            model->weights_bytes = (size_t)facts.st_size;
            header = mapped;
        }
    }
    close(file);
    if (header == NULL || memcmp(header->magic, "FUSIBLEW", 8) || header->bytes != model->weights_bytes ||
        memcmp(header->id, model->tables->id, sizeof header->id))
        return FUSIBLE_BAD_WEIGHTS;
    return FUSIBLE_OK;
}

static inline int embedded_open(const struct embedded_tables *tables, const char *path, int threads,
                                struct embedded_model **result) {
    if (path == NULL || result == NULL || threads < 0) return FUSIBLE_BAD_ARGUMENT;
    *result = NULL;
    struct embedded_model *model = calloc(1, sizeof *model);
    if (model == NULL) return FUSIBLE_NO_MEMORY;
    model->tables = tables;
    int status = embedded_map(model, path);
    if (status == FUSIBLE_OK) {
        cpu_set_t allowed;
        if (threads == 0) threads = sched_getaffinity(0, sizeof allowed, &allowed) ? 1 : CPU_COUNT(&allowed);
        model->pool = pool_create(threads, NULL);
        if (model->pool == NULL) status = FUSIBLE_SYSTEM;
    }
    if (status != FUSIBLE_OK) {
        embedded_close(model);
        return status;
    }
    *result = model;
    return FUSIBLE_OK;
}

/* Sessions */

static inline void embedded_session_close(struct embedded_session *session) {
    if (session == NULL) return;
    void *owned[] = {session->symbols, session->bytes, session->scratch, session->values, session->arena, session};
    for (size_t n = 0; n < sizeof owned / sizeof *owned; n++) free(owned[n]);
}

static inline int embedded_session_open(struct embedded_model *model, struct embedded_session **result) {
    if (model == NULL || result == NULL) return FUSIBLE_BAD_ARGUMENT;
    *result = NULL;
    const struct embedded_tables *t = model->tables;
    size_t shapes = (size_t)t->outputs * FUSIBLE_MAX_RANK;
    size_t wides = (size_t)t->symbols * 2 + (size_t)t->buffers + (size_t)t->dims + shapes;
    struct embedded_session *session = calloc(1, sizeof *session);
    if (session == NULL) return FUSIBLE_NO_MEMORY;
    session->model = model;
    session->symbols = calloc(wides + 1, sizeof(wide));
    session->bytes = calloc((size_t)t->buffers * 2 + (size_t)t->dims + 1, sizeof(int64_t));
    session->scratch = calloc((size_t)t->buffers + 1, sizeof *session->scratch);
    session->values = calloc((size_t)t->values + 1, sizeof *session->values);
    if (!session->symbols || !session->bytes || !session->scratch || !session->values) {
        embedded_session_close(session);
        return FUSIBLE_NO_MEMORY;
    }
    session->asked = session->symbols + t->symbols;
    session->wide_bytes = session->asked + t->symbols;
    session->wide_dims = session->wide_bytes + t->buffers;
    session->wide_shapes = session->wide_dims + t->dims;
    session->offsets = session->bytes + t->buffers;
    session->dims = session->offsets + t->buffers;
    for (int n = 0; n < t->constants; n++)
        session->values[t->constant_value[n]] = (char *)model->weights + t->constant_offset[n];
    *result = session;
    return FUSIBLE_OK;
}

/* Shapes */

static inline int embedded_bind(const struct embedded_tables *t, const struct fusible_tensor *inputs, wide *symbols) {
    for (int n = 0; n < t->inputs; n++) {
        if (inputs[n].rank != t->input[n].rank) return FUSIBLE_BAD_ARGUMENT;
        for (int d = 0; d < inputs[n].rank; d++)
            if (inputs[n].shape[d] < 0 || inputs[n].shape[d] > EMBEDDED_MOST_DIMENSION) return FUSIBLE_BAD_SHAPE;
    }
    return t->bind(inputs, symbols);
}

/* Shape and bytes of each output out of `shapes`; leaves what stands in the caller's `data`. */
static inline int embedded_describe(const struct embedded_tables *t, const wide *shapes,
                                    struct fusible_tensor *outputs) {
    for (int n = 0; n < t->outputs; n++, shapes += FUSIBLE_MAX_RANK) {
        wide bytes = embedded_item(t->output[n].type);
        outputs[n].rank = t->output[n].rank;
        for (int d = 0; d < outputs[n].rank; d++) {
            if (shapes[d] < 0) return FUSIBLE_BAD_SHAPE;
            bytes *= shapes[d] > EMBEDDED_MOST_DIMENSION ? (wide)EMBEDDED_MOST_DIMENSION * 2 : shapes[d];
            if (bytes > t->most_bytes_of_a_tensor) return FUSIBLE_TOO_LARGE;
            outputs[n].shape[d] = (int64_t)shapes[d];
        }
        outputs[n].bytes = (size_t)bytes;
    }
    return FUSIBLE_OK;
}

static inline int embedded_shapes(struct embedded_session *session, const struct fusible_tensor *inputs,
                                  struct fusible_tensor *outputs) {
    if (session == NULL || inputs == NULL || outputs == NULL) return FUSIBLE_BAD_ARGUMENT;
    const struct embedded_tables *t = session->model->tables;
    session->laid_out = 0; /* what is computed here overwrites the sizes of the last run */
    int status = embedded_bind(t, inputs, session->symbols);
    if (status == FUSIBLE_OK)
        status = t->measure(session->symbols, session->wide_bytes, session->wide_dims, session->wide_shapes);
    return status == FUSIBLE_OK ? embedded_describe(t, session->wide_shapes, outputs) : status;
}

/* The arena for the sizes that `measure` gave. */
static inline int embedded_lay_out(struct embedded_session *session) {
    const struct embedded_tables *t = session->model->tables;
    for (int n = 0; n < t->buffers; n++) {
        if (session->wide_bytes[n] < 0) return FUSIBLE_BAD_SHAPE;
        if (session->wide_bytes[n] > t->most_bytes_of_a_tensor) return FUSIBLE_TOO_LARGE;
        session->bytes[n] = (int64_t)session->wide_bytes[n];
    }
    for (int n = 0; n < t->dims; n++) session->dims[n] = (int64_t)session->wide_dims[n];
    int64_t peak = arena_place(t->buffers, session->bytes, t->first, t->last, session->offsets, session->scratch);
    if (peak > t->most_bytes) return FUSIBLE_TOO_LARGE;
    if ((size_t)peak > session->arena_bytes) {
        free(session->arena);
        session->arena_bytes = 0;
        session->arena = aligned_alloc(ARENA_ALIGNMENT, (size_t)peak);
        if (session->arena == NULL) return FUSIBLE_NO_MEMORY;
        session->arena_bytes = (size_t)peak;
    }
    for (const int32_t *v = t->arena_value; *v >= 0; v += 3)
        session->values[v[0]] = session->arena + session->offsets[v[1]] + (v[2] < 0 ? 0 : session->dims[v[2]]);
    return FUSIBLE_OK;
}

/* Sizes and arena for these inputs; nothing to do if they have the shapes of the last run. */
static inline int embedded_prepare(struct embedded_session *session, const struct fusible_tensor *inputs) {
    const struct embedded_tables *t = session->model->tables;
    size_t bytes = (size_t)t->symbols * sizeof(wide);
    int status = embedded_bind(t, inputs, session->asked);
    if (status != FUSIBLE_OK) return status;
    if (session->laid_out && memcmp(session->asked, session->symbols, bytes) == 0) return FUSIBLE_OK;
    session->laid_out = 0;
    memcpy(session->symbols, session->asked, bytes);
    status = t->measure(session->symbols, session->wide_bytes, session->wide_dims, session->wide_shapes);
    if (status == FUSIBLE_OK) status = embedded_lay_out(session);
    session->laid_out = status == FUSIBLE_OK;
    return status;
}

/* Runs */

static inline int embedded_take_inputs(struct embedded_session *session, const struct fusible_tensor *inputs) {
    const struct embedded_tables *t = session->model->tables;
    for (int n = 0; n < t->inputs; n++) {
        wide bytes = embedded_item(t->input[n].type);
        for (int d = 0; d < inputs[n].rank && bytes <= t->most_bytes; d++) bytes *= inputs[n].shape[d];
        if (bytes > t->most_bytes_of_a_tensor) return FUSIBLE_TOO_LARGE;
        if ((bytes > 0 && inputs[n].data == NULL) || (wide)inputs[n].bytes < bytes) return FUSIBLE_BAD_ARGUMENT;
        session->values[t->input_value[n]] = inputs[n].data;
    }
    return FUSIBLE_OK;
}

static inline void embedded_drop(struct fusible_tensor *outputs, int count, uint64_t allocated) {
    for (int n = 0; n < count; n++)
        if (allocated >> n & 1) {
            free(outputs[n].data);
            outputs[n].data = NULL;
        }
}

/* Memory for the outputs: the caller's, or new. allocated: a bit for each that is new. */
static inline int embedded_take_outputs(struct embedded_session *session, struct fusible_tensor *outputs,
                                        uint64_t *allocated) {
    const struct embedded_tables *t = session->model->tables;
    size_t room[64];
    for (int n = 0; n < t->outputs; n++) room[n] = outputs[n].bytes;
    int status = embedded_describe(t, session->wide_shapes, outputs);
    if (status != FUSIBLE_OK) return status;
    for (int n = 0; n < t->outputs; n++)
        if (outputs[n].data != NULL && room[n] < outputs[n].bytes) return FUSIBLE_TOO_SMALL;
    for (int n = 0; n < t->outputs; n++) {
        if (outputs[n].data == NULL) {
            outputs[n].data = malloc(outputs[n].bytes ? outputs[n].bytes : 1);
            if (outputs[n].data == NULL) return FUSIBLE_NO_MEMORY;
            *allocated |= (uint64_t)1 << n;
        }
        if (t->output_value[n] >= 0) session->values[t->output_value[n]] = outputs[n].data;
    }
    return FUSIBLE_OK;
}

static inline int embedded_steps(struct embedded_session *session, struct fusible_tensor *outputs) {
    const struct embedded_tables *t = session->model->tables;
    for (int n = 0; n < t->aliases; n++) session->values[t->alias[n].to] = session->values[t->alias[n].from];
    int error = 0;
    long done = runner_run(session->model->pool, t->step, t->steps, session->values, t->slot, session->dims, &error);
    if (error) {
        session->failed = t->step_name[done < t->steps ? done : t->steps - 1];
        return error == 2 ? FUSIBLE_NO_MEMORY : error == 3 ? FUSIBLE_BAD_SHAPE : FUSIBLE_BAD_INDEX;
    }
    for (int n = 0; n < t->copies; n++) {
        struct fusible_tensor *to = &outputs[t->copy[n].to];
        if (to->bytes) memcpy(to->data, session->values[t->copy[n].from], to->bytes);
    }
    return FUSIBLE_OK;
}

static inline int embedded_run(struct embedded_session *session, const struct fusible_tensor *inputs,
                               struct fusible_tensor *outputs) {
    if (session == NULL || inputs == NULL || outputs == NULL) return FUSIBLE_BAD_ARGUMENT;
    uint64_t allocated = 0;
    session->failed = NULL;
    int status = embedded_prepare(session, inputs);
    if (status == FUSIBLE_OK) status = embedded_take_inputs(session, inputs);
    if (status == FUSIBLE_OK) status = embedded_take_outputs(session, outputs, &allocated);
    if (status == FUSIBLE_OK) status = embedded_steps(session, outputs);
    if (status != FUSIBLE_OK) embedded_drop(outputs, session->model->tables->outputs, allocated);
    return status;
}

#endif
