"""How attention is spread over programs: a pure function of shapes, element types and what a GPU is.

Queries of a program come in blocks of 128 where matrix units take them, so that each key that is read serves many; the
block of keys is as large as shared memory allows for the copies that are in flight. Products in float32 proper are made
by the vector units, whose operands live in registers: small blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.backends.attention import Attention
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType

__all__ = ["AttentionSchedule", "schedule_attention", "shared_bytes"]

_LEAST = 16  # rows, columns and depth of a product of tiles


@dataclass(frozen=True, slots=True)
class AttentionSchedule:
    """rows: queries of a program; keys: those of a step. Powers of two, at least 16."""

    rows: int
    keys: int
    warps: int
    stages: int


def schedule_attention(
    attention: Attention, dtype: DType, target: GpuTarget, precision: str = "ieee"
) -> AttentionSchedule:
    """The schedule for operands of a type; precision: how matrix units multiply f32, `ieee` or `tf32`."""
    extents = attention.region.extents
    size, width = (_power(extents[axis]) for axis in (attention.size, attention.column))
    queries: Dim = 1 if attention.query is None else extents[attention.query]
    most = _power(queries) if isinstance(queries, int) else 1 << 30
    if dtype is DType.F32 and precision == "ieee":
        rows, keys, warps = (32, 16, 4) if max(size, width) <= 128 else (16, 16, 4)
    elif max(size, width) <= 128:
        rows, keys, warps = 128, 64, 4 if max(size, width) <= 64 else 8
    else:
        rows, keys, warps = 64, 32, 4
    heads = product(extents[axis] for axis in attention.leading)
    rows = min(rows, most)
    while rows > 64 and _programs(queries, rows, heads) < target.multiprocessors:
        rows //= 2
    if rows < 64:
        warps = min(warps, 4)
    stages = 2 if target.backend == "cuda" else 1
    item = dtype.numpy.itemsize
    while keys > _LEAST and _shared(rows, keys, size, width, stages, item) > target.shared_per_block:
        if stages > 1:
            stages -= 1
        else:
            keys //= 2
    known = extents[attention.key]
    if isinstance(known, int):
        keys = min(keys, _power(known))
    return AttentionSchedule(rows, keys, warps, stages)


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
