"""Dimension expressions of a plan agree with the compiler's own evaluation and refuse everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, dim_text, floordiv, maximum, minimum, modulo
from fusible.errors import ArtifactError, ExecutionError
from fusible.runtime.dims import evaluate_dim, single_symbol

_A, _B = (SymInt.of(Symbol(n)) for n in "ab")


def _dims() -> st.SearchStrategy[Dim]:
    leaves = st.one_of(st.integers(-20, 20), st.just(_A), st.just(_B))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
            st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
            st.tuples(inner, st.integers(1, 9)).map(lambda p: floordiv(p[0], p[1])),
            st.tuples(inner, st.integers(1, 9)).map(lambda p: modulo(p[0], p[1])),
            st.tuples(inner, inner).map(lambda p: maximum(p[0], p[1])),
            st.tuples(inner, inner).map(lambda p: minimum(p[0], p[1])),
        ),
        max_leaves=8,
    )


@given(_dims(), st.integers(0, 50), st.integers(0, 50))
def test_text_evaluates_like_the_expression(dim: Dim, a: int, b: int) -> None:
    env = {"a": a, "b": b}
    assert evaluate_dim(dim_text(dim), env) == evaluate(dim, env)


def test_bcast() -> None:
    text = dim_text(bcast(_A, _B))
    assert evaluate_dim(text, {"a": 1, "b": 7}) == 7
    assert evaluate_dim(text, {"a": 7, "b": 1}) == 7
    with pytest.raises(ExecutionError, match="do not broadcast"):
        evaluate_dim(text, {"a": 2, "b": 3})


@pytest.mark.parametrize("text", ["__import__('os')", "a.b", "a ** b", "[1]", "a if b else 1", "a +", "1.5", "f(a, b)"])
def test_other_syntax_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        evaluate_dim(text, {"a": 1, "b": 1})


def test_an_unknown_symbol_is_named() -> None:
    with pytest.raises(ExecutionError, match="'missing'"):
        evaluate_dim("missing + 1", {})


def test_single_symbol() -> None:
    assert single_symbol("batch") == "batch"
    assert single_symbol("batch + 1") is None
    assert single_symbol(3) is None
