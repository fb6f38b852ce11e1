"""Sums of products as products of tiles: matrices, batches of them, convolutions as implicit GEMM.

    y[b, m, n] = epilogue(sum over k of left(b, m, k) * right(b, k, n))

for b < BATCH, m < ROWS, n < COLUMNS. How k runs is the hooks' business: they give the blocks of the operands of a step.
Tiles are visited in groups of rows, so that programs that run together read the same operands from the L2 cache
(Triton's matrix multiplication tutorial; Thompson et al., "Triton: an intermediate language and compiler for tiled
neural network computations", MAPL 2019). Convolution as an implicit product of matrices: Chetlur et al., "cuDNN:
Efficient Primitives for Deep Learning", 2014, section 3.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fusible.kernels.triton.partial_sums import comes_last, kept, summed

__all__ = ["contraction", "part_of_program", "tile_of_program"]


@triton.jit
def tile_of_program(program, row_tiles, column_tiles, GROUP: tl.constexpr):
    """The batch, the tile of rows and the tile of columns of a program: columns within GROUP tiles of rows."""
    tiles = row_tiles * column_tiles
    batch = program // tiles
    place = program % tiles
    in_group = GROUP * column_tiles
    first = place // in_group * GROUP
    rows = tl.minimum(row_tiles - first, GROUP)
    return batch, first + place % in_group % rows, place % in_group // rows


@triton.jit
def part_of_program(program, SPLIT: tl.constexpr, WHOLE: tl.constexpr):
    """The tile of a program, its part of the tile's steps, and how many parts these have."""
    if WHOLE == 0:
        return program // SPLIT, program % SPLIT, SPLIT
    else:
        alone = program < WHOLE
        beyond = tl.maximum(program - WHOLE, 0)
        tile = tl.where(alone, program, WHOLE + beyond // SPLIT)
        return tile, tl.where(alone, 0, beyond % SPLIT), tl.where(alone, 1, SPLIT)


@triton.jit
def contraction(
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

    arguments: a tuple that every hook is given: pointers and numbers. rows, columns: their numbers; steps: blocks of
    the depth. PARTIAL: the type of one step's sums, ACCUMULATOR that of all. Positions r are [BLOCK_M, 1], positions c
    are [1, BLOCK_N]; both may lie behind the last.

    LEFT_ROWS(batch, r, first, arguments, BLOCK_M, BLOCK_K) -> a tuple: what does not change over the depth; first: the
    first of the positions.
    LEFT(batch, r, step, state, arguments, BLOCK_M, BLOCK_K) -> [BLOCK_M, BLOCK_K], zero behind the last depth.
    RIGHT_COLUMNS(batch, c, first, arguments, BLOCK_K, BLOCK_N), RIGHT(batch, c, step, state, arguments, BLOCK_K,
    BLOCK_N) -> [BLOCK_K, BLOCK_N] in the same way. AHEAD(batch, r, c, arguments, BLOCK_M, BLOCK_N) -> a tuple: what is
    loaded for the epilogue before the loop, so that nothing waits for it later. EPILOGUE(sums, batch, r, c, ahead,
    arguments, BLOCK_M, BLOCK_N) stores.

    SLICES: so many blocks of the depth are multiplied side by side, by different warps, and added up at the end: a sum
    of few tiles and many terms then takes a fraction of the steps. The hooks of operands are given positions
    [1, BLOCK_M, 1] and [1, 1, BLOCK_N] and steps [SLICES, 1, 1], and give [SLICES, BLOCK_M, BLOCK_K] and
    [SLICES, BLOCK_K, BLOCK_N].

    SPLIT: so many programs that follow each other share a tile, each with its part of the steps, and the last one to
    finish adds up what they found and calls the epilogue. But the first WHOLE tiles have one program each: those that
    keep all multiprocessors busy, where the rest would not (a simple form of Stream-K, see `partial_sums`).
    workspace: memory for SPLIT [BLOCK_M, BLOCK_N] ACCUMULATORs of each shared tile; counters: an int32 of each, 0
    before and after.
    """
    if SPLIT == 1:
        first = 0
        last = steps
    else:
        program, part, parts = part_of_program(program, SPLIT, WHOLE)
        share = (steps + parts - 1) // parts
        first = part * share
        last = tl.minimum(first + share, steps)
    batch, m, n = tile_of_program(program, (rows + BLOCK_M - 1) // BLOCK_M, (columns + BLOCK_N - 1) // BLOCK_N, GROUP)
    r = (m * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    c = (n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    if SLICES == 1:
        own_r = r
        own_c = c
        sums = tl.zeros([BLOCK_M, BLOCK_N], ACCUMULATOR)
    else:
        own_r = r[None, :, :]
        own_c = c[None, :, :]
        sums = tl.zeros([SLICES, BLOCK_M, BLOCK_N], ACCUMULATOR)
    ahead = AHEAD(batch, r, c, arguments, BLOCK_M, BLOCK_N)
    left_state = LEFT_ROWS(batch, own_r, m * BLOCK_M, arguments, BLOCK_M, BLOCK_K)
    right_state = RIGHT_COLUMNS(batch, own_c, n * BLOCK_N, arguments, BLOCK_K, BLOCK_N)
    for step in range(first, last):
        if SLICES == 1:
            block = step
        else:
            block = step * SLICES + tl.arange(0, SLICES)[:, None, None]
        left = LEFT(batch, own_r, block, left_state, arguments, BLOCK_M, BLOCK_K)
        right = RIGHT(batch, own_c, block, right_state, arguments, BLOCK_K, BLOCK_N)
        if PARTIAL == ACCUMULATOR:
            EXACT: tl.constexpr = BLOCK_K if left.dtype.is_fp8() else None  # Hopper's own sums of those have 14 bits
            sums = tl.dot(
                left, right, sums, input_precision=PRECISION, out_dtype=ACCUMULATOR, max_num_imprecise_acc=EXACT
            )
        else:
            sums += tl.dot(left, right, input_precision=PRECISION, out_dtype=PARTIAL).to(ACCUMULATOR)
    if SLICES > 1:
        sums = tl.sum(sums, 0)
    if SPLIT == 1:
        # Always true: grids have one dimension. Without a branch here ptxas moves roundings of sums to before the last
        # wait for wgmma, and then runs these one at a time in the whole loop (its advice C7514).
        if tl.program_id(1) == 0:
            EPILOGUE(sums, batch, r, c, ahead, arguments, BLOCK_M, BLOCK_N)
    elif WHOLE == 0:
        place = workspace + program.to(tl.int64) * (SPLIT * BLOCK_M * BLOCK_N)
        kept(sums, place + part * (BLOCK_M * BLOCK_N), None, BLOCK_M, BLOCK_N)
        if comes_last(counters + program, SPLIT):
            EPILOGUE(summed(place, SPLIT, BLOCK_M, BLOCK_N), batch, r, c, ahead, arguments, BLOCK_M, BLOCK_N)
    elif program < WHOLE:
        EPILOGUE(sums, batch, r, c, ahead, arguments, BLOCK_M, BLOCK_N)
    else:
        shared = program - WHOLE
        place = workspace + shared.to(tl.int64) * (SPLIT * BLOCK_M * BLOCK_N)
        kept(sums, place + part * (BLOCK_M * BLOCK_N), None, BLOCK_M, BLOCK_N)
        if comes_last(counters + shared, SPLIT):
            EPILOGUE(summed(place, SPLIT, BLOCK_M, BLOCK_N), batch, r, c, ahead, arguments, BLOCK_M, BLOCK_N)
