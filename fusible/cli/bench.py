"""`fusible bench MODEL...`: models against baselines, interleaved, with intervals."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fusible.cli.console import print_json, print_line
from fusible.cli.parameters import JsonOption
from fusible.cli.shapes import parse_shapes
from fusible.errors import UsageError

if TYPE_CHECKING:
    from fusible.benchmarks.records import Results
    from fusible.benchmarks.suite import Request, Suite

__all__ = ["bench"]

ModelsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="MODEL...", help="Names of the zoo (see --list) or ONNX files.")
]
AgainstOption = Annotated[str, typer.Option(metavar="PEER,...", help="Baselines; see --list.")]
SubjectOption = Annotated[
    str, typer.Option(metavar="PEER", help="What the ratios are about: fusible, fusible:TARGET, or another peer.")
]
ThreadsOption = Annotated[str, typer.Option(metavar="N,...", help="Numbers of threads, the same for all.")]
ExporterOption = Annotated[str, typer.Option(metavar="E", help="default, torchscript or dynamo.")]
DynamicOption = Annotated[bool, typer.Option("--dynamic", help="Export with a symbolic batch.")]
BatchOption = Annotated[int, typer.Option(min=1, help="The batch that is run.")]
ShapeOption = Annotated[
    list[str] | None, typer.Option("--shape", metavar="SYMBOL=N", help="Fix a dimension of an ONNX file. Repeatable.")
]
PrecisionOption = Annotated[
    float, typer.Option(min=0.001, max=1.0, help="Stop when every ratio's 95 % interval is within +- so much.")
]
SecondsOption = Annotated[float, typer.Option(min=1.0, help="For a model and number of threads, at most about.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the order of contestants.")]
PlainOption = Annotated[
    bool, typer.Option("--plain-loops", help="Interleave a plain loop around each peer and compare its row with it.")
]
UncheckedOption = Annotated[bool, typer.Option("--unchecked", help="Do not compare outputs with a reference.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="F.json", help="Keep the results.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="F.html", help="Write a page with plots.")]
HistoryOption = Annotated[
    Path | None, typer.Option("--history", metavar="FOLDER", help="Append rows to the CSV files there, and plot them.")
]
CompareOption = Annotated[
    Path | None,
    typer.Option("--compare", metavar="OLD.json", help="Name what got slower beyond noise; exit code 1 if any."),
]
ListOption = Annotated[bool, typer.Option("--list", help="List the models of the zoo and the peers.")]


def bench(
    models: ModelsArgument = None,
    against: AgainstOption = "onnxruntime,openvino",
    subject: SubjectOption = "fusible",
    threads: ThreadsOption = "1",
    exporter: ExporterOption = "default",
    dynamic: DynamicOption = False,
    batch: BatchOption = 1,
    shape: ShapeOption = None,
    precision: PrecisionOption = 0.025,
    seconds: SecondsOption = 120.0,
    seed: SeedOption = 0,
    plain_loops: PlainOption = False,
    unchecked: UncheckedOption = False,
    output: OutputOption = None,
    html: HtmlOption = None,
    history: HistoryOption = None,
    compare: CompareOption = None,
    list_all: ListOption = False,
    json_output: JsonOption = False,
) -> None:
    """Measure MODELs, each contestant in a process of its own, interleaved in random order.

    Every output is compared with ONNX Runtime unoptimised. Exit code 1 if the subject fails, is wrong or got slower
    than --compare, 2 if a model or peer is unknown (the others are measured all the same).
    """
    if list_all:
        _list()
        return
    if not models:
        raise UsageError("name a model, or see `fusible bench --list`")
    from fusible.benchmarks.models import Settings
    from fusible.benchmarks.records import load_results
    from fusible.benchmarks.suite import Request
    from fusible.benchmarks.zoo.catalog import Variant

    old = load_results(compare) if compare is not None else None
    request = Request(
        models=tuple(models),
        against=tuple(name for name in against.split(",") if name),
        subject=subject,
        threads=_numbers(threads),
        variant=Variant(exporter, dynamic, batch),
        shapes=_symbols(shape),
        settings=Settings(precision=precision, seconds=seconds, seed=seed, plain=plain_loops),
        check=not unchecked,
        command=shlex.join(["fusible", *sys.argv[1:]]),
    )
    suite, interrupted = _run(request, output)
    results: Results = suite.results
    _show(results, json_output=json_output, html=html, history=history)
    slower = _compare(old, results, json_output=json_output) if old is not None else 0
    if interrupted:
        sys.stderr.write(f"fusible: interrupted; {len(results.models)} finished rows are kept\n")
        raise typer.Exit(130)
    if suite.unknown:
        for line in suite.unknown:
            sys.stderr.write(f"fusible: {line}\n")
        raise typer.Exit(2)
    bad = any(row.role == "subject" and row.status != "ok" for row in results.models)
    raise typer.Exit(1 if bad or slower else 0)


def _run(request: Request, output: Path | None) -> tuple[Suite, bool]:
    """Run the suite; the results are saved after every model, so that nothing finished is lost."""
    from fusible.benchmarks.records import save_results
    from fusible.benchmarks.suite import Suite

    with _bar(len(request.models) * len(request.threads)) as (say, advance):
        suite = Suite(request, say)
        try:
            for _ in suite.run():
                advance()
                if output is not None:
                    save_results(suite.results, output)
        except KeyboardInterrupt:
            return suite, True
    if output is not None:
        save_results(suite.results, output)
    return suite, False


def _show(results: Results, *, json_output: bool, html: Path | None, history: Path | None) -> None:
    from dataclasses import asdict

    from fusible.benchmarks.report.history import append_history, read_model_history
    from fusible.benchmarks.report.page import write_page
    from fusible.benchmarks.report.terminal import print_results

    if json_output:
        print_json(asdict(results))
    else:
        print_results(results)
    if history is not None:
        append_history(results, history)
    if html is not None:
        write_page(results, html, read_model_history(history) if history is not None else ())


def _compare(old: Results, new: Results, *, json_output: bool) -> int:
    from fusible.benchmarks.report.compare import compare, exit_code
    from fusible.benchmarks.report.terminal import print_changes

    changes = compare(old, new)
    if not json_output:
        print_changes(changes)
    return exit_code(changes)


def _numbers(text: str) -> tuple[int, ...]:
    from fusible.runtime.native.machine import usable_threads

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--threads takes numbers separated by commas, got {text!r}")
    found = tuple(dict.fromkeys(int(part) for part in parts))
    if max(found) > usable_threads():
        raise UsageError(f"--threads {max(found)}: this process may use {usable_threads()}")
    return found


def _symbols(values: list[str] | None) -> dict[str, int]:
    shapes = parse_shapes(values or ()) or {}
    for name, value in shapes.items():
        if not isinstance(value, int):
            raise UsageError(f"--shape {name}=...: a benchmark runs one size, give a number")
    return {name: value for name, value in shapes.items() if isinstance(value, int)}


def _list() -> None:
    from fusible.benchmarks.peers.protocol import PEERS
    from fusible.benchmarks.zoo.catalog import names, summary

    for title, lines in (
        ("models", {name: summary(name) for name in names()}),
        ("peers", {name: what for name, (_, _, what) in PEERS.items()}),
    ):
        print_line(f"{title}:")
        width = max(map(len, lines))
        for name, what in lines.items():
            print_line(f"  {name:{width}}  {what}")


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A progress bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None, lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda text: bar.update(task, description=text), lambda: bar.advance(task)
