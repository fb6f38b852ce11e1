"""The same region over buffers that are stored otherwise: in another order, or as blocks of something larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.index import IndexMap
from fusible.compiler.region.region import Buffer, Load, Region

__all__ = ["Order", "reordered", "widened"]

Order = tuple[int, ...]
"""Which logical dimension stands at each place in memory, outermost first."""


def reordered(region: Region, inputs: Mapping[int, Order], outputs: Mapping[int, Order]) -> Region:
    """The region with some of its buffers stored in the orders given, by number of input and output."""
    if not inputs and not outputs:
        return region
    stages = tuple(
        replace(s, map=_moved(s.map, inputs[s.buffer])) if isinstance(s, Load) and s.buffer in inputs else s
        for s in region.stages
    )
    stores = tuple(
        replace(s, map=_moved(s.map, outputs[s.buffer])) if s.buffer in outputs else s for s in region.stores
    )
    return Region(
        region.extents,
        tuple(_buffer(b, inputs.get(n)) for n, b in enumerate(region.inputs)),
        tuple(_buffer(b, outputs.get(n)) for n, b in enumerate(region.outputs)),
        stages,
        stores,
    )


def _moved(map_: IndexMap, order: Order) -> IndexMap:
    return IndexMap(tuple(map_.components[d] for d in order), map_.bounds, map_.fill)


def _buffer(buffer: Buffer, order: Order | None) -> Buffer:
    return buffer if order is None else Buffer(buffer.dtype, tuple(buffer.shape[d] for d in order))


def widened(region: Region, inputs: Mapping[int, tuple[Dim, ...]], outputs: Mapping[int, tuple[Dim, ...]]) -> Region:
    """The region with some of its buffers at the beginning of larger ones of the shapes given.

    A buffer that is a block of another one is passed by the address of its first element: what changes is how far
    apart its elements lie. No element outside the block is read or written, nor need there be any memory for it.
    """
    if not inputs and not outputs:
        return region

    def wide(buffers: tuple[Buffer, ...], shapes: Mapping[int, tuple[Dim, ...]]) -> tuple[Buffer, ...]:
        return tuple(Buffer(b.dtype, shapes.get(n, b.shape)) for n, b in enumerate(buffers))

    return Region(
        region.extents, wide(region.inputs, inputs), wide(region.outputs, outputs), region.stages, region.stores
    )
