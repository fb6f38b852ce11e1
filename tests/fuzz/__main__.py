"""python -m tests.fuzz [--seed N] [--count N] [--seconds S] [--save DIR]: search for mutants that break the promise."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from tests.fuzz.run import fuzz


def main() -> int:
    """Fuzz and print; exit 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--save", type=Path, help="folder for the mutants that were found")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    result = fuzz(options.seed, options.count, options.seconds)
    print(f"{result.mutants} mutants: {result.ran} ran, {result.refused} refused, {len(result.found)} kinds of finding")
    for number, (kind, (name, data)) in enumerate(result.found.items()):
        print(f"  {name}: {kind}")
        if options.save is not None:
            options.save.mkdir(parents=True, exist_ok=True)
            (options.save / f"{number}_{name}.onnx").write_bytes(data)
    return 1 if result.found else 0


if __name__ == "__main__":
    sys.exit(main())
