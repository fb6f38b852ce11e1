"""How many nodes a model has left after the passes before fusion, beside onnxslim and ONNX Runtime's basic level.

    python -m fusible.benchmarks.node_counts [MODEL...] [--csv FILE]

Models are names of the zoo or paths; without any, the ten trained ones. Our graph is taken before fusion and written
back to standard ONNX, so that all three are counted in one vocabulary: every node of the graph and of its subgraphs
but Constants. Exits 1 if ours has more nodes than the smaller of the other two.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxslim

from fusible.benchmarks.costs import after_phases
from fusible.benchmarks.peers.onnxruntime_peer import optimised_model
from fusible.benchmarks.report.table import write_table
from fusible.benchmarks.zoo.catalog import names, obtain
from fusible.benchmarks.zoo.wheels import MODELS
from fusible.compiler.api import import_graph
from fusible.compiler.frontend.export import export_onnx
from fusible.errors import UsageError
from fusible.passes.base import Phase

__all__ = ["Counts", "counted", "counts_of", "main", "reduced"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Nodes by operator: of the file, of ours before fusion, of onnxslim's, of ONNX Runtime's basic level."""

    model: str
    file: Counter[str]
    ours: Counter[str]
    onnxslim: Counter[str]
    onnxruntime: Counter[str]

    @property
    def excess(self) -> int:
        """How many nodes ours has more than the smaller of the other two; at most 0 is what is wanted."""
        return self.ours.total() - min(self.onnxslim.total(), self.onnxruntime.total())


def main(arguments: list[str] | None = None) -> int:
    """Count, print, write a CSV file if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    print(f"{'model':28s} {'file':>6s} {'ours':>6s} {'onnxslim':>9s} {'ort basic':>10s}")
    for name in options.models or MODELS:
        rows.append(counts_of(name, obtain(name).path if name in names() else _file(name)))
        print(_line(rows[-1]), flush=True)
    if options.csv is not None:
        _write(options.csv, rows)
    return 1 if any(row.excess > 0 for row in rows) else 0


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"{name!r} is neither a model of the zoo nor a file; the zoo has {', '.join(names())}")
    return path


def counts_of(name: str, path: Path) -> Counts:
    """The counts of one model file. Raises what importing it raises; onnxslim's own errors pass through."""
    return Counts(
        name,
        counted(onnx.load(path, load_external_data=False)),
        counted(reduced(path)),
        counted(_slimmed(path)),
        counted(_optimised(path)),
    )


def counted(model: onnx.ModelProto) -> Counter[str]:
    """Nodes by operator, subgraphs and functions included, Constants not."""
    graphs = [model.graph.node, *(function.node for function in model.functions)]
    return Counter(node.op_type for nodes in graphs for node in _nodes(nodes) if node.op_type != "Constant")


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                yield from _nodes(graph.node)


def reduced(path: Path) -> onnx.ModelProto:
    """The model after all passes before fusion, as ONNX."""
    return export_onnx(after_phases(import_graph(path), (Phase.IMPORT, Phase.CANONICAL, Phase.OPTIMISE)))


def _slimmed(path: Path) -> onnx.ModelProto:
    slim = onnxslim.slim(str(path))
    assert isinstance(slim, onnx.ModelProto)
    return slim


def _optimised(path: Path) -> onnx.ModelProto:
    return optimised_model(path, "ORT_ENABLE_BASIC")


def _line(row: Counts) -> str:
    texts = [row.file.total(), row.ours.total(), row.onnxslim.total(), row.onnxruntime.total()]
    line = f"{row.model:28s} {texts[0]:6d} {texts[1]:6d} {texts[2]:9d} {texts[3]:10d}"
    if row.excess <= 0:
        return line
    fewer = min(row.onnxslim, row.onnxruntime, key=lambda counts: counts.total())
    more = {op: row.ours[op] - fewer[op] for op in sorted({*row.ours, *fewer}) if row.ours[op] != fewer[op]}
    return f"{line}   {row.excess} more: " + ", ".join(f"{op} {n:+d}" for op, n in more.items())


def _write(path: Path, rows: Sequence[Counts]) -> None:
    columns = ["model", "file", "fusible", "onnxslim", "onnxruntime_basic"]
    write_table(
        path, columns,
        [(r.model, r.file.total(), r.ours.total(), r.onnxslim.total(), r.onnxruntime.total()) for r in rows],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
