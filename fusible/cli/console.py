"""What the commands print: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

__all__ = ["aligned", "bytes_text", "escape_controls", "print_json", "print_line", "print_table", "progress"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def print_json(value: object) -> None:
    """Print a value as indented JSON; keys stay in the order given, so that output is deterministic."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_line(text: str = "") -> None:
    """Print one line of text as it is: no markup, no wrapping."""
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print rows under column names. Off a terminal the lines are as long as they need to be."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=_width(columns, rows))
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().split("\n")[:-1]:
        print_line(line.rstrip())


def _width(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    cells = [columns, *rows]
    widest = [max(len(str(row[index])) for row in cells) for index in range(len(columns))]
    return sum(widest) + 2 * len(widest) + 1


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Show a spinner with the time gone while the body runs, if standard error is a terminal; else nothing."""
    if not sys.stderr.isatty():
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield


def bytes_text(count: int) -> str:
    """Return a number of bytes with a unit: 1536 is `1.5 KiB`."""
    size = float(count)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError(count)


def escape_controls(value: str) -> str:
    """Return text of a model with control characters escaped: a name must not steer the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in value)


def aligned(pairs: Mapping[str, object]) -> list[str]:
    """Return a line for each pair, with its name and its value, the values below each other."""
    width = max(map(len, pairs), default=0)
    return [f"{name:{width}}  {value}" for name, value in pairs.items()]
