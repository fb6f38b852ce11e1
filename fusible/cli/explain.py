"""`fusible explain MODEL|ARTIFACT`: what fused, what did not and why, kernels, host calls, memory."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusible.cli.check import memory_facts
from fusible.cli.console import aligned, bytes_text, escape_controls, print_json, print_line, print_table
from fusible.cli.gpu_report import print_gpu_section
from fusible.cli.models import open_executable
from fusible.cli.parameters import JsonOption, PrecisionOption, ProgramArgument, ShapeOption, TargetOption, TuningOption
from fusible.errors import UsageError

if TYPE_CHECKING:
    from fusible.runtime.executable import Executable
    from fusible.runtime.report import Report

__all__ = ["buffer_rows", "explain", "kernel_text"]

Row = Mapping[str, Any]
SHOWN = 20
AllOption = Annotated[bool, typer.Option("--all", help=f"Every row, not the {SHOWN} that cost most.")]
KernelOption = Annotated[
    str | None, typer.Option("--kernel", metavar="NAME", help="Print the source of one kernel and nothing else.")
]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="F", help="Write the whole report as a page.")]


def explain(
    program: ProgramArgument,
    target: TargetOption = "auto",
    shape: ShapeOption = None,
    precision: PrecisionOption = "fp32",
    tuning: TuningOption = None,
    kernel: KernelOption = None,
    everything: AllOption = False,
    html: HtmlOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what was fused and what was not, with reasons and costs, the kernels, calls of NumPy and the memory plan."""
    executable = open_executable(program, target, shape or (), precision, allow_host=True, tuning=tuning)
    if html is not None:
        executable.report.to_html(html)
    if kernel is not None:
        print_line(kernel_text(executable, kernel))
        return
    if json_output:
        print_json(_facts(executable))
        return
    _show(executable, None if everything else SHOWN)


def _facts(executable: Executable) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(executable.report.to_json())
    return {
        "target": executable.target,
        "inputs": [str(spec) for spec in executable.inputs],
        "outputs": [str(spec) for spec in executable.outputs],
        **report,
        "buffers": buffer_rows(executable),
        "sources": executable.sources,
    }


def _show(executable: Executable, most: int | None) -> None:
    """Print all sections, at most so many rows of each."""
    report = executable.report
    facts = {
        "target": executable.target,
        "steps": f"{len(report.kernels)} ({_kernels_by_language(report)}, {len(report.host)} calls of NumPy)",
        "rewrites": _counted(row["rule"] or row["pass"] for row in report.fusions if row["kind"] == "fired"),
        "operations": _number(report.cost.get("flops")),
        "bytes moved": _bytes(report.cost.get("bytes")),
        **memory_facts(dict(report.memory)),
    }
    for line in (*aligned(facts), *(f"note: {escape_controls(note)}" for note in report.notes)):
        print_line(line)
    _fusions(report, most)
    _refusals(report, most)
    _kernels(report, most)
    if report.gpu:
        print_gpu_section(report.gpu, most)
    _table("calls of NumPy", ("op", "nodes", "reason"), [_host_cells(row) for row in report.host], most)
    buffers = sorted(buffer_rows(executable), key=lambda row: -_size(row["bytes"]))
    columns = ("buffer", "bytes", "steps", "values that lie in it, one after the other")
    cells = [(r["buffer"], _bytes(r["bytes"]), f"{r['first']}-{r['last']}", _names(r["values"])) for r in buffers]
    _table("memory plan", columns, cells, most)
    print_line(f"\nsources: {', '.join(executable.sources)}; --kernel NAME prints one kernel's")


def _kernels_by_language(report: Report) -> str:
    """How many different kernels there are that are no calls of NumPy."""
    triton = {row["kernel"] for row in report.kernels if row.get("language") == "triton"}
    native = {row["kernel"] for row in report.kernels if row.get("language") == "c"}
    return f"{len(triton)} Triton kernels" if triton else f"{len(native)} native kernels"


def _fusions(report: Report, most: int | None) -> None:
    rows = sorted((r for r in report.fusions if r["kind"] == "fused"), key=lambda r: -_cost(r, "saved"))
    cells = [
        (_bytes(_cost(r, "saved")), (r["saved"] or {}).get("launches", 0), r["reason"], _names(r["nodes"]))
        for r in rows
    ]
    _table("fused", ("bytes saved", "launches", "what", "nodes"), cells, most)


def _refusals(report: Report, most: int | None) -> None:
    rows = sorted((r for r in report.refusals if r["kind"] == "refused"), key=lambda r: -_cost(r, "cost"))
    cells = [(_bytes(_cost(r, "cost")), _names(r["nodes"]), escape_controls(r["reason"])) for r in rows]
    _table("kept apart", ("bytes that costs", "nodes", "reason"), cells, most)
    others = Counter((r["rule"] or r["pass"], r["reason"]) for r in report.refusals if r["kind"] != "refused")
    counted = [(count, rule, escape_controls(reason)) for (rule, reason), count in others.most_common()]
    _table("rules that declined", ("times", "rule", "reason"), counted, most)


def _kernels(report: Report, most: int | None) -> None:
    rows = sorted(report.kernels, key=lambda row: -_size(row.get("bytes")))
    columns: tuple[str, ...] = ("kernel", "operations", "bytes", "nodes")
    cells: list[tuple[str, ...]] = [
        (r["kernel"], _number(r.get("flops")), _bytes(r.get("bytes")), _names(r["nodes"])) for r in rows
    ]
    if any("chosen" in row for row in rows):
        columns = (*columns, "configuration")
        cells = [(*cell, _configuration(row)) for cell, row in zip(cells, rows, strict=True)]
    _table("steps, by bytes moved", columns, cells, most)


def _configuration(row: Row) -> str:
    """How it was chosen, and what it is."""
    known = row.get("configuration")
    if known is None:
        return "-"
    return f"{row['chosen']}: {', '.join(f'{name} {value}' for name, value in known.items())}"


def _host_cells(row: Row) -> tuple[str, str, str]:
    return row["op"], _names(row["nodes"]), escape_controls(row["reason"])


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], most: int | None) -> None:
    print_line()
    if not rows:
        print_line(f"{title}: none")
        return
    shown = rows if most is None else rows[:most]
    print_line(f"{title}: {len(rows)}" + (f", the first {len(shown)}" if len(shown) < len(rows) else ""))
    print_table(columns, shown)


def buffer_rows(executable: Executable) -> list[dict[str, Any]]:
    """The buffers of the arena: size, the first and last step that need them, and the values that lie there."""
    plan = executable.plan
    rows: list[dict[str, Any]] = [
        {"buffer": n, "bytes": b.nbytes, "first": b.first, "last": b.last, "values": []}
        for n, b in enumerate(plan.buffers)
    ]
    for value in plan.values:
        if value.kind == "arena":
            rows[value.index]["values"].append(value.name)
    return rows


def kernel_text(executable: Executable, name: str) -> str:
    """The source of a kernel. Raises UsageError for a name that no kernel has.

    In a unit of C a kernel's text goes from where its name is first mentioned to where another's is.
    """
    triton = executable.sources.get(f"{name}.triton.py")
    if triton is not None:
        return triton.strip()
    names = () if executable.program is None else executable.program.code.functions
    pattern = r"^def (\w+)" if name not in names else rf"\b({'|'.join(sorted(names, key=len, reverse=True))})(?:\b|_)"
    owner, found = "", []
    for text in executable.sources.values():
        owner = ""
        for line in text.split("\n"):
            match = re.search(pattern, line)
            owner = match.group(1) if match else owner
            found += [line] if owner == name else []
    if not found:
        known = ", ".join(dict.fromkeys(row["kernel"] for row in executable.report.kernels))
        raise UsageError(f"no kernel is called {name!r}; there are {known}")
    return "\n".join(found).strip()


def _cost(row: Row, which: str) -> int:
    cost = row[which]
    return 0 if cost is None else int(cost["bytes"])


def _size(value: object) -> float:
    """For sorting: what only a run tells comes first."""
    return float(value) if isinstance(value, int) else float("inf")


def _number(value: object) -> str:
    match value:
        case int():
            return f"{value:,}"
        case None:
            return "unknown"
        case _:
            return str(value)


def _bytes(value: object) -> str:
    return bytes_text(value) if isinstance(value, int) else _number(value)


def _names(nodes: Sequence[str]) -> str:
    shown = ", ".join(escape_controls(node) or "-" for node in nodes[:4])
    return shown + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")


def _counted(names: Iterator[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common()) or "none"
