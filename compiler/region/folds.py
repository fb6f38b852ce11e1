"""Reductions, scans and contractions as stages, and the axes that they run over.

A reduction takes over an axis of its extent over which nothing around it varies: it is a bound variable, any name will
do, and so the loops of softmax and norms are shared. Within an operand of a contraction it is the contraction's axis,
if there is a choice (the softmax of attention). Contractions share axes among themselves only (sibling products).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fusible.compiler.ir.definition import Contraction, Reduce, Scan
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbols import Dim, SymInt, product
from fusible.compiler.ir.types import DType
from fusible.compiler.region import region as parts
from fusible.compiler.region.combiners import COMBINERS, start_value
from fusible.compiler.region.expr import Arg, Literal, apply, arguments, renumbered
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.tensors import NoRegion, shape_of, type_of

if TYPE_CHECKING:
    from fusible.compiler.region.derive import Derivation

__all__ = ["derive_contraction", "derive_reduce", "derive_scan"]


def derive_reduce(made: Derivation, reduce: Reduce, node: Node, index: Sequence[Dim], guard: tuple[Bound, ...]) -> int:
    """The value of a reduction at an index."""
    operand = node.inputs[0]
    assert operand is not None
    folded = _folded(made, reduce, index, guard)
    axes = tuple(sorted(made.around(folded, ())))
    there = made.substituted(node, reduce.index, (*index, *folded), guard)
    result = type_of(node.outputs[0]).dtype
    read = made.value(operand, there.components, (*guard, *there.bounds))
    if COMBINERS[reduce.combiner].width == 2:
        return _position(made, reduce.combiner, axes, read, folded)
    own = DType.F32 if result.is_small_float else result
    mapped = made.map(renumbered(reduce.map, {0: made.converted(read, own)}), own)
    if there.bounds:
        mapped = _masked(made, mapped, there.bounds, start_value(COMBINERS[reduce.combiner].start[0], own), guard)
    total = made.emit(parts.Reduce(reduce.combiner, axes, (mapped,), (own,)), own) if axes else mapped
    numbers = {0: total}
    if 1 in arguments(reduce.finish):
        numbers[1] = _count(made, there.bounds, axes, product(reduce.extents), own)
    return made.map(renumbered(reduce.finish, numbers), result)


def _folded(made: Derivation, reduce: Reduce, index: Sequence[Dim], guard: tuple[Bound, ...]) -> list[Dim]:
    """An axis for each reduction axis, 0 for one of a single element."""
    around = made.around(index, guard)
    wishes = _wishes(made, reduce.index, len(index), len(reduce.extents))
    folded: list[Dim] = []
    for number, extent in enumerate(reduce.extents):
        found = made.folded_axis(extent, around, wishes.get(number))
        around |= made.around([found], ())
        folded.append(found)
    return folded


def _position(made: Derivation, combiner: str, axes: tuple[int, ...], read: int, folded: Sequence[Dim]) -> int:
    """The second result of a fold over (value, position)."""
    if not axes:
        return made.emit(parts.Map(Literal(0), DType.I64), DType.I64)
    own = made.dtypes[read]
    wide = made.converted(read, DType.F32 if own.is_small_float else own)
    at = made.emit(parts.Index(folded[0]), DType.I64)
    dtypes = (made.dtypes[wide], DType.I64)
    return made.emit(parts.Reduce(combiner, axes, (wide, at), dtypes), *dtypes) + 1


def _masked(
    made: Derivation, value: int, bounds: tuple[Bound, ...], start: float | int | bool, guard: tuple[Bound, ...]
) -> int:
    """The value where the bounds hold, elsewhere what a fold starts from."""
    load = made.load_of(value)
    if load is not None and not guard:
        return made.emit(parts.Load(load.buffer, replace(load.map, fill=start)), made.dtypes[value])
    test = made.emit(parts.Test(bounds), DType.BOOL)
    return made.map(apply("select", Arg(test), Arg(value), start), made.dtypes[value])


def _wishes(made: Derivation, map_: IndexMap, rank: int, folded: int) -> dict[int, Dim]:
    """For each folded axis the root's axis at the same dimension, if the operand has the root's rank."""
    if len(made.home) != len(map_.components):
        return {}
    names = {f"i{rank + n}": n for n in range(folded)}
    found: dict[int, Dim] = {}
    for place, component in zip(made.home, map_.components, strict=True):
        if isinstance(component, SymInt) and component.text in names:
            found[names[component.text]] = place
    return found


def _count(made: Derivation, bounds: tuple[Bound, ...], axes: tuple[int, ...], elements: Dim, dtype: DType) -> int:
    """How many elements take part, as a number of the type."""
    if not bounds:
        if isinstance(elements, int):
            return made.emit(parts.Map(Literal(float(elements) if dtype.is_float else elements), dtype), dtype)
        return made.converted(made.emit(parts.Index(elements), DType.I64), dtype)
    test = made.emit(parts.Test(bounds), DType.BOOL)
    one = made.converted(test, dtype)
    return made.emit(parts.Reduce("sum", axes, (one,), (dtype,)), dtype) if axes else one


def derive_scan(made: Derivation, scan: Scan, node: Node, index: Sequence[Dim], guard: tuple[Bound, ...]) -> int:
    """The value of a running fold at an index, which must hold the scanned axis alone in its place."""
    operand = node.inputs[0]
    assert operand is not None
    along = index[scan.axis]
    shape, result = shape_of(operand), type_of(node.outputs[0]).dtype
    if shape[scan.axis] == 1 and not scan.exclusive:
        return made.converted(made.value(operand, index, guard), result)
    number = next((n for n in range(len(made.extents)) if made.axis(n) == along), None)
    if number is None or number in made.around([d for n, d in enumerate(index) if n != scan.axis], guard):
        raise NoRegion("the running fold is read out of order", node)
    own = DType.F32 if result.is_small_float else result
    read = made.converted(made.value(operand, index, guard), own)
    stage = parts.Scan(scan.combiner, number, (read,), (own,), scan.exclusive, scan.reverse)
    return made.converted(made.emit(stage, own), result)


def derive_contraction(
    made: Derivation, contraction: Contraction, node: Node, index: Sequence[Dim], guard: tuple[Bound, ...]
) -> int:
    """The value of a sum of products at an index, its bias added before the one rounding."""
    around = made.around(index, guard)
    folded: list[Dim] = []
    for extent in contraction.extents:
        found = 0 if extent == 1 else made.contracted_axis(extent, around)
        around |= made.around([found], ())
        folded.append(found)
    axes = tuple(sorted(made.around(folded, ())))
    result = type_of(node.outputs[0]).dtype
    own = DType.F32 if result.is_small_float else result
    before, made.summed = made.summed, (*made.summed, *axes)
    factors = [
        _factor(made, node, which, map_, (*index, *folded), guard, own)
        for map_, which in zip(contraction.maps, contraction.operands, strict=True)
    ]
    made.summed = before
    if axes:
        total = made.emit(parts.Contract(axes, tuple(factors), own), own)
    else:
        total = made.converted(factors[0], own)
        for factor in factors[1:]:
            total = made.map(apply("mul", Arg(total), Arg(made.converted(factor, own))), own)
    bias = node.inputs[contraction.bias_operand] if len(node.inputs) > contraction.bias_operand else None
    if contraction.bias is not None and bias is not None:
        place = made.substituted(node, contraction.bias, index, guard)
        added = made.converted(made.value(bias, place.components, guard), own)
        total = made.map(apply("add", Arg(total), Arg(added)), own)
    return made.converted(total, result)


def _factor(
    made: Derivation, node: Node, which: int, map_: IndexMap, index: Sequence[Dim], guard: tuple[Bound, ...], own: DType
) -> int:
    operand = node.inputs[which]
    assert operand is not None
    there = made.substituted(node, map_, index, guard)
    found = made.value(operand, there.components, (*guard, *there.bounds))
    load, fill = made.load_of(found), there.fill or 0
    by_load = load is not None and (fill == 0 or not guard)
    if load is not None and by_load and there.bounds and fill != 0:
        found = made.emit(parts.Load(load.buffer, replace(load.map, fill=fill)), made.dtypes[found])
    if own.is_integer:
        found = made.converted(found, own)
    if there.bounds and not by_load:
        test = made.emit(parts.Test(there.bounds), DType.BOOL)
        other = float(fill) if own.is_float else int(fill)
        found = made.map(apply("select", Arg(test), Arg(found), other), made.dtypes[found])
    return found
