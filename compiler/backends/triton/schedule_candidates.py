"""What a tuner may try beside the schedules of the static model: a bounded set for each, pure functions as they are.

The static model's choice comes first. Its neighbours differ in one number or two: those are what the model knows least
about (warps, stages, order of the tiles). Other tiles come with all that the model gives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from math import prod
from typing import TypeVar

from fusible.compiler.backends.attention import Attention
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.passes import partial_type
from fusible.compiler.backends.triton.schedule import Form, Schedule, schedule
from fusible.compiler.backends.triton.schedule_attention import AttentionSchedule, schedule_attention, shared_bytes
from fusible.compiler.backends.triton.schedule_contraction import (
    ContractionSchedule,
    Sizes,
    matrix_unit,
    reads_shared_memory,
    schedule_contraction,
    steps_of,
    tiles_of,
)
from fusible.compiler.backends.triton.tile import tile_of
from fusible.compiler.ir.types import DType
from fusible.compiler.region.region import Region

__all__ = ["attention_candidates", "contraction_candidates", "region_candidates"]

S = TypeVar("S")

_BEST = 4  # tiles, as the model has them, that are tried in two ways
_MANY_WARPS = 8
_MOST_STAGES = 5
_RESIDENT = 4  # programs of a multiprocessor that share tiles, at most
_PART_STEPS = 2  # of the depth, of each program that shares a tile
_MOST_WARPS = 16
_LEAST = 16  # rows, columns and depth of a product of tiles
_MOST_POINTS = 16384  # of a tile of a region
_MOST_SPLIT = 64
_MOST_SUMS = 256  # of a thread, in registers


def contraction_candidates(sizes: Sizes, kind: DType, precision: str, target: GpuTarget) -> list[ContractionSchedule]:
    """Schedules of a contraction; arguments as for `schedule_contraction`."""
    chosen = schedule_contraction(sizes, kind, precision, target)
    matrix = matrix_unit(kind, precision, target) is not None
    bulk = matrix and chosen.slices == 1 and reads_shared_memory(target)
    tiles = tiles_of(sizes, kind, precision, target)
    others = [schedule_contraction(sizes, kind, precision, target, tiles=[tile]) for tile in tiles]
    others = [made for made in others if (made.block_m, made.block_n) != (chosen.block_m, chosen.block_n)]
    others = [*others[:_BEST], *(_other_warps(made) for made in others[:_BEST]), *others[_BEST:]]
    found = [chosen]
    for pair in zip_longest(_neighbours(chosen, matrix, bulk), others):
        found += [made for made in pair if made is not None and _fits_product(made, sizes, kind, matrix, target)]
    return _different(found)


def _other_warps(made: ContractionSchedule) -> ContractionSchedule:
    """Eight warps in the place of fewer, four in the place of eight."""
    warps = made.warps // made.slices
    return replace(made, warps=made.slices * (4 if warps == _MANY_WARPS else _MANY_WARPS))


def _neighbours(chosen: ContractionSchedule, matrix: bool, bulk: bool) -> Iterator[ContractionSchedule]:
    if bulk:
        yield replace(chosen, bulk=not chosen.bulk)
    yield _other_warps(chosen)
    if chosen.slices == 1:
        yield replace(chosen, split=chosen.split * 2)
        yield replace(chosen, split=max(1, chosen.split // 2))
        yield replace(chosen, split=1 if chosen.split > 1 else 4, wave=0)
    yield replace(chosen, stages=chosen.stages + 1)
    yield replace(chosen, block_k=chosen.block_k * 2, stages=max(2, chosen.stages - 1))
    yield replace(chosen, stages=chosen.stages - 1 if matrix else 1)
    if chosen.slices > 1:
        whole = replace(chosen, slices=1, warps=chosen.warps // chosen.slices)
        yield from (whole, replace(whole, split=chosen.split * 2))
    yield replace(chosen, block_k=chosen.block_k // 2, stages=chosen.stages + 1)
    yield replace(chosen, group=1)


def _fits_product(s: ContractionSchedule, sizes: Sizes, kind: DType, matrix: bool, target: GpuTarget) -> bool:
    """True if programs may be expected to have the memory and the registers that they need."""
    inner, outer = steps_of(sizes, s)
    steps = inner * outer
    parts = s.slices * s.split
    if parts > 1 and not (isinstance(steps, int) and steps % s.slices == 0 and steps >= _PART_STEPS * parts):
        return False
    shares_all = s.split > 1 and not s.wave
    if shares_all and _programs(s, sizes) > _RESIDENT * target.multiprocessors:  # each has memory for its part
        return False
    if not (1 <= s.warps <= _MANY_WARPS and 1 <= s.stages <= _MOST_STAGES and s.block_k >= _LEAST):
        return False
    copies = s.stages if matrix else min(s.stages, 2)
    shared = (s.block_m + s.block_n) * s.block_k * s.slices * copies * kind.numpy.itemsize
    sums = s.block_m * s.block_n * s.slices
    return shared <= target.shared_per_block and sums <= _MOST_SUMS * s.warps * target.warp


def _programs(s: ContractionSchedule, sizes: Sizes) -> int:
    """The programs of a product; unknown sizes count as many."""
    blocks = ((sizes.batch, 1), (sizes.rows, s.block_m), (sizes.columns, s.block_n))
    return prod(-(-points // block) if isinstance(points, int) else 1 << 20 for points, block in blocks) * s.split


def attention_candidates(
    attention: Attention, dtype: DType, target: GpuTarget, precision: str = "ieee"
) -> list[AttentionSchedule]:
    """Schedules of attention; arguments as for `schedule_attention`."""
    chosen = schedule_attention(attention, dtype, target, precision)
    found = [chosen]
    if chosen.split > 1:  # others have programs enough
        found += [replace(chosen, split=split) for split in (chosen.split * 2, chosen.split // 2, 1)]
    for rows in (chosen.rows, chosen.rows // 2, chosen.rows * 2):
        for keys in (chosen.keys, chosen.keys // 2, chosen.keys * 2):
            found.append(replace(chosen, rows=rows, keys=keys))
    found += [replace(s, warps=warps) for s in found[:5] for warps in (chosen.warps * 2, chosen.warps // 2)]
    found += [replace(s, stages=stages) for s in found[:5] for stages in (chosen.stages + 1, chosen.stages - 1)]
    return _different(s for s in found if s is chosen or _fits_attention(s, attention, dtype, target))


def _fits_attention(s: AttentionSchedule, attention: Attention, dtype: DType, target: GpuTarget) -> bool:
    keys = attention.region.extents[attention.key]
    if s.split > 1 and not (isinstance(keys, int) and keys >= s.split * s.keys and s.split <= _MOST_SPLIT):
        return False
    if not (_LEAST <= s.rows <= 128 and _LEAST <= s.keys <= 128 and 4 <= s.warps <= 8 and 1 <= s.stages <= 4):
        return False
    return shared_bytes(s, attention, dtype) <= target.shared_per_block


def region_candidates(region: Region, target: GpuTarget) -> list[Schedule]:
    """Schedules of a region without contractions; some may not be printable. Raises as `schedule`."""
    chosen = schedule(region, target)
    found: list[Schedule] = []
    match chosen.form:
        case Form.POINTS:
            found = [
                replace(chosen, rows=warps * target.warp * chosen.vector * times, warps=warps)
                for warps, times in ((4, 1), (4, 2), (8, 1), (2, 1), (2, 2), (4, 4), (1, 1), (8, 2), (1, 2))
            ]
        case Form.TRANSPOSED:
            sides = ((32, 32), (64, 32), (32, 64), (64, 64), (128, 32), (32, 128))
            found = [replace(chosen, rows=r, columns=c, warps=w) for r, c in sides for w in (4, 8)]
        case Form.PERSISTENT:
            found = [replace(s, rows=s.rows * 2) for s in (chosen, replace(chosen, rows=chosen.rows * 2))]
            found += [replace(chosen, rows=chosen.rows // 2), replace(chosen, rows=chosen.rows // 4)]
            found += [replace(s, warps=w) for s in (chosen, *found[:3]) for w in (chosen.warps * 2, chosen.warps // 2)]
            looped = replace(chosen, form=Form.LOOPED, rows=1, columns=min(chosen.columns, 1024), warps=4, stages=3)
            found += [looped] if chosen.columns >= 1024 else []
        case Form.LOOPED:
            found = list(_looped(chosen, target))
            if partial_type(tile_of(region)) is not None:
                splits = (chosen.split * 2, chosen.split // 2, 1 if chosen.split > 1 else 8)
                found = [*(replace(chosen, split=split) for split in splits), *found]
    return _different([chosen, *(s for s in found if _fits_region(s, target))])


def _looped(chosen: Schedule, target: GpuTarget) -> Iterator[Schedule]:
    for warps in (chosen.warps * 2, chosen.warps // 2):
        yield replace(chosen, warps=warps)
    if chosen.columns == 1:  # the points of a window, one by one
        for rows in (chosen.rows * 2, chosen.rows // 2, chosen.rows // 4):
            yield replace(chosen, rows=rows, warps=max(1, chosen.warps * rows // chosen.rows))
            yield replace(chosen, rows=rows)
        return
    for stages in (1, 2, 4):
        yield replace(chosen, stages=stages)
    for columns in (chosen.columns * 2, chosen.columns // 2):
        yield replace(chosen, columns=columns)
        yield replace(chosen, columns=columns, warps=max(1, chosen.warps * columns // chosen.columns))
    if chosen.rows > 1:
        for rows in (chosen.rows * 2, chosen.rows // 2):
            yield replace(chosen, rows=rows)


def _fits_region(s: Schedule, target: GpuTarget) -> bool:
    points = s.rows * s.columns
    if min(s.rows, s.columns, s.stages, s.split) < 1 or s.split > _MOST_SPLIT or not 1 <= s.warps <= _MOST_WARPS:
        return False
    return points <= _MOST_POINTS and points <= 64 * s.warps * target.warp and points >= target.warp


def _different(schedules: Iterator[S] | Sequence[S]) -> list[S]:
    return list(dict.fromkeys(schedules))
