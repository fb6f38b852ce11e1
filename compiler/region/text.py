"""Regions as text, one line a stage, and back: parse(text(region)) == region.

    region [i0=8, i1=128]
      in x0: f32[8, 128]
      out y0: f32[8, 128]
      v0: f32 = load x0[i0, i1]
      v1: f32 = reduce max over i1 of v0
      v2: f32 = exp(sub(v0, v1))
      v3: f32 = reduce sum over i1 of v2
      v4: f32 = div(v2, v3)
      store y0[i0, i1] = v4
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.symbols import Dim, dim_text
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal
from fusible.compiler.region.index import Bound, IndexMap
from fusible.compiler.region.region import (
    Buffer,
    Contract,
    Group,
    Index,
    Load,
    Map,
    Reduce,
    Region,
    Scan,
    Stage,
    Store,
    Test,
)

__all__ = ["expr_text", "group_text", "region_text", "stage_key", "stage_text", "store_text"]


def region_text(region: Region) -> str:
    """The canonical text of a region, its key: two regions are the same computation if their texts are equal."""
    axes = ", ".join(f"i{n}={dim_text(extent)}" for n, extent in enumerate(region.extents))
    lines = [f"region [{axes}]"]
    lines += [f"  in x{n}: {_buffer(buffer)}" for n, buffer in enumerate(region.inputs)]
    lines += [f"  out y{n}: {_buffer(buffer)}" for n, buffer in enumerate(region.outputs)]
    lines += [f"  {stage_text(region, n)}" for n in range(len(region.stages))]
    lines += [f"  {store_text(store)}" for store in region.stores]
    return "\n".join(lines)


def group_text(group: Group) -> str:
    """The text of a group: its buffers, then each region after the buffers it reads and writes."""
    kinds = ["in"] * group.inputs + ["out"] * group.outputs
    lines = ["group"]
    for n, buffer in enumerate(group.buffers):
        lines.append(f"  {kinds[n] if n < len(kinds) else 'local'} b{n}: {_buffer(buffer)}")
    for step in group.steps:
        read, written = (", ".join(f"b{n}" for n in numbers) for numbers in (step.inputs, step.outputs))
        lines.append(f"  step ({read}) -> ({written})")
        lines += [f"    {line}" for line in region_text(step.region).split("\n")]
    return "\n".join(lines)


def stage_text(region: Region, position: int) -> str:
    """One stage with the names of its values."""
    stage, first = region.stages[position], region.first_values[position]
    dtypes = region.results(stage)
    names = ", ".join(f"v{first + n}" for n in range(len(dtypes)))
    return f"{names}: {', '.join(d.value for d in dtypes)} = {_right_side(stage)}"


def stage_key(stage: Stage, dtypes: Sequence[DType]) -> str:
    """What two stages that compute the same have in common: their text without the names of their values."""
    return f"{', '.join(d.value for d in dtypes)} = {_right_side(stage)}"


def store_text(store: Store) -> str:
    """A store: where, what, and under which bounds."""
    condition = f" where {_bounds(store.map.bounds)}" if store.map.bounds else ""
    return f"store y{store.buffer}{_components(store.map.components)} = v{store.value}{condition}"


def _right_side(stage: Stage) -> str:
    match stage:
        case Load(buffer, map_):
            return f"load x{buffer}{_load_map(map_)}"
        case Index(expr):
            return f"index {dim_text(expr)}"
        case Test(bounds):
            return f"test {_bounds(bounds)}"
        case Map(expr):
            return expr_text(expr)
        case Reduce(combiner, axes, args):
            return f"reduce {combiner} over {_names('i', axes)} of {_names('v', args)}"
        case Scan(combiner, axis, args, _, exclusive, reverse):
            kind = f"{'exclusive ' if exclusive else ''}{'reverse ' if reverse else ''}{combiner}"
            return f"scan {kind} over i{axis} of {_names('v', args)}"
        case Contract(axes, args):
            return f"contract over {_names('i', axes)} of {_names('v', args)}"


def expr_text(expr: Expr) -> str:
    """An expression whose arguments are values."""
    match expr:
        case Arg(index):
            return f"v{index}"
        case Literal(value):
            return repr(value)
        case Apply(function, args):
            return f"{function}({', '.join(expr_text(a) for a in args)})"
        case Convert(arg, dtype):
            return f"{dtype.value}({expr_text(arg)})"


def _load_map(map_: IndexMap) -> str:
    condition = f" where {_bounds(map_.bounds)} else {map_.fill!r}" if map_.bounds else ""
    return f"{_components(map_.components)}{condition}"


def _components(components: Sequence[Dim]) -> str:
    return f"[{', '.join(dim_text(c) for c in components)}]"


def _bounds(bounds: Sequence[Bound]) -> str:
    return " and ".join(str(bound) for bound in bounds)


def _names(letter: str, numbers: Sequence[int]) -> str:
    return ", ".join(f"{letter}{n}" for n in numbers)


def _buffer(buffer: Buffer) -> str:
    return f"{buffer.dtype.value}[{', '.join(dim_text(d) for d in buffer.shape)}]"
