"""A short axis of a sum written out:  sum over h, k of f(h, k)  ->  sum over k of f(0, k) + f(1, k)."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.expr import Arg, Expr, apply
from fusible.compiler.region.prune import moved_map, pruned, renamed_stage
from fusible.compiler.region.region import Map, Reduce, Region, Stage, Store, value_symbol

__all__ = ["unrolled_axis"]


def unrolled_axis(region: Region, axis: int) -> Region:
    """The region without contractions in which one sum no longer folds `axis`, whose extent is then 1.

    What does not depend on the axis is computed once. Raises ValueError if something else than one sum of one value
    folds the axis, or its extent is no number.
    """
    extent = region.extents[axis]
    folds = [n for n, s in enumerate(region.stages) if isinstance(s, Reduce) and axis in s.axes]
    total = region.stages[folds[0]] if len(folds) == 1 else None
    if not isinstance(extent, int) or not isinstance(total, Reduce) or total.combiner != "sum":
        raise ValueError(f"axis i{axis} of extent {extent} is folded by {len(folds)} stages, a sum was expected")
    axes = {n: n for n in range(len(region.extents))}
    places: list[dict[int, int]] = [{} for _ in range(extent)]  # of each value, for each index
    stages: list[Stage] = []
    made = 0
    for position, (stage, first) in enumerate(zip(region.stages, region.first_values, strict=True)):
        copies = extent if axis in region.spaces[first] else 1
        if position == folds[0]:
            terms: list[Expr] = [Arg(place[total.args[0]]) for place in places]
            stages.append(Map(reduce(lambda a, b: apply("add", a, b), terms), total.dtypes[0]))
            stages.append(replace(total, axes=tuple(a for a in total.axes if a != axis), args=(made,)))
            for place in places:
                place[first] = made + 1
            made += 2
            continue
        results = len(region.results(stage))
        for index in range(copies):
            names: dict[str, Dim] = {f"v{v}": value_symbol(n) for v, n in places[index].items() if v != n}
            stages.append(renamed_stage(stage, places[index], axes, names | {f"i{axis}": index}))
            for place in places if copies == 1 else places[index : index + 1]:
                place.update({first + n: made + n for n in range(results)})
            made += results
    names = {f"v{v}": value_symbol(n) for v, n in places[0].items() if v != n}
    stores = tuple(Store(s.buffer, moved_map(s.map, names), places[0][s.value]) for s in region.stores)
    extents = tuple(1 if a == axis else e for a, e in enumerate(region.extents))
    return pruned(Region(extents, region.inputs, region.outputs, tuple(stages), stores), keep_axes=True)
