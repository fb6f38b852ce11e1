"""What a run measured and how two runs compare, as tables for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusible.benchmarks.records import KernelRow, ModelRow, Results
from fusible.benchmarks.report.columns import Column, kernel_columns, model_columns, verdict
from fusible.benchmarks.report.compare import Change, ChangeKind
from fusible.benchmarks.report.derived import Group, groups, noise, subject_name, summaries
from fusible.benchmarks.report.wording import (
    bytes_text,
    interval_text,
    noise_text,
    plural,
    printable,
    ratio_text,
    shortened,
)

__all__ = ["changes_text", "print_changes", "print_results", "results_text"]

# Each entry is a column; a pair is written one below the other.
Layout = Sequence[tuple[str, ...]]

_WIDE: Layout = [
    *[(k,) for k in ("peer", "p50", "span", "ratio", "interval", "gflops", "flops_share", "bandwidth_share")],
    *[(k,) for k in ("throughput", "plain", "compile", "cold", "memory", "kernels", "max_error", "rms_error")],
]
_NARROW: Layout = [
    ("peer",),
    ("p50", "span"),
    ("ratio", "interval"),
    ("gflops",),
    ("flops_share", "bandwidth_share"),
    ("throughput", "plain"),
    ("compile", "cold"),
    ("memory", "kernels"),
    ("max_error", "rms_error"),
]
_KERNELS_WIDE: Layout = [
    *[(k,) for k in ("op", "signature", "kernel", "p50", "span", "baseline_p50", "ratio", "interval")],
    *[(k,) for k in ("rate", "roof_share", "max_error")],
]
_KERNELS_NARROW: Layout = [
    ("op", "kernel"),
    ("signature",),
    ("p50", "baseline_p50"),
    ("ratio", "interval"),
    ("rate", "roof_share"),
    ("max_error",),
]
_STYLES = {"better": "green", "worse": "red", "": ""}
_COLOURED = ("ratio", "interval")
_UNBOUNDED = 100_000
_GAP = 2
_SIGNATURE = 24  # the least width of a signature before rows are stacked

Row = TypeVar("Row", ModelRow, KernelRow)


def print_results(results: Results) -> None:
    """Print to standard output; off a terminal the lines are as long as they need to be."""
    _print(results_text(results, *_terminal()))


def print_changes(changes: Iterable[Change]) -> None:
    """Print the comparison of two runs to standard output."""
    _print(changes_text(changes, *_terminal()))


def _terminal() -> tuple[int, bool]:
    if not sys.stdout.isatty():
        return _UNBOUNDED, False
    console = Console()
    return console.width, console.color_system is not None


def _print(text: str) -> None:
    sys.stdout.write(text)


def results_text(results: Results, width: int, colour: bool = False) -> str:
    """The tables of a run as text of lines no longer than `width`, which are stacked where it is too narrow."""
    page = _Paper(width, colour)
    _head(page, results)
    if results.models:
        _models(page, results)
        _summaries(page, results)
    if results.kernels:
        _kernels(page, results)
    if not results.complete:
        page.line("This run was interrupted: rows are missing.", "bold yellow")
    return page.text()


class _Paper:
    """Collects what is printed, at a fixed width, with or without colour."""

    def __init__(self, width: int, colour: bool) -> None:
        self.width = width
        self._file = StringIO()
        self._console = Console(
            file=self._file,
            width=width,
            force_terminal=colour,
            color_system="standard" if colour else None,
            highlight=False,
            legacy_windows=False,
        )

    def line(self, text: str = "", style: str = "") -> None:
        """One line, cut at the edge."""
        self._console.print(Text(shortened(text, self.width), style=style), no_wrap=True, crop=True)

    def paragraph(self, text: str, style: str = "") -> None:
        """Text that goes on on the next line."""
        self._console.print(Text(text, style=style), overflow="fold")

    def table(self, table: Table) -> None:
        """A table of rich."""
        self._console.print(table)

    def text(self) -> str:
        """All of it, no line with spaces at its end."""
        return "".join(f"{line.rstrip()}\n" for line in self._file.getvalue().split("\n")[:-1])


def _head(page: _Paper, results: Results) -> None:
    machine = results.machine
    page.line(f"{printable(results.command)} ({printable(results.created)})", "bold")
    where = [printable(machine.processor), plural(machine.cores, "core"), bytes_text(machine.memory)]
    page.paragraph(", ".join([*where, printable(machine.system), f"Python {printable(machine.python)}"]))
    page.paragraph("versions: " + ", ".join(f"{printable(k)} {printable(v)}" for k, v in results.versions.items()))
    for roof in results.roofs:
        reached = f"{roof.flops / 1e9:.1f} GFLOP/s, {roof.bandwidth / 1e9:.1f} GB/s"
        page.line(f"roof, {plural(roof.threads, 'thread')}: {reached} ({printable(roof.how)})")
    page.paragraph(f"noise: {noise_text(noise(results))}")
    for note in results.notes:
        page.paragraph(f"note: {printable(note)}")


def _models(page: _Paper, results: Results) -> None:
    columns = {column.key: column for column in model_columns(results)}
    shown = [row for row in results.models if row.latency is not None]
    layout = _fitting(page.width, columns, shown, (_WIDE, _NARROW))
    widths = _widths(layout, columns, shown)
    page.line()
    page.line("Models", "bold")
    page.line(f"ratio: time of the contestant / time of {printable(subject_name(results))}; above 1 it is slower")
    first = True
    for group in groups(results):
        page.line()
        page.line(_group_title(group), "bold cyan")
        timed = [row for row in group.rows if row.latency is not None]
        if timed:
            page.table(_table(layout, columns, widths, timed, header=first))
            first = False
        for row in group.rows:
            _reason(page, printable(row.peer).ljust(widths["peer"]), row)


def _group_title(group: Group) -> str:
    sizes = f"batch {group.batch}, {plural(group.threads, 'thread')}"
    return f"{printable(group.name)}, {sizes}"


def _reason(page: _Paper, what: str, row: ModelRow | KernelRow) -> None:
    """Why a row has no numbers, or what there is to say about one that has."""
    if row.status != "ok" or row.reason:
        detail = f": {printable(row.reason)}" if row.reason else ""
        style = {"ok": "dim", "absent": "yellow"}.get(row.status, "red")
        page.line(f"{what}  {printable(row.status)}{detail}", style)


def _summaries(page: _Paper, results: Results) -> None:
    found = summaries(results)
    if not found:
        return
    page.line()
    page.line(f"All models: {printable(subject_name(results))} against each peer", "bold")
    table = _plain_table()
    for title in ("peer", "threads", "mean ratio", "faster on", "slower on", "level", "no ratio"):
        table.add_column(title, justify="left" if title == "peer" else "right")
    for s in found:
        mean = "" if s.mean is None else ratio_text(s.mean)
        counts = (str(count) for count in (s.slower, s.faster, s.level, s.missing))
        table.add_row(Text(printable(s.peer)), str(s.threads), mean, *counts)
    page.table(table)


def _kernels(page: _Paper, results: Results) -> None:
    columns = {column.key: column for column in kernel_columns(results)}
    shown = [row for row in results.kernels if row.latency is not None]
    layout = _fitting(page.width, columns, shown, (_KERNELS_WIDE, _KERNELS_NARROW))
    widths = _widths(layout, columns, shown)
    if "signature" in widths:
        rest = page.width - sum(w + _GAP for key, w in widths.items() if key != "signature")
        widths["signature"] = max(min(widths["signature"], rest), 1)
    page.line()
    page.line("Kernels", "bold")
    page.line("ratio: time of the baseline / time of the kernel; above 1 the kernel is faster")
    grouped: dict[tuple[str, str, int], list[KernelRow]] = {}
    for row in results.kernels:
        grouped.setdefault((row.baseline, row.device, row.threads), []).append(row)
    for (baseline, device, threads), rows in grouped.items():
        page.line()
        against = f"against {printable(baseline)}" if baseline else "against nothing"
        page.line(f"{against}, {printable(device)}, {plural(threads, 'thread')}", "bold cyan")
        timed = [row for row in rows if row.latency is not None]
        if timed:
            page.table(_table(layout, columns, widths, timed, header=True))
        for row in rows:
            _reason(page, printable(f"{row.op} {row.signature}"), row)


def _fitting(width: int, columns: Mapping[str, Column[Row]], rows: Sequence[Row], layouts: Sequence[Layout]) -> Layout:
    """The first layout that fits; the last one if none does."""
    for layout in layouts[:-1]:
        widths = _widths(layout, columns, rows)
        needed = sum(min(w, _SIGNATURE) if key == "signature" else w for key, w in widths.items())
        if needed + _GAP * len(widths) <= width:
            return layout
    return layouts[-1]


def _widths(layout: Layout, columns: Mapping[str, Column[Row]], rows: Sequence[Row]) -> dict[str, int]:
    """The width of each column of a layout, by its first key, over all rows, so that groups line up."""
    found = {}
    for keys in layout:
        present = [columns[key] for key in keys if key in columns]
        if present:
            cells = [len(c.title) for c in present] + [len(c.text(row)) for c in present for row in rows]
            found[keys[0]] = max(cells)
    return found


def _plain_table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")


def _table(
    layout: Layout, columns: Mapping[str, Column[Row]], widths: Mapping[str, int], rows: Sequence[Row], *, header: bool
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", show_header=header)
    shown = [[columns[key] for key in keys if key in columns] for keys in layout]
    shown = [stack for stack in shown if stack]
    for keys, stack in zip([k for k in layout if k[0] in widths], shown, strict=True):
        title = "\n".join(column.title for column in stack)
        table.add_column(title, justify="left" if stack[0].left else "right", overflow="fold", width=widths[keys[0]])
    for row in rows:
        table.add_row(*(_cell(stack, row) for stack in shown))
    return table


def _cell(stack: Sequence[Column[Row]], row: Row) -> Text:
    style = _STYLES[verdict(row)] if any(column.key in _COLOURED for column in stack) else ""
    return Text("\n".join(column.text(row) for column in stack).rstrip("\n"), style=style)


_CHANGE_STYLES = {
    ChangeKind.SLOWER: "bold red",
    ChangeKind.BROKEN: "bold red",
    ChangeKind.FASTER: "green",
    ChangeKind.FIXED: "green",
    ChangeKind.VANISHED: "yellow",
    ChangeKind.REFUSED: "yellow",
    ChangeKind.NEW: "",
}


def changes_text(changes: Iterable[Change], width: int, colour: bool = False) -> str:
    """What differs between two runs, worst first; what stayed within noise is counted only."""
    page = _Paper(width, colour)
    found = list(changes)
    same = sum(change.kind is ChangeKind.SAME for change in found)
    for kind, style in _CHANGE_STYLES.items():
        of_kind = [change for change in found if change.kind is kind]
        if of_kind:
            page.line(f"{kind.value} ({len(of_kind)})", style or "bold")
            page.table(_changes_table(of_kind))
    compared = same + sum(change.factor is not None for change in found if change.kind is not ChangeKind.SAME)
    page.line(f"{plural(compared, 'comparison')}, {same} within noise" if compared else "no row could be compared")
    return page.text()


def _changes_table(changes: Sequence[Change]) -> Table:
    table = _plain_table()
    for title in ("what", "against", "new / old", "95 %", "note"):
        table.add_column(title, justify="right" if title in ("new / old", "95 %") else "left", overflow="fold")
    for change in changes:
        middle = "" if change.factor is None else ratio_text(change.factor.middle)
        interval = "" if change.factor is None else interval_text(change.factor)
        cells = (change.what, change.against, middle, interval, change.note)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
