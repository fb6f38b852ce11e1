"""inline-guarded-if: a branch that only fails becomes a requirement; other branches stay."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.evaluate import evaluate_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType
from fusible.errors import ExecutionError
from fusible.passes.dead_code import DeadCode
from fusible.passes.inline_guarded_if import InlineGuardedIf
from tests.passes.checking import ops, random, run, tensor


def _branch(op: str, like: Graph) -> Graph:
    g = Graph(op, like.symbols)
    x = tensor(g, (3, 2))
    if op == "fail":
        failing = g.add_node("fail", [], {"message": "too long", "results": (x.type,)}, outputs=1)
        g.set_outputs(failing.outputs, ["y"])
    else:
        g.set_outputs([g.add(op, x)], ["y"])
    return g


def _chosen(then: str, otherwise: str) -> Graph:
    g = Graph("test")
    flag, x = tensor(g, (), "flag", DType.BOOL), tensor(g, (3, 2))
    node = g.add_node("if", [flag, x], {}, subgraphs=[_branch(then, g), _branch(otherwise, g)], outputs=1)
    g.set_outputs(node.outputs, ["y"])
    return g


@pytest.mark.parametrize("taken", [True, False])
def test_the_branch_that_can_run_takes_the_place_of_the_if(taken: bool) -> None:
    g = _chosen("relu", "fail") if taken else _chosen("fail", "relu")
    x = random((3, 2))
    run(InlineGuardedIf(), g, [np.asarray(taken), x], 1)
    assert ops(g) == ["require", "relu"]
    run(DeadCode(), g, [np.asarray(taken), x], 0)  # nobody reads its result, and it stays
    with pytest.raises(ExecutionError, match="too long"):
        evaluate_graph(g, [np.asarray(not taken), x])


def test_two_branches_that_run_stay() -> None:
    g = _chosen("relu", "neg")
    run(InlineGuardedIf(), g, [np.asarray(True), random((3, 2))], 0)
    assert ops(g) == ["if"]
