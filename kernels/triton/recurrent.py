"""Recurrent layers, as ONNX defines LSTM, GRU and RNN: a program takes some sequences of one direction through time.

    LSTM  i = f(x Wi + h Ri + Pi c + bi), o, f' likewise (o with the new c), g' = g(x Wc + h Rc + bc);
          c = f' c + i g',  h = o k(c)                (Hochreiter and Schmidhuber 1997; peepholes: Gers et al. 2000)
    GRU   z, r = f(x W + h R + b),  n = g(x Wh + (r h) Rh + b)  or  g(x Wh + r (h Rh + b') + b);
          h = (1 - z) n + z h                          (Cho et al. 2014)
    RNN   h = f(x W + h R + b)

Weights are as ONNX has them: W [gates * hidden, width] and R [gates * hidden, hidden] of a direction, gates in order
i, o, f, c or z, r, h; biases [2 * gates * hidden], those of the input first. The hidden state of a step is what
was written to y one step before, the cell state is y_c all along, so states are rounded to the type of the results at
each step. A barrier stands between what one step writes and the next one reads. Sums are accumulated in float32.

A sequence that runs backwards begins at the end of its own length. Behind its length y is 0; the last states of a
sequence of length 0 are 0. Lengths are cut to 0 .. steps.

F, G, K are functions of a tile (gates, candidate, output); they also cut their argument where a model says so.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), rounded from float32."""
    return tl.div_rn(tl.full(x.shape, 1.0, tl.float32), 1.0 + tl.exp(0.0 - x))


@triton.jit
def tanh(x):
    """tanh(x) in float32."""
    return libdevice.tanh(x)


@triton.jit
def multiplied(sums, x, in_rows, w, in_units, depth, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """sums + x w^T: x [ROWS, 1] and w [1, UNITS] are the addresses of the first of `depth` adjacent elements."""
    for start in range(0, depth, DEPTH):
        k = start + tl.arange(0, DEPTH)
        a = tl.load(x + k[None, :], mask=in_rows & (k < depth)[None, :], other=0.0)
        b = tl.load(w + k[:, None], mask=(k < depth)[:, None] & in_units, other=0.0)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit
def bias_of(bias, gate, unit, in_units, hidden):
    """The bias of one half of `bias` for a gate [1, UNITS], 0 where there is none."""
    if bias is None:
        return tl.zeros(unit.shape, tl.float32)
    else:
        return tl.load(bias + gate * hidden + unit, mask=in_units, other=0.0).to(tl.float32)


@triton.jit
def gate_of(gate, gates, x, h, active, had, w, r, bias, unit, in_units, width, hidden, ROWS: tl.constexpr,
            UNITS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """x W + h R + b of one gate for a block of units, [ROWS, UNITS]. had: the rows that have an h to speak of."""
    row = gate * hidden + unit
    sums = tl.zeros([ROWS, UNITS], tl.float32)
    sums = multiplied(sums, x, active, w + row * width, in_units, width, DEPTH, PRECISION)
    sums = multiplied(sums, h, had, r + row * hidden, in_units, hidden, DEPTH, PRECISION)
    return sums + bias_of(bias, gate, unit, in_units, hidden) + bias_of(bias, gates + gate, unit, in_units, hidden)


@triton.jit
def four_gates(x, h, active, had, w, r, bias, start, width, hidden, ROWS: tl.constexpr, UNITS: tl.constexpr,
               DEPTH: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """x W + h R + b of four gates for the units from `start` on: four tiles [ROWS, UNITS]."""
    column = tl.arange(0, 4 * UNITS)[None, :]
    gate, unit = column // UNITS, start + column % UNITS
    in_units = unit < hidden
    row = gate * hidden + unit
    sums = tl.zeros([ROWS, 4 * UNITS], tl.float32)
    sums = multiplied(sums, x, active, w + row * width, in_units, width, DEPTH, PRECISION)
    sums = multiplied(sums, h, had, r + row * hidden, in_units, hidden, DEPTH, PRECISION)
    sums += bias_of(bias, gate, unit, in_units, hidden) + bias_of(bias, 4 + gate, unit, in_units, hidden)
    pairs = tl.permute(tl.reshape(sums, [ROWS, 2, 2, UNITS]), (0, 3, 1, 2))  # gate 2 a + b at [row, unit, a, b]
    even, odd = tl.split(pairs)
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def peephole_of(peepholes, number, unit, in_units, hidden):
    """The weights of a peephole [1, UNITS]."""
    return tl.load(peepholes + number * hidden + unit, mask=in_units, other=0.0).to(tl.float32)


@triton.jit
def place_of(t, length, backward):
    """Where in its sequence step t of each row is."""
    return tl.where(backward, length - 1 - t, t)


@triton.jit
def cleared(y, y_step, y_row, row, in_rows, length, steps, hidden, UNITS: tl.constexpr):
    """0 behind the end of each sequence."""
    for t in range(tl.min(tl.where(in_rows, length, steps)), steps):
        for start in range(0, hidden, UNITS):
            unit = start + tl.arange(0, UNITS)[None, :]
            at = y + t * y_step + row * y_row + unit
            tl.store(at, tl.zeros(at.shape, y.dtype.element_ty), mask=in_rows & (t >= length) & (unit < hidden))


@triton.jit
def finished(y, y_step, y_row, y_h, h, lengths, state_row, row, in_rows, length, backward, hidden,
             UNITS: tl.constexpr):  # fmt: skip
    """The last hidden states, from y; the initial ones, if there are no steps at all."""
    last = y + place_of(length - 1, length, backward) * y_step + row * y_row
    for start in range(0, hidden, UNITS):
        unit = start + tl.arange(0, UNITS)[None, :]
        inside = in_rows & (unit < hidden)
        found = tl.load(last + unit, mask=inside & (length > 0), other=0.0)
        if lengths is None and h is not None:
            found = tl.load(h + row * state_row + unit, mask=inside & (length == 0), other=found)
        tl.store(y_h + row * state_row + unit, found, mask=inside)


@triton.jit
def length_of(lengths, row, in_rows, steps):
    """The length of each sequence [ROWS, 1]."""
    if lengths is None:
        return row * 0 + steps
    else:
        return tl.minimum(tl.maximum(tl.load(lengths + row, mask=in_rows, other=0).to(row.dtype), 0), steps)


@triton.jit
def hidden_before(t, y, y_step, y_row, h, state_row, row, active, length, backward):
    """Addresses of the hidden states before step t [ROWS, 1], and the rows that have one."""
    before = y + place_of(t - 1, length, backward) * y_step + row * y_row
    if h is None:
        return before, active & (t > 0)
    else:
        return tl.where(t > 0, before, h + row * state_row), active


@triton.jit
def cell_after(cell, enter, leave, keep, new, peepholes, unit, in_units, hidden, F: tl.constexpr, G: tl.constexpr,
               K: tl.constexpr, COUPLED: tl.constexpr):  # fmt: skip
    """The cell state after a step, and the hidden state. enter, leave, keep, new: sums of gates i, o, f and c."""
    if peepholes is not None:
        enter += peephole_of(peepholes, 0, unit, in_units, hidden) * cell
    enter = F(enter)
    if COUPLED:
        keep = 1.0 - enter
    else:
        if peepholes is not None:
            keep += peephole_of(peepholes, 2, unit, in_units, hidden) * cell
        keep = F(keep)
    cell = keep * cell + enter * G(new)
    if peepholes is not None:
        leave += peephole_of(peepholes, 1, unit, in_units, hidden) * cell
    return cell, F(leave) * K(cell)


@triton.jit
def lstm(x, x_step, x_row, w, r, bias, lengths, h, c, peepholes, y, y_step, y_row, y_h, y_c, state_row, first, backward,
         steps, rows, width, hidden, F: tl.constexpr, G: tl.constexpr, K: tl.constexpr, COUPLED: tl.constexpr,
         ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The sequences first .. first + ROWS - 1 of one direction. All addresses are those of this direction.

    x [steps, rows, width], y [steps, rows, hidden] by steps x_step, x_row, y_step, y_row in elements; initial states
    h, c and last states y_h, y_c [rows, hidden] by state_row; lengths int32 [rows]; peepholes [3 * hidden]: i, o, f.
    bias, lengths, h, c, peepholes may be None. COUPLED: f' = 1 - i. ROWS, UNITS, DEPTH: at least 16.
    """
    row = first + tl.arange(0, ROWS)[:, None]
    in_rows = row < rows
    length = length_of(lengths, row, in_rows, steps)
    if lengths is not None:
        cleared(y, y_step, y_row, row, in_rows, length, steps, hidden, UNITS)
    for start in range(0, hidden, UNITS):
        unit = start + tl.arange(0, UNITS)[None, :]
        inside = in_rows & (unit < hidden)
        if c is None:
            cell = tl.zeros([ROWS, UNITS], y_c.dtype.element_ty)
        else:
            cell = tl.load(c + row * state_row + unit, mask=inside & ((length > 0) | (lengths is None)), other=0.0)
        tl.store(y_c + row * state_row + unit, cell, mask=inside)
    tl.debug_barrier()
    for t in range(tl.max(tl.where(in_rows, length, 0))):
        active = in_rows & (t < length)
        place = place_of(t, length, backward)
        here = x + place * x_step + row * x_row
        before, had = hidden_before(t, y, y_step, y_row, h, state_row, row, active, length, backward)
        for start in range(0, hidden, UNITS):
            unit = start + tl.arange(0, UNITS)[None, :]
            in_units = unit < hidden
            inside = active & in_units
            cell = tl.load(y_c + row * state_row + unit, mask=inside, other=0.0).to(tl.float32)
            enter, leave, keep, new = four_gates(here, before, active, had, w, r, bias, start, width, hidden, ROWS,
                                                 UNITS, DEPTH, PRECISION)  # fmt: skip
            cell, out = cell_after(cell, enter, leave, keep, new, peepholes, unit, in_units, hidden, F, G, K, COUPLED)
            tl.store(y_c + row * state_row + unit, cell.to(y_c.dtype.element_ty), mask=inside)
            tl.store(y + place * y_step + row * y_row + unit, out.to(y.dtype.element_ty), mask=inside)
        tl.debug_barrier()
    finished(y, y_step, y_row, y_h, h, lengths, state_row, row, in_rows, length, backward, hidden, UNITS)


@triton.jit
def gru(x, x_step, x_row, w, r, bias, lengths, h, y, y_step, y_row, y_h, state_row, first, backward, steps, rows, width,
        hidden, F: tl.constexpr, G: tl.constexpr, LINEAR_FIRST: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
        DEPTH: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """As `lstm`, with no cell state. LINEAR_FIRST: h is multiplied by its weights before r resets it.

    Otherwise r h of all units must be known before the candidate's product: it waits in y_h.
    """
    row = first + tl.arange(0, ROWS)[:, None]
    in_rows = row < rows
    length = length_of(lengths, row, in_rows, steps)
    if lengths is not None:
        cleared(y, y_step, y_row, row, in_rows, length, steps, hidden, UNITS)
    recurrent_bias = bias
    if bias is not None:
        recurrent_bias = bias + 3 * hidden
    for t in range(tl.max(tl.where(in_rows, length, 0))):
        active = in_rows & (t < length)
        place = place_of(t, length, backward)
        here = x + place * x_step + row * x_row
        before, had = hidden_before(t, y, y_step, y_row, h, state_row, row, active, length, backward)
        if not LINEAR_FIRST:
            for start in range(0, hidden, UNITS):
                unit = start + tl.arange(0, UNITS)[None, :]
                in_units = unit < hidden
                reset = gate_of(1, 3, here, before, active, had, w, r, bias, unit, in_units, width, hidden, ROWS,
                                UNITS, DEPTH, PRECISION)  # fmt: skip
                state = tl.load(before + unit, mask=had & in_units, other=0.0).to(tl.float32)
                kept = (F(reset) * state).to(y_h.dtype.element_ty)
                tl.store(y_h + row * state_row + unit, kept, mask=active & in_units)
            tl.debug_barrier()
        for start in range(0, hidden, UNITS):
            unit = start + tl.arange(0, UNITS)[None, :]
            in_units = unit < hidden
            update = F(gate_of(0, 3, here, before, active, had, w, r, bias, unit, in_units, width, hidden, ROWS, UNITS,
                               DEPTH, PRECISION))  # fmt: skip
            line = 2 * hidden + unit
            new = tl.zeros([ROWS, UNITS], tl.float32)
            new = multiplied(new, here, active, w + line * width, in_units, width, DEPTH, PRECISION)
            new += bias_of(bias, 2, unit, in_units, hidden)
            inner = tl.zeros([ROWS, UNITS], tl.float32)
            if LINEAR_FIRST:
                inner = multiplied(inner, before, had, r + line * hidden, in_units, hidden, DEPTH, PRECISION)
                inner += bias_of(recurrent_bias, 2, unit, in_units, hidden)
                reset = gate_of(1, 3, here, before, active, had, w, r, bias, unit, in_units, width, hidden, ROWS,
                                UNITS, DEPTH, PRECISION)  # fmt: skip
                inner = F(reset) * inner
            else:
                waiting = y_h + row * state_row
                inner = multiplied(inner, waiting, active, r + line * hidden, in_units, hidden, DEPTH, PRECISION)
                inner += bias_of(recurrent_bias, 2, unit, in_units, hidden)
            new = G(new + inner)
            state = tl.load(before + unit, mask=had & in_units, other=0.0).to(tl.float32)
            out = new + update * (state - new)
            tl.store(y + place * y_step + row * y_row + unit, out.to(y.dtype.element_ty), mask=active & in_units)
        tl.debug_barrier()
    finished(y, y_step, y_row, y_h, h, lengths, state_row, row, in_rows, length, backward, hidden, UNITS)


@triton.jit
def rnn(x, x_step, x_row, w, r, bias, lengths, h, y, y_step, y_row, y_h, state_row, first, backward, steps, rows, width,
        hidden, F: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr,
        PRECISION: tl.constexpr):  # fmt: skip
    """As `gru`, without gates."""
    row = first + tl.arange(0, ROWS)[:, None]
    in_rows = row < rows
    length = length_of(lengths, row, in_rows, steps)
    if lengths is not None:
        cleared(y, y_step, y_row, row, in_rows, length, steps, hidden, UNITS)
    for t in range(tl.max(tl.where(in_rows, length, 0))):
        active = in_rows & (t < length)
        place = place_of(t, length, backward)
        here = x + place * x_step + row * x_row
        before, had = hidden_before(t, y, y_step, y_row, h, state_row, row, active, length, backward)
        for start in range(0, hidden, UNITS):
            unit = start + tl.arange(0, UNITS)[None, :]
            in_units = unit < hidden
            out = F(gate_of(0, 1, here, before, active, had, w, r, bias, unit, in_units, width, hidden, ROWS, UNITS,
                            DEPTH, PRECISION))  # fmt: skip
            tl.store(y + place * y_step + row * y_row + unit, out.to(y.dtype.element_ty), mask=active & in_units)
        tl.debug_barrier()
    finished(y, y_step, y_row, y_h, h, lengths, state_row, row, in_rows, length, backward, hidden, UNITS)
