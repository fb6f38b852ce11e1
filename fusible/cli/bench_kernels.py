"""`fusible bench-kernels`: our kernels on the shapes of real models, against NumPy, torch and ONNX Runtime."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fusible.cli.console import print_json
from fusible.cli.models import existing
from fusible.cli.parameters import JsonOption, SeedOption
from fusible.errors import UsageError

if TYPE_CHECKING:
    from fusible.benchmarks.kernels.cases import Case
    from fusible.benchmarks.records import KernelRow, Results

__all__ = ["bench_kernels"]

PACKAGES = ("fusible", "numpy", "onnx", "onnxruntime", "torch")
_SAVED_AFTER = 50  # rows
_NOTE = "bytes are set against the bandwidth of memory: where operands stay in a cache, shares of the roof exceed 100 %"

OpOption = Annotated[list[str] | None, typer.Option("--op", metavar="OP", help="Only this op. Repeatable.")]
ShapesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shapes",
        metavar="MODEL|FILE",
        help="Shapes of an ONNX file, of a model of the zoo, or of a JSON file. Repeatable. Default: a built-in list.",
        show_default=False,
    ),
]
AgainstOption = Annotated[str, typer.Option(metavar="BASELINE,...", help="Among numpy, torch, onnxruntime.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads that each side may use.")]
RoundsOption = Annotated[int, typer.Option(min=2, help="Blocks of each side for a ratio.")]
BlockOption = Annotated[float, typer.Option("--block", min=0.0001, metavar="SECONDS", help="Length of a block.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="At most so many shapes of an op, from the smallest to the largest.")
]
PassesOption = Annotated[
    list[Path] | None,
    typer.Option("--passes", metavar="F.py", help="A file of yours that registers ops or kernels. Repeatable."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="F.json", help="Keep the results.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="F.html", help="Write a page with plots.")]


@dataclass(frozen=True, slots=True)
class _Settings:
    """What else chose the numbers."""

    rounds: int
    block_seconds: float
    seed: int
    limit: int | None
    shapes: tuple[str, ...]


def bench_kernels(
    op: OpOption = None,
    shapes: ShapesOption = None,
    against: AgainstOption = "numpy,torch,onnxruntime",
    threads: ThreadsOption = 1,
    rounds: RoundsOption = 15,
    block: BlockOption = 0.01,
    limit: LimitOption = None,
    passes: PassesOption = None,
    seed: SeedOption = 0,
    output: OutputOption = None,
    html: HtmlOption = None,
    json_output: JsonOption = False,
) -> None:
    """Time every kernel that a baseline has a counterpart of, both in one process, interleaved in random order.

    Results are compared first. Exit code 1 if a kernel computes something else than a baseline.
    """
    from fusible.benchmarks.kernels.counterparts.protocol import BASELINES
    from fusible.runtime.native.machine import usable_threads

    names = tuple(dict.fromkeys(name.strip() for name in against.split(",") if name.strip()))
    unknown = [name for name in names if name not in BASELINES]
    if unknown or not names:
        raise UsageError(f"--against {against!r}: the baselines are {', '.join(BASELINES)}")
    if threads > usable_threads():
        raise UsageError(f"--threads {threads}: this process may use {usable_threads()}")
    _register(passes or ())
    cases = _cases(shapes or (), op or (), limit)
    settings = _Settings(rounds, block, seed, limit, tuple(shapes or ()))
    results, interrupted = _run(cases, names, threads, settings, output)
    _show(results, json_output=json_output, html=html)
    if interrupted:
        sys.stderr.write(f"fusible: interrupted; {len(results.kernels)} finished rows are kept\n")
        raise typer.Exit(130)
    raise typer.Exit(1 if any(row.status == "wrong" for row in results.kernels) else 0)


def _register(files: Sequence[Path]) -> None:
    from fusible.compiler.pass_files import load_pass_file
    from fusible.compiler.pipeline import pipeline

    for file in files:
        load_pass_file(existing(file), pipeline("numpy"))


def _cases(sources: Sequence[str], ops: Sequence[str], limit: int | None) -> list[Case]:
    """The cases of all sources, selected. Raises UsageError for an op that does not exist or has no shape there."""
    from fusible.benchmarks.kernels.cases import BUILT_IN, load_cases
    from fusible.benchmarks.kernels.harvest import select_cases, shapes_of
    from fusible.compiler.ir.ops import OPS

    for name in ops:
        OPS[name]
    found = [case for source in sources for case in shapes_of(source)] if sources else load_cases(BUILT_IN)
    return select_cases(found, limit, ops)


def _run(
    cases: Sequence[Case], baselines: Sequence[str], threads: int, settings: _Settings, output: Path | None
) -> tuple[Results, bool]:
    """The results, and whether they were interrupted; what is finished is kept."""
    from fusible.benchmarks.kernels import bench
    from fusible.benchmarks.measure.machine import this_machine, versions_of
    from fusible.benchmarks.measure.roof import measure_roof
    from fusible.benchmarks.records import Results, save_results

    roof = measure_roof(threads)
    results = Results(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["fusible", *sys.argv[1:]]),
        machine=this_machine(),
        versions=versions_of(PACKAGES),
        settings=asdict(settings),
        roofs=(roof,),
        notes=(_NOTE,),
        complete=False,
    )
    rows: list[KernelRow] = []
    timing = bench.bench_kernels(
        cases,
        baselines,
        threads=threads,
        rounds=settings.rounds,
        block_seconds=settings.block_seconds,
        seed=settings.seed,
        roof=roof,
    )
    interrupted = False
    try:
        for row in _watched(timing, len(cases) * len(baselines)):
            rows.append(row)
            if output is not None and len(rows) % _SAVED_AFTER == 0:
                save_results(replace(results, kernels=tuple(rows)), output)
    except KeyboardInterrupt:
        interrupted = True
    results = replace(results, kernels=tuple(rows), complete=not interrupted)
    if output is not None:
        save_results(results, output)
    return results, interrupted


@contextmanager
def _bar(total: int) -> Iterator[Progress | None]:
    """A progress bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        bar.add_task("", total=total)
        yield bar


def _watched(rows: Iterator[KernelRow], total: int) -> Iterator[KernelRow]:
    with _bar(total) as bar:
        for row in rows:
            if bar is not None:
                bar.update(bar.task_ids[0], advance=1, description=f"{row.op} against {row.baseline}")
            yield row


def _show(results: Results, *, json_output: bool, html: Path | None) -> None:
    from fusible.benchmarks.report.page import write_page
    from fusible.benchmarks.report.terminal import print_results

    if json_output:
        print_json(asdict(results))
    else:
        print_results(results)
    if html is not None:
        write_page(results, html)
