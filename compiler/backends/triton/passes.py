"""Which stages each pass over the columns computes, where a tile does not hold a whole row.

A pass for each level of reductions: what it needs is computed again from the operands. Stages that do not vary over
columns are computed once a row, between passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fusible.compiler.backends.triton.print_expr import carried
from fusible.compiler.backends.triton.tile import Tile
from fusible.compiler.ir.types import DType
from fusible.compiler.region.region import Reduce, Scan, operands_of

__all__ = ["Pass", "Passes", "partial_type"]

_PARTIAL = (DType.F32, DType.I32)


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over the columns: positions of stages, of the reductions that it feeds, numbers of stores."""

    stages: tuple[int, ...]
    reductions: tuple[int, ...]
    stores: tuple[int, ...]


class Passes:
    """The passes of a tile; `row_stages(level)` stand before pass number `level`, `row_stores` behind the last."""

    def __init__(self, tile: Tile) -> None:
        self.tile, self.region = tile, tile.region
        self.positions = {
            value: position
            for position, first in enumerate(self.region.first_values)
            for value in range(first, first + len(self.region.results(self.region.stages[position])))
        }
        self.levels: list[int] = []
        self._columns: list[bool] = []
        for position, stage in enumerate(self.region.stages):
            self.levels.append(max((self._after(v) for v in operands_of(stage)), default=0))
            self._columns.append(self._made_in_columns(position))

    def _after(self, value: int) -> int:
        position = self.positions[value]
        return self.levels[position] + isinstance(self.region.stages[position], Reduce)

    def in_columns(self, position: int) -> bool:
        """True for stages that are computed for every column: of what varies there, or of running results."""
        return self._columns[position]

    def _made_in_columns(self, position: int) -> bool:
        stage = self.region.stages[position]
        match stage:
            case Reduce():
                return False
            case Scan():
                return True
        if self.tile.varies(self.region.first_values[position])[1]:
            return True
        return any(self._columns[self.positions[v]] for v in operands_of(stage))

    def stored_in_columns(self, number: int) -> bool:
        """True for stores that are made for every column: of such values, or to such places."""
        store = self.region.stores[number]
        access = self.tile.nest.stores[number]
        places = self.tile.spread((access.offset, *access.conditions()))[1]
        return places or self.in_columns(self.positions[store.value])

    @property
    def passes(self) -> list[Pass]:
        """In order."""
        waiting = [self.levels[p] for p, s in enumerate(self.region.stages) if isinstance(s, Reduce)]
        waiting += [self._store_level(n) for n in self._column_stores()]
        return [self._pass(level) for level in range(1 + max(waiting, default=-1))]

    def row_stages(self, level: int) -> list[int]:
        """The stages of rows that can be computed when `level` passes are done."""
        return [
            position
            for position, stage in enumerate(self.region.stages)
            if not isinstance(stage, Reduce) and not self.in_columns(position) and self.levels[position] == level
        ]

    @property
    def row_stores(self) -> list[int]:
        """Stores of one element a row."""
        return [n for n in range(len(self.region.stores)) if not self.stored_in_columns(n)]

    def _column_stores(self) -> list[int]:
        return [n for n in range(len(self.region.stores)) if self.stored_in_columns(n)]

    def _store_level(self, number: int) -> int:
        return max(self._after(v) for v in operands_of(self.region.stores[number]))

    def _pass(self, level: int) -> Pass:
        reductions = tuple(
            p for p, s in enumerate(self.region.stages) if isinstance(s, Reduce) and self.levels[p] == level
        )
        stores = tuple(n for n in self._column_stores() if self._store_level(n) == level)
        roots = [v for p in reductions for v in operands_of(self.region.stages[p])]
        roots += [v for n in stores for v in operands_of(self.region.stores[n])]
        return Pass(tuple(sorted(self._needed(roots))), reductions, stores)

    def _needed(self, roots: Iterable[int]) -> set[int]:
        needed: set[int] = set()
        waiting = [self.positions[v] for v in roots]
        while waiting:
            position = waiting.pop()
            if position not in needed and self.in_columns(position):
                needed.add(position)
                waiting += [self.positions[v] for v in operands_of(self.region.stages[position])]
        return needed


def partial_type(tile: Tile) -> DType | None:
    """The type in which programs that share the columns of a tile can leave what each found; None if they cannot.

    They can if one pass is all: what follows the folds then needs nothing but their results, and the last program
    alone goes on. Stores of columns are each program's own.
    """
    folds = [stage for stage in tile.region.stages if isinstance(stage, Reduce)]
    types = {carried(dtype) for fold in folds for dtype in fold.dtypes}
    if not isinstance(tile.column_points, int) or tile.scans or len(types) != 1 or not types <= set(_PARTIAL):
        return None
    return types.pop() if len(Passes(tile).passes) == 1 else None
