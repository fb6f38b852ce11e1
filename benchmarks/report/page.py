"""One HTML file that shows a run: plots and tables, with nothing to load from anywhere."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fusible.benchmarks.records import KernelRow, ModelRow, Results
from fusible.benchmarks.report.columns import Column, kernel_columns, model_columns, verdict
from fusible.benchmarks.report.derived import PeerSummary, noise, subject_name, summaries
from fusible.benchmarks.report.history import ModelHistory
from fusible.benchmarks.report.markup import Markup, tag
from fusible.benchmarks.report.wording import (
    bytes_text,
    noise_text,
    number_text,
    plural,
    printable,
    ratio_text,
)
from fusible.errors import FusibleError, UsageError

if TYPE_CHECKING:
    from fusible.benchmarks.report.plots import Plot

__all__ = ["render_page", "write_page"]

Row = TypeVar("Row", ModelRow, KernelRow)

# A second column whose text stands beside that of the first, in the same cell.
_DETAILS = {"p50": "span", "ratio": "interval"}
_HIDDEN = {*_DETAILS.values(), "rate"}
_LONG = 28  # characters of a cell above which it is broken into lines


def write_page(results: Results, path: Path, history: Sequence[ModelHistory] = ()) -> None:
    """Write the page in one step. Raises UsageError if it cannot be written, FusibleError without matplotlib."""
    text = render_page(results, history)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise UsageError(f"the page cannot be written to {path}: {error}") from error


def render_page(results: Results, history: Sequence[ModelHistory] = ()) -> str:
    """The page as text; the same results and history give the same bytes. Raises FusibleError without matplotlib."""
    title = f"Benchmark of {subject_name(results)}"
    main = tag("main", *_head(results, title), *_overview(results), *_figures(results, history), *_tables(results))
    script = _part("page.js")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", attributes={"http-equiv": "Content-Security-Policy", "content": _policy(script)}),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title}, {results.created}"),
        tag("style", _part("page.css")),
    )
    body = tag("body", main, tag("script", script))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _part(name: str) -> Markup:
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _policy(script: str) -> str:
    """Nothing is loaded, and no script runs but the page's own, whatever a name in the results says."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _head(results: Results, title: str) -> Iterator[Markup]:
    yield tag("h1", title)
    yield tag("p", f"{results.created}: ", tag("code", results.command), class_="lead")
    if not results.complete:
        yield tag("p", "This run was interrupted: rows are missing.", class_="warning")
    yield tag("dl", *(part for name, text in _facts(results) for part in (tag("dt", name), tag("dd", text))))


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    machine = results.machine
    yield "Processor", f"{machine.processor}, {plural(machine.cores, 'core')} ({', '.join(machine.features)})"
    yield "System", f"{machine.system}, {bytes_text(machine.memory)} of memory, Python {machine.python}"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in results.versions.items())
    yield "Settings", ", ".join(f"{name} {value}" for name, value in results.settings.items())
    for roof in results.roofs:
        reached = f"{number_text(roof.flops / 1e9)} GFLOP/s and {number_text(roof.bandwidth / 1e9)} GB/s"
        yield f"Roof, {plural(roof.threads, 'thread')}", f"{reached}, measured: {roof.how}"
    yield "Noise", noise_text(noise(results))
    for note in results.notes:
        yield "Note", note


def _overview(results: Results) -> Iterator[Markup]:
    found = summaries(results)
    if not found:
        return
    subject = subject_name(results)
    yield tag("h2", "Overview")
    yield tag(
        "p",
        f"A ratio is the time of a peer divided by the time of {subject}: above 1, {subject} is faster. The mean is "
        "geometric; faster and slower count the models whose 95 % interval does not contain 1.",
        class_="how",
    )
    titles = ("peer", "threads", "mean ratio", f"{subject} is faster on", "slower on", "level on", "no ratio")
    heads = (tag("th", title, scope="col", class_="text" if title == "peer" else "number") for title in titles)
    body = tag("tbody", *map(_overview_row, found))
    yield _scrolling("Overview", tag("table", tag("thead", tag("tr", *heads)), body))


def _overview_row(summary: PeerSummary) -> Markup:
    mean = "" if summary.mean is None else ratio_text(summary.mean)
    numbers = (mean, summary.slower, summary.faster, summary.level, summary.missing)
    cells = [tag("td", str(value)) for value in (summary.threads, *numbers)]
    return tag("tr", tag("th", summary.peer, scope="row", class_="text"), *cells)


def _figures(results: Results, history: Sequence[ModelHistory]) -> Iterator[Markup]:
    try:  # here: matplotlib is an extra, without which the rest of the report still works
        from fusible.benchmarks.report.plots import RUNS, history_plot, ratio_plot, roofline_plot  # noqa: PLC0415
    except ImportError as error:
        raise FusibleError("plots need matplotlib: pip install 'fusible[bench]'") from error
    subject = subject_name(results)
    yield tag("h2", "Latency relative to each peer")
    yield _figure(
        ratio_plot(results),
        f"Median and 95 % interval of the time of each peer divided by the time of {subject}, on a log axis. Right of "
        f"the line at 1, {subject} is faster. Models on which it does worst stand at the top.",
        "No row has a ratio.",
    )
    yield tag("h2", "Roofline")
    yield _figure(
        roofline_plot(results),
        "Work for each byte that must move against work in a second. The line is what this machine was measured to "
        "reach with so many threads: the nearer to it, the less is left to gain.",
        "No row has counts of flops and bytes, and a time.",
    )
    yield tag("h2", "History")
    yield _figure(
        history_plot(results, history),
        f"Ratios of earlier runs on this machine, at most the latest {RUNS}; above 1, {subject} is faster.",
        "There is no history of this machine yet.",
    )


def _figure(plot: Plot | None, caption: str, otherwise: str) -> Markup:
    if plot is None:
        return tag("p", otherwise, class_="how")
    left = f" {plural(plot.left_out, 'row')} left out: they have no such numbers." if plot.left_out else ""
    scroll = tag(
        "div", Markup(plot.svg), class_="scroll", tabindex="0", role="group", attributes={"aria-label": "Plot"}
    )
    return tag("figure", scroll, tag("figcaption", caption + left))


def _tables(results: Results) -> Iterator[Markup]:
    if results.models:
        yield tag("h2", "Models")
        columns = model_columns(results)
        yield _table("Models", (*columns[:5], _status_column(), *columns[5:]), results.models)
    if results.kernels:
        yield tag("h2", "Kernels")
        kernels = kernel_columns(results)
        yield _table("Kernels", (*kernels[:6], _status_column(), *kernels[6:], _origin_column()), results.kernels)


def _status_column() -> Column[Row]:
    def text(row: Row) -> str:
        return f"{row.status}: {row.reason}" if row.reason else row.status

    return Column("status", "status", "ok, wrong (outputs differ), failed or absent", text, text, left=True)


def _origin_column() -> Column[KernelRow]:
    def text(row: KernelRow) -> str:
        return ", ".join(row.origin)

    return Column("origin", "found in", "models with this shape", text, text, left=True)


def _table(label: str, columns: Sequence[Column[Row]], rows: Sequence[Row]) -> Markup:
    every = {column.key: column for column in columns}
    shown = [column for column in columns if column.key not in _HIDDEN]
    heads = tag("tr", *map(_column_head, shown))
    body = tag("tbody", *(_row(row, shown, every) for row in rows))
    return _scrolling(label, tag("table", tag("thead", heads), body, class_="sortable"))


def _column_head(column: Column[Row]) -> Markup:
    button = tag("button", column.title, type="button", title=f"{column.explained}; click to sort")
    return tag("th", button, scope="col", class_="text" if column.left else "number")


def _row(row: Row, columns: Sequence[Column[Row]], every: Mapping[str, Column[Row]]) -> Markup:
    return tag("tr", *(_cell(row, column, every) for column in columns), class_=_role(row))


def _role(row: ModelRow | KernelRow) -> str:
    return row.role if isinstance(row, ModelRow) else "kernel"


def _cell(row: Row, column: Column[Row], every: Mapping[str, Column[Row]]) -> Markup:
    value = column.value(row)
    classes = ["text"] if column.left else []
    if len(column.text(row)) > _LONG:
        classes += ["long", column.key]
    if column.key == "ratio":
        classes.append(verdict(row))
    if column.key == "status" and row.status in ("failed", "wrong", "absent"):
        classes.append(row.status)
    parts: list[str] = [column.text(row)]
    detail = every[_DETAILS[column.key]].text(row) if column.key in _DETAILS else ""
    if detail:
        parts += [" ", tag("span", f"({detail})", class_="detail")]
    return tag("td", *parts, class_=" ".join(filter(None, classes)), attributes={"data-value": _sort_value(value)})


def _sort_value(value: float | str | None) -> str:
    if value is None:
        return ""
    return printable(value) if isinstance(value, str) else f"{value:.9g}"


def _scrolling(label: str, table: Markup) -> Markup:
    """A table that scrolls by itself where the window is too narrow, by keyboard too."""
    attributes = {"aria-label": label, "tabindex": "0"}
    return tag("div", table, class_="scroll", role="region", attributes=attributes)
