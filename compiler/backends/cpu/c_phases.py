"""The passes of a nest over its folded axes, and what it costs to compute something again in each of them."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.backends.cpu.nest import Nest
from fusible.compiler.region.expr import Apply, Convert, Expr
from fusible.compiler.region.region import Reduce, operands_of

__all__ = ["Passes", "Phase", "is_dear"]

_DEAR = frozenset({"exp", "log", "tanh", "erf", "sigmoid", "log1p", "expm1", "pow", "sin", "cos", "div"})


@dataclass(frozen=True, slots=True)
class Phase:
    """One pass over folded axes: the stages it computes, the reductions it feeds, the stores it makes.

    level: the reductions that are complete before it. axes: those it has loops for. Where it stores what varies along
    some of the folded axes only, the others have none: one may be empty, and nothing is stored twice.
    """

    level: int
    stages: tuple[int, ...]
    reductions: tuple[int, ...]
    stores: tuple[int, ...]
    axes: tuple[int, ...]


class Passes:
    """The phases of a nest, in order, and what they were found by."""

    def __init__(self, nest: Nest) -> None:
        self.nest, self.region = nest, nest.region
        self.positions = {v: p for p in range(len(self.region.stages)) for v in self.results(p)}
        self.axes = tuple(a for a in nest.folded if nest.extents[a] is not None)
        self.levels: list[int] = []  # for each stage the number of reductions that must be complete before it
        for stage in self.region.stages:
            self.levels.append(max((self.after(self.positions[v]) for v in operands_of(stage)), default=0))
        self.phases = self._phases()

    def results(self, position: int) -> range:
        """The values of a stage."""
        first = self.region.first_values[position]
        return range(first, first + len(self.region.results(self.region.stages[position])))

    def after(self, position: int) -> int:
        """The reductions that are complete when the values of a stage are known."""
        return self.levels[position] + isinstance(self.region.stages[position], Reduce)

    def in_row(self, position: int) -> bool:
        """True for stages that vary over the folded axes."""
        return bool(self.nest.spaces[self.region.first_values[position]] & set(self.nest.folded))

    def stored_in_row(self, number: int) -> bool:
        """True for stores that are made for points of the folded axes: of such values, or to such places."""
        return bool(self.nest.stored_along(number))

    def is_full(self, phase: Phase) -> bool:
        """True for a pass that has all loops."""
        return phase.axes == self.axes

    def _stored(self, number: int) -> int:
        return self.positions[self.region.stores[number].value]

    def _loops_of(self, number: int) -> tuple[int, ...]:
        """The folded axes that a store needs loops for."""
        along = self.nest.stored_along(number)
        return tuple(a for a in self.axes if self.nest.extents[a] == 1 or a in along)

    def _phases(self) -> list[Phase]:
        region, folded = self.region, self.axes
        if not self.nest.folded:
            return [Phase(0, tuple(range(len(region.stages))), (), tuple(range(len(region.stores))), ())]
        stores = [n for n in range(len(region.stores)) if self.stored_in_row(n)]
        reductions = [p for p, s in enumerate(region.stages) if isinstance(s, Reduce)]
        count = 1 + max([self.after(self._stored(n)) for n in stores] + [self.levels[p] for p in reductions])
        found = []
        for level in range(count):
            here = [n for n in stores if self.after(self._stored(n)) == level]
            folds = tuple(p for p in reductions if self.levels[p] == level)
            sets = dict.fromkeys([folded, *map(self._loops_of, here)])
            for axes in sets:
                made = tuple(n for n in here if self._loops_of(n) == axes)
                if made or (axes == folded and (folds or len(sets) == 1)):
                    found.append(self._phase(level, folds if axes == folded else (), made, axes))
        return found

    def _phase(self, level: int, reductions: tuple[int, ...], stores: tuple[int, ...], axes: tuple[int, ...]) -> Phase:
        needed: set[int] = set()
        waiting = [self.positions[v] for p in reductions for v in operands_of(self.region.stages[p])]
        waiting += [self._stored(n) for n in stores]
        while waiting:
            position = waiting.pop()
            if position not in needed and self.in_row(position):
                needed.add(position)
                waiting += [self.positions[v] for v in operands_of(self.region.stages[position])]
        return Phase(level, tuple(sorted(needed)), reductions, stores, axes)


def is_dear(expr: Expr) -> bool:
    """True for expressions that take longer than to store and load their value."""
    match expr:
        case Apply(function, args):
            return function in _DEAR or any(is_dear(a) for a in args)
        case Convert(arg, _):
            return is_dear(arg)
    return False
