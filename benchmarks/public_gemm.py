"""What the roofline model says beside what others have measured: Triton's GEMMs of public threads, with the errors.

    python -m fusible.benchmarks.public_gemm [--rows] [--markdown]

`results/public_gemm.csv` holds the figures as their authors posted them: source, date, GPU, kernel, element type,
sizes, TFLOPS of cuBLAS (where given) and of Triton. The tutorials time with `triton.testing.do_bench`, which empties
the cache before each run; where a thread's host needs longer for a launch than the device for the kernel, the host is
what was timed. How long that is stands in no thread, but in its small sizes: all of them take the same time. So that
time, the median up to 1024 cubed, is an input of the prediction where it is over 30 us; all else comes from the model.

Two errors are stated: against the figures as posted, and scaled. Scaled: by what cuBLAS reached on the thread's board,
beside what it reached in the A100 documentation run at the same size; boards of one name differ by up to 30 %.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from fusible.compiler.backends.triton.gpu_targets import MatrixType, gpu_target
from fusible.compiler.backends.triton.roofline import Product, Tile, best_tile

__all__ = [
    "FITTED", "Errors", "PublicRow", "errors", "host_seconds", "main", "markdown", "predicted_tflops", "public_rows",
]  # fmt: skip

PUBLIC = Path(__file__).parent / "results" / "public_gemm.csv"
_DOCUMENTATION = "https://triton-lang.org/main/getting-started/tutorials/03-matrix-multiplication.html"
_THREADS = "https://github.com/triton-lang/triton/"
FITTED = frozenset({_DOCUMENTATION, f"{_THREADS}issues/3672", f"{_THREADS}pull/3546"})
"""The sources that the model's constants were fitted to; the others it had not seen."""

_TIMER = 4e-6  # seconds between the events of a timer around a kernel, beside the kernel
_HOST = 30e-6  # a device needs less than that for the smallest products
_SMALL = 1024**3
_SIZES = {"fp16": 2, "fp8": 1}
# What the tutorials' tuners choose from.
_TILES = (
    Tile(128, 256, 64, 3, 8), Tile(64, 256, 32, 4, 4), Tile(128, 128, 32, 4, 4), Tile(128, 64, 32, 4, 4),
    Tile(64, 128, 32, 4, 4), Tile(128, 32, 32, 4, 4), Tile(64, 32, 32, 5, 2), Tile(32, 64, 32, 5, 2),
    Tile(128, 64, 64, 4, 4), Tile(64, 128, 64, 4, 4), Tile(128, 256, 128, 3, 8), Tile(256, 128, 128, 3, 8),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublicRow:
    """One posted figure. cublas: None where the thread has none."""

    source: str
    date: str
    gpu: str
    kernel: str
    dtype: str
    m: int
    n: int
    k: int
    cublas: float | None
    triton: float

    @property
    def run(self) -> tuple[str, str]:
        """The run it belongs to."""
        return self.source, self.kernel

    @property
    def operations(self) -> float:
        """Of the product."""
        return 2.0 * self.m * self.n * self.k

    @property
    def seconds(self) -> float:
        """The posted time of Triton's kernel."""
        return self.operations / (self.triton * 1e12)


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of predictions of one run: the mean and the greatest of their sizes.

    rows, mean, worst: of all rows. device: of those that the device and not the host decides. scaled: as `device`, by
    the board's cuBLAS; None where that cannot be said.
    """

    source: str
    kernel: str
    gpu: str
    fitted: bool
    rows: int
    mean: float
    worst: float
    device: tuple[int, float, float]
    scaled: tuple[int, float, float] | None


def public_rows() -> list[PublicRow]:
    """The posted figures, in the order of the file."""
    with PUBLIC.open(encoding="utf-8", newline="") as file:
        return [
            PublicRow(
                row["source"], row["date"], row["gpu"], row["kernel"], row["dtype"], int(row["m"]), int(row["n"]),
                int(row["k"]), float(row["cublas_tflops"]) if row["cublas_tflops"] else None,
                float(row["triton_tflops"]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def host_seconds(rows: Sequence[PublicRow]) -> float:
    """What a launch took on the host of a run; 0 where its small sizes do not show it."""
    small = [row.seconds for row in rows if row.m * row.n * row.k <= _SMALL]
    found = median(small) if small else 0.0
    return found if found > _HOST else 0.0


def predicted_tflops(row: PublicRow, host: float) -> float:
    """TFLOPS that the model predicts for a row, timed as its author did."""
    return row.operations / max(host, _device_seconds(row)) / 1e12


def _device_seconds(row: PublicRow) -> float:
    product = Product(row.m, row.n, row.k, size=_SIZES[row.dtype], kind=MatrixType(row.dtype))
    return best_tile(gpu_target(row.gpu), product, _TILES)[1].seconds + _TIMER


def errors(rows: Sequence[PublicRow]) -> list[Errors]:
    """The errors, run by run."""
    runs: dict[tuple[str, str], list[PublicRow]] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)
    reference = {(r.gpu, r.m, r.n, r.k): r.cublas for r in rows if r.source == _DOCUMENTATION}
    return [_of_run(run, reference) for run in runs.values()]


def _of_run(run: Sequence[PublicRow], reference: dict[tuple[str, int, int, int], float | None]) -> Errors:
    host = host_seconds(run)
    every = [predicted_tflops(row, host) / row.triton - 1 for row in run]
    bound = [row for row in run if _device_seconds(row) > host and row.seconds > 1.05 * host]
    device = [predicted_tflops(row, host) / row.triton - 1 for row in bound]
    scaled = []
    for row in bound:
        theirs = reference.get((row.gpu, row.m, row.n, row.k))
        if theirs is not None and row.cublas is not None and row.source != _DOCUMENTATION:
            scaled.append(predicted_tflops(row, host) * row.cublas / theirs / row.triton - 1)
    first = run[0]
    total = _summary(every)
    return Errors(
        first.source,
        first.kernel,
        first.gpu,
        first.source in FITTED,
        total[0],
        total[1],
        total[2],
        _summary(device),
        _summary(scaled) if scaled else None,
    )


def _summary(found: Sequence[float]) -> tuple[int, float, float]:
    return (len(found), fmean(map(abs, found)), max(map(abs, found))) if found else (0, 0.0, 0.0)


def main(arguments: list[str] | None = None) -> int:
    """Print the errors of each run, or every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", action="store_true", help="every figure beside its prediction")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/gpu_predictions.md and nothing else")
    options = parser.parse_args(arguments)
    rows = public_rows()
    if options.markdown:
        print("\n".join(markdown(errors(rows))))
        return 0
    if options.rows:
        _print_rows(rows)
    print("mean and greatest error of the PREDICTED TFLOPS; device: rows that no host limits; scaled: by the board")
    for found in errors(rows):
        name = f"{found.source.removeprefix('https://')} {found.kernel}"
        scaled = "-" if found.scaled is None else f"{found.scaled[1]:.1%} / {found.scaled[2]:.1%}"
        print(
            f"{'fitted' if found.fitted else 'unseen':7s} {found.gpu:5s} {found.rows:3d} rows "
            f"{found.mean:6.1%} / {found.worst:6.1%}   device {found.device[0]:3d}: {found.device[1]:6.1%} / "
            f"{found.device[2]:6.1%}   scaled {scaled:15s} {name}"
        )
    return 0


def markdown(found: Sequence[Errors]) -> list[str]:
    """The lines of a table of errors."""
    lines = ["| run | GPU | rows | mean, greatest | device rows | mean, greatest | scaled |", "|---" * 7 + "|"]
    for run in found:
        name = run.source.rpartition("/")[2].removesuffix(".html")
        device = f"{run.device[1]:.1%}, {run.device[2]:.1%}"
        scaled = "" if run.scaled is None else f"{run.scaled[1]:.1%}, {run.scaled[2]:.1%}"
        lines.append(
            f"| [{name}]({run.source}), {run.kernel}{', fitted' * run.fitted} | "
            f"{run.gpu} | {run.rows} | {run.mean:.1%}, {run.worst:.1%} | {run.device[0]} | {device} | {scaled} |"
        )
    return lines


def _print_rows(rows: Sequence[PublicRow]) -> None:
    hosts = {row.run: host_seconds([r for r in rows if r.run == row.run]) for row in rows}
    for row in rows:
        tflops = predicted_tflops(row, hosts[row.run])
        cublas = "" if row.cublas is None else f"{row.cublas:8.1f}"
        print(
            f"{row.gpu:5s} {row.dtype:5s} {row.m:5d} {row.n:5d} {row.k:5d} cuBLAS {cublas:8s} Triton {row.triton:8.1f} "
            f"predicted {tflops:8.1f} {tflops / row.triton - 1:+7.1%}  {row.source.rpartition('/')[2]} {row.kernel}"
        )


if __name__ == "__main__":
    sys.exit(main())
