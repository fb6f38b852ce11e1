"""What a benchmark measured, as plain records, and the JSON file that holds them.

Times are seconds, sizes bytes, rates per second. A ratio is the time of a peer divided by the time of the subject (the
contestant the run is about): 1.20 means that the peer takes 20 % longer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fusible.errors import FusibleError, UsageError

__all__ = [
    "SCHEMA",
    "ColdStart",
    "Interval",
    "KernelRow",
    "Latency",
    "Machine",
    "ModelRow",
    "Results",
    "ResultsError",
    "Roof",
    "Sentinel",
    "load_results",
    "save_results",
]

SCHEMA = 1


class ResultsError(FusibleError):
    """A file of results is damaged or of another version."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate `middle` with the ends of its 95 % interval."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one inference or call: quantiles over blocks of their means, and the least of all iterations."""

    p20: float
    p50: float
    p80: float
    least: float
    blocks: int
    iterations: int


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A fresh process: seconds to import, to load and compile, of the first run, and of the whole process."""

    imports: float
    load: float
    first_run: float
    process: float


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    processor: str
    cores: int
    features: tuple[str, ...]
    memory: int
    system: str
    python: str


@dataclass(frozen=True, slots=True)
class Roof:
    """What the machine reaches with so many threads: fp32 FMA operations (two flops each) and bytes read, measured."""

    threads: int
    flops: float
    bandwidth: float
    how: str


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A fixed piece of work timed in every round: how much slower than its best the machine was."""

    seconds: float
    p50: float
    p80: float
    worst: float
    rounds: int


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One contestant on one model with one number of threads.

    status: "ok"; "wrong" (its outputs are not those of the reference; no ratio); "failed" or "absent" (reason says why,
    the numbers are missing). role: "subject" or "peer"; plain: the row of a plain loop around the peer, and the
    ratio of that loop's time to the row's own.
    """

    model: str
    variant: str
    peer: str
    role: str
    threads: int
    status: str
    reason: str = ""
    batch: int = 1
    latency: Latency | None = None
    ratio: Interval | None = None
    plain: Interval | None = None
    throughput: float | None = None
    flops: float | None = None
    bytes: float | None = None
    flops_share: float | None = None
    bandwidth_share: float | None = None
    compile_seconds: float | None = None
    cold: ColdStart | None = None
    peak_memory: int | None = None
    kernels: int | None = None
    max_error: float | None = None
    rms_error: float | None = None
    sentinel: Sentinel | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel on one shape against one baseline; the ratio is baseline time / kernel time.

    signature: the types of operands, `f32[1, 64, 56, 56], f32[64, 64, 3, 3]`; attributes: what else chose the work;
    origin: the models that the shape was found in.
    """

    op: str
    kernel: str
    device: str
    signature: str
    attributes: str
    baseline: str
    threads: int
    status: str
    reason: str = ""
    latency: Latency | None = None
    baseline_latency: Latency | None = None
    ratio: Interval | None = None
    flops: float | None = None
    bytes: float | None = None
    roof_share: float | None = None
    max_error: float | None = None
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """One run of a benchmark. Rows are added as they finish, so that an interrupted run keeps them."""

    created: str
    command: str
    machine: Machine
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    roofs: tuple[Roof, ...] = ()
    models: tuple[ModelRow, ...] = ()
    kernels: tuple[KernelRow, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True
    schema: int = field(default=SCHEMA)


def save_results(results: Results, path: Path) -> None:
    """Write the JSON file in one step: a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise UsageError(f"results cannot be written to {path}: {error}") from error


def load_results(path: Path) -> Results:
    """Read what `save_results` wrote. Raises UsageError if it cannot be read, ResultsError if it is no such file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"results cannot be read from {path}: {error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} is no file of results: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise ResultsError(f"{path} holds results of schema {found}, this release reads {SCHEMA}; measure again")
    try:
        return _results(data)
    except (TypeError, KeyError, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error}") from error


_NESTED: dict[str, type] = {
    "latency": Latency,
    "baseline_latency": Latency,
    "ratio": Interval,
    "plain": Interval,
    "cold": ColdStart,
    "sentinel": Sentinel,
}


def _row(kind: type, data: Mapping[str, Any]) -> Any:
    values = {
        f.name: _NESTED[f.name](**data[f.name]) if f.name in _NESTED and data[f.name] is not None else data[f.name]
        for f in fields(kind)
        if f.name in data
    }
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _results(data: Mapping[str, Any]) -> Results:
    plain = {k: v for k, v in data.items() if k not in ("machine", "roofs", "models", "kernels", "notes")}
    return Results(
        **plain,
        machine=_row(Machine, data["machine"]),
        roofs=tuple(_row(Roof, r) for r in data["roofs"]),
        models=tuple(_row(ModelRow, r) for r in data["models"]),
        kernels=tuple(_row(KernelRow, r) for r in data["kernels"]),
        notes=tuple(data["notes"]),
    )
