"""Sums of products as products of tiles, where a byte of an operand holds two elements: weight-only int4.

    y[b, m, n] = epilogue(sum over k of left(b, m, k, 0) * right(b, k, n, 0) + left(b, m, k, 1) * right(b, k, n, 1))

for k of half of the depth: the two elements of a byte lie so far apart (`compiler/region/halves.py`). As in
`contraction.py`, whose order of tiles it shares; each step multiplies twice, and what both products read alike, the
bytes, is loaded once, since its text is the same and loads without stores between are merged.
Weights that stay 4 bits wide up to the registers: Frantar et al., "MARLIN: Mixed-Precision Auto-Regressive Parallel
Inference on Large Language Models", PPoPP 2025.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fusible.kernels.triton.contraction import tile_of_program
from fusible.kernels.triton.partial_sums import comes_last, kept, summed

__all__ = ["halves"]


@triton.jit
def halves(
    arguments,
    program,
    rows,
    columns,
    steps,
    LEFT_ROWS: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT_COLUMNS: tl.constexpr,
    RIGHT: tl.constexpr,
    AHEAD: tl.constexpr,
    EPILOGUE: tl.constexpr,
    PARTIAL: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    SLICES: tl.constexpr,
    SPLIT: tl.constexpr = 1,
    WHOLE: tl.constexpr = 0,
    workspace=None,
    counters=None,
):
    """One program: the tile [BLOCK_M, BLOCK_N] of one batch. Stores are the epilogue's.

    Arguments and hooks are those of `contraction`; LEFT and RIGHT take the half, 0 or 1, as `PART` behind the step.
    steps: through half of the depth. SLICES is 1, WHOLE 0.
    """
    tl.static_assert(SLICES == 1 and WHOLE == 0)
    if SPLIT == 1:
        first = 0
        last = steps
    else:
        part = program % SPLIT
        program = program // SPLIT
        share = (steps + SPLIT - 1) // SPLIT
        first = part * share
        last = tl.minimum(first + share, steps)
    batch, m, n = tile_of_program(program, (rows + BLOCK_M - 1) // BLOCK_M, (columns + BLOCK_N - 1) // BLOCK_N, GROUP)
    r = (m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    c = (n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    ahead = AHEAD(batch, r, c, arguments, BLOCK_M, BLOCK_N)
    left_state = LEFT_ROWS(batch, r, m * BLOCK_M, arguments, BLOCK_M, BLOCK_K)
    right_state = RIGHT_COLUMNS(batch, c, n * BLOCK_N, arguments, BLOCK_K, BLOCK_N)
    sums = tl.zeros([BLOCK_M, BLOCK_N], ACCUMULATOR)
    for step in range(first, last):
        for PART in tl.static_range(2):
            left = LEFT(batch, r, step, PART, left_state, arguments, BLOCK_M, BLOCK_K)
            right = RIGHT(batch, c, step, PART, right_state, arguments, BLOCK_K, BLOCK_N)
            if PARTIAL == ACCUMULATOR:
                sums = tl.dot(left, right, sums, input_precision=PRECISION, out_dtype=ACCUMULATOR)
            else:
                sums += tl.dot(left, right, input_precision=PRECISION, out_dtype=PARTIAL).to(ACCUMULATOR)
    if SPLIT == 1:
        if tl.program_id(1) == 0:  # always true: see `contraction`
            EPILOGUE(sums, batch, r, c, ahead, arguments, BLOCK_M, BLOCK_N)
    else:
        parts = workspace + program.to(tl.int64) * (SPLIT * BLOCK_M * BLOCK_N)
        kept(sums, parts + part * (BLOCK_M * BLOCK_N), None, BLOCK_M, BLOCK_N)
        if comes_last(counters + program, SPLIT):
            EPILOGUE(summed(parts, SPLIT, BLOCK_M, BLOCK_N), batch, r, c, ahead, arguments, BLOCK_M, BLOCK_N)
