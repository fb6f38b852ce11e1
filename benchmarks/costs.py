"""The work of one inference: operations, and the bytes that no kernel can avoid to move.

Operations are those of the graph as the model states it, constants folded and shapes fixed by the inputs, before any
rewrite that changes the work (batch normalisation is not folded into weights). Bytes are the inputs, the weights and
the outputs, each once; of a table from which rows are gathered only as many bytes as are gathered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusible.compiler.api import import_graph
from fusible.compiler.costs import Costs, reads
from fusible.compiler.ir.evaluate import RuntimeValue, bind_symbols, evaluate_graph
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.symbol_values import evaluate, symbols_of
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType
from fusible.compiler.options import Options
from fusible.compiler.pipeline import pipeline
from fusible.compiler.run_passes import run_passes
from fusible.passes.base import Phase
from fusible.passes.manager import Pipeline

__all__ = ["after_phases", "fixed_graph", "model_cost", "run_sizes"]


def model_cost(path: Path, inputs: Mapping[str, np.ndarray]) -> tuple[float | None, float]:
    """(operations, bytes) of one inference of a model file on inputs of these shapes.

    Operations are None if those of a node are not known, or how often a loop runs. Raises FusibleError for a model that
    cannot be imported.
    """
    graph = fixed_graph(path, inputs, (Phase.IMPORT, Phase.CANONICAL))
    costs = Costs()
    flops = costs.graph(graph).flops
    sizes: dict[str, int] = {}
    if flops is not None and symbols_of(flops):
        sizes = run_sizes(graph, inputs)
    given = sum(int(np.asarray(inputs[v.name]).nbytes) for v in graph.inputs if v.uses and v.name in inputs)
    made = sum(_known_bytes(type_.elements, sizes) * type_.dtype.numpy.itemsize for type_ in _tensors(graph.outputs))
    weights = sum(_weights(graph, sizes).values())
    return _number(flops, sizes), float(given + weights + made)


def fixed_graph(path: Path, inputs: Mapping[str, np.ndarray], phases: tuple[Phase, ...]) -> Graph:
    """The graph of a model with the shapes of its inputs fixed, after the default passes of these phases."""
    shapes = {name: array.shape for name, array in inputs.items()}
    return after_phases(import_graph(path, shapes=shapes), phases)


def after_phases(graph: Graph, phases: tuple[Phase, ...]) -> Graph:
    """The same graph, changed by the default passes of these phases."""
    selected = pipeline("numpy", plugins=False)
    stages = tuple(s if s.phase in phases else replace(s, passes=()) for s in selected.stages)
    run_passes(Pipeline(stages), graph, Options(), "numpy")
    return graph


def run_sizes(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The shape symbols that only a run can tell, from a run of the graph, node by node."""
    sizes: dict[str, int] = {}

    def note(value: Value, result: RuntimeValue) -> None:
        bind_symbols(value.type, result, sizes)

    evaluate_graph(graph, [inputs[value.name] for value in graph.inputs], observe=note)
    return sizes


def _number(count: Dim | None, sizes: Mapping[str, int]) -> float | None:
    """A count in numbers; None where a symbol of it has no value (it stands inside a branch or loop)."""
    if count is None or any(s.name not in sizes for s in symbols_of(count)):
        return None
    return float(evaluate(count, sizes))


def _known_bytes(elements: Dim | None, sizes: Mapping[str, int]) -> int:
    return int(_number(elements, sizes) or 0)


def _tensors(values: tuple[Value, ...]) -> list[TensorType]:
    return [v.type for v in values if isinstance(v.type, TensorType)]


def _weights(graph: Graph, sizes: Mapping[str, int]) -> dict[int, int]:
    """By identity of the constant: the bytes that are read of it. Of an `If` the branch that reads more."""
    found: dict[int, int] = {}
    for node in graph:
        if node.op.name == "if":
            branches = [_weights(branch, sizes) for branch in node.subgraphs]
            _join(found, max(branches, key=lambda branch: sum(branch.values())))
        else:
            for inner in node.subgraphs:
                _join(found, _weights(inner, sizes))
        if any(v is not None and v.constant is not None for v in node.inputs):
            for value, read in zip(node.inputs, reads(node), strict=True):
                if value is not None and value.constant is not None:
                    _join(found, {id(value.constant): _known_bytes(read, sizes)})
    return found


def _join(found: dict[int, int], more: Mapping[int, int]) -> None:
    for key, count in more.items():
        found[key] = max(found.get(key, 0), count)
