/* Recurrent layers: LSTM, GRU and RNN with the default activations, fp32.
 *
 *   LSTM   i, o, f = sigmoid(x W + h R + b (+ peephole * c)), g = tanh(x W + h R + b);  c' = f c + i g;  h' = o tanh(c')
 *   GRU    z, r = sigmoid(x W + h R + b), n = tanh(x W + b + (r h) R)  or  tanh(x W + b + r (h R + b'));
 *          h' = (1 - z) n + z h
 *   RNN    h' = tanh(x W + h R + b)
 *
 * Units are cut into blocks of 16, and all gates of a block stand next to each other: a line of gates * 16 columns.
 * Weights are [direction][block][gate][K][16] and biases [direction][block][line] (recurrent.py packs them), so the
 * sums of a block's gates are accumulated together and the states follow from them at once, with no pass over memory
 * between.
 *
 * The products with x of all steps are made first, as one product of matrices; but of one step alone they are made
 * together with the product with h, since every weight is then read once anyway.
 *
 * A sequence is a row. Rows go through time together, four at a time where there are as many, each at its own place:
 * backwards from the end of its own length, if need be. Items are (direction, some rows); they are independent.
 */
#ifndef FUSIBLE_RECURRENT_H
#define FUSIBLE_RECURRENT_H

#include "pool.h"
#include "vector.h"
#include "vector_math.h"

#define RECURRENT_UNITS 16 /* of a block */
#define RECURRENT_ROWS 16  /* of an item, at most */
#define RECURRENT_TOGETHER 4
#define RECURRENT_SUMS (4 * RECURRENT_UNITS)
#define RECURRENT_PROJECTED 6 /* rows whose products with x are made at once */
#define RECURRENT_TILE 24 /* accumulators, at most */
/* Floats of each gate's weights fetched ahead where there is one row, which uses each of them once: 1 KB. */
#define RECURRENT_AHEAD 256
/* Multiplications below which a second thread costs more than it brings. */
#define RECURRENT_SMALL (128 * 1024)

/* What a layer is computed of. x[step * x_step + row * x_row + k]; y likewise with y_direction for the direction; the
 * states h, c and the finals y_h, y_c with state_direction and state_row. Null: no lengths, initial states (zero),
 * biases (zero) or peepholes. clip: the arguments of gates are cut to +-clip; infinity for none. */
struct recurrent {
    long steps, rows, width, hidden, directions;
    int backward; /* the first direction runs from the end; the second of two always does */
    const float *x;
    long x_step, x_row;
    const float *weights, *recurrent, *bias, *peepholes;
    const int32_t *lengths;
    const float *h, *c;
    float *y, *y_h, *y_c;
    long y_step, y_direction, y_row;
    long state_direction, state_row;
    float clip;
    int input_forget, linear_before_reset;
    /* Filled in by recurrent_run. */
    long rows_per_item;
    float *projected; /* [direction][step][row][block][line], or null */
    float *zeros;     /* the state before the first step, [hidden] */
    float *gated;     /* GRU: z and r h of an item, [item][2][RECURRENT_ROWS][units] */
};

/* A row at one step: its projected input (or the input itself), states before and after. c is updated in place. */
struct recurrent_row {
    const float *x, *h;
    float *y, *c;
};

INLINE long recurrent_blocks(const struct recurrent *r) {
    return (r->hidden + RECURRENT_UNITS - 1) / RECURRENT_UNITS;
}
INLINE long recurrent_bias_line(const int gates) { return gates == 1 ? RECURRENT_UNITS : RECURRENT_SUMS; }
INLINE vf recurrent_clipped(const struct recurrent *r, vf value) {
    return vf_min(vf_max(value, vf_all(-r->clip)), vf_all(r->clip));
}

/* Vectors of a line that a tile takes at once: enough sums to hide the latency of a multiply-add, and to reuse what is
 * loaded, without running out of registers. They divide the line. */
INLINE int recurrent_vectors(const int rows, const int line) {
    if (rows == 1) return line <= 8 ? line : line / 2;
    if (VECTOR_REGISTERS == 32 && line % 4 == 0) return 4;
    if (VECTOR_REGISTERS == 32 && line % 3 == 0) return 3;
    return line % 2 == 0 ? 2 : 1;
}

/* One step of k: w points at it in the first gate, vector j of the tile stands at w + at[j]. */
INLINE void recurrent_step_of_depth(const int rows, const int vectors, const float *const *x, long k, const float *w,
                                    const long *at, vf *sum) {
    if (rows == 1) { /* the one element stays in a register, each vector of weights is used from memory */
        vf element = vf_all(x[0][k]);
        UNROLL for (int j = 0; j < vectors; j++) {
            if (j * VL % RECURRENT_UNITS == 0) prefetch(w + RECURRENT_AHEAD + at[j]);
            sum[j] += element * vf_load(w + at[j]);
        }
        return;
    }
    vf column[RECURRENT_SUMS / VL];
    UNROLL for (int j = 0; j < vectors; j++) column[j] = vf_load(w + at[j]);
    UNROLL for (int i = 0; i < rows; i++) {
        vf element = vf_all(x[i][k]);
        UNROLL for (int j = 0; j < vectors; j++) sum[i * vectors + j] += element * column[j];
    }
}

/* sums[row][column .. column + vectors * VL) += x[row][0 .. depth) W. */
INLINE void recurrent_tile(const int rows, const int vectors, const float *const *x, const float *w, long depth,
                           float *const *sums, long column) {
    const int count = rows * vectors, phases = count <= 2 ? 4 : count <= 4 ? 2 : 1;
    vf part[RECURRENT_TILE];
    long at[RECURRENT_SUMS / VL];
    UNROLL for (int j = 0; j < vectors; j++) {
        long first = column + j * VL;
        at[j] = first / RECURRENT_UNITS * depth * RECURRENT_UNITS + first % RECURRENT_UNITS;
    }
    UNROLL for (int i = 0; i < count; i++) part[i] = vf_load(sums[i / vectors] + column + i % vectors * VL);
    UNROLL for (int i = count; i < phases * count; i++) part[i] = (vf){0};
    long k = 0;
    for (; k + phases <= depth; k += phases)
        UNROLL for (int phase = 0; phase < phases; phase++)
            recurrent_step_of_depth(rows, vectors, x, k + phase, w + (k + phase) * RECURRENT_UNITS, at,
                                    part + phase * count);
    for (; k < depth; k++) recurrent_step_of_depth(rows, vectors, x, k, w + k * RECURRENT_UNITS, at, part);
    UNROLL for (int i = count; i < phases * count; i++) part[i % count] += part[i];
    UNROLL for (int i = 0; i < count; i++) vf_store(sums[i / vectors] + column + i % vectors * VL, part[i]);
}

/* The same for the columns from `first` to before `last`, multiples of 16. */
INLINE void recurrent_product(const int rows, const int first, const int last, const float *const *x, const float *w,
                              long depth, float *const *sums) {
    const int vectors = recurrent_vectors(rows, (last - first) / VL);
    for (long column = first; column < last; column += vectors * VL)
        recurrent_tile(rows, vectors, x, w, depth, sums, column);
}

/* What the sums of a block begin with: biases, or x W + b. */
INLINE void recurrent_begin(const struct recurrent *r, const int gates, const int rows, const struct recurrent_row *row,
                            long place, float *const *sums) {
    const long line = gates * RECURRENT_UNITS, block = place % recurrent_blocks(r);
    const float *bias = r->bias ? r->bias + place * recurrent_bias_line(gates) : NULL;
    const float *x[RECURRENT_TOGETHER];
    UNROLL for (int i = 0; i < rows; i++) {
        const float *from = r->projected ? row[i].x + block * line : bias;
        x[i] = row[i].x;
        for (long v = 0; v < line; v += VL) vf_store(sums[i] + v, from ? vf_load(from + v) : (vf){0});
    }
    if (!r->projected)
        recurrent_product(rows, 0, (int)line, x, r->weights + place * r->width * line, r->width, sums);
}

/* Lanes of vector `v` of a block that are units. */
INLINE long recurrent_lanes(const struct recurrent *r, long block, int v) {
    long left = r->hidden - block * RECURRENT_UNITS - v * VL;
    return left < 0 ? 0 : left < VL ? left : VL;
}

INLINE void lstm_cell(const struct recurrent *r, const float *sums, const float *peephole, float *c, float *y,
                      long lanes) {
    const long units = RECURRENT_UNITS;
    vf i = vf_load(sums), o = vf_load(sums + units), f = vf_load(sums + 2 * units), g = vf_load(sums + 3 * units);
    vf cell = vf_load_first(c, lanes);
    if (peephole) {
        i += vf_load(peephole) * cell;
        f += vf_load(peephole + 2 * units) * cell;
    }
    i = vf_sigmoid(recurrent_clipped(r, i));
    f = r->input_forget ? 1.0f - i : vf_sigmoid(recurrent_clipped(r, f));
    cell = f * cell + i * vf_tanh(recurrent_clipped(r, g));
    if (peephole) o += vf_load(peephole + units) * cell;
    o = vf_sigmoid(recurrent_clipped(r, o));
    vf_store_first(c, cell, lanes);
    vf_store_first(y, o * vf_tanh(cell), lanes);
}

/* place: the number of a direction's block. */
INLINE void lstm_block(const struct recurrent *r, const int rows, const struct recurrent_row *row, long place) {
    const long line = 4 * RECURRENT_UNITS, block = place % recurrent_blocks(r), first = block * RECURRENT_UNITS;
    _Alignas(64) float store[RECURRENT_TOGETHER][RECURRENT_SUMS];
    float *sums[RECURRENT_TOGETHER] = {store[0], store[1], store[2], store[3]};
    const float *h[RECURRENT_TOGETHER];
    UNROLL for (int i = 0; i < rows; i++) h[i] = row[i].h;
    recurrent_begin(r, 4, rows, row, place, sums);
    recurrent_product(rows, 0, (int)line, h, r->recurrent + place * r->hidden * line, r->hidden, sums);
    const float *peephole = r->peepholes ? r->peepholes + place * 3 * RECURRENT_UNITS : NULL;
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < RECURRENT_UNITS / VL && recurrent_lanes(r, block, v); v++)
            lstm_cell(r, sums[i] + v * VL, peephole ? peephole + v * VL : NULL, row[i].c + first + v * VL,
                      row[i].y + first + v * VL, recurrent_lanes(r, block, v));
}

INLINE void rnn_block(const struct recurrent *r, const int rows, const struct recurrent_row *row, long place) {
    const long line = RECURRENT_UNITS, block = place % recurrent_blocks(r), first = block * RECURRENT_UNITS;
    _Alignas(64) float store[RECURRENT_TOGETHER][RECURRENT_UNITS];
    float *sums[RECURRENT_TOGETHER] = {store[0], store[1], store[2], store[3]};
    const float *h[RECURRENT_TOGETHER];
    UNROLL for (int i = 0; i < rows; i++) h[i] = row[i].h;
    recurrent_begin(r, 1, rows, row, place, sums);
    recurrent_product(rows, 0, (int)line, h, r->recurrent + place * r->hidden * line, r->hidden, sums);
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < RECURRENT_UNITS / VL && recurrent_lanes(r, block, v); v++)
            vf_store_first(row[i].y + first + v * VL, vf_tanh(recurrent_clipped(r, vf_load(sums[i] + v * VL))),
                           recurrent_lanes(r, block, v));
}

/* h' = (1 - z) n + z h for one vector of units. */
INLINE void gru_cell(const float *h, float *y, vf z, vf n, long lanes) {
    vf_store_first(y, z * (vf_load_first(h, lanes) - n) + n, lanes);
}

/* All of a step, if r is applied to h R. */
INLINE void gru_block(const struct recurrent *r, const int rows, const struct recurrent_row *row, long place) {
    const long line = 3 * RECURRENT_UNITS, block = place % recurrent_blocks(r), units = RECURRENT_UNITS;
    _Alignas(64) float store[RECURRENT_TOGETHER][RECURRENT_SUMS];
    float *sums[RECURRENT_TOGETHER] = {store[0], store[1], store[2], store[3]};
    const float *h[RECURRENT_TOGETHER], *bias = r->bias ? r->bias + place * RECURRENT_SUMS + line : NULL;
    recurrent_begin(r, 3, rows, row, place, sums);
    UNROLL for (int i = 0; i < rows; i++) {
        h[i] = row[i].h;
        for (long v = 0; v < units; v += VL) { /* the last gate's part of x steps aside */
            vf_store(sums[i] + line + v, vf_load(sums[i] + 2 * units + v));
            vf_store(sums[i] + 2 * units + v, bias ? vf_load(bias + v) : (vf){0});
        }
    }
    recurrent_product(rows, 0, (int)line, h, r->recurrent + place * r->hidden * line, r->hidden, sums);
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < RECURRENT_UNITS / VL && recurrent_lanes(r, block, v); v++) {
            const float *at = sums[i] + v * VL;
            vf z = vf_sigmoid(recurrent_clipped(r, vf_load(at)));
            vf reset = vf_sigmoid(recurrent_clipped(r, vf_load(at + units)));
            vf n = vf_tanh(recurrent_clipped(r, vf_load(at + line) + reset * vf_load(at + 2 * units)));
            long first = block * units + v * VL;
            gru_cell(row[i].h + first, row[i].y + first, z, n, recurrent_lanes(r, block, v));
        }
}

/* Else r must be known for every unit before the last gate is: first z and r h of all blocks into `gated` ... */
INLINE void gru_gates(const struct recurrent *r, const int rows, const struct recurrent_row *row, long place,
                      float *const *z, float *const *reset) {
    const long line = 3 * RECURRENT_UNITS, block = place % recurrent_blocks(r), units = RECURRENT_UNITS;
    _Alignas(64) float store[RECURRENT_TOGETHER][RECURRENT_SUMS];
    float *sums[RECURRENT_TOGETHER] = {store[0], store[1], store[2], store[3]};
    const float *h[RECURRENT_TOGETHER];
    UNROLL for (int i = 0; i < rows; i++) h[i] = row[i].h;
    recurrent_begin(r, 3, rows, row, place, sums);
    recurrent_product(rows, 0, 2 * RECURRENT_UNITS, h, r->recurrent + place * r->hidden * line, r->hidden, sums);
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < RECURRENT_UNITS / VL && recurrent_lanes(r, block, v); v++) {
            long first = block * units + v * VL;
            vf gate = vf_sigmoid(recurrent_clipped(r, vf_load(sums[i] + units + v * VL)));
            vf_store(z[i] + first, vf_sigmoid(recurrent_clipped(r, vf_load(sums[i] + v * VL))));
            vf_store(reset[i] + first, gate * vf_load_first(row[i].h + first, recurrent_lanes(r, block, v)));
        }
}

/* ... then the rest. */
INLINE void gru_candidate(const struct recurrent *r, const int rows, const struct recurrent_row *row, long place,
                          float *const *z, float *const *reset) {
    const long line = 3 * RECURRENT_UNITS, block = place % recurrent_blocks(r), units = RECURRENT_UNITS;
    _Alignas(64) float store[RECURRENT_TOGETHER][RECURRENT_SUMS];
    float *sums[RECURRENT_TOGETHER] = {store[0], store[1], store[2], store[3]};
    const float *gated[RECURRENT_TOGETHER];
    UNROLL for (int i = 0; i < rows; i++) gated[i] = reset[i];
    recurrent_begin(r, 3, rows, row, place, sums);
    recurrent_product(rows, 2 * RECURRENT_UNITS, (int)line, gated, r->recurrent + place * r->hidden * line,
                      r->hidden, sums);
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < RECURRENT_UNITS / VL && recurrent_lanes(r, block, v); v++) {
            long first = block * units + v * VL;
            vf n = vf_tanh(recurrent_clipped(r, vf_load(sums[i] + 2 * units + v * VL)));
            gru_cell(row[i].h + first, row[i].y + first, vf_load(z[i] + first), n, recurrent_lanes(r, block, v));
        }
}

/* One step of `rows` rows (1 or 4) through one block. pass: of a GRU that applies r to h, which half. */
INLINE void recurrent_block(const struct recurrent *r, const int gates, const int rows, const int pass,
                            const struct recurrent_row *row, long place, float *gated) {
    if (gates == 4) lstm_block(r, rows, row, place);
    else if (gates == 1) rnn_block(r, rows, row, place);
    else if (r->linear_before_reset) gru_block(r, rows, row, place);
    else {
        long units = recurrent_blocks(r) * RECURRENT_UNITS;
        float *z[RECURRENT_TOGETHER], *reset[RECURRENT_TOGETHER];
        UNROLL for (int i = 0; i < rows; i++) {
            z[i] = gated + i * units;
            reset[i] = z[i] + RECURRENT_ROWS * units;
        }
        if (pass == 0) gru_gates(r, rows, row, place, z, reset);
        else gru_candidate(r, rows, row, place, z, reset);
    }
}

/* All blocks of a step. Every other step goes through them backwards: what it needs first is what L2 still holds. */
INLINE void recurrent_pass(const struct recurrent *r, const int gates, const int pass, const struct recurrent_row *row,
                           long count, long direction, long step, float *gated) {
    long blocks = recurrent_blocks(r), units = blocks * RECURRENT_UNITS;
    for (long block = 0; block < blocks; block++) {
        long n = 0, place = direction * blocks + (step % 2 ? blocks - 1 - block : block);
        for (; n + RECURRENT_TOGETHER <= count; n += RECURRENT_TOGETHER)
            recurrent_block(r, gates, RECURRENT_TOGETHER, pass, row + n, place, gated + n * units);
        for (; n < count; n++) recurrent_block(r, gates, 1, pass, row + n, place, gated + n * units);
    }
}

INLINE long recurrent_items(const struct recurrent *r) {
    return r->directions * ((r->rows + r->rows_per_item - 1) / r->rows_per_item);
}
INLINE long recurrent_length(const struct recurrent *r, long row) { return r->lengths ? r->lengths[row] : r->steps; }

/* The rows of an item whose sequences are not over at a step, at their places; h: their states. */
INLINE long recurrent_active(const struct recurrent *r, const int gates, long step, long direction, long first,
                             long last, const float *const *h, struct recurrent_row *active) {
    long count = 0, line = recurrent_blocks(r) * gates * RECURRENT_UNITS;
    for (long row = first; row < last; row++) {
        long length = recurrent_length(r, row);
        if (step >= length) continue;
        long t = r->backward || direction ? length - 1 - step : step;
        const float *x = r->projected ? r->projected + ((direction * r->steps + t) * r->rows + row) * line
                                      : r->x + t * r->x_step + row * r->x_row;
        float *c = r->y_c ? r->y_c + direction * r->state_direction + row * r->state_row : NULL;
        active[count++] = (struct recurrent_row){
            x, h[row - first], r->y + t * r->y_step + direction * r->y_direction + row * r->y_row, c};
    }
    return count;
}

/* Zero beyond the end of a sequence, and the final states; the state of an empty sequence is zero. */
INLINE void recurrent_end(const struct recurrent *r, long direction, long row, const float *h) {
    long state = direction * r->state_direction + row * r->state_row, length = recurrent_length(r, row);
    size_t bytes = (size_t)r->hidden * sizeof(float);
    for (long t = length; t < r->steps; t++)
        memset(r->y + t * r->y_step + direction * r->y_direction + row * r->y_row, 0, bytes);
    if (r->lengths && length == 0) h = r->zeros;
    memcpy(r->y_h + state, h, bytes);
    if (r->y_c && r->lengths && length == 0) memset(r->y_c + state, 0, bytes);
}

INLINE void recurrent_item(const struct recurrent *r, const int gates, long item) {
    long groups = recurrent_items(r) / r->directions, direction = item / groups;
    long first = item % groups * r->rows_per_item, last = first + r->rows_per_item;
    if (last > r->rows) last = r->rows;
    const float *h[RECURRENT_ROWS];
    struct recurrent_row active[RECURRENT_ROWS];
    float *gated = r->gated ? r->gated + item * 2 * RECURRENT_ROWS * recurrent_blocks(r) * RECURRENT_UNITS : NULL;
    for (long row = first; row < last; row++) {
        long state = direction * r->state_direction + row * r->state_row;
        h[row - first] = r->h ? r->h + state : r->zeros;
        if (r->y_c) memcpy(r->y_c + state, r->c ? r->c + state : r->zeros, (size_t)r->hidden * sizeof(float));
    }
    for (long step = 0; step < r->steps; step++) {
        long count = recurrent_active(r, gates, step, direction, first, last, h, active);
        recurrent_pass(r, gates, 0, active, count, direction, step, gated);
        if (gates == 3 && !r->linear_before_reset) recurrent_pass(r, gates, 1, active, count, direction, step, gated);
        for (long row = first, n = 0; row < last; row++)
            if (step < recurrent_length(r, row)) h[row - first] = active[n++].y;
    }
    for (long row = first; row < last; row++) recurrent_end(r, direction, row, h[row - first]);
}

/* The products with x for one block of a direction: all steps of all rows. */
INLINE void recurrent_project(const struct recurrent *r, const int gates, long place) {
    const long line = gates * RECURRENT_UNITS, blocks = recurrent_blocks(r), total = r->steps * r->rows;
    const float *w = r->weights + place * r->width * line;
    const float *bias = r->bias ? r->bias + place * recurrent_bias_line(gates) : NULL;
    float *to = r->projected + (place / blocks * total * blocks + place % blocks) * line;
    for (long n = 0, together; n < total; n += together) {
        together = total - n >= RECURRENT_PROJECTED ? RECURRENT_PROJECTED : total - n >= 4 ? 4 : 1;
        const float *x[RECURRENT_PROJECTED];
        float *sums[RECURRENT_PROJECTED];
        for (long i = 0; i < together; i++) {
            x[i] = r->x + (n + i) / r->rows * r->x_step + (n + i) % r->rows * r->x_row;
            sums[i] = to + (n + i) * blocks * line;
            for (long v = 0; v < line; v += VL) vf_store(sums[i] + v, bias ? vf_load(bias + v) : (vf){0});
        }
        if (together == RECURRENT_PROJECTED)
            recurrent_product(RECURRENT_PROJECTED, 0, (int)line, x, w, r->width, sums);
        else if (together == 4) recurrent_product(4, 0, (int)line, x, w, r->width, sums);
        else recurrent_product(1, 0, (int)line, x, w, r->width, sums);
    }
}

#define RECURRENT_TASKS(NAME, GATES)                                                                        \
    static __attribute__((unused)) void NAME##_item_task(void *r, long item) { recurrent_item(r, GATES, item); }  \
    static __attribute__((unused)) void NAME##_project_task(void *r, long place) { recurrent_project(r, GATES, place); }
RECURRENT_TASKS(lstm, 4)
RECURRENT_TASKS(gru, 3)
RECURRENT_TASKS(rnn, 1)
#undef RECURRENT_TASKS

/* Whether every length lies between 0 and the number of steps. */
INLINE int recurrent_lengths_fit(const struct recurrent *r) {
    for (long row = 0; r->lengths && row < r->rows; row++)
        if (r->lengths[row] < 0 || r->lengths[row] > r->steps) return 0;
    return 1;
}

/* Cut the work for a number of threads. */
INLINE void recurrent_plan(struct recurrent *r, long threads) {
    long rows = (r->rows * r->directions + threads - 1) / threads;
    r->rows_per_item = rows < 1 ? 1 : rows > RECURRENT_ROWS ? RECURRENT_ROWS : rows;
}

INLINE long recurrent_projected_floats(const struct recurrent *r, const int gates) {
    return r->steps == 1 ? 0 : r->directions * r->steps * r->rows * recurrent_blocks(r) * gates * RECURRENT_UNITS;
}

/* Floats of scratch that a planned layer needs. */
INLINE long recurrent_scratch_floats(const struct recurrent *r, const int gates) {
    long units = recurrent_blocks(r) * RECURRENT_UNITS;
    long gated = gates == 3 && !r->linear_before_reset ? recurrent_items(r) * 2 * RECURRENT_ROWS * units : 0;
    return recurrent_projected_floats(r, gates) + units + gated;
}

/* Run a planned layer. gates: 4 (LSTM), 3 (GRU) or 1 (RNN), a literal. scratch: as many floats as it needs. */
INLINE void recurrent_run(struct recurrent *r, const int gates, struct pool *pool, float *scratch) {
    long blocks = recurrent_blocks(r), units = blocks * RECURRENT_UNITS, rows = r->steps * r->rows;
    long projected = recurrent_projected_floats(r, gates), work = rows * units * gates;
    r->projected = projected ? scratch : NULL;
    r->zeros = scratch + projected;
    r->gated = gates == 3 && !r->linear_before_reset ? r->zeros + units : NULL;
    memset(r->zeros, 0, (size_t)units * sizeof(float));
    pool_task *items = gates == 4 ? lstm_item_task : gates == 3 ? gru_item_task : rnn_item_task;
    pool_task *project = gates == 4 ? lstm_project_task : gates == 3 ? gru_project_task : rnn_project_task;
    if (projected)
        pool_run(work * r->width < RECURRENT_SMALL ? NULL : pool, project, r, r->directions * blocks);
    pool_run(work * r->hidden < RECURRENT_SMALL ? NULL : pool, items, r, recurrent_items(r));
}

#endif
