"""A region in parts: an axis as two, an axis cut into ranges, and what is then known of bounds.

What was joined, shuffled or padded reads by cases (`where 0 <= i0 < 58`) and by digits of an axis (`mod(i0, 2)`). With
an axis for each digit, and a region for each case, what is left are plain strided reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt, bounds_of
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal
from fusible.compiler.region.index import Bound
from fusible.compiler.region.prune import moved_map, pruned, renamed_stage
from fusible.compiler.region.region import Contract, Load, Map, Reduce, Region, Scan, Stage, Store, Test, value_symbol

__all__ = ["digits_apart", "folded_axes", "pieces", "simplified"]

_LARGEST_DIGIT = 8  # an axis that is cut at every index


def folded_axes(region: Region) -> frozenset[int]:
    """The axes that some stage folds or scans."""
    found: set[int] = set()
    for stage in region.stages:
        match stage:
            case Reduce(axes=axes) | Contract(axes=axes):
                found |= set(axes)
            case Scan(axis=axis):
                found.add(axis)
    return frozenset(found)


def digits_apart(region: Region, axis: int) -> Region:
    """The region with axis i as two, i = k p + q, if it is read as i div k and i mod k; else the same region.

    p keeps the axis's number, q comes after it.
    """
    extent = region.extents[axis]
    if axis in folded_axes(region) or not isinstance(extent, int):
        return region
    divisors = {k for dim in _dims(region) for k in _divisors(dim, axis) if k < extent and extent % k == 0}
    if not divisors:
        return region
    k = min(divisors)
    names: dict[str, Dim] = {f"i{n}": _axis(n + (n > axis), e) for n, e in enumerate(region.extents)}
    names[f"i{axis}"] = _axis(axis, extent // k) * k + _axis(axis + 1, k)
    extents = (*region.extents[:axis], extent // k, k, *region.extents[axis + 1 :])
    return _renamed(region, extents, names, {n: n + (n > axis) for n in range(len(region.extents))})


def pieces(region: Region, axis: int, limit: int, least: int) -> list[Region]:
    """Regions over ranges of an axis, and over each index of small axes, so that bounds along it hold or do not.

    limit: at most so many; least: the shortest range. The regions together store what the region stores; each has all
    its buffers.
    """
    waiting = [simplified(region)]
    done: list[Region] = []
    while waiting:
        found = waiting.pop(0)
        cut = _cut(found, axis, least) if len(waiting) + len(done) + 2 <= limit else None
        if cut is None:
            done.append(found)
        else:
            extent = found.extents[cut.axis]
            assert isinstance(extent, int)
            waiting[:0] = [_range(found, cut.axis, 0, cut.at), _range(found, cut.axis, cut.at, extent)]
    return done


@dataclass(frozen=True, slots=True)
class _Cut:
    axis: int
    at: int


def _axis(number: int, extent: Dim) -> SymInt:
    return SymInt.of(Symbol(f"i{number}", 0, max(extent - 1, 0) if isinstance(extent, int) else None))


def _dims(region: Region) -> list[Dim]:
    """The expressions by which a region reads and tests."""
    found: list[Dim] = []
    for stage in region.stages:
        match stage:
            case Load(_, map_):
                found += [*map_.components, *(d for b in map_.bounds for d in (b.expr, b.low, b.high))]
            case Test(bounds):
                found += [d for b in bounds for d in (b.expr, b.low, b.high)]
    return found


def _divisors(dim: Dim, axis: int) -> set[int]:
    """The literal k of `floordiv(i<axis> + ..., k)` and `mod(i<axis> + ..., k)` in an expression."""
    found: set[int] = set()
    if not isinstance(dim, SymInt):
        return found
    for monomial, _ in dim.terms:
        for atom in monomial:
            if isinstance(atom, Call):
                inner, by = atom.args[0], atom.args[1]
                if atom.function in ("floordiv", "mod") and isinstance(by, int) and by > 1 and _plain(inner, axis):
                    found.add(by)
                found |= {k for arg in atom.args for k in _divisors(arg, axis)}
    return found


def _plain(dim: Dim, axis: int) -> bool:
    """True if the axis itself is a term of the expression."""
    terms = dim.terms if isinstance(dim, SymInt) else ()
    name = f"i{axis}"
    return any(c == 1 and len(m) == 1 and isinstance(m[0], Symbol) and m[0].name == name for m, c in terms)


def _renamed(region: Region, extents: tuple[Dim, ...], names: Mapping[str, Dim], axes: Mapping[int, int]) -> Region:
    same = {v: v for v in range(len(region.dtypes))}
    stages = tuple(renamed_stage(stage, same, axes, names) for stage in region.stages)
    stores = tuple(Store(s.buffer, moved_map(s.map, names), s.value) for s in region.stores)
    return Region(extents, region.inputs, region.outputs, stages, stores)


def _range(region: Region, axis: int, first: int, end: int) -> Region:
    """The part of a region where first <= i<axis> < end."""
    extents = tuple(end - first if n == axis else e for n, e in enumerate(region.extents))
    names = _axes(extents)
    names[f"i{axis}"] = _axis(axis, end - first) + first if end - first > 1 else first
    return _simplified(region, extents, names)


def _cut(region: Region, axis: int, least: int) -> _Cut | None:
    """Where a bound along the axis begins or ceases to hold; a small axis beside it is cut first."""
    tests = [b for s in region.stages for b in (s.bounds if isinstance(s, Test) else ())]
    tests += [b for s in region.stages for b in (s.map.bounds if isinstance(s, Load) else ())]
    folded = folded_axes(region)
    for bound in tests:
        if not isinstance(bound.low, int) or not isinstance(bound.high, int) or not isinstance(bound.expr, SymInt):
            continue
        steps = _steps(bound.expr)
        if steps is None or axis not in steps or any(a in folded for a in steps):
            continue
        others = [a for a in steps if a != axis]
        small = [a for a in others if isinstance(e := region.extents[a], int) and 1 < e <= _LARGEST_DIGIT]
        if others:
            if len(small) == len(others):
                return _Cut(small[0], 1)
            continue
        rest = substitute(bound.expr, {f"i{axis}": 0})
        extent = region.extents[axis]
        if not isinstance(rest, int) or not isinstance(extent, int) or steps[axis] != 1:
            continue
        for at in (bound.low - rest, bound.high - rest):
            if least <= at <= extent - least:
                return _Cut(axis, at)
    return None


def _steps(dim: SymInt) -> dict[int, int] | None:
    """The step along each axis of an expression that is linear in axes and nothing else."""
    found: dict[int, int] = {}
    for monomial, coefficient in dim.terms:
        if not monomial:
            continue
        atom = monomial[0]
        if len(monomial) > 1 or not isinstance(atom, Symbol) or atom.name[0] != "i" or not atom.name[1:].isdigit():
            return None
        found[int(atom.name[1:])] = coefficient
    return found


def simplified(region: Region) -> Region:
    """The same region without bounds that always hold, and without what is read or computed where they never do."""
    return _simplified(region, region.extents, _axes(region.extents))


def _axes(extents: tuple[Dim, ...]) -> dict[str, Dim]:
    """The symbols of axes with their bounds, by name; 0 for those of one index."""
    return {f"i{n}": _axis(n, e) if e != 1 else 0 for n, e in enumerate(extents)}


def _simplified(region: Region, extents: tuple[Dim, ...], names: Mapping[str, Dim]) -> Region:
    """As `simplified`, of a region whose axes get other extents, and what `names` say in their places."""
    known: dict[int, bool] = {}
    stages: list[Stage] = []
    for position, stage in enumerate(_renamed(region, extents, names, {n: n for n in range(len(extents))}).stages):
        value = region.first_values[position]
        match stage:
            case Test(bounds):
                left = _undecided(bounds)
                if left is None or not left:
                    known[value] = left is not None
                    stage = Map(Literal(left is not None), DType.BOOL)
                else:
                    stage = Test(left)
            case Load(buffer, map_) if map_.bounds:
                left = _undecided(map_.bounds)
                if left is None:
                    dtype = region.inputs[buffer].dtype
                    stage = Map(Literal(map_.fill or (0.0 if dtype.is_float else 0)), dtype)
                else:
                    stage = Load(buffer, replace(map_, bounds=left, fill=map_.fill if left else None))
            case Map(expr, dtype):
                stage = Map(_decided(expr, known), dtype)
        stages.append(stage)
    stores = tuple(Store(s.buffer, moved_map(s.map, names), s.value) for s in region.stores)
    return _without_copies(Region(extents, region.inputs, region.outputs, tuple(stages), stores))


def _undecided(bounds: tuple[Bound, ...]) -> tuple[Bound, ...] | None:
    """The bounds that may or may not hold; None if one never does."""
    left = []
    for bound in bounds:
        below, above = bounds_of(bound.expr - bound.low), bounds_of(bound.high - bound.expr)
        if (below[1] is not None and below[1] < 0) or (above[1] is not None and above[1] <= 0):
            return None
        if below[0] is None or below[0] < 0 or above[0] is None or above[0] <= 0:
            left.append(bound)
    return tuple(left)


def _decided(expr: Expr, known: Mapping[int, bool]) -> Expr:
    """The expression without choices whose condition is known."""
    match expr:
        case Apply("select", (Arg(index), yes, no)) if index in known:
            return _decided(yes if known[index] else no, known)
        case Apply(function, args):
            return Apply(function, tuple(_decided(a, known) for a in args))
        case Convert(arg, dtype):
            return Convert(_decided(arg, known), dtype)
    return expr


def _without_copies(region: Region) -> Region:
    """The region with readers of `Map(Arg(n))` of the same type reading value n, and without what nobody reads."""
    values = {v: v for v in range(len(region.dtypes))}
    names: dict[str, Dim] = {}
    stages: list[Stage] = []
    axes = {n: n for n in range(len(region.extents))}
    for position, stage in enumerate(region.stages):
        renamed = renamed_stage(stage, values, axes, names) if names else stage
        match renamed:
            case Map(Arg(source), dtype) if region.dtypes[source] is dtype:
                value = region.first_values[position]
                values[value] = source
                names[f"v{value}"] = value_symbol(source)
        stages.append(renamed)
    stores = tuple(Store(s.buffer, s.map, values[s.value]) for s in region.stores)
    return pruned(Region(region.extents, region.inputs, region.outputs, tuple(stages), stores), keep_axes=True)
