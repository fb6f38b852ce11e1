"""Candidates of a model's kernels are built, compared, timed; the fastest become a lockfile's choices.

Kernels of one key are one task. The tasks that are predicted to take the largest share of a run come first, and what
the time does not suffice for keeps the static model's choice. Building goes on in other processes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from time import monotonic

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.candidates import Candidate, prune
from fusible.compiler.backends.triton.designs import AnyDesign
from fusible.compiler.backends.triton.device_code import device_kernel
from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.launches import LaunchWork, launch_work, predict_launch
from fusible.compiler.backends.triton.print_kernel import design_of
from fusible.compiler.backends.triton.printer import Chosen, PrintedKernel
from fusible.compiler.backends.triton.trial import Trial
from fusible.compiler.backends.triton.workbench import Built, Workbench
from fusible.compiler.costs import Cost
from fusible.compiler.ir.graph import Node
from fusible.compiler.region.build import Built as BuiltRegion
from fusible.compiler.tuning import Choice, Config, Source
from fusible.errors import ExecutionError, FusibleError

__all__ = ["Outcome", "Rejected", "Task", "tune_tasks"]

_BUILT, _TIMED = 12, 10  # candidates of a kernel, at most
_SLOWER = 3.0  # how much slower than the fastest the prediction of one that is built may be
_SLOWER_BUILT = 2.0  # and of one that is timed
_GAIN = 0.02  # what another configuration must gain: medians differ by about so much from run to run


@dataclass(frozen=True, slots=True)
class Task:
    """A kernel to tune. launches: in one run; seconds: predicted, of one launch by the static choice.

    warm: whether the weights are in the cache when it starts.
    """

    word: str
    node: Node
    region: BuiltRegion
    printed: PrintedKernel
    chosen: Chosen
    cost: Cost
    launches: int
    seconds: float
    precision: str
    warm: bool = False

    @property
    def share(self) -> float:
        """Predicted seconds of a run."""
        return self.launches * self.seconds

    def work(self, printed: PrintedKernel) -> LaunchWork:
        """A launch of one of its kernels, as predictions have it."""
        return launch_work("candidate", self.node, self.region, printed, self.cost)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that could not be used, though it was expected to be."""

    config: Config
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a task. choice: None if the time did not suffice, or nothing could be timed; `why` says so.

    static: seconds of the static choice.
    """

    task: Task
    choice: Choice | None
    static: float | None = None
    rejected: tuple[Rejected, ...] = ()
    why: str = ""


@dataclass(slots=True)
class _Entrant:
    """A candidate on its way through printing, building and timing."""

    config: Config
    printed: PrintedKernel
    future: Future[Built]
    built: Built | None = None


@dataclass(slots=True)
class _Race:
    """A task with its candidates, the static choice first."""

    task: Task
    entrants: list[_Entrant]
    rejected: list[Rejected] = field(default_factory=list)


def tune_tasks(
    tasks: Sequence[Task], bench: Workbench, budget: float, clock: Callable[[], float] = monotonic
) -> Iterator[Outcome]:
    """The outcome of each task, those with the largest share of a run first. budget: seconds for all, builds included.

    Raises DeviceError if the device itself fails.
    """
    deadline = clock() + budget
    ordered = sorted(tasks, key=lambda task: -task.share)
    races = [_entered(task, bench) for task in ordered]
    for race in races:
        left = deadline - clock()
        if left <= 0:
            yield Outcome(race.task, None, why="the time was over")
            continue
        yield _run(race, bench, deadline, clock)


def _entered(task: Task, bench: Workbench) -> _Race:
    """A task whose candidates are printed, thinned out by what is predicted of them, and being built."""
    design = design_of(task.region.region, bench.gpu, task.chosen.constants, precision=task.precision)
    entrants = []
    for config, printed in _worth_building(task, design, bench.gpu):
        entrants.append(_Entrant(config, printed, bench.build(device_kernel("candidate", printed))))
    return _Race(task, entrants)


def _worth_building(task: Task, design: AnyDesign, gpu: GpuTarget) -> list[tuple[Config, PrintedKernel]]:
    first, *others = design.configs()
    found = [(first, task.printed)]
    texts = {repr(device_kernel("", task.printed))}
    for config in others:
        try:
            printed = design.by_config(config)
        except (NotPrintable, ValueError):  # the schedules' neighbours are not asked whether they can be
            continue
        text = repr(device_kernel("", printed))
        if text not in texts:
            texts.add(text)
            found.append((config, printed))
    candidates = [_candidate(n, task, printed, gpu, None) for n, (_, printed) in enumerate(found)]
    kept, _ = prune(candidates, gpu, _SLOWER)
    # In the order of the schedules: predictions do not tell apart what differs in warps or stages alone.
    always = {0, *(n for n, (_, printed) in enumerate(found) if printed.product is not None)}
    return [found[n] for n in sorted(always | {c.schedule for c in kept})][:_BUILT]


def _candidate(number: int, task: Task, printed: PrintedKernel, gpu: GpuTarget, built: Built | None) -> Candidate[int]:
    report = None if built is None else built.report
    if printed.product is not None:  # nothing is known of a library: it is tried in any case
        return Candidate(number, task.printed.rule.warps * gpu.warp, task.seconds)
    seconds = predict_launch(task.work(printed), gpu, warm=task.warm, report=report).seconds
    return Candidate(number, printed.rule.warps * gpu.warp, seconds, report)


def _run(race: _Race, bench: Workbench, deadline: float, clock: Callable[[], float]) -> Outcome:
    task = race.task
    for entrant in race.entrants:
        try:
            entrant.built = entrant.future.result(max(0.0, deadline - clock()))
        except FutureTimeout:
            break
        except FusibleError as error:
            race.rejected.append(Rejected(entrant.config, _first_line(error)))
    if race.entrants[0].built is None:
        failed = race.rejected[0].reason if race.rejected else ""
        return Outcome(task, None, None, tuple(race.rejected), failed or "the time was over before it was built")
    try:
        trial = Trial(task.region.region, task.printed, race.entrants[0].built, bench.flushed, task.precision)
    except ExecutionError as error:  # its operands are larger than the device's memory
        return Outcome(task, None, None, tuple(race.rejected), _first_line(error))
    timed: list[tuple[float, Config]] = []
    for entrant in _worth_timing(race, bench.gpu):
        if timed and clock() > deadline:
            break
        assert entrant.built is not None
        found = trial.seconds(entrant.built, entrant.printed, min((s for s, _ in timed), default=None))
        if isinstance(found, str):
            race.rejected.append(Rejected(entrant.config, found))
        else:
            timed.append((found, entrant.config))
    if timed and min(timed, key=lambda pair: pair[0])[1] != task.chosen.config:  # the first of all may have had to wait
        again = trial.seconds(race.entrants[0].built, task.printed, None)
        timed[0] = (min(timed[0][0], again) if isinstance(again, float) else timed[0][0], timed[0][1])
    return _outcome(race, timed)


def _worth_timing(race: _Race, gpu: GpuTarget) -> list[_Entrant]:
    """What was built and does not look slow by its code; the static choice first."""
    built = [entrant for entrant in race.entrants if entrant.built is not None]
    candidates = [_candidate(n, race.task, e.printed, gpu, e.built) for n, e in enumerate(built)]
    kept, _ = prune(candidates, gpu, _SLOWER_BUILT, _TIMED)
    always = [0, *(n for n, entrant in enumerate(built) if entrant.printed.product is not None)]
    return [built[n] for n in dict.fromkeys([*always, *(c.schedule for c in kept)])]


def _outcome(race: _Race, timed: Sequence[tuple[float, Config]]) -> Outcome:
    rejected = tuple(race.rejected)
    if not timed or timed[0][1] != race.entrants[0].config:
        return Outcome(race.task, None, None, rejected, "the static choice cannot be launched")
    static = timed[0][0]
    seconds, config = min(timed, key=lambda pair: pair[0])
    if seconds > static * (1 - _GAIN):
        seconds, config = timed[0]
    return Outcome(race.task, Choice(config, Source.MEASURED, seconds, len(timed)), static, rejected)


def _first_line(error: FusibleError) -> str:
    return " ".join(str(error).split())[:300]


def merged(tasks: Sequence[Task]) -> list[Task]:
    """One task for each key."""
    found: dict[str, Task] = {}
    for task in tasks:
        known = found.get(task.chosen.key)
        found[task.chosen.key] = task if known is None else replace(known, launches=known.launches + task.launches)
    return list(found.values())
