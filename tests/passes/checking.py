"""Run a pass and check what every pass owes: valid in, valid out, twice equals once, the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.text import print_graph
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.ir.verify import verify
from fusible.compiler.run_passes import compare_rewrite
from fusible.passes import Exactness, Kind, Pass, PassContext
from tests.tolerance import assert_close

F32 = DType.F32
I64 = DType.I64


def context(**settings: object) -> PassContext:
    """A context that checks every rewrite."""
    made = PassContext(verify="rewrites", compare=compare_rewrite)
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def tensor(graph: Graph, shape: Sequence[object], name: str = "x", dtype: DType = F32) -> Value:
    """An input; strings in the shape are symbols, which the input defines."""
    dims = [graph.symbols.fresh(d) if isinstance(d, str) else d for d in shape]
    return graph.input(TensorType(dtype, tuple(dims)), name)  # type: ignore[arg-type]


def random(shape: Sequence[int], dtype: DType = F32, seed: int = 0) -> np.ndarray:
    """Seeded normal numbers, or 0 and 1 for integers and booleans."""
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        return rng.standard_normal(tuple(shape)).astype(dtype.numpy)
    return rng.integers(0, 2, tuple(shape)).astype(dtype.numpy)


def run(
    pass_: Pass, graph: Graph, inputs: Sequence[np.ndarray], expected: int | None, **settings: object
) -> PassContext:
    """Run a pass; check the count (None: any), numbers, invariants, and that a second run changes nothing."""
    verify(graph)
    before = evaluate_graph(graph, list(inputs))
    used = context(**settings)
    count = pass_.run(graph, used)
    verify(graph)
    assert count > 0 if expected is None else count == expected, print_graph(graph)
    for was, now in zip(before, evaluate_graph(graph, list(inputs)), strict=True):
        assert isinstance(was, np.ndarray) and isinstance(now, np.ndarray)
        if pass_.exactness is Exactness.EXACT and was.dtype.kind not in "fc":
            assert np.array_equal(was, now)
        else:
            assert_close(now, was, accumulation=64)
    text = print_graph(graph)
    if not used.exhausted:
        assert pass_.run(graph, context(**settings)) == 0
        assert print_graph(graph) == text
    return used


def ops(graph: Graph) -> list[str]:
    """The ops in order."""
    return [node.op.name for node in graph]


def reasons(used: PassContext, kind: Kind = Kind.DECLINED) -> str:
    """All reasons of one kind."""
    return "\n".join(e.reason for e in used.ledger.select(kind))
