"""What changed between two runs beyond noise.

The absolute times of two runs do not compare well on a machine that others use. So the subject's time is compared
relative to each peer that both runs have: both were timed next to each other, and what slowed one slowed the other.
With R = time of the peer / time of the subject, the subject's time changed by the factor f = R_old / R_new, and

    ln f = ln R_old - ln R_new,    half-width of its interval h = sqrt(h_old² + h_new²),

where h_old and h_new are half the widths of the logarithms of the two 95 % intervals. The subject is slower if the
interval of f lies above 1 and f exceeds `THRESHOLD`; faster if it lies below 1 and 1 / f exceeds it.

Without a common peer the median times themselves are compared, and the change says that it is absolute. Its half-width
is that of a normal distribution in the log domain whose spread, for each run, is that of the sentinel (p80 / p50) and
that of the blocks (p80 / p20) together. It is refused if the machines differ, or if a run has no sentinel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from fusible.benchmarks.records import (
    Interval,
    KernelRow,
    Latency,
    Machine,
    ModelRow,
    Results,
    ResultsError,
)
from fusible.benchmarks.report.derived import is_usable
from fusible.benchmarks.report.wording import plural

__all__ = ["THRESHOLD", "Change", "ChangeKind", "compare", "exit_code"]

THRESHOLD = 1.02
_ABSOLUTE = "(absolute)"
# Of a normal distribution: from the half-width p50..p80 to that of a 95 % interval.
_P80_TO_95 = 1.959964 / 0.841621


class ChangeKind(Enum):
    """What happened to a row."""

    SLOWER = "slower"
    BROKEN = "broken"
    FASTER = "faster"
    FIXED = "fixed"
    VANISHED = "vanished"
    NEW = "new"
    REFUSED = "not compared"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Change:
    """One comparison. factor: new time / old time of the subject or kernel, 1.05 is 5 % slower; None if not compared.

    what: the row; against: the peer whose time is the measure, or `(absolute)`; note: what else one must know.
    """

    kind: ChangeKind
    what: str
    against: str
    factor: Interval | None = None
    note: str = ""


Row = TypeVar("Row", ModelRow, KernelRow)


def compare(old: Results, new: Results) -> tuple[Change, ...]:
    """Every comparison of two runs, those within noise too, in the order of the old run.

    Rows are matched by model, variant, peer, threads and batch; kernels by op, kernel, device, signature, attributes,
    baseline and threads. Raises ResultsError if a run holds two rows of the same name.
    """
    return (*_compare_models(old, new), *_compare_kernels(old, new))


def exit_code(changes: Iterable[Change]) -> int:
    """1 if anything got slower or broke, else 0."""
    return int(any(change.kind in (ChangeKind.SLOWER, ChangeKind.BROKEN) for change in changes))


def _compare_models(old: Results, new: Results) -> Iterator[Change]:
    before, after = _by_key(old.models, _model_key, "old"), _by_key(new.models, _model_key, "new")
    yield from _presence(before, after, _model_name, lambda row: row.peer, new.complete)
    for place in dict.fromkeys(_place(row) for row in old.models):
        olds = [row for row in old.models if _place(row) == place]
        news = [row for row in new.models if _place(row) == place]
        if news:
            yield from _compare_subject(olds, news, _differences(old.machine, new.machine))


def _compare_subject(olds: Sequence[ModelRow], news: Sequence[ModelRow], machines: str) -> Iterator[Change]:
    before, after = _subject(olds), _subject(news)
    if before is None or after is None or before.status != "ok" or after.status != "ok":
        return  # what is missing or broken has been named already
    what = _model_name(before)
    if before.peer != after.peer:
        yield Change(ChangeKind.REFUSED, what, "", note=f"the subject was {before.peer} and is {after.peer}")
        return
    peers = {row.peer: row for row in news if row.role != "subject" and row.ratio is not None and row.status == "ok"}
    common = [
        (row, peers[row.peer])
        for row in olds
        if row.role != "subject" and row.ratio is not None and row.status == "ok" and row.peer in peers
    ]
    for row, other in common:
        notes = [machines, "" if row.version == other.version else f"{row.peer} {row.version} -> {other.version}"]
        yield _relative(what, row.peer, row.ratio, other.ratio, "; ".join(note for note in notes if note))
    if not common:
        yield _absolute(what, before, after, machines)


def _compare_kernels(old: Results, new: Results) -> Iterator[Change]:
    before, after = _by_key(old.kernels, _kernel_key, "old"), _by_key(new.kernels, _kernel_key, "new")
    yield from _presence(before, after, _kernel_name, lambda row: row.baseline, new.complete)
    machines = _differences(old.machine, new.machine)
    for key, row in before.items():
        other = after.get(key)
        if other is not None and row.status == other.status == "ok":
            yield _relative(_kernel_name(row), row.baseline, row.ratio, other.ratio, machines)


def _presence(
    before: dict[Hashable, Row],
    after: dict[Hashable, Row],
    name: Callable[[Row], str],
    against: Callable[[Row], str],
    complete: bool,
) -> Iterator[Change]:
    """Rows that came, went, broke or work again."""
    for key, row in before.items():
        other = after.get(key)
        if other is None:
            note = "" if complete else "the new run was interrupted"
            yield Change(ChangeKind.VANISHED, name(row), against(row), note=note)
        elif row.status == "ok" and other.status != "ok":
            note = f"{other.status}: {other.reason}" if other.reason else other.status
            yield Change(ChangeKind.BROKEN, name(row), against(row), note=note)
        elif row.status != "ok" and other.status == "ok":
            yield Change(ChangeKind.FIXED, name(row), against(row), note=f"was {row.status}")
    for key, row in after.items():
        if key not in before:
            yield Change(ChangeKind.NEW, name(row), against(row), note="" if row.status == "ok" else row.status)


def _relative(what: str, against: str, old: Interval | None, new: Interval | None, note: str) -> Change:
    for ratio, when in ((old, "old"), (new, "new")):
        if ratio is None:
            return Change(ChangeKind.REFUSED, what, against, note=f"the {when} run has no ratio")
        if not is_usable(ratio):
            return Change(ChangeKind.REFUSED, what, against, note=f"the interval of the {when} run is none")
    assert old is not None
    assert new is not None
    factor = _interval(math.log(old.middle / new.middle), math.hypot(_half_width(old), _half_width(new)))
    return Change(_kind(factor), what, against, factor, note)


def _absolute(what: str, old: ModelRow, new: ModelRow, machines: str) -> Change:
    if machines:
        reason = f"no common peer, and absolute times of two machines do not compare ({machines})"
        return Change(ChangeKind.REFUSED, what, _ABSOLUTE, note=reason)
    if old.sentinel is None or new.sentinel is None:
        when = "old" if old.sentinel is None else "new"
        reason = f"no common peer, and the {when} run has no sentinel that says how noisy the machine was"
        return Change(ChangeKind.REFUSED, what, _ABSOLUTE, note=reason)
    if old.latency is None or new.latency is None or min(old.latency.p20, new.latency.p20) <= 0:
        return Change(ChangeKind.REFUSED, what, _ABSOLUTE, note="no common peer, and a run has no time")
    sentinels = [math.log(s.p80 / s.p50) for s in (old.sentinel, new.sentinel)]
    half = _P80_TO_95 * math.hypot(*sentinels, _spread(old.latency), _spread(new.latency))
    factor = _interval(math.log(new.latency.p50 / old.latency.p50), half)
    return Change(_kind(factor), what, _ABSOLUTE, factor, "no common peer: absolute times, bounded by the noise")


def _kind(factor: Interval) -> ChangeKind:
    if factor.low > 1 and factor.middle > THRESHOLD:
        return ChangeKind.SLOWER
    if factor.high < 1 and factor.middle < 1 / THRESHOLD:
        return ChangeKind.FASTER
    return ChangeKind.SAME


def _interval(middle: float, half: float) -> Interval:
    return Interval(math.exp(middle - half), math.exp(middle), math.exp(middle + half))


def _half_width(interval: Interval) -> float:
    return math.log(interval.high / interval.low) / 2


def _spread(latency: Latency) -> float:
    return math.log(latency.p80 / latency.p20) / 2


def _differences(old: Machine, new: Machine) -> str:
    """What differs between two machines, as far as speed depends on it; empty if they are alike."""
    found = []
    if old.processor != new.processor:
        found.append(f"{old.processor} -> {new.processor}")
    elif old.features != new.features:
        found.append("other processor features")
    if old.cores != new.cores:
        found.append(f"{old.cores} -> {plural(new.cores, 'core')}")
    return f"other machine: {', '.join(found)}" if found else ""


def _subject(rows: Sequence[ModelRow]) -> ModelRow | None:
    return next((row for row in rows if row.role == "subject"), None)


def _by_key(rows: Sequence[Row], key: Callable[[Row], Hashable], when: str) -> dict[Hashable, Row]:
    found: dict[Hashable, Row] = {}
    for row in rows:
        if key(row) in found:
            raise ResultsError(f"the {when} run holds two rows {key(row)}; measure it again, or remove one of them")
        found[key(row)] = row
    return found


def _place(row: ModelRow) -> tuple[str, str, int, int]:
    return row.model, row.variant, row.threads, row.batch


def _model_key(row: ModelRow) -> Hashable:
    return *_place(row), row.peer


def _kernel_key(row: KernelRow) -> Hashable:
    return row.op, row.kernel, row.device, row.signature, row.attributes, row.baseline, row.threads


def _model_name(row: ModelRow) -> str:
    return f"{row.model} {row.variant}".rstrip() + f", batch {row.batch}, {plural(row.threads, 'thread')}"


def _kernel_name(row: KernelRow) -> str:
    detail = f" {row.attributes}" if row.attributes else ""
    return f"{row.op} {row.signature}{detail}, {row.kernel}, {row.device}, {plural(row.threads, 'thread')}"
