"""Relations between dimensions: what is decided at compile time holds for every value, and runs check the same."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusible.compiler.ir.clone import clone_graph
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.refine import rebuild_types
from fusible.compiler.ir.requirements import Relation, Requirement, decide, requirement
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, dim_text, floordiv, minimum, modulo
from fusible.compiler.ir.text import parse_graph, print_graph
from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import ExecutionError, InvalidModel
from fusible.passes.base import PassContext
from fusible.passes.note_requirements import NoteRequirements
from fusible.runtime.requirements import RELATIONS, SizeRule, check_rules

N, M = SymInt.of(Symbol("N")), SymInt.of(Symbol("M", 2, 9))
DIMS: list[Dim] = [0, 1, 2, 3, N, M, N + 2, N - 1, N * M, M - N, 3 * N, floordiv(N, 2), modulo(N, 3), minimum(N, 3)]
MEANING = {
    Relation.EQUAL: lambda a, b: a == b,
    Relation.FITS: lambda a, b: a in (1, b),
    Relation.BROADCAST: lambda a, b: a == b or 1 in (a, b),
    Relation.AT_MOST: lambda a, b: a <= b,
}
VALUES = [{"N": n, "M": m} for n, m in product(range(8), range(2, 10))]


@pytest.mark.parametrize("relation", Relation)
@given(a=st.sampled_from(DIMS), b=st.sampled_from(DIMS))
def test_what_is_decided_holds_for_every_value_and_what_is_required_means_the_same(
    relation: Relation, a: Dim, b: Dim
) -> None:
    truth = [MEANING[relation](evaluate(a, env), evaluate(b, env)) for env in VALUES]
    known = decide(relation, a, b)
    assert known is None or truth == [known] * len(truth)
    if known is not None:
        return
    made = requirement(relation, a, b, "here")
    rule = SizeRule(str(made.relation), dim_text(made.left), dim_text(made.right), made.where)
    for env, holds in zip(VALUES, truth, strict=True):
        if holds:
            check_rules([rule], env)
        else:
            with pytest.raises(ExecutionError, match="here"):
                check_rules([rule], env)


def test_runs_and_the_compiler_know_the_same_relations() -> None:
    assert set(RELATIONS) == set(map(str, Relation))
    for name, (holds, _) in RELATIONS.items():
        pairs = list(product(range(4), repeat=2))
        assert [holds(*p) for p in pairs] == [MEANING[Relation(name)](*p) for p in pairs]


def _noted() -> Graph:
    graph = Graph()
    n, m = graph.symbols.add(Symbol("N")), graph.symbols.add(Symbol("M"))
    graph.defines = (Symbol("N"), Symbol("M"))
    x, z = graph.input(TensorType(DType.F32, (n, m)), "x"), graph.input(TensorType(DType.F32, (3, m)), "z")
    with graph.inserting_before(None, ("sum",)):
        y = graph.add("add", x, z)
    with graph.inserting_before(None, ("product",)):
        y = graph.add("matmul", y, graph.constant(np.ones((5, 2), np.float32), "w"))
    graph.set_outputs([y], ["y"])
    assert NoteRequirements().run(graph, PassContext()) == 2
    assert NoteRequirements().run(graph, PassContext()) == 0
    return graph


def test_texts_and_clones_keep_requirements() -> None:
    graph = _noted()
    text = print_graph(graph)
    assert "  requires fits(N, 3)  # \"add at 'sum'\"\n  requires equal(M, 5)  # \"matmul at 'product'\"\n" in text
    assert print_graph(parse_graph(text)) == text == print_graph(clone_graph(graph))
    with pytest.raises(InvalidModel, match="'same' is no relation: equal, fits, broadcast, at_most"):
        parse_graph(text.replace("fits(N", "same(N"))


def test_known_symbols_decide() -> None:
    graph = _noted()
    rebuild_types(graph, {"N": 1})
    assert [str(r) for r in graph.requirements if not r.known] == ["equal(M, 5)"]
    graph.requirements[Requirement(Relation.EQUAL, SymInt.of(Symbol("M")), 4, "planted")] = None
    with pytest.raises(InvalidModel, match=r"planted: equal\(5, 4\) does not hold"):
        rebuild_types(graph, {"M": 5})
