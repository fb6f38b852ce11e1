"""com.microsoft DynamicQuantizeLSTM: an LSTM with 8-bit weights whose activations are quantised as they come.

    a(v) = round(v / s) bounded by -z and 255 - z, with s and z by the range of v and 0   (see dynamic_quantisation.py)
    v W  = s S (a(v) (W - Z)),  an exact sum of integers;  S, Z: scales and zero points of the weight
    gates i, o, f, c of x Wx + h Wh + b as in recurrent.py

The whole input has one range, the hidden states of all sequences have one at each step. So one program takes all
sequences of a direction through time, ROWS of them at once. Weights are [depth, 4 * hidden] of a direction. Operands of
products have nine bits, which fp16 holds; fp32 holds the sums of DEPTH <= 256 terms, and these are added up in int32.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from fusible.kernels.triton.dynamic_quantisation import parameters, range_of
from fusible.kernels.triton.recurrent import (
    bias_of,
    cell_after,
    finished,
    hidden_before,
    place_of,
    sigmoid,  # noqa: F401 - of printed activations
    tanh,  # noqa: F401
)


@triton.jit
def multiplied(x, in_rows, step, shift, w, w_scale, w_zero, columns, in_columns, line, depth, DEPTH: tl.constexpr,
               PER_COLUMN: tl.constexpr):  # fmt: skip
    """x w: x [ROWS, 1] are the addresses of the first of `depth` adjacent elements, w [depth, line] of a weight.

    step, shift: the scale and the zero point of x. columns [1, N] of the weight, which has a scale and a zero point, or
    one of each for every column. float32 [ROWS, N].
    """
    at = columns * PER_COLUMN
    zero = tl.load(w_zero + at, mask=in_columns, other=0).to(tl.float32)
    total = tl.zeros([x.shape[0], columns.shape[1]], tl.int32)
    for start in range(0, depth, DEPTH):
        k = start + tl.arange(0, DEPTH)
        a = tl.load(x + k[None, :], mask=in_rows & (k < depth)[None, :], other=0.0)
        a = libdevice.rint(tl.div_rn(a, tl.zeros_like(a) + step))
        a = tl.minimum(tl.where(a > 0.0 - shift, a, 0.0 - shift), 255.0 - shift)
        there = (k < depth)[:, None] & in_columns
        b = tl.load(w + k[:, None] * line + columns, mask=there, other=0).to(tl.float32)
        b = tl.where(there, b - zero, 0.0)
        total += tl.dot(a.to(tl.float16), b.to(tl.float16)).to(tl.int32)
    return total.to(tl.float32) * (step * tl.load(w_scale + at, mask=in_columns, other=0.0))


@triton.jit
def gates_of(x, h, active, had, x_step, x_shift, h_step, h_shift, w, r, bias, w_scale, w_zero, r_scale, r_zero, start,
             width, hidden, ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr, W_COLUMNS: tl.constexpr,
             R_COLUMNS: tl.constexpr):  # fmt: skip
    """x W + h R + b of four gates for the units from `start` on: four tiles [ROWS, UNITS]."""
    column = tl.arange(0, 4 * UNITS)[None, :]
    gate, unit = column // UNITS, start + column % UNITS
    in_units = unit < hidden
    columns, line = gate * hidden + unit, 4 * hidden
    sums = multiplied(h, had, h_step, h_shift, r, r_scale, r_zero, columns, in_units, line, hidden, DEPTH, R_COLUMNS)
    sums += multiplied(x, active, x_step, x_shift, w, w_scale, w_zero, columns, in_units, line, width, DEPTH, W_COLUMNS)
    sums += bias_of(bias, gate, unit, in_units, hidden) + bias_of(bias, 4 + gate, unit, in_units, hidden)
    pairs = tl.permute(tl.reshape(sums, [ROWS, 2, 2, UNITS]), (0, 3, 1, 2))  # gate 2 a + b at [row, unit, a, b]
    even, odd = tl.split(pairs)
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def range_of_states(t, y, y_step, y_row, h, state_row, rows, steps, backward, hidden, ROWS: tl.constexpr,
                    UNITS: tl.constexpr):  # fmt: skip
    """The least and the greatest of the hidden states before step t, and of 0; NaN takes no part."""
    low = tl.zeros([ROWS, UNITS], tl.float32)
    high = tl.zeros([ROWS, UNITS], tl.float32)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        before, had = hidden_before(t, y, y_step, y_row, h, state_row, row, row < rows, steps, backward)
        for start in range(0, hidden, UNITS):
            unit = start + tl.arange(0, UNITS)[None, :]
            found = tl.load(before + unit, mask=had & (unit < hidden), other=0.0)
            low, high = tl.minimum(low, found), tl.maximum(high, found)
    return tl.min(low), tl.max(high)


@triton.jit
def dynamic_quantize_lstm(x, x_step, x_row, w, r, bias, h, c, peepholes, w_scale, w_zero, r_scale, r_zero, y, y_step,
                          y_row, y_h, y_c, state_row, backward, steps, rows, width, hidden, F: tl.constexpr,
                          G: tl.constexpr, K: tl.constexpr, COUPLED: tl.constexpr, ROWS: tl.constexpr,
                          UNITS: tl.constexpr, DEPTH: tl.constexpr, RANGE: tl.constexpr, W_COLUMNS: tl.constexpr,
                          R_COLUMNS: tl.constexpr):  # fmt: skip
    """All sequences of one direction, all of them of `steps` steps. All addresses but x are those of this direction.

    As `lstm` of recurrent.py, in float32. RANGE: elements of x that are looked at together. W_COLUMNS, R_COLUMNS: 1 for
    a scale and a zero point of each column, else 0.
    """
    low, high = range_of(x, x, steps * rows * width, RANGE)
    step, shift = parameters(low, high)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        for start in range(0, hidden, UNITS):
            unit = start + tl.arange(0, UNITS)[None, :]
            inside = (row < rows) & (unit < hidden)
            cell = tl.zeros([ROWS, UNITS], tl.float32)
            if c is not None:
                cell = tl.load(c + row * state_row + unit, mask=inside, other=0.0)
            tl.store(y_c + row * state_row + unit, cell, mask=inside)
    tl.debug_barrier()
    for t in range(steps):
        low, high = range_of_states(t, y, y_step, y_row, h, state_row, rows, steps, backward, hidden, ROWS, UNITS)
        h_step, h_shift = parameters(low, high)
        place = place_of(t, steps, backward)
        for first in range(0, rows, ROWS):
            row = first + tl.arange(0, ROWS)[:, None]
            active = row < rows
            here = x + place * x_step + row * x_row
            before, had = hidden_before(t, y, y_step, y_row, h, state_row, row, active, steps, backward)
            for start in range(0, hidden, UNITS):
                unit = start + tl.arange(0, UNITS)[None, :]
                in_units = unit < hidden
                inside = active & in_units
                cell = tl.load(y_c + row * state_row + unit, mask=inside, other=0.0)
                enter, leave, keep, new = gates_of(here, before, active, had, step, shift, h_step, h_shift, w, r, bias,
                                                   w_scale, w_zero, r_scale, r_zero, start, width, hidden, ROWS, UNITS,
                                                   DEPTH, W_COLUMNS, R_COLUMNS)  # fmt: skip
                cell, out = cell_after(cell, enter, leave, keep, new, peepholes, unit, in_units, hidden, F, G, K,
                                       COUPLED)  # fmt: skip
                tl.store(y_c + row * state_row + unit, cell, mask=inside)
                tl.store(y + place * y_step + row * y_row + unit, out, mask=inside)
        tl.debug_barrier()
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)[:, None]
        length = row * 0 + steps
        finished(y, y_step, y_row, y_h, h, None, state_row, row, row < rows, length, backward, hidden, UNITS)
