"""What the kernels of the zoo do not do that is expected of them: every kernel built for a GPU, and looked at.

    python -m fusible.benchmarks.kernel_findings [MODEL...] [--target cuda:sm_90] [--precision fp16] [--csv FILE]

Models are names of the zoo; without any, all. No GPU is needed. Expected is: nothing spills; products and convolutions
whose m, n and k are at least 64 use matrix units, on sm_90 wgmma; kernels without contractions load and store 128 bits
at once (`compiler/backends/triton/kernel_report.py`). Findings with a reason are exceptions, those without are defects;
both are printed, each once for a kernel. Exits 1 if a kernel has a defect.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import fusible
from fusible.benchmarks.report.table import write_table
from fusible.benchmarks.zoo.catalog import names, obtain

__all__ = ["KernelFinding", "findings", "main"]


@dataclass(frozen=True, slots=True)
class KernelFinding:
    """A finding of one kernel of a model; reason: "" for a defect."""

    model: str
    target: str
    precision: str
    kernel: str
    kind: str
    what: str
    reason: str


def findings(model: str, section: Mapping[str, Any], precision: str) -> list[KernelFinding]:
    """The findings in the section of a report that is about a GPU, each once for a kernel."""
    found = (
        KernelFinding(model, section["target"], precision, row["kernel"], f["kind"], f["what"], f["reason"])
        for row in section["kernels"]
        for f in row["findings"]
    )
    return list(dict.fromkeys(found))


def main(arguments: list[str] | None = None) -> int:
    """Build, print, write a CSV file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--target", default="cuda:sm_90")
    parser.add_argument("--precision", default="fp16", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--csv", type=Path)
    chosen = parser.parse_args(arguments)
    every: list[KernelFinding] = []
    print(f"{'model':28s} {'kernels':>7s} {'launches':>8s} {'on host':>7s} {'matrix':>6s} {'exceptions':>10s} defects")
    for name in chosen.models or names():
        model = obtain(name)
        shapes = {key: array.shape for key, array in model.inputs.items()}
        options = fusible.Options(precision=chosen.precision, allow_host=True)
        section = fusible.compile(model.path, chosen.target, shapes=shapes, options=options).report.gpu
        found = findings(name, section, chosen.precision)
        every += found
        print(_line(name, section, found), flush=True)
        for finding in found:
            reason = finding.reason or "NO REASON KNOWN"
            print(f"    {finding.kernel}: {finding.kind}, {finding.what}; {reason}", flush=True)
        if chosen.csv is not None:
            _write(chosen.csv, every)
    return 1 if any(not finding.reason for finding in every) else 0


def _line(name: str, section: Mapping[str, Any], found: Sequence[KernelFinding]) -> str:
    launches = section.get("kernels", [])
    kernels = {row["kernel"] for row in launches}
    matrix = {row["kernel"] for row in launches if row["matrix"]}
    defects = sum(not finding.reason for finding in found)
    return (
        f"{name:28s} {len(kernels):7d} {len(launches):8d} {len(section['host_steps']):7d} {len(matrix):6d} "
        f"{len(found) - defects:10d} {defects}"
    )


def _write(path: Path, rows: Sequence[KernelFinding]) -> None:
    write_table(path, [field.name for field in fields(KernelFinding)], map(astuple, rows))


if __name__ == "__main__":
    sys.exit(main())
