/* Types of the C interface of exported models; a model's own functions stand in its header (`model.h`) beside this one.
 *
 * Who allocates what: inputs, and the arrays of `struct fusible_tensor`, are the caller's. For each output the caller
 * either gives memory (`data`, and in `bytes` how much there is) or leaves `data` a null pointer: then the run allocates
 * it with malloc, and the caller frees it with free(). A run that fails leaves no memory behind.
 *
 * Sizes: a dimension of a spec that only the inputs of a run tell is -1. `model_shapes` computes the shapes and bytes of
 * all outputs from the shapes of the inputs, without running.
 *
 * Threads: a model may be shared by threads, a session belongs to one thread at a time. After fork() a child may go on
 * using both.
 */
#ifndef FUSIBLE_H
#define FUSIBLE_H

#include <stddef.h>
#include <stdint.h>

#define FUSIBLE_VERSION 1 /* of these types and of the functions that use them */
#define FUSIBLE_MAX_RANK 8

enum fusible_status {
    FUSIBLE_OK = 0,
    FUSIBLE_BAD_ARGUMENT,  /* a null pointer, a wrong rank, or memory that is too small for an input's shape */
    FUSIBLE_BAD_SHAPE,     /* a dimension contradicts the signature, or two inputs contradict each other */
    FUSIBLE_OUT_OF_BOUNDS, /* a dimension lies outside the bounds that the model was compiled for */
    FUSIBLE_TOO_SMALL,     /* the memory given for an output; `bytes` says how much is needed */
    FUSIBLE_TOO_LARGE,     /* these shapes need more memory than the model's limits allow */
    FUSIBLE_NO_MEMORY,
    FUSIBLE_BAD_INDEX,     /* an index that the inputs gave is out of range */
    FUSIBLE_BAD_WEIGHTS,   /* the file is missing, cut short, or another model's */
    FUSIBLE_SYSTEM         /* the system refuses threads */
};

enum fusible_type {
    FUSIBLE_F64 = 1, FUSIBLE_F32, FUSIBLE_F16, FUSIBLE_BF16, FUSIBLE_I64, FUSIBLE_I32, FUSIBLE_I16, FUSIBLE_I8,
    FUSIBLE_U64, FUSIBLE_U32, FUSIBLE_U16, FUSIBLE_U8, FUSIBLE_BOOL
};

/* An input or output: row-major, without gaps. */
struct fusible_tensor {
    void *data;
    size_t bytes; /* what `data` has room for */
    int rank;
    int64_t shape[FUSIBLE_MAX_RANK];
};

/* What the model says about an input or output. shape: -1 where only a run tells; text: with the names of dimensions. */
struct fusible_spec {
    const char *name;
    enum fusible_type type;
    int rank;
    int64_t shape[FUSIBLE_MAX_RANK];
    const char *text;
};

#endif
