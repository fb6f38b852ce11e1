"""Does the benchmark tell the truth? A system against itself, and against itself slowed down by 5 %.

    python -m fusible.benchmarks.selfcheck [--runs 100] [--model ppocr-cls] [--peer onnxruntime] [--csv FILE]

Each run measures three contestants as `fusible bench` would: the peer, the peer again, and the peer with every run
stretched by 5 %. Of 100 runs the 95 % interval of the first ratio should hold 1.00 in 88 to 100 (95 +- 3 standard
deviations), and that of the second should lie wholly above 1.00 in at least 90. Exits 1 if not.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fusible.benchmarks.measure.machine import this_machine
from fusible.benchmarks.models import Settings, bench_model
from fusible.benchmarks.peers.protocol import parse_contestant
from fusible.benchmarks.records import Interval, ModelRow
from fusible.benchmarks.work import work_of
from fusible.benchmarks.zoo.catalog import obtain

__all__ = ["Verdict", "main", "verdict_of"]

SLOWDOWN = 1.05
ROUNDS = 32  # a launch: twice the default, for fewer launches (starting them is most of the time that 100 runs take)
COVERED, FOUND = (0.88, 1.0), 0.90
COLUMNS = (
    "date", "processor", "cores", "model", "peer", "threads", "runs", "covered", "found", "half_width_p50",
    "noise_p50", "noise_p80", "seconds_a_run",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Shares of the runs whose A/A interval holds 1.00 and whose slowed interval lies above it."""

    runs: int
    covered: float
    found: float

    def __bool__(self) -> bool:
        return COVERED[0] <= self.covered <= COVERED[1] and self.found >= FOUND


def verdict_of(pairs: Sequence[tuple[Interval, Interval]]) -> Verdict:
    """pairs: for each run the interval against itself and that against itself slowed down."""
    covered = sum(same.low <= 1.0 <= same.high for same, _ in pairs)
    found = sum(slow.low > 1.0 for _, slow in pairs)
    return Verdict(len(pairs), covered / len(pairs), found / len(pairs))


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a line a run, append a row to a CSV file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, which seeds the order")
    parser.add_argument("--model", default="ppocr-cls")
    parser.add_argument("--peer", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    work = work_of(obtain(options.model), check=False)
    names = (options.peer, options.peer, f"{options.peer}*{SLOWDOWN}")
    contestants = [parse_contestant(name) for name in names]
    pairs: list[tuple[Interval, Interval]] = []
    rows: list[ModelRow] = []
    started = time.perf_counter()
    try:
        for run in range(options.first, options.first + options.runs):
            rows = bench_model(work, contestants, threads=options.threads, settings=Settings(rounds=ROUNDS, seed=run))
            pairs.append(_ratios(rows))
            print(_line(run, pairs[-1]), flush=True)
    except KeyboardInterrupt:
        print("interrupted; what is finished counts")
    if not pairs:
        return 130
    verdict = verdict_of(pairs)
    print(f"{verdict.runs} runs: 1.00 inside {verdict.covered:.0%}, slowdown found {verdict.found:.0%}")
    if options.csv is not None:
        _append(options, verdict, pairs, rows, (time.perf_counter() - started) / len(pairs))
    return 0 if verdict else 1


def _ratios(rows: Sequence[ModelRow]) -> tuple[Interval, Interval]:
    same, slow = rows[1].ratio, rows[2].ratio
    if same is None or slow is None:
        raise SystemExit("; ".join(f"{row.peer}: {row.reason}" for row in rows if row.reason))
    return same, slow


def _line(run: int, pair: tuple[Interval, Interval]) -> str:
    texts = [f"{i.middle:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in pair]
    return f"{run + 1:4d}  against itself {texts[0]}   slowed {texts[1]}"


def _append(
    options: argparse.Namespace,
    verdict: Verdict,
    pairs: Sequence[tuple[Interval, Interval]],
    rows: Sequence[ModelRow],
    seconds: float,
) -> None:
    machine, noise = this_machine(), rows[0].sentinel
    widths = sorted((same.high - same.low) / 2 for same, _ in pairs)
    values = (
        datetime.now(UTC).strftime("%Y-%m-%d"), machine.processor, machine.cores, options.model, options.peer,
        options.threads, verdict.runs, f"{verdict.covered:.2f}", f"{verdict.found:.2f}",
        f"{widths[len(widths) // 2]:.4f}", f"{noise.p50 if noise else 0:.3f}", f"{noise.p80 if noise else 0:.3f}",
        f"{seconds:.1f}",
    )  # fmt: skip
    new = not options.csv.exists()
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with options.csv.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=os.linesep)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(values)


if __name__ == "__main__":
    sys.exit(main())
