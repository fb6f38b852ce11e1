"""The history of what was measured: one line for each row of each run, in CSV files that git can hold.

`models.csv` and `kernels.csv` have the fields of `ModelHistory` and `KernelHistory` as columns, in that order. Times
are seconds, a ratio is time of the peer (baseline) / time of the subject (kernel). Only rows with a time that are "ok"
are kept. Numbers have six digits.
"""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from fusible.benchmarks.records import Interval, KernelRow, Latency, ModelRow, Results, ResultsError
from fusible.benchmarks.report.derived import byte_rate, comparable, flop_rate
from fusible.errors import UsageError

__all__ = [
    "KERNELS_FILE",
    "MODELS_FILE",
    "KernelHistory",
    "ModelHistory",
    "append_history",
    "current_commit",
    "read_kernel_history",
    "read_model_history",
]

MODELS_FILE = "models.csv"
KERNELS_FILE = "kernels.csv"


@dataclass(frozen=True, slots=True)
class ModelHistory:
    """A line of `models.csv`. date: when the run began (ISO 8601); commit: empty outside a git checkout."""

    date: str
    fusible: str
    commit: str
    processor: str
    cores: int
    model: str
    variant: str
    batch: int
    threads: int
    peer: str
    peer_version: str
    p20_s: float | None
    p50_s: float | None
    p80_s: float | None
    ratio_low: float | None
    ratio: float | None
    ratio_high: float | None
    gflop_per_s: float | None
    peak_memory_bytes: int | None

    @property
    def moment(self) -> datetime:
        """The date as a time; midnight and UTC where it does not say."""
        return _moment(self.date)


@dataclass(frozen=True, slots=True)
class KernelHistory:
    """A line of `kernels.csv`."""

    date: str
    fusible: str
    commit: str
    processor: str
    cores: int
    device: str
    op: str
    kernel: str
    signature: str
    attributes: str
    threads: int
    baseline: str
    baseline_version: str
    p20_s: float | None
    p50_s: float | None
    p80_s: float | None
    baseline_p50_s: float | None
    ratio_low: float | None
    ratio: float | None
    ratio_high: float | None
    gflop_per_s: float | None
    gbyte_per_s: float | None


Line = TypeVar("Line", ModelHistory, KernelHistory)


def append_history(results: Results, folder: Path, commit: str | None = None) -> int:
    """Add the rows of a run to the files of a folder; returns how many were added.

    Rows that are there already (same date, machine and name) are not added again. commit: by default that of the
    working folder. Raises ResultsError if a file has other columns, UsageError if it cannot be read or written.
    """
    _moment(results.created)
    known = current_commit(Path.cwd()) if commit is None else commit
    counted = {id(row) for row in comparable(results)}
    models = [
        _model_line(results, row, row.ratio if id(row) in counted else None, known)
        for row in results.models
        if _is_timed(row)
    ]
    kernels = [_kernel_line(results, row, known) for row in results.kernels if _is_timed(row)]
    # Both are read before either is written: a file that is refused leaves the other as it was.
    new_models = _unknown(models, read_model_history(folder))
    new_kernels = _unknown(kernels, read_kernel_history(folder))
    _append(ModelHistory, new_models, folder / MODELS_FILE)
    _append(KernelHistory, new_kernels, folder / KERNELS_FILE)
    return len(new_models) + len(new_kernels)


def read_model_history(folder: Path) -> tuple[ModelHistory, ...]:
    """The lines of `models.csv`, oldest first; none if there is no such file."""
    return _read(ModelHistory, folder / MODELS_FILE)


def read_kernel_history(folder: Path) -> tuple[KernelHistory, ...]:
    """The lines of `kernels.csv`, oldest first; none if there is no such file."""
    return _read(KernelHistory, folder / KERNELS_FILE)


def current_commit(folder: Path) -> str:
    """The commit of a git checkout, with `-dirty` if files differ from it; empty if it is none or git is missing."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _moment(date: str) -> datetime:
    try:
        found = datetime.fromisoformat(date)
    except ValueError as error:
        raise ResultsError(
            f"{date!r} is no date of a run, expected ISO 8601 such as 2026-11-25T13:00:00+00:00"
        ) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _is_timed(row: ModelRow | KernelRow) -> bool:
    return row.status == "ok" and row.latency is not None


def _model_line(results: Results, row: ModelRow, ratio: Interval | None, commit: str) -> ModelHistory:
    rate = flop_rate(row)
    return ModelHistory(
        date=results.created,
        fusible=results.versions.get("fusible", ""),
        commit=commit,
        processor=results.machine.processor,
        cores=results.machine.cores,
        model=row.model,
        variant=row.variant,
        batch=row.batch,
        threads=row.threads,
        peer=row.peer,
        peer_version=row.version or results.versions.get(row.peer, ""),
        **_times(row.latency),
        **_ends(ratio),
        gflop_per_s=_rounded(None if rate is None else rate / 1e9),
        peak_memory_bytes=row.peak_memory,
    )


def _kernel_line(results: Results, row: KernelRow, commit: str) -> KernelHistory:
    flops, moved = flop_rate(row), byte_rate(row)
    return KernelHistory(
        date=results.created,
        fusible=results.versions.get("fusible", ""),
        commit=commit,
        processor=results.machine.processor,
        cores=results.machine.cores,
        device=row.device,
        op=row.op,
        kernel=row.kernel,
        signature=row.signature,
        attributes=row.attributes,
        threads=row.threads,
        baseline=row.baseline,
        baseline_version=results.versions.get(row.baseline, ""),
        **_times(row.latency),
        baseline_p50_s=_times(row.baseline_latency)["p50_s"],
        **_ends(row.ratio),
        gflop_per_s=_rounded(None if flops is None else flops / 1e9),
        gbyte_per_s=_rounded(None if moved is None else moved / 1e9),
    )


def _times(latency: Latency | None) -> dict[str, float | None]:
    quantiles = (None,) * 3 if latency is None else (latency.p20, latency.p50, latency.p80)
    return dict(zip(("p20_s", "p50_s", "p80_s"), map(_rounded, quantiles), strict=True))


def _ends(ratio: Interval | None) -> dict[str, float | None]:
    values = (None,) * 3 if ratio is None else (ratio.low, ratio.middle, ratio.high)
    return dict(zip(("ratio_low", "ratio", "ratio_high"), map(_rounded, values), strict=True))


def _rounded(value: float | None) -> float | None:
    """The number that six digits in a file will be read back as."""
    return None if value is None else float(f"{value:.6g}")


def _unknown(lines: Sequence[Line], present: Sequence[Line]) -> list[Line]:
    known = {_key(line) for line in present}
    return [line for line in lines if _key(line) not in known]


def _key(line: ModelHistory | KernelHistory) -> Hashable:
    where = (line.date, line.processor, line.cores, line.threads)
    match line:
        case ModelHistory():
            return *where, line.model, line.variant, line.batch, line.peer
        case KernelHistory():
            return *where, line.device, line.op, line.kernel, line.signature, line.attributes, line.baseline


def _append(kind: type[Line], lines: Sequence[Line], path: Path) -> None:
    if not lines:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not path.exists():
            writer.writerow(f.name for f in fields(kind))
        writer.writerows([_cell(value) for value in astuple(line)] for line in lines)
        with path.open("a", newline="", encoding="utf-8") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise UsageError(f"the history cannot be written to {path}: {error}") from error


def _cell(value: str | float | None) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case _:
            return str(value)


def _read(kind: type[Line], path: Path) -> tuple[Line, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UsageError(f"the history cannot be read from {path}: {error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} is no CSV file of UTF-8 text: {error}") from error
    columns = [f.name for f in fields(kind)]
    if not rows or rows[0] != columns:
        found = ",".join(rows[0]) if rows else "nothing"
        raise ResultsError(
            f"{path} has other columns than this release writes; move it away to begin a new one\n"
            f"found:    {found}\nexpected: {','.join(columns)}"
        )
    return tuple(_line(kind, row, f"{path}:{number}") for number, row in enumerate(rows[1:], start=2))


_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "int | None": lambda text: int(text) if text else None,
    "float | None": lambda text: float(text) if text else None,
}


def _line(kind: type[Line], row: Sequence[str], where: str) -> Line:
    expected = fields(kind)
    if len(row) != len(expected):
        raise ResultsError(f"{where}: {len(row)} columns, expected {len(expected)}; repair or remove the line")
    values: dict[str, Any] = {}
    for field, text in zip(expected, row, strict=True):
        try:
            values[field.name] = _PARSERS[str(field.type)](text)
        except ValueError as error:
            raise ResultsError(f"{where}: {field.name} is {text!r}, expected {field.type}") from error
    return kind(**values)
