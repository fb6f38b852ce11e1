"""cancel-transposes, merge-reshapes, cancel-casts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.types import DType
from fusible.passes.cancel_movements import cancel_casts, cancel_transposes, merge_reshapes
from fusible.passes.rules.movements import widens
from tests.passes.checking import F32, I64, ops, random, reasons, run, tensor


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_transposes_merge(p: list[int], q: list[int]) -> None:
    graph = Graph("g")
    x = tensor(graph, [2, 0 if p[0] == 0 else 3, "n", 5])
    y = graph.add("transpose", graph.add("transpose", x, perm=tuple(p)), perm=tuple(q))
    graph.set_outputs([graph.add("relu", y)], ["y"])
    run(cancel_transposes, graph, [random((2, 0 if p[0] == 0 else 3, 4, 5))], 1)
    assert len(ops(graph)) <= 2


def test_an_inner_transpose_with_other_users_stays() -> None:
    graph = Graph("g")
    inner = graph.add("transpose", tensor(graph, [2, 3]), perm=None)
    graph.set_outputs([graph.add("relu", graph.add("transpose", inner, perm=None)), inner], ["y", "z"])
    run(cancel_transposes, graph, [random((2, 3))], 1)
    assert ops(graph) == ["transpose", "relu"]


def test_reshapes_merge_whatever_they_are_called() -> None:
    graph = Graph("g")
    x = tensor(graph, ["n", 1, 6])
    y = graph.add("unsqueeze", graph.add("squeeze", x, axes=(1,)), axes=(0,))
    y = graph.add("reshape", graph.add("flatten", y, axis=1), shape=(1, x.type.shape[0] * 6))  # type: ignore[union-attr,index,operator]
    graph.set_outputs([graph.add("relu", y)], ["y"])
    run(merge_reshapes, graph, [random((4, 1, 6))], None)
    assert ops(graph) == ["reshape", "relu"]


def test_reshapes_that_come_back_vanish() -> None:
    graph = Graph("g")
    x = tensor(graph, [4, 6])
    y = graph.add("reshape", graph.add("reshape", x, shape=(2, 12)), shape=(4, 6))
    graph.set_outputs([graph.add("relu", y)], ["y"])
    run(merge_reshapes, graph, [random((4, 6))], 1)
    assert ops(graph) == ["relu"]


def test_casts_through_a_wider_type_vanish() -> None:
    graph = Graph("g")
    x = tensor(graph, [5])
    y = graph.add("cast", graph.add("cast", x, dtype=DType.F64), dtype=F32)
    graph.set_outputs([graph.add("relu", y)], ["y"])
    run(cancel_casts, graph, [random((5,))], 1)
    assert ops(graph) == ["relu"]


def test_casts_through_a_narrower_type_stay() -> None:
    graph = Graph("g")
    x = tensor(graph, [5])
    graph.set_outputs([graph.add("cast", graph.add("cast", x, dtype=I64), dtype=F32)], ["y"])
    used = run(cancel_casts, graph, [random((5,))], 0)
    assert "i64 does not hold every f32" in reasons(used)


NAMES = {"bool", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f16", "bf16", "f32", "f64"}
NUMBERS = [d for d in DType if d.value in NAMES]


@pytest.mark.parametrize("narrow, wide", [p for p in itertools.permutations(NUMBERS, 2) if widens(*p)])
def test_widening_loses_nothing(narrow: DType, wide: DType) -> None:
    if narrow is DType.BOOL:
        values = np.array([False, True])
    elif narrow.is_integer:
        info = np.iinfo(narrow.numpy)
        values = np.array([info.min, info.min + 1, 0, info.max - 1, info.max], narrow.numpy)
    else:
        import ml_dtypes

        limits = ml_dtypes.finfo(narrow.numpy)
        values = np.array([limits.max, limits.tiny, limits.smallest_subnormal, limits.eps, np.inf], narrow.numpy)
    assert np.array_equal(values.astype(wide.numpy).astype(narrow.numpy), values)
