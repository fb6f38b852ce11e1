"""Contractions written as what they are: the sum over axes of a product."""

from __future__ import annotations

from functools import reduce

from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.expr import Arg, Expr, apply
from fusible.compiler.region.prune import moved_map, renamed_stage
from fusible.compiler.region.region import Contract, Map, Reduce, Region, Stage, Store, value_symbol

__all__ = ["contractions_as_sums"]


def contractions_as_sums(region: Region) -> Region:
    """The same region with a multiplication and a reduction in the place of each contraction."""
    axes = {n: n for n in range(len(region.extents))}
    values: dict[int, int] = {}
    names: dict[str, Dim] = {}
    stages: list[Stage] = []
    made = 0
    for stage, first in zip(region.stages, region.first_values, strict=True):
        moved = renamed_stage(stage, values, axes, names)
        if isinstance(moved, Contract):
            factors: list[Expr] = [Arg(a) for a in moved.args]
            stages.append(Map(reduce(lambda a, b: apply("mul", a, b), factors), moved.dtype))
            moved = Reduce("sum", moved.axes, (made,), (moved.dtype,))
            made += 1
        stages.append(moved)
        for old in range(first, first + len(region.results(stage))):
            values[old] = made
            names |= {f"v{old}": value_symbol(made)} if old != made else {}
            made += 1
    stores = tuple(Store(s.buffer, moved_map(s.map, names), values[s.value]) for s in region.stores)
    return Region(region.extents, region.inputs, region.outputs, tuple(stages), stores)
