"""Tuning a model: its Triton kernels are timed on this machine's device, and the choices go into a lockfile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fusible.compiler.api import Model, import_graph
from fusible.compiler.backends.base import word_of
from fusible.compiler.backends.triton.backend import TritonBackend
from fusible.compiler.backends.triton.launches import launch_work, predict_launch, weights_stay
from fusible.compiler.backends.triton.tune_kernels import Outcome, Task, merged, tune_tasks
from fusible.compiler.backends.triton.workbench import device_name, workbench
from fusible.compiler.costs import Costs
from fusible.compiler.frontend.signature import ShapeRequest
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.types import type_symbols
from fusible.compiler.lower import check_sizes, plan_graph, steps_of_nodes, sub_plans
from fusible.compiler.options import Options
from fusible.compiler.pipeline import pipeline
from fusible.compiler.planner import Planned
from fusible.compiler.run_passes import run_passes
from fusible.compiler.targets import check_also, check_target, printed_gpu
from fusible.compiler.tuning import Source, TuningLock
from fusible.errors import UsageError
from fusible.runtime.native.cache import default_cache_dir
from fusible.runtime.plan import Launch, Plan

__all__ = ["TuneReport", "tune"]

Progress = Callable[[float, str], None]
"""Told after each kernel: the share of the predicted time of all that is done, and the kernel."""


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What tuning did. known: kernels whose measured choice the lockfile had already.

    fixed: launches that have nothing to choose. unbounded: the inputs' symbols that counted as their least.
    """

    device: str
    outcomes: tuple[Outcome, ...]
    known: int
    fixed: int
    unbounded: tuple[str, ...] = ()

    @property
    def before(self) -> float:
        """Seconds of all launches that were timed, by the static model's choices."""
        return sum(o.static * o.task.launches for o in self.outcomes if o.static is not None)

    @property
    def after(self) -> float:
        """Seconds of the same launches, by the choices now."""
        found = ((o.choice, o.task.launches) for o in self.outcomes if o.choice is not None)
        return sum(choice.seconds * launches for choice, launches in found if choice.seconds is not None)


def tune(
    model: Model,
    target: str,
    lockfile: str | os.PathLike[str],
    *,
    shapes: Mapping[str, ShapeRequest] | None = None,
    options: Options | None = None,
    budget: float = 120.0,
    again: bool = False,
    warm: bool = False,
    progress: Progress | None = None,
) -> TuneReport:
    """Time candidates of a model's Triton kernels here, and write a lockfile.

    target: `triton-cpu`, or `cuda:sm_NUMBER` of this machine's GPU. lockfile: it is extended if it is there, and
    written after each kernel, so that what was measured stays if tuning is interrupted. budget: seconds, builds
    included; the model's graph is made before. again: time kernels too that the lockfile has measurements of. warm:
    operands stay in the device's cache between launches, as those of small models do. Symbols of shapes count as their
    upper bound, or their least where there is none. Raises UsageError, DeviceError, and for the model what `compile`
    raises.
    """
    settings = replace(options or Options(), tuning=None)
    check_also(target, settings.also)
    gpu = printed_gpu(target, settings.also)
    if gpu is None:
        raise UsageError(f"there are no Triton kernels to tune for the target {target!r}")
    if budget <= 0:
        raise UsageError(f"the budget must be positive, got {budget} s")
    check_target(target)
    name, path = device_name(target), Path(lockfile)
    lock = TuningLock.read(path)
    backend = TritonBackend(target, gpu, settings.products(gpu))
    graph, planned = _planned(model, target, shapes, settings, backend)
    tasks, fixed = _tasks(graph, planned, backend)
    wanted = [task for task in tasks if again or not _is_measured(lock, task)]
    whole = sum(task.share for task in wanted) or 1.0
    outcomes: list[Outcome] = []
    done = 0.0
    cache_dir = default_cache_dir(os.environ) if settings.cache_dir is None else Path(settings.cache_dir)
    with workbench(target, gpu, cache_dir, warm=warm) as bench:
        for outcome in tune_tasks(wanted, bench, budget):
            outcomes.append(outcome)
            if outcome.choice is not None:
                lock.entries[outcome.task.chosen.key] = replace(outcome.choice, device=name)
                lock.write(path)
            done += outcome.task.share
            if progress is not None:
                progress(min(1.0, done / whole), outcome.task.word)
    lock.write(path)
    return TuneReport(name, tuple(outcomes), len(tasks) - len(wanted), fixed, _unbounded(graph))


def _unbounded(graph: Graph) -> tuple[str, ...]:
    """The symbols of the inputs' shapes that have no upper bound, as the model spells them."""
    found = {s.name: None for v in graph.inputs for s in type_symbols(v.type) if s.upper is None}
    return tuple(graph.symbols.display.get(name, name) for name in found)


def _is_measured(lock: TuningLock, task: Task) -> bool:
    known = lock.entries.get(task.chosen.key)
    return known is not None and known.source is Source.MEASURED


def _planned(
    model: Model,
    target: str,
    shapes: Mapping[str, ShapeRequest] | None,
    options: Options,
    backend: TritonBackend,
) -> tuple[Graph, Planned]:
    """The model as `compile` has it before kernels are built; where NumPy may run does not matter here."""
    graph = import_graph(model, shapes=shapes, options=options)
    check_sizes(graph, options.limits)
    run_passes(pipeline(target), graph, options, target)
    return graph, plan_graph(graph, backend, options)


def _tasks(graph: Graph, planned: Planned, backend: TritonBackend) -> tuple[list[Task], int]:
    """A task for each key, and how many launches have nothing to choose."""
    costs, found, fixed = Costs(), [], 0
    precision, nodes, works = backend.tuning.precision, [], []
    for step, node in _launches(planned.plan, graph, planned.done):
        kernel = backend.kernel_of(node)
        if not isinstance(kernel, str):
            nodes.append((node, *kernel))
            works.append(launch_work(step.kernel, node, *kernel, costs.node(node)))
    warm = weights_stay(works, backend.gpu)
    for (node, region, printed), work in zip(nodes, works, strict=True):
        if printed.chosen is None:
            fixed += 1
            continue
        seconds = predict_launch(work, backend.gpu, warm=warm).seconds
        cost, word = costs.node(node), word_of(node)
        found.append(Task(word, node, region, printed, printed.chosen, cost, 1, seconds, precision, warm))
    return merged(found), fixed


def _launches(plan: Plan, graph: Graph, done: frozenset[Node]) -> Iterator[tuple[Launch, Node]]:
    """The launches of a plan, of branches and of loop bodies; those of loops count as one."""
    for step, node in steps_of_nodes(plan, graph, done):
        if isinstance(step, Launch):
            yield step, node
        for inner, subgraph in zip(sub_plans(step), node.subgraphs, strict=False):
            yield from _launches(inner, subgraph, done)
