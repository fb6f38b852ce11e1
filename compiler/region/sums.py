"""Contractions written as what they are: the sum over axes of a product."""

from __future__ import annotations

from functools import reduce

from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Arg, Convert, Expr, apply
from fusible.compiler.region.prune import moved_map, renamed_stage
from fusible.compiler.region.region import Contract, Map, Reduce, Region, Stage, Store, value_symbol

__all__ = ["contractions_as_sums"]


def contractions_as_sums(region: Region) -> Region:
    """The same region with a multiplication and a reduction in the place of each contraction.

    Products are those of the contraction's type, of small floats those of f32: their sum is rounded once.
    """
    axes = {n: n for n in range(len(region.extents))}
    values: dict[int, int] = {}
    names: dict[str, Dim] = {}
    stages: list[Stage] = []
    made = 0
    for stage, first in zip(region.stages, region.first_values, strict=True):
        moved = renamed_stage(stage, values, axes, names)
        if isinstance(stage, Contract) and isinstance(moved, Contract):
            kinds = [region.dtypes[a] for a in stage.args]
            sums = _sum(moved, kinds, made)
            stages += sums[:-1]
            moved, made = sums[-1], made + len(sums) - 1
        stages.append(moved)
        for old in range(first, first + len(region.results(stage))):
            values[old] = made
            names |= {f"v{old}": value_symbol(made)} if old != made else {}
            made += 1
    stores = tuple(Store(s.buffer, moved_map(s.map, names), values[s.value]) for s in region.stores)
    return Region(region.extents, region.inputs, region.outputs, tuple(stages), stores)


def _sum(contract: Contract, kinds: list[DType], made: int) -> list[Stage]:
    """The stages of one contraction, the first of which gives value `made`. kinds: the types of its operands."""
    wide = DType.F32 if contract.dtype.is_small_float else contract.dtype
    factors: list[Expr] = [
        Arg(a) if kind is wide else Convert(Arg(a), wide) for a, kind in zip(contract.args, kinds, strict=True)
    ]
    product = Map(reduce(lambda a, b: apply("mul", a, b), factors), wide)
    total: list[Stage] = [product, Reduce("sum", contract.axes, (made,), (wide,))]
    return total if wide is contract.dtype else [*total, Map(Convert(Arg(made + 1), contract.dtype), contract.dtype)]
