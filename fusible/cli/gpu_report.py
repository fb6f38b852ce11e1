"""The section of a report that is about a GPU, for the terminal: latency, findings and a table of launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusible.cli.console import aligned, bytes_text, escape_controls, print_line, print_table

__all__ = ["print_gpu_section"]

_COLUMNS = (
    "kernel", "programs x threads", "registers", "spills", "shared", "occupancy", "load bits", "store bits",
    "matrix", "operations", "bytes", "roofline us", "predicted us", "bound",
)  # fmt: skip


def print_gpu_section(section: Mapping[str, Any], most: int | None = None) -> None:
    """Print what `gpu_section` made; at most so many launches, those that are predicted to take longest."""
    latency = section["predicted_us"]
    facts = {
        "GPU": f"{section['gpu']} ({section['target']})",
        "launches": section["launches"],
        "predicted, one CUDA graph": _time(latency["graph"]),
        "predicted, kernel by kernel": _time(latency["launches"]),
        "sum of the rooflines": _time(latency["roofline"]),
        "steps on the host": len(section["host_steps"]),
    }
    print_line()
    for line in (*aligned(facts), f"note: {section['note']}"):
        print_line(line)
    launches = sorted(section["kernels"], key=lambda row: -float(row["predicted_us"]))
    shown = launches if most is None else launches[:most]
    print_line(f"\nkernels by predicted time: {len(launches)}" + (_first(shown) if len(shown) < len(launches) else ""))
    print_table(_COLUMNS, [_cells(row) for row in shown])
    rows = [
        (row["kernel"], finding["kind"], escape_controls(finding["what"]), escape_controls(finding["reason"]) or "none")
        for row in launches
        for finding in row["findings"]
    ]
    print_line()
    if not rows:
        print_line("findings: none")
        return
    print_line(f"findings: {len(rows)}")
    print_table(("kernel", "finding", "what", "reason"), list(dict.fromkeys(rows)))


def _first(shown: Sequence[object]) -> str:
    return f", the first {len(shown)}"


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    resident = row["occupancy"]
    operations = row["operations"]
    return (
        row["kernel"],
        f"{row['programs']} x {row['threads']}",
        row["registers"],
        row["spilled"] or "-",
        bytes_text(row["shared"]) if row["shared"] else "-",
        f"{resident['share']:.0%} ({', '.join(resident['limits'])})",
        _widths(row["loads"], row["bulk_copies"]),
        _widths(row["stores"], 0),
        " ".join(f"{name} {count}" for name, count in row["matrix"].items()) or "-",
        "unknown" if operations is None else f"{operations:,.0f}",
        bytes_text(round(row["bytes"])),
        f"{row['roofline_us']:.2f}",
        f"{row['predicted_us']:.2f}",
        row["bound"],
    )


def _widths(widths: Mapping[str, int], bulk: int) -> str:
    """As `128 (8), 32 (1)`: bits and how many places of the code."""
    texts = [f"{bits} ({count})" for bits, count in widths.items()]
    return ", ".join([*texts, *([f"bulk ({bulk})"] if bulk else [])]) or "-"


def _time(micro: float) -> str:
    return f"{micro / 1000:.3f} ms" if micro >= 1000 else f"{micro:.1f} us"
