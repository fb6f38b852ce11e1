"""`fusible tune MODEL -o LOCK.json`: time candidates of a model's Triton kernels on this machine's device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from fusible.cli.console import aligned, escape_controls, print_json, print_line, print_table
from fusible.cli.models import existing, options_for
from fusible.cli.parameters import AlsoOption, JsonOption, ModelArgument, PrecisionOption, ShapeOption
from fusible.cli.shapes import parse_shapes

if TYPE_CHECKING:
    from fusible.compiler.backends.triton.tune_kernels import Outcome
    from fusible.compiler.tune import TuneReport

__all__ = ["tune_model"]

DeviceOption = Annotated[
    str,
    typer.Option("--target", metavar="T", help="cuda:sm_90, ..., which must be this machine's GPU, or triton-cpu."),
]
OutputOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="LOCK.json", help="The lockfile; one that is there is extended.")
]
BudgetOption = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="For building and timing together.")]
AgainOption = Annotated[bool, typer.Option("--again", help="Time what the lockfile has measurements of as well.")]
WarmOption = Annotated[
    bool, typer.Option("--warm", help="Leave operands in the device's cache, where those of small models stay.")
]


def tune_model(
    model: ModelArgument,
    output: OutputOption,
    target: DeviceOption,
    budget: BudgetOption = 120.0,
    shape: ShapeOption = None,
    precision: PrecisionOption = "fp32",
    also: AlsoOption = None,
    again: AgainOption = False,
    warm: WarmOption = False,
    json_output: JsonOption = False,
) -> None:
    """Time candidates of the kernels of MODEL here, and write the fastest into a lockfile for `compile --tuning`."""
    from fusible.compiler.tune import tune

    with _bar() as told:
        report = tune(
            existing(model),
            target,
            output,
            shapes=parse_shapes(shape or ()),
            options=options_for(precision, also=also or ()),
            budget=budget,
            again=again,
            warm=warm,
            progress=told,
        )
    if json_output:
        print_json(_facts(report, output))
        return
    _show(report, output)


@contextmanager
def _bar() -> Iterator[Callable[[float, str], None]]:
    """A progress bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda share, what: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        number = bar.add_task("compiling", total=1.0)
        yield lambda share, what: bar.update(number, completed=share, description=escape_controls(what))


def _facts(report: TuneReport, lockfile: Path) -> dict[str, Any]:
    return {
        "lockfile": str(lockfile),
        "device": report.device,
        "before_us": _micro(report.before),
        "after_us": _micro(report.after),
        "known": report.known,
        "fixed": report.fixed,
        "unbounded": list(report.unbounded),
        "kernels": [_row(outcome) for outcome in report.outcomes],
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    choice = outcome.choice
    return {
        "key": outcome.task.chosen.key,
        "kernel": outcome.task.word,
        "nodes": list(outcome.task.node.origin),
        "launches": outcome.task.launches,
        "predicted_us": _micro(outcome.task.seconds),
        "static_us": _micro(outcome.static),
        "chosen_us": _micro(None if choice is None else choice.seconds),
        "timed": 0 if choice is None else choice.tried,
        "static": dict(outcome.task.chosen.config),
        "chosen": None if choice is None else dict(choice.config),
        "rejected": [{"configuration": dict(r.config), "reason": r.reason} for r in outcome.rejected],
        "why": outcome.why,
    }


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 2)


def _show(report: TuneReport, lockfile: Path) -> None:
    rows = [_cells(outcome) for outcome in report.outcomes]
    if rows:
        print_table(("kernel", "launches", "predicted us", "static us", "now us", "gain", "timed", "change"), rows)
    untimed = sum(outcome.choice is None for outcome in report.outcomes)
    gain = 1 - report.after / report.before if report.before else 0.0
    facts = {
        "lockfile": lockfile,
        "device": report.device,
        "kernels timed": len(report.outcomes) - untimed,
        "measured before": report.known,
        "not timed": untimed,
        "launches without choice": report.fixed,
        "all launches timed": f"{report.before * 1e6:.1f} us -> {report.after * 1e6:.1f} us ({-gain:+.1%})",
    }
    print_line()
    for line in aligned(facts):
        print_line(line)
    if report.unbounded:
        names = escape_controls(", ".join(report.unbounded))
        print_line(f"note: {names} counted as 1: fix or bound sizes with --shape, here and when you compile")
    for outcome in report.outcomes:
        if outcome.why:
            print_line(f"not timed: {outcome.task.word}: {escape_controls(outcome.why)}")
        for rejected in outcome.rejected:
            change = _change(outcome.task.chosen.config, rejected.config) or "the static choice"
            print_line(f"rejected: {outcome.task.word}, {change}: {escape_controls(rejected.reason)}")


def _cells(outcome: Outcome) -> tuple[object, ...]:
    choice, static = outcome.choice, outcome.static
    shown = (outcome.task.word, outcome.task.launches, f"{outcome.task.seconds * 1e6:.2f}")
    if choice is None or static is None or choice.seconds is None:
        return (*shown, "-", "-", "-", 0, "not timed")
    change = _change(outcome.task.chosen.config, choice.config) or "none"
    gain = f"{1 - choice.seconds / static:.0%}"
    return (*shown, f"{static * 1e6:.2f}", f"{choice.seconds * 1e6:.2f}", gain, choice.tried, change)


def _change(before: Any, after: Any) -> str:
    """As `warps 4 -> 8`."""
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    return ", ".join(f"{name} {before.get(name)} -> {value}" for name, value in changed.items())
