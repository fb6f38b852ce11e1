"""The search: batches of seeds on persistent processes; what fails is shrunk, what fails alike is told once."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeAlias

from tests.differential.builder import Sample
from tests.differential.judge import Settings, Verdict
from tests.differential.shrink import kind_of, shrink
from tests.differential.worker import Answer, Worker, made
from tests.fast_compiler import fast_compiler

__all__ = ["Finding", "Findings", "search"]

BATCH = 32
_SETTINGS = ((1, False), (2, False), (1, True), (2, False))  # threads, exact; one after the other
Batch: TypeAlias = tuple[tuple[int, ...], Settings]
_SHRUNK = 12  # findings that are shrunk; of the others the seed is told


@dataclass(frozen=True)
class Finding:
    """A graph, as small as it was made, what is wrong with it, and its seed and settings."""

    seed: int
    reason: str
    sample: Sample
    settings: Settings


@dataclass
class Findings:
    """Counts, and the findings."""

    graphs: int = 0
    nodes: int = 0
    ill: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)
    alike: Counter[str] = field(default_factory=Counter)


def search(
    seed: int,
    count: int,
    seconds: float,
    *,
    target: str = "cpu",
    workers: int = 1,
    batch: int = BATCH,
    shrink_seconds: float = 45.0,
    progress: Callable[[Findings], None] = lambda _: None,
) -> Findings:
    """Judge the graphs of the seeds seed, seed + 1, ... on a target against numpy, for at most so much time."""
    result, deadline = Findings(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fusible-differential-") as name, _compiler(target, Path(name)):
        pool = [Worker() for _ in range(workers)]
        try:
            batches = _batches(seed, count, batch, Path(name), target)
            for worker, (seeds, settings), answer in _answers(pool, batches, deadline):
                for failed, verdict in _counted(result, worker, seeds, settings, answer):
                    result.found.append(_finding(result, worker, failed, settings, verdict, shrink_seconds))
                progress(result)
        finally:
            for worker in pool:
                worker.stop()
    return result


def _compiler(target: str, folder: Path) -> AbstractContextManager[None]:
    return fast_compiler(folder, "-O1", lowered=True) if target == "triton-cpu" else fast_compiler(folder, "-Og")


def _batches(seed: int, count: int, size: int, folder: Path, target: str) -> Iterator[Batch]:
    """Seeds and settings; the latter depend on the seed alone."""
    for first in range(seed, seed + count, size):
        threads, exact = _SETTINGS[first // size % len(_SETTINGS)]
        yield tuple(range(first, min(first + size, seed + count))), Settings(folder / "cache", threads, exact, target)


def _answers(
    workers: Sequence[Worker], batches: Iterator[Batch], deadline: float
) -> Iterator[tuple[Worker, Batch, Answer | str]]:
    """Every batch with its answer, as they come."""
    busy: dict[Worker, Batch] = {}
    while True:
        for worker in workers:
            given = next(batches, None) if worker not in busy and time.monotonic() < deadline else None
            if given is not None:
                worker.start(*given)
                busy[worker] = given
        if not busy:
            return
        ready = wait([worker.pipe for worker in busy], timeout=workers[0].seconds)
        for worker in [w for w in busy if not ready or w.pipe in ready]:
            answer = worker.answer()
            assert not isinstance(answer, Verdict)
            yield worker, busy.pop(worker), answer


def _counted(
    result: Findings, worker: Worker, seeds: Sequence[int], settings: Settings, answer: Answer | str
) -> Iterator[tuple[int, Verdict]]:
    """Add an answer to the counts; yields what failed. Where the process died, each seed is tried alone."""
    if isinstance(answer, str):
        verdicts = {seed: worker.check(made(seed), settings) for seed in seeds}
        if not any(v.reason for v in verdicts.values()):
            verdicts[seeds[0]] = Verdict(f"in company: {answer}")
    else:
        verdicts = answer.verdicts
        result.nodes += answer.nodes
    result.graphs += len(verdicts)
    for seed, verdict in verdicts.items():
        result.ill += verdict.ill
        if verdict.refused:
            result.refused[verdict.refused[:120]] += 1
        if verdict.reason:
            yield seed, verdict


def _finding(
    result: Findings, worker: Worker, seed: int, settings: Settings, verdict: Verdict, seconds: float
) -> Finding:
    """The finding, shrunk unless there are many already, or it fails only in company or against numpy itself."""
    sample, kind = made(seed), kind_of(verdict.reason)
    result.alike[kind] += 1
    if len(result.found) < _SHRUNK and not verdict.reason.startswith(("in company", "passes", "numpy")):
        sample = shrink(sample, lambda s: kind_of(worker.check(s, settings).reason) == kind, seconds)
        verdict = worker.check(sample, settings)
    return Finding(seed, verdict.reason, sample, settings)
