"""How a region is spread over programs and threads: a pure function of shapes, element types and what a GPU is.

Without folds all points are one row of blocks, but for what is read across the order in which it is written: tiles of
two dimensions keep both sides adjacent (transposed). With folds a tile has rows and columns (`tile.py`): the columns of
a whole row are held in registers where they fit (persistent), so that operands are read once; else passes loop over
them. Where neighbours in memory lie along the rows, as in pooling, a tile is many rows wide and loops over few columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fusible.compiler.backends.cpu.nest import Access
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.passes import Passes
from fusible.compiler.backends.triton.schedule_sums import shared_columns, split_of
from fusible.compiler.backends.triton.tile import Tile, tile_of
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.region.region import Load, Reduce, Region, operands_of

__all__ = ["UNROLLED", "Form", "Schedule", "folds_bytes", "schedule"]

UNROLLED = 16
"""Steps of a loop that the compiler writes out, at most: all loads of a step are then on their way at once."""

_ACCESS_BYTES = 16  # the widest load and store of a thread
_REGISTER_BYTES = 4
_MOST_WARPS = 16
_SQUARE = 32  # rows and columns of a transposed tile
_TILE = 1024  # points of a tile of short rows
_LONGEST_ROW = 16384  # columns of a persistent tile, whatever the registers
_RUN, _CLOSE = 32, 4  # neighbours that count, and how far apart they may be
_WINDOW = 64  # columns that are gone through one by one
_EACH = 8  # elements a thread
_READ_AGAIN = 4  # rows of a program that read the same vector
_ACROSS = 256  # columns of a persistent tile whose rows are neighbours
_WAITING = 8  # warps of a multiprocessor that go through a large window, at least: each waits for every row of it
_HALF_WORD = 2  # elements of a thread, at least, where they are fewer so that there are more warps


class Form(Enum):
    """How a tile meets the folded axes."""

    POINTS = "points"
    TRANSPOSED = "transposed"
    PERSISTENT = "persistent"
    LOOPED = "looped"


@dataclass(frozen=True, slots=True)
class Schedule:
    """rows, columns: the points of a tile, powers of two (columns is 1 for points); vector: elements an access.

    across: the axis that is the columns of a transposed tile, else -1. split: programs that share the columns of a
    looped tile, a power of two.
    """

    form: Form
    rows: int
    columns: int
    warps: int
    stages: int
    vector: int
    across: int = -1
    split: int = 1


def schedule(region: Region, target: GpuTarget) -> Schedule:
    """The schedule of a region without contractions. Raises NotPrintable for one that the printer does not take."""
    tile = tile_of(region)
    vector = _vector(tile)
    if not tile.folds:
        across = _read_across(tile)
        if across is not None:
            return Schedule(Form.TRANSPOSED, _SQUARE, _SQUARE, 4, 1, vector, across)
        return _points(tile, target, vector)
    if neighbours_are_rows(tile):
        return _across(tile, target, vector)
    return _along(tile, target, vector)


def neighbours_are_rows(tile: Tile) -> bool:
    """True if what the folded axes read lies closer together along the rows than along the columns.

    What is the same for all rows (the vector beside a matrix) is little and does not count beside what is not.
    """
    accesses = [a for a in tile.nest.accesses() if tile.spread((a.offset,))[1]]
    accesses = [a for a in accesses if tile.spread((a.offset,))[0]] or accesses
    along_rows = sum(_adjacent(tile, access, tile.rows) for access in accesses)
    return along_rows > sum(_adjacent(tile, access, tile.columns) for access in accesses)


def _adjacent(tile: Tile, access: Access, axes: tuple[int, ...]) -> int:
    """How many elements of a warp's share lie side by side along the last of the axes."""
    if not axes:
        return 0
    step, extent = tile.step(access, axes[-1]), tile.nest.extents[axes[-1]]
    run = min(extent, _RUN) if isinstance(extent, int) else _RUN
    return run // step if isinstance(step, int) and 1 <= step <= _CLOSE else 0


def _vector(tile: Tile) -> int:
    """Elements of the smallest type that fill the widest access; from 2 to 8."""
    return max(2, min(8, _ACCESS_BYTES // _smallest(tile)))


def _smallest(tile: Tile) -> int:
    """Bytes of the smallest element that is read or written."""
    return min((b.dtype.numpy.itemsize for b in (*tile.region.inputs, *tile.region.outputs)), default=4)


def _read_across(tile: Tile) -> int | None:
    """The axis along which something read is adjacent that lies apart along the last axis, along which is written.

    Only where both are long enough for tiles, whose turn through shared memory the compiler makes.
    """
    if len(tile.rows) < 2 or not all(_is_long(tile, a) for a in tile.rows[-1:]):
        return None
    last = tile.rows[-1]
    if not all(tile.step(store, last) == 1 for store in tile.nest.stores):
        return None
    apart = [a for a in tile.nest.loads.values() if (step := tile.step(a, last)) is not None and step not in (0, 1)]
    for axis in tile.rows[:-1]:
        if _is_long(tile, axis) and any(tile.step(access, axis) == 1 for access in apart):
            return axis
    return None


def _is_long(tile: Tile, axis: int) -> bool:
    extent = tile.nest.extents[axis]
    return not isinstance(extent, int) or extent >= _SQUARE


def _points(tile: Tile, target: GpuTarget, vector: int) -> Schedule:
    warps = 4
    while warps > 1 and _programs(tile.row_points, warps * target.warp * vector) < 2 * target.multiprocessors:
        warps //= 2
    return Schedule(Form.POINTS, warps * target.warp * vector, 1, warps, 1, vector)


def _along(tile: Tile, target: GpuTarget, vector: int) -> Schedule:
    """Neighbours are columns: threads share a row."""
    columns = _power(tile.column_points)
    each = _ACCESS_BYTES if folds_bytes(tile) else _EACH
    vector = max(vector, each) if each > _EACH else vector
    if columns is None or columns > _longest(tile, target):
        warps = 8
        longest = warps * target.warp * vector
        columns = min(columns or longest, longest)
        split = split_of(tile, target, columns, _smallest(tile))
        return Schedule(Form.LOOPED, 1, columns, warps, 3, vector, split=split)
    if columns * _READ_AGAIN >= _TILE and _reads_again(tile):
        rows = _filling(tile, target, max(1, min(_READ_AGAIN, _LONGEST_ROW // columns)), 1)
        return Schedule(Form.PERSISTENT, rows, columns, _warps(columns, target, each), 1, vector)
    rows = max(1, _TILE // columns)
    rows = _filling(tile, target, rows, 1)
    return Schedule(Form.PERSISTENT, rows, columns, _warps(rows * columns, target, each), 1, vector)


def folds_bytes(tile: Tile) -> bool:
    """True if most of what is read are bytes, adjacent along the columns: a product of a vector and stored weights."""
    inputs = tile.region.inputs
    sizes = {n: product(b.shape) for n, b in enumerate(inputs)}
    largest = max(sizes, key=lambda n: size if isinstance(size := sizes[n], int) else 0, default=None)
    if largest is None or inputs[largest].dtype.numpy.itemsize != 1 or not tile.columns:
        return False
    last = tile.columns[-1]
    loads = [n for n, s in enumerate(tile.region.stages) if isinstance(s, Load) and s.buffer == largest]
    return [tile.step(tile.nest.loads[n], last) for n in loads] == [1]


def _reads_again(tile: Tile) -> bool:
    """True if rows are only summed up, and all of them read the same vector: products of a matrix and a vector.

    Several rows of a program then read it once, and a thread has more loads on their way.
    """
    spread = [tile.spread((load.offset,)) for load in tile.nest.loads.values()]
    only_sums = not any(tile.spread((store.offset,))[1] for store in tile.nest.stores)
    return only_sums and (False, True) in spread and (True, True) in spread


def _across(tile: Tile, target: GpuTarget, vector: int) -> Schedule:
    """Neighbours are rows: threads lie along them."""
    shared = shared_columns(tile, target, vector, _smallest(tile))
    if shared is not None:
        return Schedule(Form.LOOPED, shared.rows, shared.columns, shared.warps, 3, vector, split=shared.split)
    columns = _power(tile.column_points)
    rows = min(_power(tile.row_points) or 128, 128)
    rows = _filling(tile, target, rows, min(rows, target.warp))
    passes = len(Passes(tile).passes)
    if columns is not None and columns <= _ACROSS and (passes > 1 or tile.scans):
        rows = max(1, min(rows, 4 * _TILE // columns))
        return Schedule(Form.PERSISTENT, rows, columns, _warps(rows * columns, target), 1, vector)
    if columns is not None and columns <= _WINDOW:  # what threads of a warp read lies side by side
        held = _held(tile, target, vector, columns) if _reads_vectors(tile, vector) else 1
        rows = _filling(tile, target, 4 * target.warp * held, target.warp)
        return Schedule(Form.LOOPED, rows, 1, max(1, rows // (target.warp * held)), 3, vector)
    return Schedule(Form.LOOPED, rows, 16, _warps(rows * 16, target), 3, vector)


def _held(tile: Tile, target: GpuTarget, vector: int, columns: int) -> int:
    """Neighbours of a thread. In large windows, whose steps wait for memory again and again, fewer if warps are few."""
    held, points = vector, tile.row_points
    if columns <= UNROLLED or not isinstance(points, int):
        return held
    while held > _HALF_WORD and points < held * target.warp * _WAITING * target.multiprocessors:
        held //= 2
    return held


def _reads_vectors(tile: Tile, vector: int) -> bool:
    """True if neighbouring rows are neighbours in memory wherever they are read or written, in whole vectors."""
    if not tile.rows:
        return False
    extent = tile.nest.extents[tile.rows[-1]]
    steps = {tile.step(access, tile.rows[-1]) for access in tile.nest.accesses()}
    return steps <= {0, 1} and isinstance(extent, int) and extent % vector == 0


def _longest(tile: Tile, target: GpuTarget) -> int:
    """The columns for which what is kept while a reduction runs takes half of a multiprocessor's registers."""
    return min(_LONGEST_ROW, target.registers * _REGISTER_BYTES // 2 // max(_REGISTER_BYTES, _kept(tile)))


def _kept(tile: Tile) -> int:
    """Bytes a column: of the values that are made before a reduction and read after it, where they are most."""
    region, passes = tile.region, Passes(tile)
    last = {v: position for position, stage in enumerate(region.stages) for v in operands_of(stage)}
    last.update({store.value: len(region.stages) for store in region.stores})
    most = 0
    for reduction, stage in enumerate(region.stages):
        if isinstance(stage, Reduce):
            live = [
                v for v, position in passes.positions.items()
                if position < reduction < last.get(v, -1) and passes.in_columns(position)
            ]  # fmt: skip
            most = max(most, sum(max(_REGISTER_BYTES, region.dtypes[v].numpy.itemsize) for v in live))
    return most


def _filling(tile: Tile, target: GpuTarget, rows: int, least: int) -> int:
    """Fewer rows a program where there are too few programs for two on each multiprocessor."""
    while rows > least and _programs(tile.row_points, rows) < 2 * target.multiprocessors:
        rows //= 2
    return rows


def _programs(points: Dim, block: int) -> int:
    """Programs for that many points; unknown extents count as many."""
    return -(-points // block) if isinstance(points, int) else 1 << 30


def _power(points: Dim) -> int | None:
    """The next power of two, at least 1; None for an unknown extent."""
    return 1 << (max(points, 1) - 1).bit_length() if isinstance(points, int) else None


def _warps(elements: int, target: GpuTarget, each: int = _EACH) -> int:
    """So many elements a thread, from 1 to 16 warps."""
    return max(1, min(_MOST_WARPS, elements // (each * target.warp)))
