"""PREDICTED latencies of the zoo on GPUs that are not there, beside figures that others have published.

    python -m fusible.benchmarks.predictions [MODEL...] [--batch N...] [--gpu NAME...] [--precision fp16] [--csv FILE]
    python -m fusible.benchmarks.predictions --markdown

Models are names of the zoo; without any, all. Each is compiled up to the point where kernels would be
built: the passes of the target, the printed kernels, their schedules. The roofline model then says what each launch
takes (`compiler/backends/triton/roofline.py`), and the sum is the prediction: replayed as one CUDA graph, and launched
kernel by kernel. Nothing is measured, nothing is built, no GPU is asked. Steps that no Triton kernel does are counted
as `host`; where there are any, the prediction is of the others only.

`results/public_latency.csv` holds what AITemplate and TensorRT are published to take for the same network, batch and
precision, with sources; boards, software and years differ, so they stand beside the predictions and are no yardstick.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path

from fusible.benchmarks.report.table import write_table
from fusible.benchmarks.zoo.architectures.table import ARCHITECTURES
from fusible.benchmarks.zoo.catalog import Variant, obtain
from fusible.benchmarks.zoo.catalog import names as catalog
from fusible.compiler.api import import_graph
from fusible.compiler.backends.triton.backend import TritonBackend
from fusible.compiler.backends.triton.f32_products import IEEE
from fusible.compiler.backends.triton.gpu_targets import GpuTarget, gpu_target
from fusible.compiler.backends.triton.launches import LaunchWork, launch_work, predict_launch, weights_stay
from fusible.compiler.backends.triton.overlap import can_overlap
from fusible.compiler.backends.triton.roofline import model_seconds, roofline_seconds
from fusible.compiler.costs import Costs
from fusible.compiler.frontend.signature import ShapeRequest
from fusible.compiler.ir.graph import Graph
from fusible.compiler.options import Options
from fusible.compiler.pipeline import pipeline
from fusible.compiler.run_passes import run_passes
from fusible.errors import UsageError

__all__ = ["Predicted", "Published", "main", "markdown", "predicted", "predictions", "published", "recorded"]

RECORDED = Path(__file__).parent / "results" / "gpu_predictions.csv"
PUBLISHED = Path(__file__).parent / "results" / "public_latency.csv"
GPUS = ("a100-40gb", "a100", "h100")
BATCHES = (1, 32)


@dataclass(frozen=True, slots=True)
class Predicted:
    """One model on one GPU, in milliseconds, all predictions.

    kernels, host: launches, and steps no kernel does. graph_ms: replayed as a CUDA graph, launches_ms: launched one
    by one. roofline_ms: what the peaks leave for the kernels at least. bound: what decides most of the time.
    """

    model: str
    gpu: str
    batch: int
    precision: str
    kernels: int
    host: int
    graph_ms: float
    launches_ms: float
    roofline_ms: float
    bound: str


@dataclass(frozen=True, slots=True)
class Published:
    """A latency that others published, in milliseconds."""

    system: str
    gpu: str
    model: str
    batch: int
    precision: str
    ms: float
    source: str
    date: str
    note: str


def published() -> list[Published]:
    """What is published, in the order of the file."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return [
            Published(
                row["system"], row["gpu"], row["model"], int(row["batch"]), row["precision"], float(row["ms"]),
                row["source"], row["date"], row["note"],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def recorded() -> list[Predicted]:
    """The predictions that were kept, in the order of the file."""
    with RECORDED.open(encoding="utf-8", newline="") as file:
        return [
            Predicted(
                row["model"], row["gpu"], int(row["batch"]), row["precision"], int(row["kernels"]), int(row["host"]),
                float(row["graph_ms"]), float(row["launches_ms"]), float(row["roofline_ms"]), row["bound"],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def markdown(rows: Sequence[Predicted], others: Sequence[Published]) -> list[str]:
    """The lines of a table: a model and batch a line, milliseconds as a graph / launched one by one, then others'."""
    gpus = list(dict.fromkeys(row.gpu for row in rows))
    short = {gpu_target(name).name: name for name in GPUS}
    lines = [f"| model | batch | kernels | {' | '.join(gpus)} | published |", "|---" * (len(gpus) + 4) + "|"]
    for model, batch in dict.fromkeys((row.model, row.batch) for row in rows):
        found = {row.gpu: row for row in rows if (row.model, row.batch) == (model, batch)}
        cells = [f"{found[gpu].graph_ms:.3g} / {found[gpu].launches_ms:.3g}" if gpu in found else "" for gpu in gpus]
        first = next(iter(found.values()))
        kernels = f"{first.kernels}" + (f" + {first.host} on the host" if first.host else "")
        theirs = [
            f"{other.system} {other.ms:g} ({other.gpu}, {other.precision})"
            for other in others
            if (other.model, other.batch) == (model, batch) and other.gpu in [short.get(gpu) for gpu in gpus]
        ]
        lines.append(f"| {model} | {batch} | {kernels} | {' | '.join(cells)} | {', '.join(theirs)} |")
    return lines


def predictions(name: str, batch: int, gpus: Sequence[GpuTarget], options: Options) -> Iterator[Predicted]:
    """The predictions of a model of the zoo, on each GPU.

    Raises UsageError for a trained model with another batch of its own, and what importing and the passes raise.
    """
    model = obtain(name, Variant(dynamic=True) if name in ARCHITECTURES else Variant(batch=batch))
    shapes: dict[str, ShapeRequest] = {"batch": batch}
    if name not in ARCHITECTURES:
        shapes = {key: array.shape for key, array in model.inputs.items()}
    graphs: dict[str, Graph] = {}
    for gpu in gpus:
        if gpu.target not in graphs:
            graph = import_graph(model.path, shapes=shapes, options=options)
            run_passes(pipeline(gpu.target, plugins=False), graph, options, gpu.target)
            graphs[gpu.target] = graph
        yield predicted(graphs[gpu.target], gpu, options, name, batch)


def predicted(graph: Graph, gpu: GpuTarget, options: Options, name: str, batch: int) -> Predicted:
    """The prediction for a graph after the passes of the GPU's target."""
    works, host = _works(graph, gpu, options)
    warm = weights_stay(works, gpu)
    made = [predict_launch(work, gpu, warm=warm) for work in works]
    seconds = [prediction.seconds for prediction in made]
    share: dict[str, float] = {}
    for prediction in made:
        share[prediction.bound.value] = share.get(prediction.bound.value, 0.0) + prediction.seconds
    serial = (options.precision, options.products(gpu)) == ("fp32", IEEE)  # see `PrintedKernel.serial`
    overlaps = can_overlap(gpu) and not serial
    least = sum(roofline_seconds(gpu, work.operations or 0.0, work.bytes, work.kind) for work in works)
    return Predicted(
        name,
        gpu.name,
        batch,
        options.precision,
        len(works),
        host,
        round(1e3 * model_seconds(seconds, graph=True, overlaps=overlaps), 4),
        round(1e3 * model_seconds(seconds, graph=False), 4),
        round(1e3 * least, 4),
        max(share, key=lambda bound: share[bound], default=""),
    )


def _works(graph: Graph, gpu: GpuTarget, options: Options) -> tuple[list[LaunchWork], int]:
    """The launches of a graph, and how many steps call NumPy. Sizes that only a run tells count as their least."""
    backend = TritonBackend(gpu.target, gpu, options.products(gpu))
    backend.prepare(graph)
    costs, works, host = Costs(), list[LaunchWork](), 0
    for node in graph:
        if backend.done(node):  # a concatenation whose operands lie in it
            continue
        printed = backend.kernel_of(node)
        if isinstance(printed, str):
            host += not node.op.view
            continue
        built, kernel = printed
        works.append(launch_work(node.op.name, node, built, kernel, costs.node(node)))
    return works, host


def main(arguments: list[str] | None = None) -> int:
    """Predict, print, write a CSV file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--batch", nargs="*", type=int, default=BATCHES)
    parser.add_argument("--gpu", nargs="*", default=GPUS)
    parser.add_argument("--precision", default="fp16", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--markdown", action="store_true", help="the table of docs/gpu_predictions.md, from its rows")
    chosen = parser.parse_args(arguments)
    if chosen.markdown:
        print("\n".join(markdown(recorded(), published())))
        return 0
    gpus = [gpu_target(name) for name in chosen.gpu]
    names = {gpu.name: name for name, gpu in zip(chosen.gpu, gpus, strict=True)}
    rows = []
    print("PREDICTED milliseconds of one inference; of AITemplate and TensorRT: published, other boards and software")
    print(f"{'model':20s} {'GPU':16s} {'batch':>5s} {'kernels':>7s} {'graph':>9s} {'launches':>9s} {'roofline':>9s}")
    for name, batch in product(chosen.models or catalog(), chosen.batch):
        try:
            for row in predictions(name, batch, gpus, Options(precision=chosen.precision)):
                rows.append(row)
                key = names[row.gpu], name, batch
                print(_line(row, [p for p in published() if (p.gpu, p.model, p.batch) == key]), flush=True)
        except UsageError as refusal:
            print(f"{name:20s} {refusal}", flush=True)
        if chosen.csv is not None:
            _write(chosen.csv, rows)
    return 0


def _line(row: Predicted, others: Sequence[Published]) -> str:
    host = f"  {row.host} steps on the host" if row.host else ""
    theirs = "".join(f"  {other.system} {other.precision} {other.ms:.2f}" for other in others)
    return (
        f"{row.model:20s} {row.gpu:16s} {row.batch:5d} {row.kernels:7d} {row.graph_ms:9.3f} {row.launches_ms:9.3f} "
        f"{row.roofline_ms:9.3f}{host}{theirs}"
    )


def _write(path: Path, rows: Sequence[Predicted]) -> None:
    write_table(path, [field.name for field in fields(Predicted)], map(astuple, rows))


if __name__ == "__main__":
    sys.exit(main())
