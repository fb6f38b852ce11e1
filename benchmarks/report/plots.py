"""The plots of the page: ratios with their intervals, the roofline, the history of ratios."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fusible.benchmarks.records import Interval, KernelRow, ModelRow, Results, Roof
from fusible.benchmarks.report.derived import (
    comparable,
    flop_rate,
    geometric_mean,
    intensity,
    roof_of,
    subject_name,
)
from fusible.benchmarks.report.history import ModelHistory
from fusible.benchmarks.report.svg import FAINT, GRID, INK, PAPER, draw, series_style
from fusible.benchmarks.report.wording import (
    interval_text,
    number_text,
    plural,
    printable,
    ratio_text,
    shortened,
)

__all__ = ["Plot", "history_plot", "ratio_plot", "ratio_ticks", "roofline_plot"]

WIDTH = 1080
_LABEL = 34  # characters of a name beside an axis; tooltips and tables have all of it


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot. marks: how many point marks it has; left_out: rows that have no place in it."""

    svg: str
    marks: int
    left_out: int


def contestants(results: Results, history: Sequence[ModelHistory] = ()) -> dict[str, int]:
    """A number for each contestant, from which its colour and marker follow in every plot; subjects come first."""
    ordered = sorted(results.models, key=lambda row: row.role != "subject")
    names = [row.peer for row in ordered] + [line.peer for line in history]
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def ratio_ticks(low: float, high: float, most: int) -> list[float]:
    """At most so many round numbers between two positive ones, as fine as that allows; 1 is among them if inside."""
    if high / low < 3:
        steps = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
        levels = [
            [round(step * k, 3) for k in range(math.ceil(low / step), math.floor(high / step) + 1)] for step in steps
        ]
    else:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        per_decade = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
        sparse = [[10.0**d for d in decades if d % every == 0] for every in (8, 4, 2)]
        levels = sparse + [[m * 10.0**d for d in decades for m in digits] for digits in per_decade]
    found: list[float] = []
    for level in levels:
        inside = [float(f"{tick:.6g}") for tick in level if low <= tick <= high]
        if len(inside) <= most:
            found = inside
    return found


def ratio_plot(results: Results) -> Plot | None:
    """Dot and whisker: a line for each model, a panel for each number of threads, a colour for each peer."""
    rows = comparable(results)
    if not rows:
        return None
    threads = sorted({row.threads for row in rows})
    columns = min(len(threads), 2)
    lines = _ordered_lines(rows)
    names = list(dict.fromkeys(row.peer for row in rows))
    line_height = 14 + 9 * len(names)
    height = math.ceil(len(threads) / columns) * (len(lines) * line_height + 80) + 40
    subject = printable(subject_name(results))

    def paint(figure: Figure) -> Mapping[str, str]:
        axes = figure.subplots(math.ceil(len(threads) / columns), columns, sharex=True, sharey=True, squeeze=False)
        _hide_spare(axes, len(threads))
        tips: dict[str, str] = {}
        for axis, count in zip(axes.flat, threads, strict=False):
            _ratio_panel(axis, [row for row in rows if row.threads == count], lines, contestants(results), tips)
            axis.set_title(plural(count, "thread"))
            axis.set_xlabel(f"time of the peer / time of {shortened(subject, 20)}")
        _ratio_axes(axes[0, 0], rows, lines)
        _legend(figure, [_handle(results, name) for name in names])
        return tips

    said = (
        f"Ratios with 95 % intervals of {plural(len(rows), 'row')}; right of 1, {subject} is faster. The table has all."
    )
    svg = draw("ratios", f"Latency of each peer relative to {subject}", (WIDTH, height), paint, said)
    return Plot(svg, len(rows), sum(row.role != "subject" for row in results.models) - len(rows))


Line = tuple[str, str, int]


def _line_of(row: ModelRow | ModelHistory) -> Line:
    return row.model, row.variant, row.batch


def _line_name(line: Line) -> str:
    model, variant, batch = line
    return printable(f"{model} {variant}".rstrip() + (f" ×{batch}" if batch != 1 else ""))


def _ordered_lines(rows: Sequence[ModelRow]) -> dict[Line, int]:
    """The lines of the plot from top to bottom: those where the subject does worst come first."""
    ratios: dict[Line, list[float]] = {}
    for row in rows:
        assert row.ratio is not None
        ratios.setdefault(_line_of(row), []).append(row.ratio.middle)
    ordered = sorted(ratios, key=lambda line: (geometric_mean(ratios[line]), line))
    return {line: position for position, line in enumerate(ordered)}


def _ratio_panel(
    axis: Axes, rows: Sequence[ModelRow], lines: Mapping[Line, int], numbers: Mapping[str, int], tips: dict[str, str]
) -> None:
    axis.axvline(1.0, color=INK, linewidth=1.2, zorder=1.5)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
    for position in range(1, len(lines), 2):
        axis.axhspan(position - 0.5, position + 0.5, color=GRID, alpha=0.35, linewidth=0)
    names = sorted({row.peer for row in rows}, key=lambda name: numbers[name])
    for row in rows:
        assert row.ratio is not None
        colour, marker = series_style(numbers[row.peer])
        step = 0.72 / max(len(names), 2)
        y = lines[_line_of(row)] + (names.index(row.peer) - (len(names) - 1) / 2) * step
        axis.plot([row.ratio.low, row.ratio.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        gid = f"point-{len(tips)}"
        axis.plot([row.ratio.middle], [y], color=colour, marker=marker, markersize=6, gid=gid)
        tips[gid] = f"{_line_name(_line_of(row))}, {printable(row.peer)}, {_ratio_words(row.ratio)}"


def _ratio_words(ratio: Interval) -> str:
    return f"ratio {ratio_text(ratio.middle)} ({interval_text(ratio)})"


def _ratio_axes(axis: Axes, rows: Sequence[ModelRow], lines: Mapping[Line, int]) -> None:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    low, high = _padded(min(r.low for r in ratios), max(r.high for r in ratios))
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    _round_ticks(axis, "x", low, high, 8)
    axis.set_ylim(len(lines) - 0.45, -0.55)
    axis.set_yticks(list(lines.values()), [shortened(_line_name(line), _LABEL) for line in lines])


def _padded(low: float, high: float) -> tuple[float, float]:
    """Bounds of a log axis of ratios around values and 1, with some room."""
    low, high = min(low, 0.97), max(high, 1.03)
    room = (high / low) ** 0.06
    return low / room, high * room


def _round_ticks(axis: Axes, which: str, low: float, high: float, most: int) -> None:
    along = axis.xaxis if which == "x" else axis.yaxis
    along.set_major_locator(FixedLocator(ratio_ticks(low, high, most)))
    along.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    along.set_minor_locator(NullLocator())


def _handle(results: Results, name: str, history: Sequence[ModelHistory] = ()) -> Line2D:
    colour, marker = series_style(contestants(results, history)[name])
    label = shortened(printable(name), 24)
    # matplotlib leaves labels that begin with an underscore out of legends
    return Line2D([], [], color=colour, marker=marker, markersize=7, linestyle="none", label=label.lstrip("_") or label)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Above the panels, in as many columns as fit: they are as wide as the longest label."""
    widest = 8 * max(len(str(handle.get_label())) for handle in handles) + 60
    columns = int(figure.get_figwidth() * 72 / widest)
    figure.legend(handles=list(handles), loc="outside upper left", ncols=max(1, min(columns, len(handles))))


def _hide_spare(axes: np.ndarray, used: int) -> None:
    for axis in list(axes.flat)[used:]:
        axis.set_visible(False)


def roofline_plot(results: Results) -> Plot | None:
    """Flops per byte against flops per second, under the measured roofs; a panel for each device and thread count."""
    every: list[ModelRow | KernelRow] = [*results.models, *results.kernels]
    rows = [row for row in every if row.status == "ok"]
    placed = [row for row in rows if intensity(row) and flop_rate(row)]
    if not placed:
        return None
    panels = sorted({_panel(row) for row in placed} | {("cpu", roof.threads) for roof in results.roofs})
    columns = min(len(panels), 2)
    lines = math.ceil(len(panels) / columns)

    def paint(figure: Figure) -> Mapping[str, str]:
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        _hide_spare(axes, len(panels))
        tips: dict[str, str] = {}
        _roofline_axes(axes[0, 0], placed, results.roofs)
        for axis, panel in zip(axes.flat, panels, strict=False):
            roof = roof_of(results, panel[1]) if panel[0] == "cpu" else None
            _roofline_panel(axis, [row for row in placed if _panel(row) == panel], contestants(results), tips)
            axis.grid()
            if roof is not None:
                _draw_roof(axis, roof)
            axis.set_title(_panel_title(panel, roof))
            axis.set_xlabel("flops / byte")
        for axis in axes[:, 0]:
            axis.set_ylabel("GFLOP/s")
        names = dict.fromkeys(row.peer for row in placed if isinstance(row, ModelRow))
        ordered = sorted(names, key=lambda name: contestants(results)[name])
        handles = [_handle(results, name) for name in ordered]
        if any(isinstance(row, KernelRow) for row in placed):
            handles.append(Line2D([], [], color=FAINT, marker="x", markersize=6, linestyle="none", label="a kernel"))
        _legend(figure, handles)
        return tips

    said = f"{plural(len(placed), 'row')} of models and kernels: arithmetic intensity against flops in a second."
    svg = draw("roofline", "Roofline: how much of the machine is used", (WIDTH, 60 + 370 * lines), paint, said)
    return Plot(svg, len(placed), len(rows) - len(placed))


def _panel(row: ModelRow | KernelRow) -> tuple[str, int]:
    return (row.device if isinstance(row, KernelRow) else "cpu"), row.threads


def _panel_title(panel: tuple[str, int], roof: Roof | None) -> str:
    device, threads = panel
    where = "" if device == "cpu" else f"{shortened(printable(device), 24)}, "
    name = f"{where}{plural(threads, 'thread')}"
    if roof is None:
        return f"{name} (no roof measured)"
    return f"{name}: at most {number_text(roof.flops / 1e9)} GFLOP/s, {number_text(roof.bandwidth / 1e9)} GB/s"


def _roofline_panel(
    axis: Axes, rows: Sequence[ModelRow | KernelRow], numbers: Mapping[str, int], tips: dict[str, str]
) -> None:
    for row in rows:
        gid = f"point-{len(tips)}"
        x, rate = intensity(row), flop_rate(row)
        assert x is not None
        assert rate is not None
        if isinstance(row, ModelRow):
            colour, marker = series_style(numbers[row.peer])
            depth = 3 if row.role == "subject" else 2  # nobody hides the subject
            axis.plot([x], [rate / 1e9], color=colour, marker=marker, markersize=6, alpha=0.85, gid=gid, zorder=depth)
            what = f"{_line_name(_line_of(row))}, {printable(row.peer)}"
        else:
            axis.plot([x], [rate / 1e9], color=FAINT, marker="x", markersize=5, gid=gid)
            what = printable(f"{row.op} {row.signature}, {row.kernel}")
        tips[gid] = f"{what}: {number_text(rate / 1e9)} GFLOP/s at {number_text(x)} flops/byte"


def _bounds(values: Iterable[float], room: float) -> tuple[float, float]:
    found = list(values)
    return min(found) / room, max(found) * room


def _roofline_axes(axis: Axes, rows: Sequence[ModelRow | KernelRow], roofs: Sequence[Roof]) -> None:
    """Limits and ticks that all panels share: every point and every ridge is inside."""
    xs = [x for row in rows if (x := intensity(row))] + [roof.flops / roof.bandwidth for roof in roofs]
    ys = [y / 1e9 for row in rows if (y := flop_rate(row))] + [roof.flops / 1e9 for roof in roofs]
    for which, (low, high) in (("x", _bounds(xs, 2.5)), ("y", _bounds(ys, 2.0))):
        axis.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
        _round_ticks(axis, which, low, high, 9)


def _draw_roof(axis: Axes, roof: Roof) -> None:
    low, high = axis.get_xlim()
    xs = [low, roof.flops / roof.bandwidth, high]
    axis.plot(xs, [min(x * roof.bandwidth, roof.flops) / 1e9 for x in xs], color=INK, linewidth=1.5)


RUNS = 100  # the history shows the latest so many
_PANELS_PER_LINE = 4


class _Look(TypedDict):
    linestyle: Literal["solid", "dashed", "dotted", "dashdot"]
    markerfacecolor: str


def _look(index: int, colour: str) -> _Look:
    """How the numbers of threads differ: filled and hollow marks, and dashes."""
    dashes: tuple[Literal["solid", "dashed", "dotted", "dashdot"], ...] = ("solid", "dashed", "dotted", "dashdot")
    return {"linestyle": dashes[index % len(dashes)], "markerfacecolor": PAPER if index % 2 else colour}


def history_plot(results: Results, history: Sequence[ModelHistory]) -> Plot | None:
    """The ratio of each peer over the dates of runs on this machine; a small panel for each model."""
    machine = (results.machine.processor, results.machine.cores)
    here = [line for line in history if (line.processor, line.cores) == machine and line.ratio and line.ratio > 0]
    latest = set(sorted({line.moment for line in here})[-RUNS:])
    shown = [line for line in here if line.moment in latest]
    if not shown:
        return None
    panels = list(dict.fromkeys([*map(_line_of, results.models), *map(_line_of, shown)]))
    panels = [panel for panel in panels if any(_line_of(line) == panel for line in shown)]
    columns = min(len(panels), _PANELS_PER_LINE)
    rows = math.ceil(len(panels) / columns)
    threads = sorted({line.threads for line in shown})

    def paint(figure: Figure) -> Mapping[str, str]:
        axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
        _hide_spare(axes, len(panels))
        tips: dict[str, str] = {}
        numbers = contestants(results, history)
        _date_axis(axes[0, 0], min(latest), max(latest))
        for position, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
            _history_panel(axis, [line for line in shown if _line_of(line) == panel], threads, numbers, tips)
            axis.set_title(shortened(_line_name(panel), _LABEL - 2), fontsize=11)
            axis.tick_params(labelbottom=position + columns >= len(panels))
        names = sorted({line.peer for line in shown}, key=lambda name: numbers[name])
        handles = [_handle(results, name, history) for name in names]
        for index, count in enumerate(threads):
            look = _look(index, FAINT)
            handles.append(Line2D([], [], color=FAINT, marker="o", label=plural(count, "thread"), **look))
        _legend(figure, handles)
        return tips

    subject = printable(subject_name(results))
    said = f"Ratios of {plural(len(latest), 'run')} on this machine; above 1, {subject} is faster."
    size = (WIDTH / _PANELS_PER_LINE * max(columns, 2), 60 + 165 * rows)
    svg = draw("history", "Ratios over time", size, paint, said)
    return Plot(svg, len(shown), sum(line.ratio is not None for line in history) - len(shown))


def _history_panel(
    axis: Axes,
    lines: Sequence[ModelHistory],
    threads: Sequence[int],
    numbers: Mapping[str, int],
    tips: dict[str, str],
) -> None:
    series: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for line in lines:
        assert line.ratio is not None
        series.setdefault((line.peer, line.threads), []).append((line.moment.timestamp(), line.ratio))
    for (peer, count), points in series.items():
        colour, marker = series_style(numbers[peer])
        look = _look(threads.index(count), colour)
        gid = f"points-{len(tips)}"
        xs, ys = zip(*sorted(points), strict=True)
        axis.plot(xs, ys, color=colour, marker=marker, markersize=4.5, linewidth=1.2, gid=gid, **look)
        tips[gid] = f"{printable(peer)}, {plural(count, 'thread')}: {ratio_text(ys[0])} to {ratio_text(ys[-1])}"
    axis.axhline(1.0, color=INK, linewidth=1, zorder=1.5)
    axis.grid(axis="y", color=GRID)
    ratios = [line.ratio for line in lines if line.ratio is not None]
    low, high = _padded(min(ratios), max(ratios))
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    _round_ticks(axis, "y", low, high, 5)


def _date_axis(axis: Axes, first: datetime, last: datetime) -> None:
    """The days of the first and the last run, with room for their names."""
    room = max((last - first).total_seconds() * 0.18, 3600)
    axis.set_xlim(first.timestamp() - room, last.timestamp() + room)
    ends = [first, last] if last.date() > first.date() else [first]
    axis.set_xticks([end.timestamp() for end in ends], [end.strftime("%Y-%m-%d") for end in ends])
