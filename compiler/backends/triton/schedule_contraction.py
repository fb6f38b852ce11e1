"""Tiles of a contraction: a pure function of its sizes, element types and what a GPU is.

A tile's work grows with its area and its operands with its sides, so large tiles are cheaper, until there are fewer of
them than multiprocessors: of all tiles that may be, the one is taken whose waves take the least time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusible.compiler.backends.triton.f32_products import TF32, TF32X3
from fusible.compiler.backends.triton.gpu_targets import GpuTarget, MatrixType
from fusible.compiler.backends.triton.overlap import can_overlap
from fusible.compiler.backends.triton.roofline import (
    Bound,
    Product,
    Tile,
    busy_seconds,
    joining_seconds,
    predict_product,
)
from fusible.compiler.ir.symbols import Dim, bounds_of, ceildiv, product
from fusible.compiler.ir.types import DType

__all__ = [
    "ContractionSchedule",
    "Sizes",
    "matrix_unit",
    "reads_shared_memory",
    "schedule_contraction",
    "shared_bytes",
    "steps_of",
    "tiles_of",
]

_MATRIX_TILES = ((128, 256, 8), (256, 128, 8), (128, 128, 8), (128, 64, 4), (64, 128, 4), (64, 64, 4))
_SMALL_TILES = (
    (64, 32, 4), (32, 64, 4), (32, 32, 4), (64, 16, 4), (16, 64, 4), (32, 16, 2), (16, 32, 2), (16, 16, 1),
)  # fmt: skip
_VECTOR_TILES = ((128, 64, 8), (64, 128, 8), (64, 64, 8), *_SMALL_TILES)
_SPLIT_TILES = ((128, 128, 8), (128, 64, 8), (64, 128, 8), (64, 64, 4))
"""(rows, columns, warps) with matrix units, beside few rows or columns, without matrix units, and for three products of
tf32: a step's sums lie beside those of all steps in registers, and so do both parts of operands. The first of the last
spills where instructions take the right operand out of registers too."""
_SIDE = 64  # elements of a row or column that cost as much to fetch as its products
_UNKNOWN = 2048  # rows, columns or terms that a dynamic extent counts as
_GROUP = 8
_MOST_STAGES = 4
_ALONE_STAGES = 5  # of programs that are alone on their multiprocessors: nothing else hides what they wait for
_SLICED_WARPS = 8  # warps of a program whose depth is sliced, at most
_FEW_STEPS = 8  # steps that are not worth slicing
_BULK_STEPS = 24  # of a program, from which on descriptors pay: with 12 they cost 0.4 us more (measured on an H200)
_SPLITS = (2, 3, 4, 6, 8, 12, 16)
_SPLIT_WARPS = 4  # of a program that has only a part of the depth, at least: fewer keep too few loads in flight
_PART_STEPS = 4  # of a part, at least: fewer fill no pipeline
_RESIDENT = 2  # programs of a multiprocessor that share tiles, at most
_RESIDENT_SPLIT = 3  # of those that split operands: their steps take long, so that it counts how even they are spread
_SUM = 4  # bytes of a sum
_LARGE = 128 * 128  # elements of a tile that a multiprocessor has one of at a time
_PAIR = (128, 128, 4)  # the tile of which a multiprocessor has two: with eight warps, registers would not suffice
_PAIR_STEPS = 16  # steps beside which a heavy epilogue takes a good part of a program's time, at most (assumed)
_PAIRED = "cuda:sm_90"
_PASSING = (128, 64, 4)  # the tile of products that only pass by: 64 sums a thread leave room for four programs
_PASSING_STEPS, _PASSING_PROGRAMS = 2, 8  # steps of one, at most; tiles for each multiprocessor, at least
_BARRIER = 8  # bytes of shared memory
_ACCESS = 16  # bytes, at most
_LINE = 128  # bytes that neighbours are fetched in; a row of a block that is shorter wastes some (assumed: the root)
_GAIN = 0.95  # of the predicted time of whole sums, which split ones must stay below: predictions err
_READ_SHARED = ("cuda:sm_90", "cuda:sm_100")  # whose matrix instructions take operands from shared memory
_KINDS = {DType.F16: MatrixType.FP16, DType.BF16: MatrixType.BF16}
_SINGLE = {TF32: MatrixType.TF32, TF32X3: MatrixType.TF32X3}


@dataclass(frozen=True, slots=True)
class Sizes:
    """batch, rows, columns: their points. depths: the extents of the contracted axes, the slowest first.

    heavy: what follows a sum takes long, exponentials and the like. loads: so many blocks are loaded in a step for the
    left and for the right operand: more than one where an operand is put together from several places.
    """

    batch: Dim
    rows: Dim
    columns: Dim
    depths: tuple[Dim, ...]
    heavy: bool = False
    loads: tuple[int, int] = (1, 1)

    @property
    def depth(self) -> Dim:
        """The terms of a sum."""
        return product(self.depths)


@dataclass(frozen=True, slots=True)
class ContractionSchedule:
    """block_m, block_n, block_k: rows, columns and terms of a step, powers of two.

    together: so many of the last axes of the depth are gone through as one; the others stay the same within a step.
    group: tiles of rows that are visited together. slices: blocks of the depth that a step multiplies side by side.
    split: programs that share a tile, each with its part of the steps. bulk: operands that are plain matrices are
    fetched by descriptors, which is the tensor memory accelerator's work. wave: where programs share tiles, those in
    whole waves of so many tiles have one program each; 0: all are shared.
    """

    block_m: int
    block_n: int
    block_k: int
    together: int
    group: int
    warps: int
    stages: int
    slices: int = 1
    split: int = 1
    bulk: bool = False
    wave: int = 0


def schedule_contraction(
    sizes: Sizes,
    kind: DType,
    precision: str,
    target: GpuTarget,
    *,
    tiles: Sequence[tuple[int, int, int]] | None = None,
) -> ContractionSchedule:
    """The schedule of a contraction. kind: the operands' type; precision: how it multiplies f32 (`f32_products`).

    tiles: (rows, columns, warps) to choose among, by default all that may be (`tiles_of`).
    """
    unit = matrix_unit(kind, precision, target)
    matrix = unit is not None
    single = matrix and unit is not MatrixType.TF32X3  # each product is one instruction
    sizes = sizes if single else replace(sizes, heavy=False)
    block_k, together = _block_k(sizes.depths, kind, unit, target)
    if not tiles:
        tiles = _tiles(_estimate(sizes.rows), _estimate(sizes.columns), unit, target)
        pair = ContractionSchedule(_PAIR[0], _PAIR[1], block_k, together, _GROUP, _PAIR[2], 2)
        tiles = [_PAIR] if _in_pairs(pair, sizes, target) else tiles
        if sizes.heavy and unit is MatrixType.TF32 and not reads_shared_memory(target):
            tiles = [t for t in tiles if t[0] * t[1] <= _LARGE]  # more sums leave functions too few registers
        if unit is not None and single and _only_passes(sizes, kind, unit, block_k, together, target):
            tiles = [_PASSING]
    rows, columns, warps = min(tiles, key=lambda tile: _time(tile, sizes, target))
    whole = ContractionSchedule(rows, columns, block_k, together, _GROUP, warps, 2)
    slices = _slices(whole, sizes, _programs(whole, sizes), matrix, target)
    whole = replace(whole, warps=warps * slices, slices=slices)
    whole = replace(whole, stages=_stages(whole, sizes, kind, unit, target))
    made = _split(whole, sizes, kind, unit, target, tiles) or _with_shared_tail(whole, sizes, kind, unit, target)
    bulk = matrix and unit is not MatrixType.TF32X3 and slices == 1 and reads_shared_memory(target)
    return replace(made, bulk=bulk and _is_long(sizes, made))


def _in_pairs(made: ContractionSchedule, sizes: Sizes, target: GpuTarget) -> bool:
    """True for tiles of which a multiprocessor is to have two: one multiplies while the other computes the rest.

    That is worth smaller tiles where the rest takes long beside few steps.
    """
    steps = product(steps_of(sizes, made))
    few = isinstance(steps, int) and steps <= _PAIR_STEPS and made.split == 1
    many = _programs(made, sizes) >= target.multiprocessors  # of larger tiles there would be half as many
    return sizes.heavy and few and many and target.target == _PAIRED and made.block_m * made.block_n == _LARGE


def _only_passes(
    sizes: Sizes, kind: DType, unit: MatrixType, block_k: int, together: int, target: GpuTarget
) -> bool:
    """True for a product of few steps that takes as long as memory does: tiles of which several stand side by side then
    read and write at any time, where a large one reads, multiplies and writes in turns.
    """
    known = (sizes.batch, sizes.rows, sizes.columns, sizes.depth)
    one = ContractionSchedule(_PASSING[0], _PASSING[1], block_k, together, _GROUP, _PASSING[2], 2)
    steps = product(steps_of(sizes, one))
    peak = target.matrix_peak(unit)
    if peak is None or target.backend != "cuda" or not isinstance(steps, int) or steps > _PASSING_STEPS:
        return False
    if not all(isinstance(d, int) for d in known) or _programs(one, sizes) < _PASSING_PROGRAMS * target.multiprocessors:
        return False
    batch, m, n, k = (_estimate(d) for d in known)
    moved = Product(m, n, k, batch, kind.numpy.itemsize, unit)
    return moved.bytes / target.bandwidth > moved.operations / peak and n >= _PASSING[1]


def _split(
    whole: ContractionSchedule,
    sizes: Sizes,
    kind: DType,
    unit: MatrixType | None,
    target: GpuTarget,
    tiles: Sequence[tuple[int, int, int]],
) -> ContractionSchedule | None:
    """A schedule by which several programs share each tile, if it is predicted to be clearly faster.

    That is so where tiles are few and sums long: small tiles would read the operands again and again instead.
    """
    known = (sizes.batch, sizes.rows, sizes.columns, sizes.depth)
    if not all(isinstance(d, int) for d in known) or _programs(whole, sizes) > target.multiprocessors:
        return None
    batch, m, n, k = (_estimate(d) for d in known)
    resident = _RESIDENT_SPLIT if unit is MatrixType.TF32X3 else _RESIDENT
    product_of = Product(m, n, k, batch, kind.numpy.itemsize, unit)

    def seconds(s: ContractionSchedule) -> float:
        tile = Tile(s.block_m, s.block_n, s.block_k * s.slices, s.stages, s.warps, s.split)
        made = predict_product(target, product_of, tile)
        busy = max(time for bound, time in made.times.items() if bound is not Bound.LATENCY)
        if not can_overlap(target):  # else weights are brought into the cache before the kernel's turn has come
            busy = busy_seconds(target, made, _programs(s, sizes) * s.split)
        used = math.sqrt(min(1.0, s.block_n * product_of.size / _LINE))
        joined = joining_seconds(target, s.split, s.block_m * s.block_n * _SUM)
        return made.times[Bound.LATENCY] + busy / used + joined

    found = []
    for rows, columns, warps in tiles:
        one = ContractionSchedule(rows, columns, whole.block_k, whole.together, _GROUP, warps, 2)
        steps, programs = _estimate(product(steps_of(sizes, one))), _programs(one, sizes)
        parted = [
            replace(one, split=split)
            for split in _SPLITS
            if warps >= _SPLIT_WARPS and steps >= split * _PART_STEPS
            if programs * split <= resident * target.multiprocessors
        ]
        found += [replace(each, stages=_stages(each, sizes, kind, unit, target)) for each in parted]
    best = min(found, key=seconds, default=None)
    return best if best is not None and seconds(best) < _GAIN * seconds(whole) else None


def _with_shared_tail(
    whole: ContractionSchedule, sizes: Sizes, kind: DType, unit: MatrixType | None, target: GpuTarget
) -> ContractionSchedule:
    """The schedule, by which programs share the tiles behind the last whole wave, if that is predicted to be faster.

    These few tiles would take as long as a wave that keeps all multiprocessors busy. Small tiles are several to a
    multiprocessor, and hide it.
    """
    known, wave = (sizes.batch, sizes.rows, sizes.columns, sizes.depth), target.multiprocessors
    if not all(isinstance(d, int) for d in known) or whole.block_m * whole.block_n < _LARGE:
        return whole
    if _in_pairs(whole, sizes, target):
        return whole
    waves, left = divmod(_programs(whole, sizes), wave)
    steps = _estimate(product(steps_of(sizes, whole)))
    splits = [split for split in _SPLITS if left * split <= wave and steps >= split * _PART_STEPS]
    if not waves or not left or not splits:
        return whole
    batch, m, n, k = (_estimate(d) for d in known)
    tile = Tile(whole.block_m, whole.block_n, whole.block_k, whole.stages, whole.warps)
    found = predict_product(target, Product(m, n, k, batch, kind.numpy.itemsize, unit), tile)
    units = max(time for bound, time in found.times.items() if bound not in (Bound.LATENCY, Bound.MEMORY))

    def seconds(split: int) -> float:
        busy = max(found.times[Bound.MEMORY], units * (waves + 1 / split) / (waves + 1))
        joined = joining_seconds(target, split, whole.block_m * whole.block_n * _SUM)
        return found.times[Bound.LATENCY] + busy + joined

    best = min(splits, key=seconds)
    return replace(whole, split=best, wave=wave) if seconds(best) < _GAIN * seconds(1) else whole


def _programs(made: ContractionSchedule, sizes: Sizes) -> int:
    """The tiles of a product."""
    batch, m, n = (_estimate(d) for d in (sizes.batch, sizes.rows, sizes.columns))
    return batch * -(-m // made.block_m) * -(-n // made.block_n)


def tiles_of(sizes: Sizes, kind: DType, precision: str, target: GpuTarget) -> list[tuple[int, int, int]]:
    """The tiles that a contraction may have, as (rows, columns, warps), the one that is reckoned the best first.

    Arguments as for `schedule_contraction`. Small tiles of large results are among them.
    """
    unit = matrix_unit(kind, precision, target)
    known = _tiles(_estimate(sizes.rows), _estimate(sizes.columns), unit, target)
    small = [t for t in _SMALL_TILES if max(t[:2]) >= _SIDE or t[0] == t[1] == _SIDE // 2]
    return sorted(dict.fromkeys([*known, *small]), key=lambda tile: _time(tile, sizes, target))


def _time(tile: tuple[int, int, int], sizes: Sizes, target: GpuTarget) -> tuple[float, int]:
    """What a tile costs: the time of all waves, in a unit of its own. Of equals the larger tile is better."""
    m, n, batch = (_estimate(d) for d in (sizes.rows, sizes.columns, sizes.batch))
    rows, columns, _ = tile
    waves = -(-batch * -(-m // rows) * -(-n // columns) // target.multiprocessors)
    return waves * rows * columns * (1 + _SIDE / rows + _SIDE / columns), -rows * columns


def _slices(made: ContractionSchedule, sizes: Sizes, programs: int, matrix: bool, target: GpuTarget) -> int:
    """The slices of a depth of many steps, where programs are too few to hide how long each waits.

    Hopper's matrix instruction, of 64 rows, multiplies no slices side by side.
    """
    inner, outer = steps_of(sizes, made)
    steps = inner * outer
    if target.backend != "cuda" or programs > target.multiprocessors or not isinstance(steps, int):
        return 1
    if matrix and min(made.block_m, made.block_n) >= _SIDE:
        return 1
    slices = 1
    while 2 * slices * made.warps <= _SLICED_WARPS and steps % (2 * slices) == 0 and steps // slices >= _FEW_STEPS:
        slices *= 2
    return slices


def matrix_unit(kind: DType, precision: str, target: GpuTarget) -> MatrixType | None:
    """What matrix units are given that multiply numbers of a type; None if vector units multiply them."""
    if kind is not DType.F32:
        return _KINDS.get(kind, MatrixType.INT8)
    return _SINGLE.get(precision, MatrixType.TF32 if target.backend == "hip" else None)


def _is_long(sizes: Sizes, made: ContractionSchedule) -> bool:
    """True if a program has steps enough to make up for what its first descriptor takes to arrive."""
    inner, outer = steps_of(sizes, made)
    steps = inner * outer
    return isinstance(steps, int) and steps >= _BULK_STEPS * (1 if made.wave else made.split)


def reads_shared_memory(target: GpuTarget) -> bool:
    """True for a GPU whose matrix units read what the tensor memory accelerator copies: for others it saves little."""
    return target.target in _READ_SHARED


def _tiles(m: int, n: int, unit: MatrixType | None, target: GpuTarget) -> list[tuple[int, int, int]]:
    """The tiles that may be: none much larger than the result; for large ones whole instructions of matrix units."""
    known: Sequence[tuple[int, int, int]] = _VECTOR_TILES
    if unit is not None:
        split = _SPLIT_TILES if reads_shared_memory(target) else _SPLIT_TILES[1:]
        known = split if unit is MatrixType.TF32X3 else _MATRIX_TILES
        known = known if min(m, n) >= 64 else (*known, *_SMALL_TILES)
    rows, columns = _power(m), _power(n)
    fitting = [t for t in known if t[0] <= max(16, rows) and t[1] <= max(16, columns)]
    if target.shared_per_block < 128 << 10:  # two large operands with several stages do not fit
        fitting = [t for t in fitting if t[0] * t[1] <= 128 * 128] or fitting
    return fitting


def _block_k(depths: Sequence[Dim], kind: DType, unit: MatrixType | None, target: GpuTarget) -> tuple[int, int]:
    """Terms of a step, and how many axes of the depth they go through.

    The last axis alone where blocks of it are not much larger than it is: then all else is the same within a step. Some
    of the last for the same reason, if that makes no more steps than all of them: one row of a window of few channels.
    """
    item = kind.numpy.itemsize
    least = 32 if item == 1 else 16
    most = 16 if unit is None else 128 // item if item < 4 else 32
    last = _estimate(depths[-1]) if depths else 1
    if unit is MatrixType.TF32X3 and (not reads_shared_memory(target) or last * item % _ACCESS):
        most = 16  # both parts of both operands are in registers, or an address for each element that is fetched
    whole = _estimate(product(depths))
    block, padded = _padded(last, least, most)
    if len(depths) < 2 or padded * 3 <= last * 4:
        return block, 1
    largest, terms = _padded(whole, least, most)
    for axes in range(2, len(depths)):
        some = _estimate(product(depths[-axes:]))
        block, padded = _padded(some, least, most)
        if padded * 3 <= some * 4 and block >= largest and padded * (whole // some) <= terms:
            return block, axes
    return largest, len(depths)


def _padded(terms: int, least: int, most: int) -> tuple[int, int]:
    """The block for which the terms with what fills the last block cost least, and their number then."""
    blocks = [least << n for n in range((most // least).bit_length())]
    cost = {b: -(-terms // b) * b * (1 + 8 / b) for b in blocks}
    block = min(blocks, key=lambda b: (cost[b], -b))  # of equals the one with fewer steps
    return block, -(-terms // block) * block


def _stages(made: ContractionSchedule, sizes: Sizes, kind: DType, unit: MatrixType | None, target: GpuTarget) -> int:
    """As many blocks of the operands as fit into shared memory, from 2 to 4: more wait for nothing.

    To 5 where a program is alone on its multiprocessor and has that many steps: measured on an H200, kernels of small
    grids then took 3 to 8 % less. On AMD's GPUs 2: loads of the next block are on their way into registers (AMD,
    "Optimizing Triton kernels"). 3 and 4 where operands are split: what was measured on an H200.
    """
    if unit is None or target.backend == "hip":
        return 2
    steps = _estimate(product(steps_of(sizes, made))) // (made.slices * made.split)
    alone = _programs(made, sizes) * made.split <= target.multiprocessors and steps >= _ALONE_STAGES
    step = _step_bytes(made, kind, sizes.loads)
    roomy = step * _ALONE_STAGES <= target.shared_per_block
    most = _ALONE_STAGES if alone and roomy else _MOST_STAGES
    if unit is MatrixType.TF32X3:
        most = _MOST_STAGES - 1 if made.block_m * made.block_n >= _LARGE else _MOST_STAGES
    elif steps <= _PASSING_STEPS and _programs(made, sizes) >= _PASSING_PROGRAMS * target.multiprocessors:
        most = steps + 1  # more would have no use, and leave room for fewer programs
    made = replace(made, stages=most)
    room = target.shared_per_block
    if _in_pairs(made, sizes, target):
        room = target.shared_per_sm // 2 - target.sm.reserved
    while made.stages > 2 and shared_bytes(made, kind, target, unit, sizes.loads) > room:
        made = replace(made, stages=made.stages - 1)
    return made.stages


def shared_bytes(
    made: ContractionSchedule,
    kind: DType,
    target: GpuTarget,
    unit: MatrixType | None = None,
    loads: tuple[int, int] = (1, 1),
) -> int:
    """Bytes of shared memory of the operands that a program has on their way, as Triton lays them out.

    Where matrix instructions read them while others arrive (Hopper, Blackwell), each stage has a block; elsewhere the
    block that is multiplied is in registers, and so is one that is split for three products (`unit`), of which the
    instructions read both parts of the right operand from shared memory. What descriptors fetch has a barrier for each
    stage. loads: as in Sizes; each load has blocks of its own.
    """
    item: int = kind.numpy.itemsize
    step = _step_bytes(made, kind, loads)
    reads_shared = target.target in _READ_SHARED and made.block_m >= _SIDE
    splits = unit is MatrixType.TF32X3
    barriers = _BARRIER * made.stages if made.bulk else 0
    parts = 2 * made.block_n * made.block_k * item if splits and reads_shared else 0
    return step * (made.stages if reads_shared and not splits else max(1, made.stages - 1)) + parts + barriers


def _step_bytes(made: ContractionSchedule, kind: DType, loads: tuple[int, int]) -> int:
    """Bytes that a program loads in a step."""
    elements = (made.block_m * loads[0] + made.block_n * loads[1]) * made.block_k * made.slices
    return elements * int(kind.numpy.itemsize)


def _estimate(dim: Dim) -> int:
    """The points that a schedule reckons with."""
    if isinstance(dim, int):
        return max(1, dim)
    high = bounds_of(dim)[1]
    return max(1, min(high, _UNKNOWN)) if high is not None else _UNKNOWN


def _power(points: int) -> int:
    return 1 << (points - 1).bit_length()


def steps_of(sizes: Sizes, schedule: ContractionSchedule) -> tuple[Dim, Dim]:
    """The steps through the axes that are gone through as one, and how often these are gone through."""
    split = len(sizes.depths) - schedule.together
    inner, outer = product(sizes.depths[split:]), product(sizes.depths[:split])
    return ceildiv(inner, schedule.block_k), outer
