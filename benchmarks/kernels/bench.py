"""Times our kernels against baselines: one case after the other, both sides in one process, block by block.

For a case the operands are made once; the baseline's results are compared with the kernel's before anything is timed,
and a kernel that computes something else gets no ratio. Rows come one by one, so that an interrupted run keeps those
that are finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fusible.benchmarks.kernels.agreement import agree
from fusible.benchmarks.kernels.blas_threads import blas_threads
from fusible.benchmarks.kernels.cases import Case
from fusible.benchmarks.kernels.clocks import Clock, HostClock, clock_for, time_pair_with
from fusible.benchmarks.kernels.counterparts.protocol import Baseline, BaselineError, NoCounterpart, find_baseline
from fusible.benchmarks.kernels.subjects import Refused, Subject, subjects_of
from fusible.benchmarks.kernels.values import operand_values
from fusible.benchmarks.measure.interleave import time_pair
from fusible.benchmarks.measure.statistics import latency_of, log_ratios, ratio_interval
from fusible.benchmarks.records import KernelRow, Roof
from fusible.compiler.costs import node_cost
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbols import Dim
from fusible.errors import DeviceError, FusibleError

__all__ = ["bench_kernels"]


@dataclass(frozen=True)
class _Settings:
    threads: int
    rounds: int
    block_seconds: float
    seed: int
    roof: Roof | None
    clocks: Mapping[str, Clock]


def bench_kernels(
    cases: Iterable[Case],
    baselines: Sequence[str],
    *,
    threads: int,
    rounds: int,
    block_seconds: float,
    seed: int,
    roof: Roof | None = None,
    clocks: Mapping[str, Clock] | None = None,
) -> Iterator[KernelRow]:
    """Rows, one for each case, kernel and baseline, as they finish.

    A baseline that is not installed or lacks an op gives rows "absent", one that fails "failed", one whose results
    differ "wrong", each with the reason. roof: gives rows their share of it. clocks: by device, in place of the usual
    ones. Raises UsageError for a baseline that does not exist.
    """
    settings = _Settings(threads, rounds, block_seconds, seed, roof, clocks or {})
    found = {name: _found(name) for name in baselines}
    with blas_threads(threads), np.errstate(all="ignore"):
        for case in cases:
            yield from _case_rows(case, found, settings)


def _found(name: str) -> Baseline | NoCounterpart:
    try:
        return find_baseline(name)
    except NoCounterpart as error:
        return error


def _case_rows(
    case: Case, baselines: Mapping[str, Baseline | NoCounterpart], settings: _Settings
) -> Iterator[KernelRow]:
    row = KernelRow(
        op=case.op, kernel="", device="cpu", signature=case.signature, attributes=case.choice, baseline="",
        threads=settings.threads, status="ok", origin=case.origin,
    )  # fmt: skip
    try:
        values = operand_values(case, settings.seed)
        node, subjects = case.node(values), subjects_of(case, values)
    except FusibleError as error:
        # A case that is no kernel of ours: what the user asked for stays in the table.
        yield from (replace(row, baseline=name, status="failed", reason=str(error)) for name in baselines)
        return
    for subject in subjects:
        mine = replace(row, kernel=subject.name, device=subject.device)
        if isinstance(subject, Refused):
            yield from (replace(mine, baseline=name, status="absent", reason=subject.reason) for name in baselines)
            continue
        mine = _with_cost(mine, node, subject)
        for name, baseline in baselines.items():
            yield _row(replace(mine, baseline=name), case, node, values, subject, baseline, settings)


def _with_cost(row: KernelRow, node: Node, subject: Subject) -> KernelRow:
    """Static operations and bytes; a view moves nothing."""
    cost = node_cost(node)
    return replace(row, flops=_number(cost.flops), bytes=0.0 if subject.view else _number(cost.bytes))


def _number(count: Dim | None) -> float | None:
    return float(count) if isinstance(count, int) else None


def _row(
    row: KernelRow,
    case: Case,
    node: Node,
    values: Sequence[Any],
    subject: Subject,
    baseline: Baseline | NoCounterpart,
    settings: _Settings,
) -> KernelRow:
    if isinstance(baseline, NoCounterpart):
        return replace(row, status="absent", reason=str(baseline))
    if baseline.device != subject.device:
        reason = f"the kernel runs on {subject.device}, {row.baseline} on {baseline.device}"
        return replace(row, status="absent", reason=reason)
    try:
        counterpart = baseline.build(case, values, settings.threads)
        with counterpart.around():
            reference = counterpart.results()
        verdict = agree(node, reference, subject.results())
        if not verdict:
            return replace(row, status="wrong", reason=verdict.reason, max_error=_finite(verdict.max_error))
        row = replace(row, max_error=verdict.max_error, reason=_note(subject))
        with ExitStack() as stack:
            stack.enter_context(counterpart.around())
            return _timed(row, subject, counterpart.call, settings)
    except NoCounterpart as error:
        return replace(row, status="absent", reason=str(error))
    except (BaselineError, DeviceError) as error:
        return replace(row, status="failed", reason=str(error))


def _timed(row: KernelRow, subject: Subject, other: Any, settings: _Settings) -> KernelRow:
    rounds, seconds, seed = settings.rounds, settings.block_seconds, settings.seed
    clock = settings.clocks.get(subject.device) or clock_for(subject.device)
    if isinstance(clock, HostClock):
        ours, theirs = time_pair(subject.call, other, rounds=rounds, block_seconds=seconds, seed=seed)
    else:
        ours, theirs = time_pair_with(clock, subject.call, other, rounds=rounds, block_seconds=seconds, seed=seed)
    row = replace(
        row,
        latency=latency_of(ours),
        baseline_latency=latency_of(theirs),
        ratio=ratio_interval([log_ratios(theirs, ours)], seed=seed),
    )
    return replace(row, roof_share=_roof_share(row, settings.roof))


def _roof_share(row: KernelRow, roof: Roof | None) -> float | None:
    """The larger of the shares of the two roofs; None without a roof, or if neither operations nor bytes are known."""
    if roof is None or row.latency is None:
        return None
    shares = [
        work / row.latency.p50 / limit
        for work, limit in ((row.flops, roof.flops), (row.bytes, roof.bandwidth))
        if work
    ]
    return max(shares, default=None)


def _note(subject: Subject) -> str:
    return "the kernel hands out a view of its operand: no data move" if subject.view else ""


def _finite(error: float) -> float | None:
    return error if np.isfinite(error) else None
