"""What fusion leaves to do: kernels and bytes of one inference, beside other compilers and beside a lower bound.

    python -m fusible.benchmarks.fusion_counts [MODEL...] [--target cpu] [--inductor] [--most RATIO] [--csv FILE]

Models are names of the zoo; without any, the architectures. `kernels` are steps that compute (host calls included),
`onnxruntime` the nodes of its optimised graph, those that only rename a tensor left out as they are of ours;
`inductor` (with --inductor; needs torch and exports the model's PyTorch source) what torch compiles it to on the CPU:
generated kernels and calls of libraries. Bytes: what our steps read and write, over what no fusion can avoid as long
as every contraction is a kernel: its operands and results once, everything else free. Exits 1 if a model has more
kernels than a peer, or moves more than RATIO times the bound.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

import fusible
from fusible.benchmarks.costs import fixed_graph, run_sizes
from fusible.benchmarks.peers.fusible_peer import steps_of
from fusible.benchmarks.peers.onnxruntime_peer import optimised_nodes
from fusible.benchmarks.report.table import write_table
from fusible.benchmarks.zoo.architectures.table import ARCHITECTURES
from fusible.benchmarks.zoo.catalog import Obtained, obtain
from fusible.compiler.ir.definition import Composite, Contraction
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbol_values import evaluate, symbols_of
from fusible.compiler.ir.types import TensorType
from fusible.passes.base import Phase

__all__ = ["Fused", "bound_bytes", "fused", "main"]

FREE = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "ReorderInput", "ReorderOutput"})
"""ONNX Runtime's operators that are not counted: renamings of a whole tensor, and changes of layout."""


@dataclass(frozen=True, slots=True)
class Fused:
    """Counts of one model; inductor: (generated kernels, library calls)."""

    model: str
    kernels: int
    onnxruntime: int
    inductor: tuple[int, int] | None
    moved: float
    bound: float

    @property
    def ratio(self) -> float:
        """Bytes moved over the bound; NaN if either is not known."""
        return self.moved / self.bound if self.bound else float("nan")

    @property
    def fewest(self) -> bool:
        """True if no peer has fewer kernels, or as many."""
        return self.kernels < self.onnxruntime and (self.inductor is None or self.kernels < sum(self.inductor))


def main(arguments: list[str] | None = None) -> int:
    """Count, print, write a CSV file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--most", type=float, default=float("inf"), metavar="RATIO", help="of bytes moved to the bound")
    parser.add_argument("--inductor", action="store_true")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    print(f"{'model':20s} {'kernels':>8s} {'ort':>5s} {'inductor':>9s} {'MB moved':>9s} {'bound':>7s} {'ratio':>6s}")
    for name in options.models or ARCHITECTURES:
        rows.append(fused(obtain(name), options.target, inductor=options.inductor))
        print(_line(rows[-1]), flush=True)
    if options.csv is not None:
        _write(options.csv, rows)
    return 0 if all(row.fewest and not row.ratio > options.most for row in rows) else 1


def fused(model: Obtained, target: str = "cpu", *, inductor: bool = False) -> Fused:
    """Compile a model for the shapes of its inputs and count. Raises what compiling raises."""
    shapes = {name: array.shape for name, array in model.inputs.items()}
    executable = fusible.compile(model.path, target, shapes=shapes)
    moved = executable.report.cost["bytes"]
    graph = fixed_graph(model.path, model.inputs, (Phase.IMPORT, Phase.CANONICAL, Phase.OPTIMISE))
    return Fused(
        model.name,
        steps_of(executable.plan),
        sum(n for op, n in optimised_nodes(model.path).items() if op not in FREE),
        import_module("fusible.benchmarks.inductor_counts").inductor_calls(model.name) if inductor else None,
        float(moved) if isinstance(moved, int) else float("nan"),
        bound_bytes(graph, model.inputs),
    )


def bound_bytes(graph: Graph, inputs: Mapping[str, np.ndarray]) -> float:
    """Bytes of the operands and results of each contraction, each value once for each contraction that has it."""
    sizes: dict[str, int] = {}
    values = [v for node in _contractions(graph) for v in dict.fromkeys([*node.inputs, *node.outputs])]
    if any(symbols_of(v.type.elements or 0) for v in values if v is not None and isinstance(v.type, TensorType)):
        sizes = run_sizes(graph, inputs)
    return float(sum(_bytes(v, sizes) for v in values))


def _contractions(graph: Graph) -> Iterator[Node]:
    """The contractions of a graph; of a composite op the op itself if it holds one: its operands and results count."""
    for node in graph:
        definition = node.op.definition(node)
        for inner in node.subgraphs:
            yield from _contractions(inner)
        composite = isinstance(definition, Composite) and any(True for _ in _contractions(definition.build(node)))
        if composite or isinstance(definition, Contraction):
            yield node


def _bytes(value: Value | None, sizes: Mapping[str, int]) -> int:
    if value is None or not isinstance(value.type, TensorType) or value.type.elements is None:
        return 0
    return int(evaluate(value.type.elements, sizes)) * value.type.dtype.numpy.itemsize


def _line(row: Fused) -> str:
    inductor = "-" if row.inductor is None else "+".join(map(str, row.inductor))
    return (
        f"{row.model:20s} {row.kernels:8d} {row.onnxruntime:5d} {inductor:>9s} {row.moved / 1e6:9.2f} "
        f"{row.bound / 1e6:7.2f} {row.ratio:6.2f}"
    )


def _write(path: Path, rows: Sequence[Fused]) -> None:
    columns = ["model", "kernels", "onnxruntime", "inductor", "bytes", "bound_bytes"]
    table = [
        (r.model, r.kernels, r.onnxruntime, "" if r.inductor is None else sum(r.inductor), int(r.moved), int(r.bound))
        for r in rows
    ]
    write_table(path, columns, table)


if __name__ == "__main__":
    sys.exit(main())
