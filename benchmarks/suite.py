"""Many models, peers and thread counts in one run: what cannot be measured becomes a line, the rest goes on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fusible.benchmarks.measure.machine import this_machine, versions_of
from fusible.benchmarks.measure.roof import measure_roof
from fusible.benchmarks.models import Settings, bench_model
from fusible.benchmarks.peers.protocol import PEERS, Contestant, parse_contestant
from fusible.benchmarks.records import ModelRow, Results, Roof
from fusible.benchmarks.work import Work, work_of
from fusible.benchmarks.zoo.catalog import Obtained, Variant, names, obtain, obtain_file
from fusible.errors import FusibleError, UsageError

__all__ = ["PACKAGES", "Request", "Suite"]

PACKAGES = ("fusible", "numpy", "onnx", "onnxruntime", "openvino", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure. models: names of the zoo or paths; against: peers as `parse_contestant` reads them.

    shapes fixes symbols of models given as a path. The subject is measured first and every ratio is to its time.
    """

    models: tuple[str, ...]
    against: tuple[str, ...]
    subject: str = "fusible"
    threads: tuple[int, ...] = (1,)
    variant: Variant = field(default_factory=Variant)
    shapes: Mapping[str, int] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    check: bool = True
    command: str = ""


class Suite:
    """One run. `results` grows while `run` is iterated, and holds what is finished whenever it is left."""

    def __init__(self, request: Request, progress: Callable[[str], None] = lambda _: None) -> None:
        self.request, self.progress = request, progress
        self.contestants, self.unknown = _contestants(request)
        self.results = Results(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=request.command,
            machine=this_machine(),
            versions=versions_of(PACKAGES),
            settings={**asdict(request.settings), "check": request.check, "variant": request.variant.label},
            notes=tuple(self.unknown),
            complete=False,
        )

    @property
    def steps(self) -> int:
        """How many times `run` yields."""
        return len(self.request.models) * len(self.request.threads)

    def run(self) -> Iterator[Sequence[ModelRow]]:
        """The rows of each model with each number of threads, as they are finished."""
        roofs: dict[int, Roof] = {}
        for threads in self.request.threads:
            self.progress(f"the machine's roofs, {threads} threads")
            roofs[threads] = measure_roof(threads)
        self.results = replace(self.results, roofs=tuple(roofs.values()))
        for model in self.request.models:
            work = self._work(model)
            for threads in self.request.threads:
                rows = [work] if isinstance(work, ModelRow) else self._measure(work, threads, roofs[threads])
                rows = [replace(row, threads=threads) for row in rows]
                self.results = replace(self.results, models=(*self.results.models, *rows))
                yield rows
        self.results = replace(self.results, complete=True)

    def _work(self, model: str) -> Work | ModelRow:
        """The model with its reference, or the row that says why there is none."""
        self.progress(f"{model}: export and reference")
        try:
            return work_of(self._obtain(model), check=self.request.check)
        except FusibleError as error:
            status = "absent" if isinstance(error, UsageError) else "failed"
            if status == "absent":
                self.unknown.append(str(error))
            label, variant = self.contestants[0].label, self.request.variant.label
            return ModelRow(model, variant, label, "subject", 0, status, str(error))

    def _obtain(self, model: str) -> Obtained:
        if model in names():
            return obtain(model, self.request.variant)
        path = Path(model)
        if path.suffix == ".onnx" or path.exists():
            return obtain_file(path, self.request.shapes)
        near = difflib.get_close_matches(model, names(), 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(f"no model of the zoo is called {model!r}, and there is no such file; {hint}see --list")

    def _measure(self, work: Work, threads: int, roof: Roof) -> list[ModelRow]:
        return bench_model(
            work,
            self.contestants,
            threads=threads,
            settings=self.request.settings,
            roof=roof,
            progress=self.progress,
        )


def _contestants(request: Request) -> tuple[list[Contestant], list[str]]:
    """The subject and the peers that are known; a line for each that is not. Raises UsageError for the subject."""
    found, unknown = [parse_contestant(request.subject)], []
    for text in request.against:
        try:
            found.append(parse_contestant(text))
        except UsageError as error:
            unknown.append(str(error))
    if unknown and len(found) == 1:
        raise UsageError(f"{unknown[0]}; nothing is left to compare with (peers: {', '.join(PEERS)})")
    return found, unknown
