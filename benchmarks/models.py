"""Whole models: contestants in processes of their own, interleaved block by block, launched anew several times.

    rows = bench_model(obtain("mobilenet-v2"), [Contestant("fusible"), Contestant("onnxruntime")], threads=1)

A launch starts every contestant afresh and times some rounds; in each round every contestant has one block, in random
order. Launches go on until the intervals of all ratios are narrow enough, or the time is up.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusible.benchmarks.measure.interleave import iterations_for
from fusible.benchmarks.measure.machine import NoiseWatch
from fusible.benchmarks.measure.statistics import half_width, latency_of, log_ratios, ratio_interval
from fusible.benchmarks.peers.client import Task, Worker
from fusible.benchmarks.peers.protocol import Contestant, PeerError, PeerMissing
from fusible.benchmarks.records import ColdStart, Interval, ModelRow, Roof
from fusible.benchmarks.reference import bf16_tolerance, judge
from fusible.benchmarks.work import Work
from fusible.compiler.accuracy import Bound

__all__ = ["Settings", "bench_model"]

Progress = Callable[[str], None]
COLD_LAUNCHES = 4  # whose start is timed; the first may have to compile, or read files that no cache holds


@dataclass(frozen=True, slots=True)
class Settings:
    """How long to measure.

    rounds: blocks of each contestant a launch (fewer if runs are long); block_seconds: length of a block; precision:
    stop when the 95 % interval of every ratio is within +- so much (0.025: 2.5 %); launches: at least and at most;
    seconds: start no further launch after this time, for one model and number of threads.
    """

    rounds: int = 16
    block_seconds: float = 0.02
    precision: float = 0.025
    launches: tuple[int, int] = (6, 24)
    seconds: float = 120.0
    seed: int = 0
    plain: bool = False


@dataclass(slots=True)
class _Entry:
    """What is known of one contestant so far."""

    who: Contestant
    status: str = "ok"
    reason: str = ""
    version: str = ""
    iterations: int = 1
    launches: list[list[list[float]]] = field(default_factory=list)  # launch -> round -> seconds of iterations
    starts: list[Mapping[str, float]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)  # bytes of each timed start and its first run
    kernels: int | None = None
    errors: tuple[float, float] | None = None

    @property
    def runs(self) -> bool:
        return self.status in ("ok", "wrong")

    def fail(self, error: PeerError) -> None:
        self.status = "absent" if isinstance(error, PeerMissing) else "failed"
        self.reason = str(error)

    def group(self, other: _Entry) -> list[list[float]]:
        """Log ratios of this contestant's time to another's, a group a launch."""
        return [log_ratios(a, b) for a, b in zip(self.launches, other.launches, strict=True)]


def bench_model(
    work: Work,
    contestants: Sequence[Contestant],
    *,
    threads: int,
    settings: Settings | None = None,
    roof: Roof | None = None,
    progress: Progress = lambda _: None,
) -> list[ModelRow]:
    """Measure one model with one number of threads; a row for each contestant, the first being the subject.

    A contestant that is not installed or cannot run the model has a row that says why; the others go on.
    """
    return _Bench(work, contestants, threads, settings or Settings(), roof, progress).run()


class _Bench:
    def __init__(
        self,
        work: Work,
        contestants: Sequence[Contestant],
        threads: int,
        settings: Settings,
        roof: Roof | None,
        progress: Progress,
    ) -> None:
        self.work, self.threads, self.settings, self.roof, self.progress = work, threads, settings, roof, progress
        self.entries = [_Entry(who) for who in contestants]
        self.twins = {
            id(entry): _Entry(Contestant(entry.who.peer, entry.who.option, plain=True))
            for entry in self.entries
            if settings.plain and entry.who.peer != "onnxruntime-unoptimised" and entry.who.slowdown == 1.0
        }
        self.noise = NoiseWatch()
        self.chance = random.Random(settings.seed)

    @property
    def running(self) -> list[_Entry]:
        entries = [e for e in self.entries if e.runs]
        twins = [self.twins[id(e)] for e in entries if id(e) in self.twins]
        return [*entries, *(t for t in twins if t.runs)]

    def run(self) -> list[ModelRow]:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="fusible-bench-") as name:
            task = Task(self.work.zoo_name, self.work.path, self.work.inputs, Path(name))
            launch = 0
            while self.running and self._goes_on(launch, time.perf_counter() - started):
                self._launch(task, launch)
                launch += 1
        return [self._row(entry) for entry in self.entries]

    def _goes_on(self, launch: int, elapsed: float) -> bool:
        least, most = self.settings.launches
        if launch < min(2, most):
            return True
        if launch >= most or elapsed > self.settings.seconds:
            return False
        return launch < least or any(half_width(i) > self.settings.precision for i in self._intervals())

    def _intervals(self) -> list[Interval]:
        subject = self.entries[0]
        peers = [e for e in self.entries[1:] if e.runs] if subject.runs else []
        return [ratio_interval(e.group(subject)) for e in peers]

    def _launch(self, task: Task, number: int) -> None:
        """Start everybody, then time the rounds. The first launches start one after the other: they time the start.

        In an order drawn by chance: whoever starts later finds the machine otherwise (free memory, clock), which makes
        a difference of half a per cent that no number of launches in one order would show.
        """
        order = self.chance.sample(self.running, len(self.running))
        workers: list[tuple[_Entry, Worker]] = []
        with ExitStack() as stack:
            together = order if number >= COLD_LAUNCHES else ()
            begun = {id(entry): stack.enter_context(Worker(entry.who, self.threads)) for entry in together}
            for entry in order:
                self.progress(f"{self.work.name}: launch {number + 1}, {entry.who.label} loads")
                worker = begun.get(id(entry)) or stack.enter_context(Worker(entry.who, self.threads))
                try:
                    self._start(entry, worker, task, number)
                except PeerError as error:
                    entry.fail(error)
                    continue
                workers.append((entry, worker))
            self.progress(f"{self.work.name}: launch {number + 1}, {self.threads} threads")
            self._rounds([(e, w) for e, w in workers if e.runs])

    def _start(self, entry: _Entry, worker: Worker, task: Task, number: int) -> None:
        cache = task.folder / f"cache-{entry.who.label.replace('/', '-')}"
        cache.mkdir(exist_ok=True)
        start = worker.load(task, cache=cache)
        if entry.who.plain:
            seconds = worker.block(3)
        else:
            entry.version = start["version"]
            if number < COLD_LAUNCHES:
                entry.starts.append(start)
                entry.peaks.append(worker.facts(kernels=False)["peak_memory"])
            if number == 0:
                self._check(entry, worker, task)
                entry.kernels = worker.facts(kernels=True)["kernels"]
            seconds = worker.block(3)
        if number == 0:
            entry.iterations = iterations_for(min(seconds), self.settings.block_seconds)

    def _check(self, entry: _Entry, worker: Worker, task: Task) -> None:
        if self.work.expected is None:
            return
        outputs, bound = worker.outputs(task), self.work.bound
        if entry.who.precision == "bf16" and isinstance(bound, Bound):
            bound = bf16_tolerance(self.work.path, self.work.inputs, self.work.expected)
        largest, rms, wrong = judge(self.work.expected, outputs, bound)
        entry.errors = (largest, rms)
        if wrong:
            entry.status, entry.reason = "wrong", wrong

    def _rounds(self, workers: Sequence[tuple[_Entry, Worker]]) -> None:
        blocks: dict[int, list[list[float]]] = {id(entry): [] for entry, _ in workers}
        for _ in range(self._count(workers)):
            self.noise.sample()
            for entry, worker in self.chance.sample(list(workers), len(workers)):
                try:
                    blocks[id(entry)].append(worker.block(entry.iterations))
                except PeerError as error:
                    entry.fail(error)
                    workers = [(e, w) for e, w in workers if e is not entry]
        for entry, _ in workers:
            entry.launches.append(blocks[id(entry)])

    def _count(self, workers: Sequence[tuple[_Entry, Worker]]) -> int:
        """Fewer rounds where one run is longer than a block: a launch should not take more than a few seconds."""
        slow = any(entry.iterations == 1 for entry, _ in workers)
        return max(4, self.settings.rounds // 2) if slow else self.settings.rounds

    # Rows

    def _row(self, entry: _Entry) -> ModelRow:
        who, subject, work = entry.who, self.entries[0], self.work
        plain = self.twins.get(id(entry))
        row = ModelRow(
            model=work.name,
            variant=work.variant,
            peer=who.label,
            role="subject" if entry is subject else "peer",
            threads=self.threads,
            status=entry.status,
            reason=entry.reason or (f"plain loop: {plain.reason}" if plain is not None and plain.reason else ""),
            batch=work.batch,
            flops=work.flops,
            bytes=work.bytes,
            version=entry.version,
            sentinel=self.noise.summary(),
        )
        if entry.runs and entry.launches:
            row = replace(row, **self._numbers(entry))
            if entry is not subject and subject.runs:
                row = replace(row, ratio=ratio_interval(entry.group(subject), seed=self.settings.seed))
            if plain is not None and plain.runs:
                row = replace(row, plain=ratio_interval(plain.group(entry), seed=self.settings.seed))
        return row

    def _numbers(self, entry: _Entry) -> dict[str, Any]:
        latency = latency_of([block for launch in entry.launches for block in launch])
        work, roof, seconds = self.work, self.roof, latency.p50
        first = entry.starts[0]
        return {
            "latency": latency,
            "throughput": work.batch / seconds,
            "flops_share": work.flops / seconds / roof.flops if work.flops and roof else None,
            "bandwidth_share": work.bytes / seconds / roof.bandwidth if work.bytes and roof else None,
            "compile_seconds": first["load"] + (first["first_run"] if entry.who.peer == "torch-inductor" else 0.0),
            "cold": _cold(entry.starts),
            "peak_memory": max(entry.peaks[1:] or entry.peaks, default=None),
            "kernels": entry.kernels,
            "max_error": entry.errors[0] if entry.errors else None,
            "rms_error": entry.errors[1] if entry.errors else None,
        }


def _cold(starts: Sequence[Mapping[str, float]]) -> ColdStart:
    """Medians over the timed launches after the first."""
    later = starts[1:] or starts
    return ColdStart(*(float(np.median([s[k] for s in later])) for k in ("imports", "load", "first_run", "process")))
