"""The index maps of the ops that move elements: how an output index names the element it is a copy of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from fusible.compiler.ir.extents import is_negative
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, floordiv, maximum, minimum, modulo, product
from fusible.compiler.region.index import Bound, IndexMap, Indirect, axis, loaded

__all__ = [
    "concat_maps",
    "crop_map",
    "expand_map",
    "fold_map",
    "gather_elements_map",
    "gather_map",
    "gather_nd_map",
    "mirrored",
    "pad_map",
    "reshape_map",
    "transpose_map",
    "wrapped_load",
]


def reshape_map(old: Sequence[Dim], new: Sequence[Dim]) -> IndexMap:
    """Row-major reshape: old index = digits of the new index's position, group by group.

    Where a run of old dimensions has the product of a run of new ones, the position is taken within the two runs, so
    that unchanged dimensions map to themselves.
    """
    symbols = tuple(s for dim in (*old, *new) for s in symbols_of(dim))
    return _reshape_map(tuple(old), tuple(new), symbols)


@lru_cache(maxsize=4096)
def _reshape_map(old: tuple[Dim, ...], new: tuple[Dim, ...], symbols: tuple[Symbol, ...]) -> IndexMap:
    """symbols: those of the shapes, which are equal by name alone; their bounds decide too."""
    if 0 in old or 0 in new:
        return IndexMap((0,) * len(old))
    components: list[Dim] = []
    at = 0
    for old_run, new_run in _matched_runs(old, new):
        axes = [axis(at + k) for k in range(len(new_run))]
        components.extend(_digits(_position(axes, new_run), old_run))
        at += len(new_run)
    return IndexMap(tuple(components))


def _matched_runs(old: Sequence[Dim], new: Sequence[Dim]) -> list[tuple[Sequence[Dim], Sequence[Dim]]]:
    """Cut both shapes into runs of equal products; the last run takes what is left."""
    runs: list[tuple[Sequence[Dim], Sequence[Dim]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        cut = _shortest_cut(old[i:], new[j:])
        runs.append((old[i : i + cut[0]], new[j : j + cut[1]]))
        i, j = i + cut[0], j + cut[1]
    return runs


def _shortest_cut(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[int, int]:
    new_products = [product(new[:b]) for b in range(len(new) + 1)]
    for a in range(1, len(old) + 1):
        wanted = product(old[:a])
        for b in range(1, len(new) + 1):
            if new_products[b] == wanted:
                return a, b
    return len(old), len(new)


def _position(index: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    position: Dim = 0
    for i, size in zip(index, shape, strict=True):
        position = position * size + (0 if size == 1 else i)
    return position


def _digits(position: Dim, shape: Sequence[Dim]) -> list[Dim]:
    """The index of a row-major position. The leading digit needs no modulus: positions lie within the tensor."""
    digits: list[Dim] = []
    for d, size in enumerate(shape):
        digit = floordiv(position, product(shape[d + 1 :]))
        leading = all(s == 1 for s in shape[:d])
        digits.append(0 if size == 1 else digit if leading else modulo(digit, size))
    return digits


def transpose_map(perm: Sequence[int]) -> IndexMap:
    """Component perm[d] of the operand's index is output axis d."""
    components: list[Dim] = [0] * len(perm)
    for d, source in enumerate(perm):
        components[source] = axis(d)
    return IndexMap(tuple(components))


def expand_map(old: Sequence[Dim], new: Sequence[Dim]) -> IndexMap:
    """Broadcast; a dimension that may or may not be 1 multiplies its axis by 0 or 1."""
    shift = len(new) - len(old)
    components: list[Dim] = []
    for d, size in enumerate(old):
        output = axis(d + shift)
        if size == 1:
            components.append(0)
        elif size == new[d + shift] or isinstance(size, int):
            components.append(output)
        else:
            components.append(output * minimum(1, maximum(0, size - 1)))
    return IndexMap(tuple(components))


def fold_map(old: Sequence[Dim]) -> IndexMap:
    """Tile: each output index modulo the operand's size."""
    if 0 in old:
        return IndexMap((0,) * len(old))
    return IndexMap(tuple(0 if size == 1 else modulo(axis(d), size) for d, size in enumerate(old)))


def crop_map(firsts: Sequence[Dim], steps: Sequence[int]) -> IndexMap:
    """Slice: first + step * index on every axis."""
    return IndexMap(tuple(first + axis(d) * step for d, (first, step) in enumerate(zip(firsts, steps, strict=True))))


def concat_maps(shapes: Sequence[Sequence[Dim]], along: int) -> tuple[IndexMap, ...]:
    """One map an operand, bounded to its part of the joined axis."""
    maps: list[IndexMap] = []
    offset: Dim = 0
    for shape in shapes:
        index = tuple(axis(d) - (offset if d == along else 0) for d in range(len(shape)))
        maps.append(IndexMap(index, (Bound(axis(along), offset, offset + shape[along]),)))
        offset = offset + shape[along]
    return tuple(maps)


def pad_map(shape: Sequence[Dim], before: Sequence[Dim], fill: float | int | bool | None) -> IndexMap:
    """Pad with a constant: inside the operand the shifted index, elsewhere `fill` (None: another map's turn)."""
    components = tuple(axis(d) - low for d, low in enumerate(before))
    bounds = tuple(Bound(component, 0, size) for component, size in zip(components, shape, strict=True))
    return IndexMap(components, bounds, fill)


def mirrored(position: Dim, size: Dim, mode: str) -> Dim:
    """Where the element at a position outside [0, size) comes from in the modes edge, wrap and reflect."""
    match mode:
        case "edge":
            return minimum(maximum(position, 0), size - 1)
        case "wrap":
            return modulo(position, size)
    period = maximum(1, 2 * (size - 1)) if not isinstance(size, int) else max(1, 2 * (size - 1))
    phase = modulo(position, period)
    return minimum(phase, period - phase)


def wrapped_load(number: int, size: Dim) -> Dim:
    """The value of an indirect read as an index: negative ones count from the end."""
    value = loaded(number)
    return value + size * is_negative(value)


def gather_map(shape: Sequence[Dim], index_rank: int, along: int) -> IndexMap:
    """Gather: the axes of the indices stand in place of `along`."""
    read = Indirect(1, IndexMap(tuple(axis(along + k) for k in range(index_rank))))
    components: list[Dim] = []
    for d, size in enumerate(shape):
        if d == along:
            components.append(wrapped_load(0, size))
        else:
            components.append(axis(d if d < along else d + index_rank - 1))
    return IndexMap(tuple(components), indirect=(read,))


def gather_elements_map(shape: Sequence[Dim], along: int) -> IndexMap:
    """GatherElements: the output's own index, but for `along`."""
    rank = len(shape)
    read = Indirect(1, IndexMap(tuple(axis(d) for d in range(rank))))
    components = tuple(wrapped_load(0, size) if d == along else axis(d) for d, size in enumerate(shape))
    return IndexMap(components, indirect=(read,))


def gather_nd_map(shape: Sequence[Dim], index_rank: int, depth: int, batch_dims: int) -> IndexMap:
    """GatherND: `depth` indirect reads, one a coordinate; batch axes first, the rest of the operand last."""
    places = [axis(d) for d in range(index_rank - 1)]
    reads = tuple(Indirect(1, IndexMap((*places, k))) for k in range(depth))
    rest = [axis(index_rank - 1 + k) for k in range(len(shape) - batch_dims - depth)]
    coordinates = [wrapped_load(k, shape[batch_dims + k]) for k in range(depth)]
    return IndexMap((*places[:batch_dims], *coordinates, *rest), indirect=reads)
