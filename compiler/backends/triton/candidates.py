"""Candidates of a tuner, thinned out before any is timed: those that spill, do not fit, or are predicted to be slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.compiler.backends.triton.occupancy import occupancy
from fusible.compiler.backends.triton.static_report import StaticReport

__all__ = ["Candidate", "Dropped", "prune"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Candidate(Generic[S]):
    """A schedule with what is known of it. seconds: predicted. report: None while it was not built."""

    schedule: S
    threads: int
    seconds: float
    report: StaticReport | None = None


@dataclass(frozen=True, slots=True)
class Dropped(Generic[S]):
    """A candidate that need not be timed, and why."""

    candidate: Candidate[S]
    reason: str


def prune(
    candidates: Sequence[Candidate[S]], gpu: GpuTarget, factor: float = 2.0, most: int | None = None
) -> tuple[list[Candidate[S]], list[Dropped[S]]]:
    """Those worth timing, the one predicted to be the fastest first, and those that are not.

    factor: how much slower than the fastest a prediction may be; it should exceed what predictions err by (a fifth).
    most: how many are kept at most. If every candidate spills, those with the fewest spills stay: something must run.
    Ties keep their order.
    """
    if factor < 1 or (most is not None and most < 1):
        raise ValueError(f"a factor of at least 1 and at least one candidate are needed, got {factor} and {most}")
    dropped: list[Dropped[S]] = []
    fitting = []
    for candidate in candidates:
        reason = _misfit(candidate, gpu)
        if reason:
            dropped.append(Dropped(candidate, reason))
        else:
            fitting.append(candidate)
    least = min((_spilled(candidate) for candidate in fitting), default=0)
    kept = []
    for candidate in fitting:
        if _spilled(candidate) > least:
            dropped.append(Dropped(candidate, f"it spills {_spilled(candidate)}, the least is {least}"))
        else:
            kept.append(candidate)
    kept.sort(key=lambda candidate: candidate.seconds)
    slow = [candidate for candidate in kept if candidate.seconds > factor * kept[0].seconds]
    dropped += [
        Dropped(c, f"it is predicted to take {c.seconds / kept[0].seconds:.1f} times as long as the fastest")
        for c in slow
    ]
    kept = kept[: len(kept) - len(slow)]
    if most is not None:
        dropped += [Dropped(c, f"{most} are predicted to be faster") for c in kept[most:]]
        kept = kept[:most]
    return kept, dropped


def _spilled(candidate: Candidate[S]) -> int:
    return 0 if candidate.report is None else candidate.report.spilled


def _misfit(candidate: Candidate[S], gpu: GpuTarget) -> str:
    """Why no program of a candidate can run on a GPU; "" if it can, or was not built."""
    report = candidate.report
    if report is None:
        return ""
    if report.shared > gpu.shared_per_block:
        return f"it needs {report.shared} bytes of shared memory, a program has {gpu.shared_per_block} on {gpu.name}"
    resident = occupancy(gpu.sm, candidate.threads, report.registers, report.shared)
    return "" if resident.blocks else f"a program does not fit on {gpu.name}: {' and '.join(resident.limits)}"
