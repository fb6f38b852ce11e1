"""A region whose shape symbols are called s0, s1, ...: models that differ in names only share kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.region.index import Bound
from fusible.compiler.region.prune import moved_map, renamed_stage
from fusible.compiler.region.region import Buffer, Index, Load, Region, Store, Test

__all__ = ["anonymous"]

_OWN = re.compile(r"[iv][0-9]+")


def anonymous(region: Region) -> tuple[Region, dict[str, Dim]]:
    """The region with its shape symbols renamed in order of appearance, and what each new name stands for."""
    found: dict[Symbol, str] = {}
    for dim in _dims(region):
        for symbol in symbols_of(dim):
            if not _OWN.fullmatch(symbol.name):
                found.setdefault(symbol, f"s{len(found)}")
    if not found:
        return region, {}
    names: dict[str, Dim] = {s.name: SymInt.of(Symbol(new, s.lower, s.upper)) for s, new in found.items()}
    same = {v: v for v in range(len(region.dtypes))}
    axes = {a: a for a in range(len(region.extents))}
    renamed = Region(
        tuple(substitute(e, names) for e in region.extents),
        tuple(_buffer(b, names) for b in region.inputs),
        tuple(_buffer(b, names) for b in region.outputs),
        tuple(renamed_stage(stage, same, axes, names) for stage in region.stages),
        tuple(Store(s.buffer, moved_map(s.map, names), s.value) for s in region.stores),
    )
    return renamed, {new: SymInt.of(symbol) for symbol, new in found.items()}


def _buffer(buffer: Buffer, names: Mapping[str, Dim]) -> Buffer:
    return Buffer(buffer.dtype, tuple(substitute(d, names) for d in buffer.shape))


def _dims(region: Region) -> Iterator[Dim]:
    """Every expression of a region, in the order of its text."""
    yield from region.extents
    for buffer in (*region.inputs, *region.outputs):
        yield from buffer.shape
    for part in (*region.stages, *region.stores):
        match part:
            case Load(_, map_) | Store(_, map_, _):
                yield from map_.components
                yield from _of_bounds(map_.bounds)
            case Index(expr):
                yield expr
            case Test(bounds):
                yield from _of_bounds(bounds)


def _of_bounds(bounds: tuple[Bound, ...]) -> Iterator[Dim]:
    for bound in bounds:
        yield from (bound.expr, bound.low, bound.high)
