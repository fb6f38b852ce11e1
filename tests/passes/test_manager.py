"""Pipelines and instruments: order, names, cycles, dumps, and who broke the graph."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.pipeline import pipeline
from fusible.errors import LimitExceeded, PassError, UsageError
from fusible.passes import Exactness, Pass, PassContext, Phase, Pipeline
from fusible.passes.dead_code import DeadCode
from fusible.passes.instruments import Diff, Dump, Timing, Verify
from tests.passes.checking import random, tensor


class Named(Pass):
    def __init__(self, name: str, changes: int = 0) -> None:
        self.name, self.changes, self.runs = name, changes, 0

    def run(self, graph: Graph, context: PassContext) -> int:
        self.runs += 1
        self.changes, now = max(0, self.changes - 1), self.changes
        return int(now > 0)


def sample() -> Pipeline:
    return Pipeline.of({Phase.CANONICAL: [Named("a"), Named("b"), Named("a")], Phase.FUSE: [Named("f")]})


def test_passes_are_inserted_by_pass_or_phase() -> None:
    new = Named("new")
    given = sample()
    assert given.insert(new, after="a").names == ("a", "b", "a", "new", "f")
    assert given.insert(new, before="a").names == ("new", "a", "b", "a", "f")
    assert given.insert(new, after="canonical").names == ("a", "b", "a", "new", "f")
    assert given.insert(new, before="fuse").names == ("a", "b", "a", "new", "f")
    assert given.insert(new, after="lower").names == ("a", "b", "a", "f", "new")
    assert given.without("a").names == ("b", "f")
    assert given.names == ("a", "b", "a", "f")


def test_wrong_names_are_explained() -> None:
    with pytest.raises(UsageError, match="no phase or pass 'c' in the pipeline; it has import, canonical"):
        sample().insert(Named("new"), after="c")
    with pytest.raises(UsageError, match="no pass 'canonical' in the pipeline; it has a, b, a, f"):
        sample().without("canonical")
    with pytest.raises(UsageError, match="either after= or before="):
        sample().insert(Named("new"))


def test_a_cycle_runs_until_nothing_changes() -> None:
    a, b = Named("a", 2), Named("b", 1)
    Pipeline.of({Phase.CANONICAL: [a, b]}, cycles=[Phase.CANONICAL]).run(Graph("g"), PassContext())
    assert (a.runs, b.runs) == (3, 2)


def test_a_pass_that_is_too_loose_does_not_run() -> None:
    a = Named("a", 1)
    a.exactness = Exactness.APPROXIMATE
    assert Pipeline.of({Phase.FUSE: [a]}).run(Graph("g"), PassContext()) == 0
    assert a.runs == 0


class Breaker(Pass):
    name = "breaker"

    def run(self, graph: Graph, context: PassContext) -> int:
        next(iter(graph)).output.type = TensorType(DType.F32, (99,))
        return 1


def dead(length: int = 2) -> Graph:
    graph = Graph("g")
    x = tensor(graph, [3])
    value = x
    for _ in range(length):
        value = graph.add("exp", value, name="unused")
    graph.set_outputs([graph.add("relu", x, name="used")], ["y"])
    return graph


def test_the_pass_that_broke_the_graph_is_named_with_its_dumps(tmp_path: Path) -> None:
    broken = Pipeline.of({Phase.IMPORT: [DeadCode(), Breaker()]})
    with pytest.raises(PassError, match=r"pass 'breaker': it left the graph broken: invariant 9") as caught:
        broken.run(dead(), PassContext(), [Dump(tmp_path), Verify()])
    assert [Path(p).name for p in caught.value.dumps] == ["000_import.txt", "001_dead-code.txt", "002_breaker.txt"]


def test_dumps_diffs_and_times(tmp_path: Path) -> None:
    timing = Timing()
    made = Pipeline.of({Phase.IMPORT: [DeadCode(), DeadCode()]})
    made.run(dead(), PassContext(), [Dump(tmp_path), Diff(tmp_path), timing])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000_import.txt", "001_dead-code.diff", "001_dead-code.txt"]
    difference = (tmp_path / "001_dead-code.diff").read_text()
    removed = [line for line in difference.splitlines() if line.startswith("-  ")]
    assert len(removed) == 2 and all("exp(" in line for line in removed)
    assert [(s.name, s.changes) for s in timing.steps] == [("dead-code", 2), ("dead-code", 0)]
    assert "dead-code" in str(timing) and set(timing.seconds()) == {"dead-code"}


def test_the_deadline_is_kept() -> None:
    late = PassContext(deadline=time.monotonic() - 1, compile_seconds=5)
    with pytest.raises(LimitExceeded, match="compile_seconds"):
        pipeline("numpy").run(dead(), late)


def test_the_default_pipeline() -> None:
    assert {"fold-constants", "canonicalise", "dead-code", "fuse-elementwise"} <= set(pipeline("numpy").names)
    assert {"fold-constants", "canonicalise", "dead-code", "fuse-regions"} <= set(pipeline("cpu").names)
    with pytest.raises(UsageError, match="unknown target"):
        pipeline("abacus")


def layered(blocks: int) -> Graph:
    """Blocks of what exporters write: shapes computed at run time, doubled transposes, dead branches."""
    graph = Graph("g")
    x = tensor(graph, ["n", 4])
    for index in range(blocks):
        size = graph.add("shape", x)
        y = graph.add("reshape_dynamic", graph.add("transpose", x, perm=(1, 0)), size)
        y = graph.add("transpose", graph.add("mul", y, graph.constant(np.float32(1))))
        y = graph.add("transpose", y, perm=None)
        x = graph.add("add", y, graph.constant(np.float32(index)))
        graph.add("exp", x)
        x = graph.add("mul", x, graph.add("sigmoid", x))
    graph.set_outputs([x], ["y"])
    return graph


def test_the_whole_pipeline_keeps_numbers() -> None:
    from fusible.compiler.ir.clone import clone_graph
    from fusible.compiler.ir.evaluate import evaluate_graph
    from tests.tolerance import assert_close

    graph = layered(3)
    before = clone_graph(graph)
    pipeline("numpy").run(graph, PassContext(), [Verify()])
    inputs = [random((5, 4))]
    (want,), (got,) = evaluate_graph(before, inputs), evaluate_graph(graph, inputs)
    assert isinstance(want, np.ndarray) and isinstance(got, np.ndarray)
    assert_close(got, want, accumulation=64)


def test_the_example_file_registers_its_pass() -> None:
    from fusible.compiler.pass_files import load_pass_file

    example = Path(__file__).parents[2] / "docs" / "examples" / "fold_scales.py"
    names = load_pass_file(example, pipeline("numpy")).names
    assert names.index("fold-scales") == names.index("recompose") - 1


class Raiser(Pass):
    name = "raiser"

    def run(self, graph: Graph, context: PassContext) -> int:
        raise KeyError("mine")


def test_an_error_of_a_users_pass_names_it() -> None:
    pipeline = Pipeline.of({Phase.IMPORT: [Raiser()]})
    with pytest.raises(KeyError) as caught:
        pipeline.run(Graph("g"), PassContext())
    (note,) = caught.value.__notes__
    assert "'raiser'" in note and "without" in note
