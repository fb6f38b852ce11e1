"""Show, compare and keep results that were measured before.

    python -m fusible.benchmarks.report RESULTS.json [--html PAGE] [--history FOLDER] [--compare OLD.json]

Prints the tables. --html writes the page; --history adds the rows to models.csv and kernels.csv in a folder, and the
page shows them over time; --compare names what changed since another run, and exits 1 if anything got slower or broke.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fusible.benchmarks.records import load_results
from fusible.benchmarks.report.compare import compare, exit_code
from fusible.benchmarks.report.history import append_history, read_model_history
from fusible.benchmarks.report.page import write_page
from fusible.benchmarks.report.terminal import print_changes, print_results
from fusible.errors import FusibleError, UsageError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit code: 0, 1 for bad numbers or files, 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--html", type=Path)
    parser.add_argument("--history", type=Path)
    parser.add_argument("--compare", type=Path)
    options = parser.parse_args(arguments)
    try:
        return _report(options.results, options.html, options.history, options.compare)
    except FusibleError as error:
        sys.stderr.write(f"report: {error}\n")
        return 2 if isinstance(error, UsageError) else 1


def _report(path: Path, html: Path | None, history: Path | None, old: Path | None) -> int:
    results = load_results(path)
    before = None if old is None else load_results(old)
    print_results(results)
    if history is not None:
        print(f"{append_history(results, history)} rows added to {history}")
    if html is not None:
        write_page(results, html, () if history is None else read_model_history(history))
        print(f"page written to {html}")
    if before is None:
        return 0
    changes = compare(before, results)
    print_changes(changes)
    return exit_code(changes)


if __name__ == "__main__":
    sys.exit(main())
