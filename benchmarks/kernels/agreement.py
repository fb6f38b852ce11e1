"""Whether a kernel and a baseline computed the same, by the one policy of tolerances (`compiler/accuracy.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from fusible.compiler.accuracy import Bound, Comparison, StepBound, compare, kernel_bound
from fusible.compiler.costs import node_cost, trip_count
from fusible.compiler.ir.definition import Composite, Contraction, Elementwise, Opaque, Positions, Reduce, Scan, View
from fusible.compiler.ir.graph import Graph, Node
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import TensorType

__all__ = ["RANDOM", "accumulation", "agree"]

RANDOM = frozenset(
    {
        "bernoulli", "dropout", "multinomial", "random_normal", "random_normal_like", "random_uniform",
        "random_uniform_like",
    }
)  # fmt: skip
"""Ops whose results are drawn: only their types and shapes can be compared."""

# Two right answers may stand a step apart where a quotient lies on the middle between two levels.
_QUANTISED = frozenset(
    {"quantize_linear", "dynamic_quantize_linear", "dynamic_quantize_lstm", "qlinear_conv", "qlinear_matmul"}
)
_STEPS = StepBound(fraction=0.01, max_steps=2)
_LONGEST = 1 << 20


def agree(node: Node, reference: Sequence[Any], got: Sequence[Any]) -> Comparison:
    """Compare all results of a node; the worst comparison, or the first that fails."""
    if len(reference) != len(got):
        return Comparison(False, inf, inf, None, f"{len(reference)} results were expected, got {len(got)}")
    terms = accumulation(node)
    worst = Comparison(True, 0.0, 0.0, None, "")
    for number, (expected, result) in enumerate(zip(reference, got, strict=True)):
        found = _compare(node, expected, result, terms)
        if not found:
            which = f"result {number}: " if len(got) > 1 else ""
            return Comparison(False, found.max_error, found.rms_error, found.worst, which + found.reason)
        worst = max(worst, found, key=lambda comparison: comparison.max_error)
    return worst


def _compare(node: Node, expected: Any, result: Any, terms: int) -> Comparison:
    if isinstance(expected, (list, tuple)) or isinstance(result, (list, tuple)):
        if not isinstance(result, (list, tuple)) or not isinstance(expected, (list, tuple)):
            return Comparison(False, inf, inf, None, "one side is a sequence, the other is none")
        if len(expected) != len(result):
            return Comparison(False, inf, inf, None, f"a sequence of {len(expected)} was expected, got {len(result)}")
        pairs = [_compare(node, e, r, terms) for e, r in zip(expected, result, strict=True)]
        return min(pairs, key=lambda comparison: comparison.agrees, default=Comparison(True, 0.0, 0.0, None, ""))
    expected, result = np.asarray(expected), np.asarray(result)
    if node.op.name in RANDOM:
        same = expected.dtype == result.dtype and expected.shape == result.shape
        why = "" if same else f"{expected.dtype}{expected.shape} was expected, got {result.dtype}{result.shape}"
        return Comparison(same, 0.0, 0.0, None, why)
    return compare(expected, result, _bound(node, result, terms))


def _bound(node: Node, result: np.ndarray, terms: int) -> Bound | StepBound:
    return _STEPS if node.op.name in _QUANTISED else kernel_bound(result.dtype, terms)


def accumulation(node: Node) -> int:
    """How many terms an element of the result is the sum of, at most; 1 for element-wise work.

    For a composite op the sum over its parts, for a running sum the length of its axis, for another opaque op its
    operations for each element of the result.
    """
    definition = node.op.definition(node)
    match definition:
        case Elementwise() | Positions() | View():
            return 1
        case Contraction(extents=extents) | Reduce(extents=extents):
            return _literal(product(extents))
        case Composite(build):
            return _of_graph(build(node))
        case Scan():
            return _scanned(node)
        case Opaque():
            return _scanned(node) if node.op.name.startswith("cum_") else _operations_per_element(node)


def _of_graph(graph: Graph) -> int:
    total = 1
    for node in graph:
        if node.op.name == "loop":
            trip = trip_count(node)
            total += _of_graph(node.subgraphs[0]) * _literal(1 if trip is None else trip)
        else:
            total += accumulation(node) - 1
    return min(max(1, total), _LONGEST)


def _scanned(node: Node) -> int:
    """The last element of a running sum has all those before it."""
    value = node.inputs[0]
    shape = value.type.shape if value is not None and isinstance(value.type, TensorType) else None
    if not shape:
        return 1
    axis = getattr(node.attrs, "axis", None)
    return max(map(_literal, shape)) if axis is None else _literal(shape[axis])


def _operations_per_element(node: Node) -> int:
    flops, type_ = node_cost(node).flops, node.outputs[0].type if node.outputs else None
    if flops is None or not isinstance(type_, TensorType) or type_.elements is None:
        return _LONGEST
    return max(1, _literal(flops) // max(1, _literal(type_.elements)))


def _literal(count: Dim) -> int:
    return count if isinstance(count, int) else _LONGEST
