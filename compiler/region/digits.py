"""An axis of a region as two: the quotient and the remainder of a division.

What divides an axis, as the groups of a convolution do its output channels, becomes an axis of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt
from fusible.compiler.region.prune import moved_map, renamed_stage
from fusible.compiler.region.region import Contract, Index, Load, Reduce, Region, Stage, Store, Test

__all__ = ["divisors_of", "with_digits"]


def with_digits(region: Region, axis: int, size: int) -> Region:
    """The region in which `i<axis>` is the quotient by `size`, and a new last axis the remainder.

    The axis is none that a scan runs along, and its extent is a literal multiple of `size`. Raises ValueError.
    """
    extent = region.extents[axis]
    if not isinstance(extent, int) or size < 1 or extent % size or not extent:
        raise ValueError(f"axis i{axis} of extent {extent} does not fall into parts of {size}")
    new = len(region.extents)
    quotient = SymInt.of(Symbol(f"i{axis}", 0, extent // size - 1)) if extent > size else 0
    remainder = SymInt.of(Symbol(f"i{new}", 0, size - 1)) if size > 1 else 0
    names: dict[str, Dim] = {f"i{axis}": quotient * size + remainder}
    values, axes = {v: v for v in range(len(region.dtypes))}, {a: a for a in range(new)}

    def moved(stage: Stage) -> Stage:
        found = renamed_stage(stage, values, axes, names)
        if isinstance(found, (Reduce, Contract)) and axis in found.axes:
            return replace(found, axes=(*found.axes, new))
        return found

    extents = tuple(extent // size if a == axis else e for a, e in enumerate(region.extents))
    stores = tuple(Store(s.buffer, moved_map(s.map, names), s.value) for s in region.stores)
    return Region((*extents, size), region.inputs, region.outputs, tuple(moved(s) for s in region.stages), stores)


def divisors_of(region: Region, axis: int) -> tuple[int, ...]:
    """The numbers by which loads and stages divide expressions of an axis, if they divide its extent."""
    extent = region.extents[axis]
    found = {d for dim in _dims(region) for d in _divisors(dim, f"i{axis}")}
    return tuple(sorted(d for d in found if isinstance(extent, int) and 1 < d < extent and extent % d == 0))


def _dims(region: Region) -> Iterator[Dim]:
    for stage in region.stages:
        match stage:
            case Load(_, map_):
                yield from map_.components
                yield from (d for b in map_.bounds for d in (b.expr, b.low, b.high))
            case Index(expr):
                yield expr
            case Test(bounds):
                yield from (d for b in bounds for d in (b.expr, b.low, b.high))


def _divisors(dim: Dim, name: str) -> Iterator[int]:
    if not isinstance(dim, SymInt):
        return
    for monomial, _ in dim.terms:
        for atom in monomial:
            if isinstance(atom, Call):
                divisor = atom.args[1]
                mentions = isinstance(atom.args[0], SymInt) and _mentions(atom.args[0], name)
                if atom.function in ("floordiv", "mod") and mentions and isinstance(divisor, int):
                    yield divisor
                for argument in atom.args:
                    yield from _divisors(argument, name)


def _mentions(dim: SymInt, name: str) -> bool:
    return any(s.name == name for s in symbols_of(dim))
