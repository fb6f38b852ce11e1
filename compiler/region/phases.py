"""Sums of which a stride leaves most terms out, as sums of the others.

A transposed convolution of stride s reads, for an output at y = s*q + p, only the taps k = s*t + u whose remainder u
follows from the phase p: its terms carry the condition mod(y + k, s) = 0. With the phase as an axis of its own, taps
are summed over t alone, and the condition holds (Gao et al., "Pixel Transposed Convolutional Networks", 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt, modulo
from fusible.compiler.region.digits import with_digits
from fusible.compiler.region.index import Bound
from fusible.compiler.region.prune import moved_map, renamed_stage
from fusible.compiler.region.region import Contract, Load, Region, Stage, Store, axes_of

__all__ = ["with_phases"]


@dataclass(frozen=True, slots=True)
class _Condition:
    """`mod(inverse * (rest + c * i<axis>), stride) = 0` for the contracted axis; rest: over other axes."""

    bound: Bound
    axis: int
    stride: int
    remainder: Dim  # of i<axis> by the stride, wherever the condition holds


def with_phases(region: Region, position: int) -> Region:
    """The region whose contraction, at `position`, leaves out no terms for a stride, as far as extents allow it."""
    while (condition := next(_conditions(region, position), None)) is not None:
        region = _without(region, condition)
    return region


def _conditions(region: Region, position: int) -> Iterator[_Condition]:
    """The conditions that can be solved for a contracted axis."""
    contract = region.stages[position]
    assert isinstance(contract, Contract)
    for stage in region.stages:
        for bound in stage.map.bounds if isinstance(stage, Load) else ():
            call = _lone_modulo(bound)
            if call is None or not isinstance(call.args[1], int):
                continue
            terms = _linear(call.args[0])
            summed = [a for a in terms or () if a in contract.axes]
            if terms is None or len(summed) != 1 or not _divisible(region, terms, summed[0], call.args[1]):
                continue
            found = _solved(bound, call.args[0], terms, summed[0], call.args[1])
            if found is not None and all(_may_be_bounded(s, found.axis) for s in region.stages):
                yield found


def _lone_modulo(bound: Bound) -> Call | None:
    """The call in `0 <= mod(x, s) < 1`."""
    if bound.low != 0 or bound.high != 1 or not isinstance(bound.expr, SymInt) or len(bound.expr.terms) != 1:
        return None
    monomial, number = bound.expr.terms[0]
    atom = monomial[0] if len(monomial) == 1 else None
    return atom if number == 1 and isinstance(atom, Call) and atom.function == "mod" else None


def _linear(dim: Dim) -> dict[int, int] | None:
    """The coefficients of axes, if there is nothing else but a number."""
    found: dict[int, int] = {}
    for monomial, number in dim.terms if isinstance(dim, SymInt) else ():
        atom = monomial[0] if len(monomial) == 1 else None
        if monomial and not (isinstance(atom, Symbol) and atom.name[0] == "i" and atom.name[1:].isdigit()):
            return None
        if isinstance(atom, Symbol):
            found[int(atom.name[1:])] = number
    return found


def _divisible(region: Region, terms: dict[int, int], axis: int, stride: int) -> bool:
    others = [region.extents[a] for a in terms if a != axis]
    return all(isinstance(e, int) and e and e % stride == 0 for e in others) and isinstance(region.extents[axis], int)


def _solved(bound: Bound, dim: Dim, terms: dict[int, int], axis: int, stride: int) -> _Condition | None:
    """The condition with the remainder that the axis then has; None if there is not exactly one."""
    try:
        inverse = pow(terms[axis], -1, stride)
    except ValueError:
        return None
    rest = substitute(dim, {f"i{axis}": 0})
    return _Condition(bound, axis, stride, modulo(rest * -inverse, stride))


def _may_be_bounded(stage: Stage, axis: int) -> bool:
    """True if a load may say zero behind the axis's end."""
    if axis not in axes_of(stage):
        return True
    return isinstance(stage, Load) and (not stage.map.bounds or stage.map.fill == 0)


def _without(region: Region, condition: _Condition) -> Region:
    """The region with the condition solved: phases of the other axes are axes, the contracted one counts by strides."""
    axis, stride = condition.axis, condition.stride
    extent = region.extents[axis]
    assert isinstance(extent, int)
    place = condition.remainder + SymInt.of(Symbol(f"i{axis}", 0, -(-extent // stride) - 1)) * stride
    region = _dropped(region, condition.bound, axis, extent if extent % stride else None)
    names: dict[str, Dim] = {f"i{axis}": place}
    values, axes = {v: v for v in range(len(region.dtypes))}, {a: a for a in range(len(region.extents))}
    stages = tuple(renamed_stage(stage, values, axes, names) for stage in region.stages)
    stores = tuple(Store(s.buffer, moved_map(s.map, names), s.value) for s in region.stores)
    shorter = -(-extent // stride)
    extents = tuple(shorter if a == axis else e for a, e in enumerate(region.extents))
    region = Region(extents, region.inputs, region.outputs, stages, stores)
    for symbol in symbols_of(condition.remainder):
        region = with_digits(region, int(symbol.name[1:]), stride)
    return region


def _dropped(region: Region, bound: Bound, axis: int, end: int | None) -> Region:
    """The region without a bound. end: the axis may now run behind it, where loads give zero."""

    def moved(stage: Stage) -> Stage:
        if not isinstance(stage, Load):
            return stage
        bounds = tuple(b for b in stage.map.bounds if b != bound)
        if end is not None and axis in axes_of(stage):
            bounds = (*bounds, Bound(SymInt.of(Symbol(f"i{axis}")), 0, end))
        fill = (stage.map.fill or 0) if bounds else None
        return replace(stage, map=replace(stage.map, bounds=bounds, fill=fill))

    return replace(region, stages=tuple(moved(stage) for stage in region.stages))
