"""Windows that reach over an edge: the loops over them end there, and nothing is asked for each of their points.

A reduction of elements that are, outside an image, what the reduction starts from may leave those out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from fusible.compiler.backends.cpu.c_body import indented
from fusible.compiler.backends.cpu.c_dims import Names, c_dim, coefficient, mentions
from fusible.compiler.backends.cpu.nest import Access, Nest
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.combiners import COMBINERS, start_value
from fusible.compiler.region.index import Bound
from fusible.compiler.region.region import Reduce

__all__ = ["Limits", "limits_of", "print_limits", "without_limits"]

Limits = Mapping[int, tuple[Bound, ...]]
"""By the folded axes of a pass over a window: the bounds for which their loops may begin later and end earlier."""


def limits_of(nest: Nest, stages: Collection[int], reductions: Sequence[int]) -> Limits:
    """The limits of a pass that computes `stages` and feeds `reductions`; none unless these are all there is to it:
    loads with the same bounds, beyond which each gives what its reduction starts from.
    """
    region = nest.region
    values = [v for n in reductions if isinstance(stage := region.stages[n], Reduce) for v in stage.args]
    sources = {region.first_values.index(v) for v in values if v in region.first_values}
    loads = [nest.loads.get(n) for n in sorted(sources)]
    if set(stages) != sources or not len(values) == len(loads) == len(reductions) or not loads:
        return {}
    bounds = {load.bounds for load in loads if load is not None}
    checked = any(load is None or load.checked for load in loads)
    if checked or len(bounds) != 1 or not all(_starts_with_fill(nest, n) for n in reductions):
        return {}
    limits: dict[int, tuple[Bound, ...]] = {}
    for bound in bounds.pop():
        axis = _axis(nest, bound)
        if axis is not None:
            limits[axis] = (*limits.get(axis, ()), bound)
    return limits


def _starts_with_fill(nest: Nest, position: int) -> bool:
    stage = nest.region.stages[position]
    assert isinstance(stage, Reduce)
    (start, *others), (value, *_) = COMBINERS[stage.combiner].start, stage.args
    load = nest.loads[nest.region.first_values.index(value)]
    return not others and load.fill is not None and load.fill == start_value(start, stage.dtypes[0])


def _axis(nest: Nest, bound: Bound) -> int | None:
    """The folded axis along which a bound is a range: its index takes steps of 1 along it, and no step along others."""
    found = [a for a in nest.folded if mentions(bound.expr, f"i{a}")]
    dims = (bound.expr, bound.low, bound.high)
    data = any(s.name[0] == "v" for d in dims for s in symbols_of(d))
    across = [a for a in (*nest.folded, nest.vector) if any(mentions(d, f"i{a}") for d in (bound.low, bound.high))]
    if len(found) != 1 or across or data or nest.vector in found or mentions(bound.expr, f"i{nest.vector}"):
        return None
    return found[0] if coefficient(bound.expr, found[0]) == 1 else None


def without_limits(nest: Nest, stages: Collection[int], limits: Limits) -> Nest:
    """The nest whose loads in `stages` are within the limits."""
    settled = {bound for bounds in limits.values() for bound in bounds}

    def inside(position: int, load: Access) -> Access:
        rest = tuple(b for b in load.bounds if b not in settled)
        return replace(load, bounds=rest) if position in stages else load

    return replace(nest, loads={n: inside(n, load) for n, load in nest.loads.items()})


Loops = Callable[[Mapping[int, tuple[str, str]]], list[str]]


def print_limits(limits: Limits, extents: Sequence[Dim | None], names: Names, loops: Loops) -> list[str]:
    """Statements for a pass. loops: those over all points, or between the ends that it is given for some axes.

    Where no window reaches over an edge, which is nearly everywhere, the loops have constant ends.
    """
    lines, ends, whole = list[str](), dict[int, tuple[str, str]](), list[str]()
    for axis, bounds in limits.items():
        extent = extents[axis]
        assert extent is not None
        first, last = "0", c_dim(extent, names)
        for bound in bounds:
            rest = substitute(bound.expr, {f"i{axis}": 0})
            first = f"long_max({first}, {c_dim(bound.low - rest, names)})"
            last = f"long_min({last}, {c_dim(bound.high - rest, names)})"
        lines += [f"const long first{axis} = {first};", f"const long last{axis} = {last};"]
        ends[axis] = f"first{axis}", f"last{axis}"
        whole.append(f"first{axis} == 0 && last{axis} == {c_dim(extent, names)}")
    plain, within = loops({}), loops(ends)
    inner = [*lines, f"if ({' && '.join(whole)}) {{", *indented(plain), "} else {", *indented(within), "}"]
    return ["{", *indented(inner), "}"]
