"""What follows from the records: rates, groups of rows, means of ratios, the noise of the machine.

The rows hold the work of one inference or call (`flops`, `bytes`); a rate is that work divided by the median time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from fusible.benchmarks.records import Interval, KernelRow, ModelRow, Results, Roof, Sentinel

__all__ = [
    "Group",
    "PeerSummary",
    "byte_rate",
    "comparable",
    "flop_rate",
    "geometric_mean",
    "groups",
    "intensity",
    "is_usable",
    "noise",
    "roof_of",
    "subject_name",
    "summaries",
]


@dataclass(frozen=True, slots=True)
class Group:
    """The rows that compare with each other: one model, batch and number of threads; the subject comes first."""

    model: str
    variant: str
    batch: int
    threads: int
    rows: tuple[ModelRow, ...]

    @property
    def name(self) -> str:
        """The model with its variant."""
        return f"{self.model} {self.variant}".rstrip()


@dataclass(frozen=True, slots=True)
class PeerSummary:
    """One peer over all models: the geometric mean of its ratios, and how many intervals lie above, below, around 1.

    slower: models on which the peer is slower than the subject; faster: on which it is faster; level: neither is sure;
    missing: rows whose ratio does not count (see `comparable`).
    """

    peer: str
    threads: int
    mean: float | None
    slower: int
    faster: int
    level: int
    missing: int


def flop_rate(row: ModelRow | KernelRow) -> float | None:
    """Flops per second; None if the row has no count or no time."""
    return _rate(row.flops, row)


def byte_rate(row: ModelRow | KernelRow) -> float | None:
    """Bytes per second, of those that must move at least; None if the row has no count or no time."""
    return _rate(row.bytes, row)


def _rate(work: float | None, row: ModelRow | KernelRow) -> float | None:
    if work is None or row.latency is None or not row.latency.p50 > 0:
        return None
    return work / row.latency.p50


def intensity(row: ModelRow | KernelRow) -> float | None:
    """Flops per byte; None if either is missing or nothing."""
    return row.flops / row.bytes if row.flops and row.bytes else None


def roof_of(results: Results, threads: int) -> Roof | None:
    """The roof measured with so many threads, if one was."""
    return next((roof for roof in results.roofs if roof.threads == threads), None)


def is_usable(interval: Interval | None) -> bool:
    """Whether an interval of ratios has a place on a log axis: finite, above zero, in order."""
    return interval is not None and 0 < interval.low <= interval.middle <= interval.high < math.inf


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean of ratios that does not change when each is turned over: exp(mean(log r))."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(math.fsum(logs) / len(logs))


def groups(results: Results) -> tuple[Group, ...]:
    """The rows by model, variant, batch and threads, in the order in which they were measured; subjects first."""
    found: dict[tuple[str, str, int, int], list[ModelRow]] = {}
    for row in results.models:
        found.setdefault((row.model, row.variant, row.batch, row.threads), []).append(row)
    return tuple(Group(*key, tuple(sorted(rows, key=lambda r: r.role != "subject"))) for key, rows in found.items())


def comparable(results: Results) -> tuple[ModelRow, ...]:
    """The rows of peers whose ratio counts: it fits a log axis, and neither the peer nor the subject is wrong.

    The time of a subject whose outputs are wrong, or that failed halfway, is no measure of anything.
    """
    return tuple(
        row
        for group in groups(results)
        if all(row.status == "ok" for row in group.rows if row.role == "subject")
        for row in group.rows
        if row.role != "subject" and row.status == "ok" and is_usable(row.ratio)
    )


def subject_name(results: Results) -> str:
    """The contestant that the run is about; `subject` if no row has that role."""
    names = dict.fromkeys(row.peer for row in results.models if row.role == "subject")
    return " / ".join(names) or "subject"


def summaries(results: Results) -> tuple[PeerSummary, ...]:
    """One summary for each peer and number of threads, by threads."""
    counted = {id(row) for row in comparable(results)}
    found: dict[tuple[int, str], list[Interval | None]] = {}
    for row in results.models:
        if row.role != "subject":
            found.setdefault((row.threads, row.peer), []).append(row.ratio if id(row) in counted else None)
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return tuple(_summary(peer, threads, ratios) for (threads, peer), ratios in ordered)


def _summary(peer: str, threads: int, ratios: list[Interval | None]) -> PeerSummary:
    known = [ratio for ratio in ratios if ratio is not None]
    slower = sum(ratio.low > 1 for ratio in known)
    faster = sum(ratio.high < 1 for ratio in known)
    mean = geometric_mean(ratio.middle for ratio in known) if known else None
    return PeerSummary(peer, threads, mean, slower, faster, len(known) - slower - faster, len(ratios) - len(known))


def noise(results: Results) -> Sentinel | None:
    """The sentinels of all rows as one: the medians of p50 and p80, the worst of all; None if no row has one."""
    seen = [row.sentinel for row in results.models if row.sentinel is not None]
    if not seen:
        return None
    return Sentinel(
        seconds=min(s.seconds for s in seen),
        p50=median(s.p50 for s in seen),
        p80=median(s.p80 for s in seen),
        worst=max(s.worst for s in seen),
        rounds=sum(s.rounds for s in seen),
    )
