/* Runs an exported model from C, with no Python: every input gets the numbers -0.5, -0.4, ... 0.4, again and again (an
 * input of integers zeros), a dimension that only a run tells is 1 unless the second argument says otherwise.
 *
 *     fusible export-c model.onnx -o exported
 *     cc -Iexported examples/embed.c -Lexported -lmodel -Wl,-rpath,"$PWD/exported" -o embed
 *     ./embed exported/model.weights
 */
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

static void fail(const char *what, int status) {
    fprintf(stderr, "%s: %s\n", what, model_status_text(status));
    exit(1);
}

static void *input_data(const struct fusible_spec *spec, int64_t unknown, struct fusible_tensor *tensor) {
    int64_t count = 1;
    tensor->rank = spec->rank;
    for (int d = 0; d < spec->rank; d++) {
        tensor->shape[d] = spec->shape[d] < 0 ? unknown : spec->shape[d];
        count *= tensor->shape[d];
    }
    tensor->bytes = (size_t)count * 8; /* the largest element has 8 bytes */
    tensor->data = calloc((size_t)count + 1, 8);
    if (tensor->data && spec->type == FUSIBLE_F32)
        for (int64_t n = 0; n < count; n++) ((float *)tensor->data)[n] = (float)(n % 10) / 10 - 0.5f;
    return tensor->data;
}

static void show(const struct fusible_spec *spec, const struct fusible_tensor *tensor) {
    printf("%s", spec->name);
    for (int d = 0; d < tensor->rank; d++) printf(" %lld", (long long)tensor->shape[d]);
    printf(":");
    if (spec->type == FUSIBLE_F32)
        for (size_t n = 0; n < tensor->bytes / 4 && n < 8; n++) printf(" %.9g", ((const float *)tensor->data)[n]);
    printf("\n");
}

int main(int count, char **words) {
    if (count < 2 || model_version() != FUSIBLE_VERSION) {
        fprintf(stderr, "usage: embed WEIGHTS [UNKNOWN_DIMENSION]\n");
        return 2;
    }
    struct model *model;
    struct model_session *session;
    struct fusible_tensor inputs[MODEL_INPUTS], outputs[MODEL_OUTPUTS] = {0}; /* null pointers: the run allocates */

    int status = model_open(words[1], 0, &model);
    if (status != FUSIBLE_OK) fail(words[1], status);
    status = model_session_open(model, &session);
    if (status != FUSIBLE_OK) fail("a session", status);

    for (int n = 0; n < MODEL_INPUTS; n++)
        if (!input_data(&model_inputs()[n], count > 2 ? atoll(words[2]) : 1, &inputs[n]))
            fail(model_inputs()[n].name, FUSIBLE_NO_MEMORY);

    status = model_run(session, inputs, outputs);
    if (status != FUSIBLE_OK) fail(model_failed_step(session) ? model_failed_step(session) : "a run", status);

    for (int n = 0; n < MODEL_OUTPUTS; n++) {
        show(&model_outputs()[n], &outputs[n]);
        free(outputs[n].data);
    }
    for (int n = 0; n < MODEL_INPUTS; n++) free(inputs[n].data);
    model_session_close(session);
    model_close(model);
    return 0;
}
