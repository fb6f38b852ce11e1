"""Index maps: where an output element comes from.

An `IndexMap` takes the index vector of an iteration space (axes `i0`, `i1`, ...) to the index vector of one
operand. Each component is a quasi-affine `SymInt` over the axis symbols (sums, products by a constant,
floordiv, mod), so views, pads, windows and gathers are maps and no copies. Where a `Bound` does not hold, the
element is the fill value instead of a load. A component may also read another operand (`Indirect`), named by a
symbol `t0`, `t1`, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, dim_text

__all__ = ["Bound", "IndexMap", "Indirect", "axis", "gather", "identity", "loaded"]


@lru_cache(maxsize=256)
def axis(number: int) -> SymInt:
    """The symbol of iteration axis `number`."""
    return SymInt.of(Symbol(f"i{number}"))


@lru_cache(maxsize=256)
def loaded(number: int) -> SymInt:
    """The symbol for the value read by `indirect[number]` of a map; it may be negative."""
    return SymInt.of(Symbol(f"t{number}", lower=-(2**63)))


@dataclass(frozen=True, slots=True)
class Bound:
    """The condition `low <= expr < high` on an index expression."""

    expr: Dim
    low: Dim
    high: Dim

    def __str__(self) -> str:
        return f"{dim_text(self.low)} <= {dim_text(self.expr)} < {dim_text(self.high)}"


@dataclass(frozen=True, slots=True)
class Indirect:
    """A read of integer operand `operand` through `map`."""

    operand: int
    map: IndexMap

    def __str__(self) -> str:
        return f"operand{self.operand}{self.map}"


@dataclass(frozen=True, slots=True)
class IndexMap:
    """`components[d]` is the operand's index along its dimension d; outside `bounds` the value is `fill`."""

    components: tuple[Dim, ...]
    bounds: tuple[Bound, ...] = ()
    fill: float | int | bool | None = None
    indirect: tuple[Indirect, ...] = field(default=())

    def __str__(self) -> str:
        text = f"[{', '.join(dim_text(c) for c in self.components)}]"
        if self.bounds:
            text += f" where {' and '.join(str(b) for b in self.bounds)} else {self.fill!r}"
        if self.indirect:
            text += " with " + ", ".join(f"t{n} = {read}" for n, read in enumerate(self.indirect))
        return text


def identity(rank: int) -> IndexMap:
    """The map that reads element (i0, i1, ...) itself."""
    return IndexMap(tuple(axis(d) for d in range(rank)))


def broadcast(operand_shape: Sequence[Dim], rank: int) -> IndexMap:
    """The map of a NumPy broadcast from `operand_shape` to an output of `rank` dimensions."""
    shift = rank - len(operand_shape)
    return IndexMap(tuple(0 if dim == 1 else axis(d + shift) for d, dim in enumerate(operand_shape)))


def gather(
    map_: IndexMap, operands: Sequence[np.ndarray], which: int, extents: Sequence[int], env: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Read operand `which` over the whole iteration space `extents` (the interpreter of maps).

    Returns (values, valid), both of shape `extents`; where not valid the value is the map's fill (or 0).
    `env` gives values for the shape symbols. Raises IndexError for a read outside the operand.
    """
    grid: dict[str, Any] = {f"i{d}": g for d, g in enumerate(np.indices(tuple(extents), sparse=True))}
    grid.update(env)
    for number, read in enumerate(map_.indirect):
        grid[f"t{number}"] = gather(read.map, operands, read.operand, extents, env)[0].astype(np.int64)
    operand = operands[which]
    valid = np.ones(tuple(extents), dtype=bool)
    for bound in map_.bounds:
        value = np.asarray(evaluate(bound.expr, grid))
        valid &= (evaluate(bound.low, grid) <= value) & (value < evaluate(bound.high, grid))
    components = [np.broadcast_to(np.asarray(evaluate(c, grid)), tuple(extents)) for c in map_.components]
    for size, component in zip(operand.shape, components, strict=True):
        if np.any(valid & ((component < 0) | (component >= size))):
            raise IndexError(f"index map {map_} reads outside operand {which} of shape {operand.shape}")
    if operand.size == 0:
        return np.full(tuple(extents), map_.fill or 0, dtype=operand.dtype), valid
    values = operand[tuple(np.where(valid, c, 0) for c in components)]
    if map_.bounds:
        values = np.where(valid, values, np.asarray(map_.fill or 0).astype(operand.dtype))
    return np.asarray(values), valid
