"""A region as a loop nest over flat memory: which axes are parallel, which are folded, where each access points.

Axes that every access crosses as one are collapsed, so that an element-wise region over [8, 128, 56] is one long loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from fusible.compiler.backends.cpu.c_dims import coefficient, flat_offset, mentions
from fusible.compiler.ir.assumed import assumed_size
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.region import Contract, Index, Load, Reduce, Region, Scan, Test

__all__ = [
    "Access",
    "Nest",
    "NotPrintable",
    "check_packed",
    "check_products",
    "check_repetition",
    "check_stores",
    "flat_nest",
    "nest_of",
    "turned_loads",
    "vector_axes",
    "vector_cost",
]

_LITTLE_WORK, _MOST_REPEATED = 2**16, 8  # points of a nest; times that a sum may be computed


class NotPrintable(Exception):
    """The printer does not take a region; the text says why."""


@dataclass(frozen=True, slots=True)
class Access:
    """A load or store: buffer, flat offset, the bounds under which it happens, what a load gives elsewhere."""

    buffer: int
    offset: Dim
    bounds: tuple[Bound, ...] = ()
    fill: float | int | bool | None = None

    checked: tuple[tuple[str, Dim, Dim], ...] = ()  # (name in the offset, index that data gave, size of the dimension)

    def conditions(self) -> list[Dim]:
        """Every expression of the access but the offset."""
        bounds = [d for b in self.bounds for d in (b.expr, b.low, b.high)]
        return [*bounds, *(index for _, index, _ in self.checked)]


@dataclass(frozen=True)
class Nest:
    """Axes with their extents (None: collapsed into a later one), accesses by stage, and expressions of axes by stage.

    outer: the parallel axes; folded: those that reductions take away; vector: the axis along which vectors lie.
    """

    region: Region
    extents: tuple[Dim | None, ...]
    loads: Mapping[int, Access]
    stores: tuple[Access, ...]
    spaces: tuple[frozenset[int], ...]
    outer: tuple[int, ...]
    folded: tuple[int, ...]
    vector: int = -1

    def accesses(self) -> list[Access]:
        """All loads and stores."""
        return [*self.loads.values(), *self.stores]

    def stored_along(self, number: int) -> tuple[int, ...]:
        """The folded axes along which a store differs, by its value or its place."""
        access, space = self.stores[number], self.spaces[self.region.stores[number].value]
        places = (access.offset, *access.conditions())
        return tuple(a for a in self.folded if a in space or any(mentions(d, f"i{a}") for d in places))


def nest_of(
    region: Region,
    *,
    contraction: int | None = None,
    aside: tuple[int, ...] = (),
    vector: int | None = None,
    rows: tuple[int, ...] | None = None,
    depths: tuple[int, ...] | None = None,
    scans: bool = False,
) -> Nest:
    """The nest of a region whose folds all run over the same axes. Raises NotPrintable.

    contraction: the stage of the contraction that a kernel will compute; other regions have none. aside: loads of it
    that the kernel makes in its own way, so that they do not keep axes apart. vector: the axis that vectors lie along,
    if that is decided. rows: the other parallel axes in the order in which a kernel numbers them, if it does.
    depths: the folded axes in the order in which a kernel goes through them, if it is not that of their numbers.
    scans: the printer takes running folds, whose axis counts as folded.
    """
    if not scans and any(isinstance(stage, Scan) for stage in region.stages):
        raise NotPrintable("it has a running fold")
    if any(position != contraction for position in region.contractions):
        raise NotPrintable("it has a contraction")
    folds = [stage for stage in region.stages if isinstance(stage, (Reduce, Contract))]
    axes = {frozenset(f.axes) for f in folds} | {frozenset((s.axis,)) for s in region.stages if isinstance(s, Scan)}
    if len(axes) > 1 or (contraction is not None and len(folds) > 1):
        raise NotPrintable("its reductions run over different axes")
    folded = depths if depths is not None else tuple(sorted(next(iter(axes), ())))
    outer = tuple(n for n in range(len(region.extents)) if n not in folded)
    loads = {
        n: _access(s.buffer, s.map, region.inputs[s.buffer].shape, n)
        for n, s in enumerate(region.stages)
        if isinstance(s, Load) and n not in aside
    }
    stores = tuple(_access(s.buffer, s.map, region.outputs[s.buffer].shape, 0) for s in region.stores)
    if any(store.checked for store in stores):
        raise NotPrintable("it stores where data say")
    nest = Nest(region, region.extents, loads, stores, region.spaces, _ordered(outer, stores, rows), folded)
    for group in (nest.outer, folded):
        for a, b in pairwise(n for n in group if n != vector):
            nest = _collapsed(nest, a, b)
    return replace(nest, vector=next(iter(vector_axes(nest)), -1) if vector is None else vector)


def check_products(region: Region) -> None:
    """Raise NotPrintable unless every contraction multiplies numbers in f32."""
    for position in region.contractions:
        contract = region.stages[position]
        assert isinstance(contract, Contract)
        for value in contract.args:
            if region.dtypes[value] is not DType.F32:
                raise NotPrintable(f"an operand of its product is {region.dtypes[value].value}")


def check_packed(region: Region, position: int) -> None:
    """Raise NotPrintable if another load reads the constant that the load at `position` reads: it will be packed."""
    load = region.stages[position]
    assert isinstance(load, Load)
    others = (s for n, s in enumerate(region.stages) if n != position and isinstance(s, Load))
    if any(s.buffer == load.buffer for s in others):
        raise NotPrintable("the constant that its product packs is read in another way as well")


def check_repetition(nest: Nest) -> None:
    """Raise NotPrintable for folds over what does not differ along most of the axes around them.

    Rows are computed for themselves: a mean over an image beside the image with other axes would be one for each pixel.
    """
    region, extents = nest.region, nest.region.extents
    needed = 1
    for position, stage in enumerate(region.stages):
        if isinstance(stage, Reduce):
            axes = region.spaces[region.first_values[position]] | set(stage.axes)
            needed = max(needed, assumed_size(product(extents[a] for a in axes)))
    made = max((assumed_size(product(buffer.shape)) for buffer in region.outputs), default=1)
    points = assumed_size(product(extents))
    if nest.folded and points > _LITTLE_WORK and points > _MOST_REPEATED * max(needed, made):
        raise NotPrintable("the same sums would be computed again for each point of axes that they do not differ along")


def check_stores(nest: Nest) -> None:
    """Raise NotPrintable for stores along some of the folded axes: they would not be made where another is empty."""
    for number in range(len(nest.stores)):
        along = nest.stored_along(number)
        if along and any(a not in along and nest.extents[a] not in (None, 1) for a in nest.folded):
            raise NotPrintable("it stores what differs along some of its folded axes only")


def flat_nest(region: Region, hidden: Collection[int], vector: int = -1) -> Nest:
    """The accesses of a region whose loops a kernel makes, every axis as it is. hidden: loads that the kernel makes."""
    loads = {
        n: _access(s.buffer, s.map, region.inputs[s.buffer].shape, n)
        for n, s in enumerate(region.stages)
        if isinstance(s, Load) and n not in hidden
    }
    stores = tuple(_access(s.buffer, s.map, region.outputs[s.buffer].shape, 0) for s in region.stores)
    axes = tuple(range(len(region.extents)))
    return Nest(region, region.extents, loads, stores, region.spaces, axes, (), vector)


def _ordered(outer: tuple[int, ...], stores: Sequence[Access], rows: tuple[int, ...] | None) -> tuple[int, ...]:
    if rows is None:
        return _by_stride(outer, stores)
    return (*rows, *(axis for axis in outer if axis not in rows))


def _by_stride(axes: tuple[int, ...], stores: Sequence[Access]) -> tuple[int, ...]:
    """The axes in the order in which the first store crosses memory, if its steps are literal."""
    steps = {a: coefficient(stores[0].offset, a) for a in axes} if stores else {}
    if not all(isinstance(step, int) for step in steps.values()):
        return axes
    return tuple(sorted(axes, key=lambda a: (-_size(steps.get(a)), a)))


def _size(step: Dim | None) -> int:
    return abs(step) if isinstance(step, int) else 0


def _access(buffer: int, map_: IndexMap, shape: Sequence[Dim], number: int) -> Access:
    components: list[Dim] = []
    checked: list[tuple[str, Dim, Dim]] = []
    if any(_values(b.expr) & _values(c) for b in map_.bounds for c in map_.components):
        raise NotPrintable("an index that data give decides whether it is read: outside of all it would pass unseen")
    for component, size in zip(map_.components, shape, strict=True):
        if _values(component):
            name = f"w{number}_{len(checked)}"
            checked.append((name, component, size))
            component = SymInt.of(Symbol(name))
        components.append(component)
    return Access(buffer, flat_offset(components, shape), map_.bounds, map_.fill, tuple(checked))


def _values(dim: Dim) -> frozenset[int]:
    """The values that an index mentions."""
    return frozenset(int(s.name[1:]) for s in symbols_of(dim) if s.name[0] == "v" and s.name[1:].isdigit())


def _collapsed(nest: Nest, a: int, b: int) -> Nest:
    """The nest with axis a merged into axis b, if every access crosses the two as one."""
    inner, outer = nest.extents[b], nest.extents[a]
    if inner is None or outer is None or any(mentions(d, f"i{n}") for d in _expressions(nest) for n in (a, b)):
        return nest
    for access in nest.accesses():
        ca, cb = coefficient(access.offset, a), coefficient(access.offset, b)
        if ca is None or cb is None or ca != inner * cb:
            return nest
    whole = outer * inner
    merged = SymInt.of(Symbol(f"i{b}", 0, max(whole - 1, 0) if isinstance(whole, int) else None))
    names: dict[str, Dim] = {f"i{a}": 0, f"i{b}": merged}

    def moved(access: Access) -> Access:
        return replace(access, offset=substitute(access.offset, names))

    extents = tuple(None if n == a else whole if n == b else e for n, e in enumerate(nest.extents))
    return replace(
        nest,
        extents=extents,
        loads={n: moved(access) for n, access in nest.loads.items()},
        stores=tuple(moved(access) for access in nest.stores),
        spaces=tuple(frozenset(b if n == a else n for n in space) for space in nest.spaces),
        outer=tuple(n for n in nest.outer if n != a),
        folded=tuple(n for n in nest.folded if n != a),
    )


def _expressions(nest: Nest) -> list[Dim]:
    """Expressions over axes that are no offsets."""
    found = [d for access in nest.accesses() for d in access.conditions()]
    for stage in nest.region.stages:
        match stage:
            case Index(expr):
                found.append(expr)
            case Test(bounds):
                found += [d for b in bounds for d in (b.expr, b.low, b.high)]
    return found


def vector_axes(nest: Nest) -> list[int]:
    """The axes that vectors can lie along, the cheapest first, of equals the last."""
    costs = _costs(nest)
    return sorted(costs, key=costs.__getitem__)


def vector_cost(nest: Nest) -> float:
    """What loads and stores of a vector cost along the axis that suits them best; 1 is one of adjacent elements."""
    return min(_costs(nest).values(), default=0.0)


def _costs(nest: Nest) -> dict[int, float]:
    costs: dict[int, float] = {}
    for axis in reversed((*nest.outer, *nest.folded)):
        extent = nest.extents[axis]
        if extent is not None and extent != 1:
            turned = turned_loads(nest, axis)[1]
            cost = float(sum(_cost(nest, access, axis) for access in nest.stores))
            cost += sum(_TURNED if n in turned else _cost(nest, access, axis) for n, access in nest.loads.items())
            costs[axis] = cost * (-(-extent // _LANES) * _LANES / max(extent, 1) if isinstance(extent, int) else 1)
    return costs


_LANES = 8
_STRIDED, _SCATTERED = 6, 16  # the cost of a vector whose elements lie apart, beside one whose elements are adjacent
_TURNED, _LEAST_TURNED = 2, 8  # the cost of a vector out of a square of them; the least sides of such squares
_FLOATS = frozenset({DType.F32, DType.F16, DType.BF16})


def _cost(nest: Nest, access: Access, axis: int) -> int:
    step = coefficient(access.offset, axis)
    bounded = any(coefficient(d, axis) not in (0, 1) for d in access.conditions())
    if step is None or bounded or any(_given_along(nest, index, axis) for _, index, _ in access.checked):
        return _SCATTERED
    return 1 if step in (0, 1) else _STRIDED


def turned_loads(nest: Nest, vector: int) -> tuple[int, frozenset[int]]:
    """An axis along which loads lie that lie apart along the vectors, and their stages: squares of them can be turned.

    Vectors are then loaded along that axis, as many as they have lanes, and rows and columns change places.
    """
    found: dict[int, set[int]] = {}
    if vector >= 0 and not nest.folded and _is_long(nest, vector):
        for position, access in nest.loads.items():
            apart = coefficient(access.offset, vector) not in (None, 0, 1)
            plain = not access.bounds and not access.checked and _stage_type(nest, position) in _FLOATS
            for axis in nest.outer if apart and plain else ():
                if axis != vector and _is_long(nest, axis) and coefficient(access.offset, axis) == 1:
                    found.setdefault(axis, set()).add(position)
    axis = max(found, key=lambda a: (len(found[a]), a), default=-1)
    return axis, frozenset(found.get(axis, ()))


def _is_long(nest: Nest, axis: int) -> bool:
    extent = nest.extents[axis]
    return extent is not None and (not isinstance(extent, int) or extent >= _LEAST_TURNED)


def _stage_type(nest: Nest, position: int) -> DType:
    return nest.region.dtypes[nest.region.first_values[position]]


def _given_along(nest: Nest, index: Dim, axis: int) -> bool:
    """True if an index, which may mention values, differs along an axis."""
    return mentions(index, f"i{axis}") or any(axis in nest.spaces[v] for v in _values(index))
