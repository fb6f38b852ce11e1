"""How attention is spread over programs: a pure function of shapes, element types and what a GPU is.

Queries of a program come in blocks of 128 where matrix units take them, so that each key that is read serves many, or
of 64 where that leaves fewer multiprocessors idle; the block of keys is as large as shared memory allows for the
copies that are in flight, and larger where programs are too few to hide what a step waits for. Products in float32
proper are made by the vector units, whose operands live in registers: small blocks; where each is three of tf32, both
parts of operands do, and the blocks are such that nothing spills. Where few queries attend many
keys, programs share the keys of a block of queries, if that is predicted to be faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fusible.compiler.backends.attention import Attention
from fusible.compiler.backends.triton.f32_products import TF32, TF32X3
from fusible.compiler.backends.triton.gpu_targets import GpuTarget, MatrixType
from fusible.compiler.backends.triton.roofline import Bound, Work, busy_seconds, joining_seconds, predict
from fusible.compiler.ir.symbols import Dim, bounds_of, product
from fusible.compiler.ir.types import DType

__all__ = ["AttentionSchedule", "schedule_attention", "shared_bytes"]

_LEAST = 16  # rows, columns and depth of a product of tiles
_SHORT = 512  # keys that are rather read again by other programs than shared out among them
_LONG_STEP = 128  # keys of a step where programs are few: fewer steps, and what is computed still fits registers
_ROOMY = 160 << 10  # bytes of shared memory of a program, from which on such steps have room for what is in flight
_STAGES = 3  # blocks of keys and values; of two, a copy would only begin when the step before has ended
_WARPGROUPS = "cuda:sm_90"  # whose instruction takes 64 rows of four warps: each warp has 16, of 64 rows and of 128
_AGAIN = 1.1  # what halves of blocks cost for reading keys and values twice as often (assumed)
_UNKNOWN = 2048  # keys that a dynamic extent counts as
_SPLITS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
_PART_KEYS = 128  # of a program that shares keys, at least
_RESIDENT = 2  # programs of a multiprocessor that share keys, at most
_STEP = 0.6e-6  # seconds from one product of a step to the next step's (assumed)
_GAIN = 0.95  # of the predicted time of whole rows, which shared ones must stay below: predictions err
_KINDS = {DType.F16: MatrixType.FP16, DType.BF16: MatrixType.BF16}
_SINGLE = {TF32: MatrixType.TF32, TF32X3: MatrixType.TF32X3}


@dataclass(frozen=True, slots=True)
class AttentionSchedule:
    """rows: queries of a program; keys: those of a step. Powers of two, at least 16.

    split: programs that share a block of queries, each with some of the keys.
    """

    rows: int
    keys: int
    warps: int
    stages: int
    split: int = 1


def schedule_attention(
    attention: Attention, dtype: DType, target: GpuTarget, precision: str = "ieee"
) -> AttentionSchedule:
    """The schedule for operands of a type; precision: how f32 is multiplied (`f32_products`)."""
    extents = attention.region.extents
    size, width = (_power(extents[axis]) for axis in (attention.size, attention.column))
    queries: Dim = 1 if attention.query is None else extents[attention.query]
    heads = product(extents[axis] for axis in attention.leading)
    most = _power(queries) if isinstance(queries, int) else 1 << 30
    if dtype is DType.F32 and precision == "ieee":
        rows, keys, warps = (32, 16, 4) if max(size, width) <= 128 else (16, 16, 4)
    elif dtype is DType.F32 and precision == TF32X3:
        rows, keys, warps = _three_products(max(size, width), queries, heads, target)
    elif max(size, width) <= 128:
        rows, keys, warps = 128, 64, 4 if max(size, width) <= 64 else 8
    else:
        rows, keys, warps = 64, 32, 4
    rows = min(rows, most)
    if rows > 64 and _rather_halves(rows, queries, heads, target):
        rows //= 2
    known, narrow = extents[attention.key], dtype is not DType.F32
    if narrow:
        fewest = _fewer_rows(rows, queries, heads, target) if isinstance(known, int) and known <= _SHORT else rows
        few = rows == 64 and _programs(queries, rows, heads) <= 2 * target.multiprocessors
        roomy = target.shared_per_block >= _ROOMY
        if max(size, width) <= 64 and (fewest < rows or (few and roomy)):
            keys = _LONG_STEP
        rows = fewest
    if target.target == _WARPGROUPS and narrow:
        warps = max(4, rows // 16)
    elif rows < 64:
        warps = min(warps, 4)
    stages = 1
    if target.backend == "cuda":
        stages = _STAGES if dtype is not DType.F32 or precision == "tf32" else 2
    item = dtype.numpy.itemsize
    while keys > _LEAST and _shared(rows, keys, size, width, stages, item) > target.shared_per_block:
        if stages > 1:
            stages -= 1
        else:
            keys //= 2
    if isinstance(known, int):
        keys = min(keys, _power(known))
    made = AttentionSchedule(rows, keys, warps, stages)
    kind = _KINDS.get(dtype, _SINGLE.get(precision))
    return replace(made, split=_split(made, attention, kind, item, target))


def _three_products(widest: int, queries: Dim, heads: Dim, target: GpuTarget) -> tuple[int, int, int]:
    """Queries, keys of a step, and warps: of heads up to 64 and 128 wide. More spill (as built for sm_80 and sm_90)."""
    if widest > 64:
        return 32, 16, 4
    if target.target == _WARPGROUPS and _programs(queries, 64, heads) >= target.multiprocessors:
        return 64, 32, 4
    return 32, 32, 4


def _rather_halves(rows: int, queries: Dim, heads: Dim, target: GpuTarget) -> bool:
    """True if blocks of half as many rows keep multiprocessors busier: by the rows of the one that has the most."""
    if not isinstance(queries, int) or not isinstance(heads, int):
        return False
    whole, halves = (_programs(queries, each, heads) for each in (rows, rows // 2))
    if whole < target.multiprocessors:
        return True
    most = -(-halves // target.multiprocessors)
    return _AGAIN * most < 2 * -(-whole // target.multiprocessors)


def _fewer_rows(rows: int, queries: Dim, heads: Dim, target: GpuTarget) -> int:
    """Fewer rows than Hopper's instruction has, where multiprocessors would idle: what a warp computes is what takes.

    Each halving doubles how often keys and values are read, so it must leave ever more programs to be wished for.
    """
    while _LEAST < rows <= 64 and _programs(queries, rows, heads) * 128 // rows <= target.multiprocessors:
        rows //= 2
    return rows


def _split(made: AttentionSchedule, attention: Attention, kind: MatrixType | None, item: int, target: GpuTarget) -> int:
    """Programs that share the keys of a block of queries. Batch and heads count as the fewest they may be."""
    extents = attention.region.extents
    queries: Dim = 1 if attention.query is None else extents[attention.query]
    heads = math.prod(max(1, bounds_of(extents[axis])[0] or 1) for axis in attention.leading)
    if not isinstance(queries, int):
        return 1
    programs = max(1, -(-queries // made.rows)) * heads
    known = bounds_of(extents[attention.key])[1]
    keys = _UNKNOWN if known is None else min(known, max(_UNKNOWN, bounds_of(extents[attention.key])[0] or 0))
    steps = -(-keys // made.keys)
    size, width = (_power(extents[axis]) for axis in (attention.size, attention.column))
    fetched = float(item * programs * (keys + made.rows) * (size + width))
    work = Work(2.0 * programs * made.rows * keys * (size + width), fetched, 0.0, fetched, kind)
    kept = 4.0 * min(made.rows, max(1, queries)) * (width + 2)

    def seconds(split: int) -> float:
        found = predict(target, work, programs * split, 1)
        busy = busy_seconds(target, found, programs * split)
        waits = -(-steps // split) * _STEP * -(-programs * split // (_RESIDENT * target.multiprocessors))
        return found.times[Bound.LATENCY] + max(busy, waits) + joining_seconds(target, split, kept)

    most = min(keys // _PART_KEYS, _RESIDENT * target.multiprocessors // programs)
    best = min((split for split in _SPLITS if split <= most), key=seconds, default=1)
    return best if seconds(best) < _GAIN * seconds(1) else 1


def shared_bytes(schedule: AttentionSchedule, attention: Attention, dtype: DType) -> int:
    """The shared memory of a program, as the schedule reckons with it."""
    extents = attention.region.extents
    size, width = (_power(extents[axis]) for axis in (attention.size, attention.column))
    return _shared(schedule.rows, schedule.keys, size, width, schedule.stages, dtype.numpy.itemsize)


def _shared(rows: int, keys: int, size: int, width: int, stages: int, item: int) -> int:
    """Bytes of a block of queries, of the keys and values in flight, and of the weights on their way to the product."""
    return item * (rows * size + stages * keys * (size + width) + rows * keys)


def _programs(queries: Dim, rows: int, heads: Dim) -> int:
    """Programs; unknown extents count as many."""
    if not isinstance(queries, int) or not isinstance(heads, int):
        return 1 << 30
    return -(-queries // rows) * heads


def _power(extent: Dim) -> int:
    """The next power of two, at least 16; of an unknown extent a large one."""
    return max(_LEAST, 1 << (extent - 1).bit_length()) if isinstance(extent, int) else 1 << 30
