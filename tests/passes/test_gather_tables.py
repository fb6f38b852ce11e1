"""gather-tables: one-hot products become reads of rows, and constants are applied to the table; or it says why not."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType
from fusible.passes.gather_tables import gather_tables
from tests.passes.checking import ops, reasons, run, tensor

RNG = np.random.default_rng(9)


def _constant(g: Graph, *shape: int) -> Value:
    return g.constant(RNG.standard_normal(shape).astype(np.float32))


def _one_hot(g: Graph, numbers: np.ndarray, dtype: DType = DType.I32, w: np.ndarray | None = None) -> None:
    i = tensor(g, (2, 9, 1), "i", dtype)
    hot = g.add("cast", g.add("equal", i, g.constant(numbers)), dtype=DType.F32)
    table = RNG.standard_normal((numbers.size, 4)).astype(np.float32) if w is None else w
    g.set_outputs([g.add("matmul", hot, g.constant(table))], ["y"])


@pytest.mark.parametrize("dtype", [DType.I32, DType.I64])
def test_a_product_with_one_hot_rows_reads_rows(dtype: DType) -> None:
    g = Graph("test")
    _one_hot(g, np.arange(5, dtype=dtype.numpy).reshape(1, 1, 5), dtype)
    given = RNG.integers(-3, 9, (2, 9, 1)).astype(dtype.numpy)  # some are outside the table
    run(gather_tables(), g, [given], 1)
    assert ops(g) == ["reshape", "min", "max", "gather"]


@pytest.mark.parametrize(
    ("numbers", "w", "reason"),
    [
        (np.arange(1, 6, dtype=np.int32), None, "not compared with 0, 1, 2"),
        (np.arange(5, dtype=np.int32), np.full((5, 4), np.inf, np.float32), "not finite"),
    ],
)
def test_other_products_stay(numbers: np.ndarray, w: np.ndarray | None, reason: str) -> None:
    g = Graph("test")
    _one_hot(g, numbers, w=w)
    given = np.zeros((2, 9, 1), np.int32)
    with np.errstate(invalid="ignore"):
        assert reason in reasons(run(gather_tables(), g, [given], 0))


def test_constants_and_functions_are_applied_to_the_table() -> None:
    g = Graph("test")
    i = tensor(g, (7, 3), "i", DType.I64)
    rows = g.add("gather", _constant(g, 5, 4), i, axis=0)
    shifted = g.add("sub", _constant(g, 1, 1, 4), g.add("add", rows, _constant(g, 4)))
    g.set_outputs([g.add("gelu", shifted, approximate="tanh")], ["y"])
    run(gather_tables(), g, [RNG.integers(-5, 5, (7, 3))], 3)
    assert ops(g)[-1] == "gather"


def test_what_differs_from_index_to_index_or_is_large_stays() -> None:
    for size, shape, reason in ((5, (7, 1), "differs from index"), (500, (4,), "larger than the result")):
        g = Graph("test")
        i = tensor(g, (7,), "i", DType.I64)
        g.set_outputs([g.add("add", g.add("gather", _constant(g, size, 4), i, axis=0), _constant(g, *shape))], ["y"])
        assert reason in reasons(run(gather_tables(), g, [RNG.integers(0, 5, 7)], 0))
