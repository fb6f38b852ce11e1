"""python -m tests.differential [--target T] [--seed N] [--count N] [--seconds S] [--save DIR]: random graphs."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.printer

from fusible.runtime.native.machine import usable_threads
from tests.differential.run import Finding, Findings, search


def main() -> int:
    """Search and print; exit 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=("cpu", "triton-cpu"), default="cpu", help="what is compared with numpy")
    parser.add_argument("--seed", type=int, default=1, help="of the first graph; the others count up")
    parser.add_argument("--count", type=int, default=10_000, help="of graphs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no batch after so long")
    parser.add_argument("--workers", type=int, default=usable_threads(), help="processes")
    parser.add_argument("--save", type=Path, help="folder for the graphs that were found, and their inputs")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    told = 0

    def progress(result: Findings) -> None:
        nonlocal told
        for finding in result.found[told:]:
            print(_text(finding), flush=True)
        told = len(result.found)
        print(f"{result.graphs} graphs, {len(result.found)} findings", file=sys.stderr, flush=True)

    limits = options.seed, options.count, options.seconds
    result = search(*limits, target=options.target, workers=options.workers, progress=progress)
    refused = sum(result.refused.values())
    print(
        f"{result.graphs} graphs of {result.nodes} nodes: {len(result.found)} findings; "
        f"{refused} were refused by numpy, {result.ill} outputs are ill-conditioned"
    )
    for reason, times in result.refused.most_common(10):
        print(f"  refused {times} times: {reason}")
    for kind, times in result.alike.most_common():
        print(f"  found {times} times: {kind}")
    if options.save is not None:
        _save(result, options.save)
    return 1 if result.found else 0


def _text(finding: Finding) -> str:
    settings = f"threads={finding.settings.threads} exact={finding.settings.exact}"
    return f"seed {finding.seed} {settings}: {finding.reason}\n{onnx.printer.to_text(finding.sample.model)}"


def _save(result: Findings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for finding in result.found:
        onnx.save(finding.sample.model, folder / f"{finding.seed}.onnx")
        np.savez(folder / f"{finding.seed}.npz", **finding.sample.feeds)


if __name__ == "__main__":
    sys.exit(main())
