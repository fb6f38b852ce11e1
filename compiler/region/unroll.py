"""Small windows folded point by point: a reduction over few literal points becomes maps of a value for each of them.

    max over i3, i4 of x[2*i1 + i3, 2*i2 + i4]  ->  max(max(x[2*i1, 2*i2], x[2*i1, 2*i2 + 1]), ...)

So a pooling stands before a contraction as any other computation of its operand does.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product as points_of
from math import prod

from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType
from fusible.compiler.region.combiners import COMBINERS
from fusible.compiler.region.expr import renumbered
from fusible.compiler.region.prune import moved_map, pruned, renamed_stage
from fusible.compiler.region.region import (
    Contract,
    Map,
    Reduce,
    Region,
    Scan,
    Stage,
    Store,
    axes_of,
    operands_of,
    value_symbol,
)

__all__ = ["unrolled"]

_EXACT = frozenset({"max", "min"})  # in any precision; sums of small floats are rounded once, not at every step


def unrolled(region: Region, most: int) -> Region:
    """The region without its reductions over at most so many literal points; itself if it has none such."""
    for position, stage in enumerate(region.stages):
        if isinstance(stage, Reduce) and _is_small(region, position, stage, most):
            return unrolled(_without(region, position, stage), most)
    return region


def _is_small(region: Region, position: int, fold: Reduce, most: int) -> bool:
    extents = [region.extents[axis] for axis in fold.axes]
    if not all(isinstance(e, int) and e > 0 for e in extents) or prod(e for e in extents if isinstance(e, int)) > most:
        return False
    if COMBINERS[fold.combiner].width != 1 or fold.dtypes[0] is not region.dtypes[fold.args[0]]:
        return False
    if fold.combiner not in _EXACT and fold.dtypes[0] not in (DType.F32, DType.F64):
        return False
    axes, made = set(fold.axes), set[int]()
    for number, stage in enumerate(region.stages):
        if number == position:
            continue
        if isinstance(stage, Reduce | Contract | Scan) and (axes & _folded(stage) or made & set(operands_of(stage))):
            return False  # what varies over the windows goes into maps and this reduction only
        if region.spaces[region.first_values[number]] & axes:
            made.add(region.first_values[number])
    return not any(made & set(operands_of(store)) or axes & set(axes_of(store)) for store in region.stores)


def _folded(stage: Reduce | Contract | Scan) -> set[int]:
    return {stage.axis} if isinstance(stage, Scan) else set(stage.axes)


def _without(region: Region, fold_position: int, fold: Reduce) -> Region:
    """The region with one reduction unrolled where it stood; what varied over its axes is made there for each point."""
    axes = {n: n for n in range(len(region.extents))}
    folded = set(fold.axes)
    inside = [n for n, first in enumerate(region.first_values) if region.spaces[first] & folded]
    values: dict[int, int] = {}
    names: dict[str, Dim] = {}
    stages: list[Stage] = []
    made = 0
    for position, (stage, first) in enumerate(zip(region.stages, region.first_values, strict=True)):
        if position in inside:
            continue
        if position == fold_position:
            copies, values[first] = _copies(region, inside, fold, values, names, made)
            stages += copies
            made += len(copies)
        else:
            stages.append(renamed_stage(stage, values, axes, names))
            for old in range(first, first + len(region.results(stage))):
                values[old], made = made, made + 1
        names |= {f"v{old}": value_symbol(new) for old, new in values.items() if old != new}
    stores = tuple(Store(s.buffer, moved_map(s.map, names), values[s.value]) for s in region.stores)
    extents = tuple(1 if n in folded else e for n, e in enumerate(region.extents))
    return pruned(replace(region, extents=extents, stages=tuple(stages), stores=stores))


def _copies(
    region: Region, inside: list[int], fold: Reduce, values: dict[int, int], names: dict[str, Dim], made: int
) -> tuple[list[Stage], int]:
    """The stages of every point, each followed by the map that takes its value in, and the value of them all.

    made: the number of the first value that they give.
    """
    axes = {n: n for n in range(len(region.extents))}
    (merge,) = COMBINERS[fold.combiner].merge
    stages: list[Stage] = []
    so_far: int | None = None
    for point in points_of(*(range(int(str(region.extents[axis]))) for axis in fold.axes)):
        own, called = dict(values), {**names, **{f"i{a}": p for a, p in zip(fold.axes, point, strict=True)}}
        for position in inside:
            first = region.first_values[position]
            stages.append(renamed_stage(region.stages[position], own, axes, called))
            own[first] = made + len(stages) - 1
            called[f"v{first}"] = value_symbol(own[first])
        value = own[fold.args[0]]
        if so_far is not None:
            stages.append(Map(renumbered(merge, {0: so_far, 1: value}), fold.dtypes[0]))
            value = made + len(stages) - 1
        so_far = value
    assert so_far is not None  # there is a point
    return stages, so_far
