"""The invariants of a region and of a group.

 1  order: a stage reads values of earlier stages only
 2  axes: those mentioned and those folded exist; a stage folds an axis once
 3  buffers: those mentioned exist, and a map has a component for each dimension
 4  indices: a value in a map or bound is an integer of an earlier stage
 5  types: results fit the stage: one for each accumulator; contracted values agree
 6  fills: a load has a fill if it has bounds, and only then; a store has none
 7  range: no literal index lies outside its buffer for certain
 8  places: a stored value varies only over axes that its map mentions
 9  outputs: each output is stored to; each stage is read
10  group: steps read inputs and what earlier steps wrote; each output and local buffer is written
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, bounds_of
from fusible.compiler.region.combiners import COMBINERS
from fusible.compiler.region.index import IndexMap
from fusible.compiler.region.region import (
    Buffer,
    Contract,
    Group,
    Load,
    Reduce,
    Region,
    Scan,
    Stage,
    Store,
    axes_of,
    operands_of,
)
from fusible.compiler.region.text import group_text, region_text
from fusible.errors import VerifyError

__all__ = ["REGION_INVARIANTS", "verify_group", "verify_region"]

REGION_INVARIANTS = {
    1: "order",
    2: "axes",
    3: "buffers",
    4: "indices",
    5: "types",
    6: "fills",
    7: "range",
    8: "places",
    9: "outputs",
    10: "group",
}


def verify_region(region: Region) -> None:
    """Check every invariant. Raises VerifyError whose text shows the region with the culprit underlined."""
    for position, stage in enumerate(region.stages):
        if isinstance(stage, Load) and stage.buffer >= len(region.inputs):  # its type is not known: nothing else is
            title = f"invariant 3 ({REGION_INVARIANTS[3]})"
            raise VerifyError(title, f"stage {position}: buffer {stage.buffer} does not exist")
    for position, stage in enumerate(region.stages):
        _check_stage(region, position, stage)
    for number, store in enumerate(region.stores):
        _check_store(region, number, store)
    _check_outputs(region)


def verify_group(group: Group) -> None:
    """Check each region and how the buffers connect them. Raises VerifyError."""
    ready = set(range(group.inputs))
    for number, step in enumerate(group.steps):
        verify_region(step.region)
        for buffers, numbers in ((step.region.inputs, step.inputs), (step.region.outputs, step.outputs)):
            if len(buffers) != len(numbers) or any(n >= len(group.buffers) for n in numbers):
                _fail_group(group, f"step {number} names {len(numbers)} buffers, its region has {len(buffers)}")
            for buffer, n in zip(buffers, numbers, strict=True):
                if buffer != group.buffers[n]:
                    _fail_group(group, f"step {number} sees buffer b{n} as another type than the group")
        missing = [n for n in step.inputs if n not in ready]
        if missing:
            _fail_group(group, f"step {number} reads b{missing[0]}, which nothing has written")
        if any(n < group.inputs for n in step.outputs):
            _fail_group(group, f"step {number} writes an input of the group")
        ready.update(step.outputs)
    unwritten = [n for n in range(len(group.buffers)) if n not in ready]
    if unwritten:
        _fail_group(group, f"b{unwritten[0]} is never written")


def _fail_group(group: Group, message: str) -> NoReturn:
    raise VerifyError(f"invariant 10 ({REGION_INVARIANTS[10]})", f"{message}\n{group_text(group)}")


def _fail(region: Region, number: int, message: str, *, stage: int | None = None, store: int | None = None) -> NoReturn:
    """Underline the stage or the store in the printed region."""
    lines = region_text(region).split("\n")
    head = 1 + len(region.inputs) + len(region.outputs)
    at = head + stage if stage is not None else head + len(region.stages) + store if store is not None else None
    if at is not None and at < len(lines):
        lines.insert(at + 1, "  " + "^" * (len(lines[at]) - 2))
    raise VerifyError(f"invariant {number} ({REGION_INVARIANTS[number]})", "\n".join([message, *lines]))


def _check_stage(region: Region, position: int, stage: Stage) -> None:
    first = region.first_values[position]
    for value in operands_of(stage):
        if value >= first:
            _fail(region, 1, f"v{first} reads v{value}, which is not defined before it", stage=position)
    _check_axes(region, position, stage)
    if isinstance(stage, Load):
        _check_map(region, stage.map, region.inputs, stage.buffer, stage=position)
        if bool(stage.map.bounds) != (stage.map.fill is not None):
            _fail(region, 6, "a load has a fill where it has bounds, and only then", stage=position)
    _check_index_values(region, stage, stage=position)
    _check_types(region, position, stage)


def _check_axes(region: Region, position: int, stage: Stage) -> None:
    folded: tuple[int, ...] = ()
    match stage:
        case Reduce(axes=axes) | Contract(axes=axes):
            folded = axes
        case Scan(axis=axis):
            folded = (axis,)
    unknown = [a for a in (*axes_of(stage), *folded) if a >= len(region.extents)]
    if unknown:
        _fail(region, 2, f"axis i{unknown[0]} does not exist", stage=position)
    if len(set(folded)) != len(folded):
        _fail(region, 2, "an axis is folded twice", stage=position)
    if isinstance(stage, (Reduce, Contract)) and not folded:
        _fail(region, 2, "nothing is folded", stage=position)


def _check_map(
    region: Region,
    map_: IndexMap,
    buffers: Sequence[Buffer],
    number: int,
    *,
    stage: int | None = None,
    store: int | None = None,
) -> None:
    if number >= len(buffers):
        _fail(region, 3, f"buffer {number} does not exist", stage=stage, store=store)
    shape = buffers[number].shape
    if len(map_.components) != len(shape):
        message = f"the map has {len(map_.components)} components, the buffer {len(shape)} dimensions"
        _fail(region, 3, message, stage=stage, store=store)
    if map_.indirect:
        _fail(region, 3, "a region's maps read values, not operands", stage=stage, store=store)
    if map_.bounds or _empty(region):
        return
    for component, size in zip(map_.components, shape, strict=True):
        low, high = bounds_of(_bounded(component, region))
        if isinstance(size, int) and ((low is not None and low >= size) or (high is not None and high < 0)):
            _fail(region, 7, f"index {component} is outside a dimension of {size}", stage=stage, store=store)


def _empty(region: Region) -> bool:
    return any(extent == 0 for extent in region.extents)


def _bounded(component: Dim, region: Region) -> Dim:
    """The component over axis symbols that know their extents."""
    known: dict[str, Dim] = {}
    for n, extent in enumerate(region.extents):
        if isinstance(extent, int):
            known[f"i{n}"] = SymInt.of(Symbol(f"i{n}", 0, max(extent - 1, 0)))
    return substitute(component, known)


def _check_index_values(
    region: Region, part: Stage | Store, *, stage: int | None = None, store: int | None = None
) -> None:
    read = operands_of(part)
    match part:
        case Store():
            read = read[1:]
        case Load():
            pass
        case _ if axes_of(part) or not read or hasattr(part, "args") or hasattr(part, "dtype"):
            return
    for value in read:
        if value >= len(region.dtypes) or not region.dtypes[value].is_integer:
            _fail(region, 4, f"v{value} is no integer value, an index must be one", stage=stage, store=store)


def _check_types(region: Region, position: int, stage: Stage) -> None:
    match stage:
        case Reduce(combiner, _, args, dtypes) | Scan(combiner, _, args, dtypes):
            known = COMBINERS.get(combiner)
            if known is None:
                _fail(region, 5, f"unknown combiner {combiner!r}", stage=position)
            if not len(args) == len(dtypes) == known.width:
                _fail(region, 5, f"{combiner} folds {known.width} values, got {len(args)}", stage=position)
        case Contract(_, args, dtype):
            found = {region.dtypes[v] for v in args}
            if not args or (dtype.is_float and len(found) > 1):
                _fail(region, 5, "the factors of a contraction must be of one type", stage=position)


def _check_store(region: Region, number: int, store: Store) -> None:
    if store.value >= len(region.dtypes):
        _fail(region, 1, f"v{store.value} is not defined", store=number)
    if any(a >= len(region.extents) for a in axes_of(store)):
        _fail(region, 2, "an axis does not exist", store=number)
    _check_map(region, store.map, region.outputs, store.buffer, store=number)
    if store.map.fill is not None:
        _fail(region, 6, "a store has no fill", store=number)
    _check_index_values(region, store, store=number)
    placed = set(axes_of(Store(0, IndexMap(store.map.components), 0)))
    lost = sorted(region.spaces[store.value] - placed)
    if lost and not all(region.extents[a] == 1 for a in lost):
        _fail(region, 8, f"v{store.value} varies over i{lost[0]}, which the map does not mention", store=number)
    if region.dtypes[store.value] is not region.outputs[store.buffer].dtype:
        wanted = region.outputs[store.buffer].dtype.value
        _fail(region, 5, f"v{store.value} is {region.dtypes[store.value].value}, the output {wanted}", store=number)


def _check_outputs(region: Region) -> None:
    stored = {store.buffer for store in region.stores}
    missing = [n for n in range(len(region.outputs)) if n not in stored]
    if missing:
        _fail(region, 9, f"nothing is stored to y{missing[0]}")
    read = {v for part in (*region.stages, *region.stores) for v in operands_of(part)}
    for position, first in enumerate(region.first_values):
        results = range(first, first + len(region.results(region.stages[position])))
        if not read.intersection(results):
            _fail(region, 9, f"v{first} is read by nothing", stage=position)
