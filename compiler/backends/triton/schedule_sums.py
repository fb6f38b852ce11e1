"""How folds with few results are spread: blocks of rows and columns, and how many programs share the columns.

Threads of such kernels wait: each step of a loop for its loads, each program that shares for the others' results. So
the blocks that may be are compared by how long a multiprocessor waits and how much it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.passes import partial_type
from fusible.compiler.backends.triton.roofline import joining_seconds
from fusible.compiler.backends.triton.tile import Tile

__all__ = ["Share", "shared_columns", "split_of"]

_STEP = 0.4e-6  # seconds that a step of a loop waits for what it reads, beside the time that reading takes (assumed)
_MOST = 64  # programs that share a tile: the last one holds a part of each
_GAIN = 0.8  # of the time without sharing, which a shared fold must stay below: the figures above err
_SECTOR = 32  # bytes that memory is read in
_LINE = 128
_SUM = 4  # bytes of a partial result
_WARPS = 4
_IN_FLIGHT = 4  # wide accesses of a thread in a step
_RESIDENT = 8  # programs of four warps that a multiprocessor runs at once, for certain


@dataclass(frozen=True, slots=True)
class Share:
    """rows, columns: the points of a tile; split: programs that share it. seconds: what that is reckoned to take."""

    rows: int
    columns: int
    warps: int
    split: int
    seconds: float


def shared_columns(tile: Tile, target: GpuTarget, vector: int, item: int) -> Share | None:
    """The blocks for folds whose neighbours lie along the rows; None where they are many or need several passes.

    vector: elements of an access; item: bytes of the smallest element.
    """
    rows, columns = tile.row_points, tile.column_points
    if not isinstance(rows, int) or not isinstance(columns, int) or partial_type(tile) is None or not rows * columns:
        return None
    if rows >= 2 * target.multiprocessors * target.warp:
        return None
    return min(_blocks(rows, columns, target, vector, item), key=lambda s: (s.seconds, -s.rows, s.split))


def _blocks(rows: int, columns: int, target: GpuTarget, vector: int, item: int) -> Iterator[Share]:
    """Tiles of a sector to a line of memory, by how many programs share them.

    Device memory gives two sectors at once: one alone is for what fits into the cache and was left there.
    """
    least = _SECTOR if rows * columns * item <= target.l2 // 2 else 2 * _SECTOR
    for each in sorted({least // item, 2 * _SECTOR // item, _LINE // item}):
        points = _WARPS * target.warp * vector * _IN_FLIGHT
        block = min(_power(columns), max(1, points // each))
        warps = max(1, min(_WARPS, each * block // (target.warp * vector)))
        for split in _splits(-(-columns // block)):
            tiles = -(-rows // each)
            seconds = _seconds(tiles, each * block * item, _SUM * each, -(-columns // block), split, target)
            yield Share(each, block, warps, split, seconds)


def split_of(tile: Tile, target: GpuTarget, columns: int, item: int) -> int:
    """How many programs share a row whose neighbours are its columns, which are gone through in such blocks."""
    rows, points = tile.row_points, tile.column_points
    if not isinstance(rows, int) or not isinstance(points, int) or partial_type(tile) is None or not rows * points:
        return 1
    steps = -(-points // columns)
    return min(_splits(steps), key=lambda split: (_seconds(rows, columns * item, _SUM, steps, split, target), split))


def _splits(steps: int) -> list[int]:
    return [1 << n for n in range(_MOST.bit_length()) if 1 << n <= steps]


def _seconds(tiles: int, nbytes: int, kept: int, steps: int, split: int, target: GpuTarget) -> float:
    """The time of a fold. nbytes: of a step; kept: of what a program leaves for the last one."""
    most = _RESIDENT * target.multiprocessors
    programs, own = tiles * split, -(-steps // split)
    read = (
        programs * own * nbytes / target.l2_bandwidth * target.multiprocessors / min(programs, target.multiprocessors)
    )
    seconds = max(-(-programs // most) * own * _STEP, read) + _STEP
    return seconds if split == 1 else (seconds + joining_seconds(target, split, kept)) / _GAIN


def _power(points: int) -> int:
    return 1 << (points - 1).bit_length()
