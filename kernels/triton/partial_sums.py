"""Sums that several programs make together: each leaves its part in memory, and the last to come adds them all up.

Parts are added in the order of their numbers, whoever comes last, so the same numbers give the same bits in every run.
Nobody waits for others: programs need not be resident together. Source of the scheme: the sample
`threadFenceReduction` of NVIDIA's CUDA toolkit; CUTLASS calls it serial and Stream-K "fixup" (Osama et al., "Stream-K:
Work-centric Parallel Decomposition for Dense Matrix-Matrix Multiplication on the GPU", PPoPP 2023, section 4).
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["comes_last", "gathered", "kept", "recalled", "summed"]


@triton.jit
def kept(values, place, in_rows, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Write [ROWS, COLUMNS] values to memory, by rows. in_rows [ROWS, 1]: which rows; None for all."""
    offsets = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    tl.store(place + offsets, values, mask=in_rows)


@triton.jit
def recalled(place, in_rows, other, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """What a program `kept`, and `other` in rows that it did not keep.

    Read around the first level cache, which knows nothing of what other multiprocessors write.
    """
    offsets = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    if in_rows is None:
        return tl.load(place + offsets, cache_modifier=".cg")
    else:
        return tl.load(place + offsets, mask=in_rows, other=other, cache_modifier=".cg")


@triton.jit
def comes_last(counter, PARTS: tl.constexpr):
    """Whether this program is the last of PARTS that ask; what the others wrote before they asked can be read then.

    counter: one int32 in memory, 0 before the first asks, and 0 again after the last has.
    """
    tl.debug_barrier()  # the count says that all threads of this program have written, so it comes after all of them
    before = tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu")
    last = before == PARTS - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def summed(place, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum of PARTS blocks that programs `kept` one after the other from `place` on: first the first."""
    sums = recalled(place, None, 0, ROWS, COLUMNS)
    for part in tl.static_range(1, PARTS):
        sums += recalled(place + part * (ROWS * COLUMNS), None, 0, ROWS, COLUMNS)
    return sums


@triton.jit
def gathered(place, apart, PARTS: tl.constexpr, ROWS: tl.constexpr):
    """[ROWS, PARTS]: a value of each row, from each of PARTS programs that `kept` them `apart` elements apart.

    For folds of all kinds, which go over the columns in their own fixed order. Read as `summed` reads.
    """
    offsets = tl.arange(0, ROWS)[:, None] + tl.arange(0, PARTS)[None, :] * apart
    return tl.load(place + offsets, cache_modifier=".cg")
