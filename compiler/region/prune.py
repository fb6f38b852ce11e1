"""Remove from a region the stages and axes that nothing needs, and number the rest without gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import is_

from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt
from fusible.compiler.region.expr import renumbered
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.region import (
    Contract,
    Index,
    Load,
    Map,
    Reduce,
    Region,
    Scan,
    Stage,
    Store,
    Test,
    axes_of,
    operands_of,
    value_symbol,
)

__all__ = ["moved_map", "pruned", "renamed_stage"]


def pruned(region: Region, *, keep_axes: bool = False) -> Region:
    """The same outputs, by live stages only. keep_axes: axes that nothing needs any more keep their numbers."""
    live = _live_stages(region)
    axes = {n: n for n in range(len(region.extents))} if keep_axes else _live_axes(region, live)
    values: dict[int, int] = {}
    for position in live:
        for value in _results(region, position):
            values[value] = len(values)
    names = _names(region, values, axes)
    stages = tuple(renamed_stage(region.stages[p], values, axes, names) for p in live)
    stores = tuple(Store(s.buffer, moved_map(s.map, names), values[s.value]) for s in region.stores)
    extents = tuple(region.extents[a] for a in axes)
    return Region(extents, region.inputs, region.outputs, stages, stores)


def _results(region: Region, position: int) -> range:
    first = region.first_values[position]
    following = region.first_values[position + 1] if position + 1 < len(region.stages) else len(region.dtypes)
    return range(first, following)


def _live_stages(region: Region) -> list[int]:
    needed = {v for store in region.stores for v in operands_of(store)}
    live: list[int] = []
    for position in reversed(range(len(region.stages))):
        if needed.intersection(_results(region, position)):
            live.append(position)
            needed.update(operands_of(region.stages[position]))
    return live[::-1]


def _live_axes(region: Region, live: list[int]) -> dict[int, int]:
    used = {a for part in (*(region.stages[p] for p in live), *region.stores) for a in axes_of(part)}
    for position in live:
        match region.stages[position]:
            case Reduce(axes=axes) | Contract(axes=axes):
                used.update(axes)
            case Scan(axis=axis):
                used.add(axis)
    used.update(a for a, extent in enumerate(region.extents) if extent == 0)  # no points: indices may have become 0
    return {axis: number for number, axis in enumerate(sorted(used))}


def _names(region: Region, values: Mapping[int, int], axes: Mapping[int, int]) -> dict[str, Dim]:
    names: dict[str, Dim] = {f"v{old}": value_symbol(new) for old, new in values.items() if old != new}
    for old, new in axes.items():
        extent = region.extents[old]
        names[f"i{old}"] = SymInt.of(Symbol(f"i{new}", 0, max(extent - 1, 0) if isinstance(extent, int) else None))
    return names


def moved_map(map_: IndexMap, names: Mapping[str, Dim]) -> IndexMap:
    """The map with symbols replaced by name; the same object if none changes."""
    components = tuple([substitute(c, names) for c in map_.components])
    bounds = _bounds(map_.bounds, names)
    if bounds is map_.bounds and all(map(is_, components, map_.components)):
        return map_
    return IndexMap(components, bounds, map_.fill)


def _bounds(bounds: tuple[Bound, ...], names: Mapping[str, Dim]) -> tuple[Bound, ...]:
    moved = tuple([_bound(bound, names) for bound in bounds])
    return bounds if all(map(is_, moved, bounds)) else moved


def _bound(bound: Bound, names: Mapping[str, Dim]) -> Bound:
    expr, low, high = (substitute(d, names) for d in (bound.expr, bound.low, bound.high))
    return bound if expr is bound.expr and low is bound.low and high is bound.high else Bound(expr, low, high)


def renamed_stage(stage: Stage, values: Mapping[int, int], axes: Mapping[int, int], names: Mapping[str, Dim]) -> Stage:
    """The stage with its operands renumbered by `values`, folded axes by `axes`, and symbols replaced by name."""
    match stage:
        case Load(buffer, map_):
            moved = moved_map(map_, names)
            return stage if moved is map_ else Load(buffer, moved)
        case Index(expr, dtype):
            return Index(substitute(expr, names), dtype)
        case Test(bounds):
            return Test(_bounds(bounds, names))
        case Map(expr, dtype):
            changed = renumbered(expr, values)
            return stage if changed is expr else Map(changed, dtype)
        case Scan():
            return replace(stage, axis=axes[stage.axis], args=tuple(values[a] for a in stage.args))
        case Reduce() | Contract():
            folded = tuple(axes[a] for a in stage.axes)
            return replace(stage, axes=folded, args=tuple(values[a] for a in stage.args))
