"""Pipelines: phases of passes, immutable, changed by name.

A phase may be a cycle: its passes run in turn until a whole round changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType

from fusible.compiler.ir.graph import Graph
from fusible.errors import FusibleError, PassError, UsageError, VerifyError
from fusible.passes.base import Pass, PassContext, Phase
from fusible.passes.instruments import Instrument, Step

__all__ = ["MAX_ROUNDS", "Pipeline", "Stage"]

MAX_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """The passes of one phase; `cycle`: repeat them until nothing changes (at most MAX_ROUNDS times)."""

    phase: Phase
    passes: tuple[Pass, ...] = ()
    cycle: bool = False


@dataclass(frozen=True)
class Pipeline:
    """What a compilation does to the graph. Every method that changes it returns a new one."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        phases = [stage.phase for stage in self.stages]
        if phases != list(Phase):
            raise UsageError(f"a pipeline has the phases {', '.join(Phase)}, in this order, each once")

    @staticmethod
    def of(
        phases: MappingProxyType[Phase, Sequence[Pass]] | dict[Phase, Sequence[Pass]], cycles: Iterable[Phase] = ()
    ) -> Pipeline:
        """A pipeline of the given passes; phases left out are empty."""
        repeated = set(cycles)
        return Pipeline(tuple(Stage(p, tuple(phases.get(p, ())), p in repeated) for p in Phase))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all passes, in order."""
        return tuple(pass_.name for stage in self.stages for pass_ in stage.passes)

    def insert(self, pass_: Pass, *, after: str | None = None, before: str | None = None) -> Pipeline:
        """Add a pass after or before a pass, or at the end (after) or beginning (before) of a phase.

        Where a name occurs more than once, `after` means its last occurrence and `before` its first. Raises UsageError
        for an unknown name, or unless exactly one of the two is given.
        """
        if (after is None) == (before is None):
            raise UsageError("insert() takes either after= or before=, a phase or the name of a pass")
        place = after if after is not None else before
        assert place is not None
        number, position = self._find(place, last=after is not None)
        stage = self.stages[number]
        passes = (*stage.passes[:position], pass_, *stage.passes[position:])
        return self._with(number, replace(stage, passes=passes))

    def without(self, name: str) -> Pipeline:
        """Leave a pass out, wherever it occurs. Raises UsageError for an unknown name."""
        if name not in self.names:
            raise UsageError(f"no pass {name!r} in the pipeline; it has {', '.join(self.names) or 'none'}")
        stages = (replace(s, passes=tuple(p for p in s.passes if p.name != name)) for s in self.stages)
        return Pipeline(tuple(stages))

    def _find(self, place: str, *, last: bool) -> tuple[int, int]:
        """The stage and the position in it where a new pass goes."""
        for number, stage in enumerate(self.stages):
            if place == stage.phase:
                return number, len(stage.passes) if last else 0
        found = [(n, i) for n, s in enumerate(self.stages) for i, p in enumerate(s.passes) if p.name == place]
        if not found:
            known = ", ".join(dict.fromkeys([*Phase, *self.names]))
            raise UsageError(f"no phase or pass {place!r} in the pipeline; it has {known}")
        number, position = found[-1 if last else 0]
        return number, position + 1 if last else position

    def _with(self, number: int, stage: Stage) -> Pipeline:
        return Pipeline((*self.stages[:number], stage, *self.stages[number + 1 :]))

    def run(self, graph: Graph, context: PassContext, instruments: Sequence[Instrument] = ()) -> int:
        """Run every pass that the exactness bound allows; return the number of changes.

        Raises PassError naming the pass that broke the graph.
        """
        runner = _Runner(graph, context, tuple(instruments))
        return sum(runner.stage(stage) for stage in self.stages)

    def __str__(self) -> str:
        lines = []
        for stage in self.stages:
            listed = ", ".join(p.name for p in stage.passes) or "-"
            lines.append(f"{stage.phase}{' (until nothing changes)' if stage.cycle else ''}: {listed}")
        return "\n".join(lines)


class _Runner:
    """One run of a pipeline."""

    def __init__(self, graph: Graph, context: PassContext, instruments: tuple[Instrument, ...]) -> None:
        self.graph, self.context, self.instruments, self.number = graph, context, instruments, 0
        for instrument in instruments:
            instrument.start(graph)

    def stage(self, stage: Stage) -> int:
        """Run a phase; in a cycle a pass waits until something has changed since its own last run."""
        total = 0
        idle = 0
        for _ in range(MAX_ROUNDS if stage.cycle else 1):
            for pass_ in stage.passes:
                changes = self.step(stage.phase, pass_)
                total += changes
                idle = 0 if changes else idle + 1
                if stage.cycle and idle >= len(stage.passes):
                    return total
        return total

    def step(self, phase: Phase, pass_: Pass) -> int:
        """Run one pass and let the instruments look at the result."""
        if pass_.exactness > self.context.exactness:
            return 0
        self.context.check_deadline(f"pass {pass_.name!r}")
        began = perf_counter()
        with _Naming(pass_.name):
            changes = pass_.run(self.graph, self.context)
        step = Step(self.number, phase, pass_.name, changes, perf_counter() - began)
        self.number += 1
        for instrument in self.instruments:
            try:
                instrument.after(step, self.graph)
            except VerifyError as error:
                dumps = [path for other in self.instruments for path in other.dumps]
                raise PassError(pass_.name, f"it left the graph broken: {error}", dumps) from error
        return changes


class _Naming(AbstractContextManager[None]):
    """Notes on an error that is none of ours, and goes on as it is, which pass raised it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, FusibleError):
            without = f"fusible.pipeline(target).without({self.name!r})"
            error.add_note(f"The pass {self.name!r} raised this; {without} leaves it out.")
