"""Known contents through arithmetic: symbolic results agree with the kernels for every value of the symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.ops import kernel_arguments
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, Symbol, dim_text
from fusible.compiler.ir.types import DType

SIZES = [(n, m) for n in (1, 2, 5, 8) for m in (3, 4, 9)]


class Dims:
    """A graph with dimensions n >= 1 and 3 <= m <= 9 as values."""

    def __init__(self) -> None:
        self.graph = Graph("dims")
        self.n = self.graph.symbols.add(Symbol("n", 1))
        self.m = self.graph.symbols.add(Symbol("m", 3, 9))

    def value(self, *elements: Dim, dtype: DType = DType.I64, scalar: bool = False) -> Value:
        shape = () if scalar else (len(elements),)
        return self.graph.add("dims", values=tuple(elements), shape=shape, dtype=dtype)

    def constant(self, data: Any, dtype: Any = np.int64) -> Value:
        return self.graph.constant(np.asarray(data, dtype))


def check(value: Value, node_inputs: list[list[Dim]], dtype: Any = np.int64) -> None:
    """The known content equals what the node's kernel computes from the inputs' sizes."""
    assert value.content is not None
    assert value.producer is not None
    op, attrs = value.producer.op, value.producer.attrs
    for n, m in SIZES:
        env = {"n": n, "m": m}
        arrays = [np.asarray([int(evaluate(d, env)) for d in row], dtype) for row in node_inputs]
        expected = op.numpy(*arrays, **kernel_arguments(attrs))
        got = [int(evaluate(d, env)) for d in value.content.ravel()]
        assert got == [int(v) for v in expected.ravel()], (n, m)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "max", "min", "sum"])
def test_arithmetic(op: str) -> None:
    d = Dims()
    left: list[Dim] = [d.n, d.m, 4, d.n * d.m]
    right: list[Dim] = [3, d.n, 5, d.m]
    check(d.graph.add(op, d.value(*left), d.value(*right)), [left, right])


def test_division_and_remainder() -> None:
    d = Dims()
    left: list[Dim] = [d.n * 4, d.n + 7, d.n * d.m, 9]
    right: list[Dim] = [2, 3, d.m, d.m]
    check(d.graph.add("div", d.value(*left), d.value(*right)), [left, right])
    check(d.graph.add("mod", d.value(*left), d.value(*right)), [left, right])


def test_quotients_truncate() -> None:
    d = Dims()
    left: list[Dim] = [d.n - 5, 3 - d.n, d.m - 20, d.n * d.m - 17, -7 - d.n]
    right: list[Dim] = [2, 3, d.m, d.n + 4, 4]
    quotient = d.graph.add("div", d.value(*left), d.value(*right))
    check(quotient, [left, right])
    assert quotient.content is not None
    again: list[Dim] = [x - 1 for x in quotient.content]
    check(d.graph.add("div", d.value(*again), d.value(*right)), [again, right])


def test_quotients_of_quotients_have_a_longest_text() -> None:
    d = Dims()
    value = d.value(d.n - 1000)
    for _ in range(60):
        value = d.graph.add("add", d.graph.add("div", value, d.constant([2])), d.constant([-3]))
        assert value.content is None or len(dim_text(value.content[0])) < 20_000
    assert value.content is None


def test_dividends_without_sign_may_have_wrapped() -> None:
    d = Dims()
    for dtype in (DType.U32, DType.U64):
        assert d.graph.add("div", d.value(d.n - 5, dtype=dtype), d.value(2, dtype=dtype)).content is None
        assert d.graph.add("div", d.value(d.n + 5, dtype=dtype), d.value(2, dtype=dtype)).content is not None


def test_long_chains_of_quotients_end() -> None:
    d = Dims()
    value = d.value(d.n + 1)
    for _ in range(900):
        value = d.graph.add("add", d.graph.add("div", value, d.constant([3])), d.constant([7]))
    assert value.content is None


def test_division_that_may_fail_is_not_known() -> None:
    d = Dims()
    zero_or_more = d.graph.symbols.add(Symbol("k", 0))
    for op, left, right in (
        ("div", d.n, zero_or_more), ("div", d.n, -2), ("mod", d.n - 5, 2), ("mod", d.n, zero_or_more),
    ):  # fmt: skip
        assert d.graph.add(op, d.value(left), d.value(right, zero_or_more + 1)).content is None


def test_one_operand_functions() -> None:
    d = Dims()
    row: list[Dim] = [d.n, d.m - 12, 3, -4]
    for op in ("neg", "abs", "relu"):
        check(d.graph.add(op, d.value(*row)), [row])


def test_comparisons_where_the_bounds_decide() -> None:
    d = Dims()
    left: list[Dim] = [d.m, d.n + d.m, d.n, d.n]
    right: list[Dim] = [10, d.n + d.m, 0, d.n + 1]
    for op in ("equal", "less", "less_or_equal", "greater", "greater_or_equal"):
        value = d.graph.add(op, d.value(*left), d.value(*right))
        assert value.content is not None
        assert all(isinstance(x, bool) for x in value.content)
        check(value, [left, right])
    for op in ("equal", "less", "less_or_equal", "greater", "greater_or_equal"):
        assert d.graph.add(op, d.value(d.m), d.constant([5])).content is None


def test_where_chooses() -> None:
    d = Dims()
    condition = d.constant([True, False, True], np.bool_)
    value = d.graph.add("where", condition, d.value(d.n, 1, 2), d.value(7, d.m, d.m))
    assert value.content is not None
    assert value.content.tolist() == [d.n, d.m, 2]
    unknown = d.graph.add("equal", d.value(d.m), d.constant([5]))
    assert d.graph.add("where", unknown, d.value(d.n), d.value(d.m)).content is None


def test_clip() -> None:
    d = Dims()
    value = d.graph.add("clip", d.value(d.m, d.n), d.constant(4), d.constant(6))
    assert value.content is not None
    for n, m in SIZES:
        assert [int(evaluate(x, {"n": n, "m": m})) for x in value.content] == [min(max(m, 4), 6), min(max(n, 4), 6)]
    assert d.graph.add("clip", d.value(d.m), None, d.constant(9)).content.tolist() == [d.m]  # type: ignore[union-attr]


def test_casts_keep_dimensions_where_they_cannot_change() -> None:
    d = Dims()
    value = d.value(d.n, 3)
    for dtype in (DType.I32, DType.F32, DType.F64, DType.U64):
        content = d.graph.add("cast", value, dtype=dtype).content
        assert content is not None and content.tolist() == [d.n, 3]
    for dtype in (DType.I8, DType.F16):
        assert d.graph.add("cast", value, dtype=dtype).content is None
    truth = d.graph.add("cast", value, dtype=DType.BOOL).content
    assert truth is not None and truth.tolist() == [True, True]
    assert d.graph.add("cast", d.value(d.n - 1), dtype=DType.BOOL).content is None


def test_through_floats_and_back() -> None:
    """The way exporters scale a size: Cast, Mul by a whole number, Floor, Cast."""
    d = Dims()
    real = d.graph.add("cast", d.value(d.n), dtype=DType.F32)
    doubled = d.graph.add("floor", d.graph.add("mul", real, d.constant([2.0], np.float32)))
    back = d.graph.add("cast", doubled, dtype=DType.I64)
    assert back.content is not None and back.content.tolist() == [d.n * 2]
    halved = d.graph.add("div", doubled, d.constant([2.0], np.float32))
    assert halved.content is not None and halved.content.tolist() == [d.n]
    for op, factor in (("mul", 1.5), ("div", 4.0), ("add", 0.5)):
        assert d.graph.add(op, real, d.constant([factor], np.float32)).content is None


@pytest.mark.parametrize(("op", "function"), [("reduce_sum", sum), ("reduce_max", max), ("reduce_min", min)])
def test_reductions(op: str, function: Any) -> None:
    d = Dims()
    value = d.graph.add(op, d.value(d.n, d.m, 4), axes=(0,), keepdims=False)
    assert value.content is not None and value.content.shape == ()
    for n, m in SIZES:
        assert int(evaluate(value.content[()], {"n": n, "m": m})) == function([n, m, 4])


def test_product_of_a_shape() -> None:
    d = Dims()
    value = d.graph.add("reduce_prod", d.value(d.n, d.m, 4), axes=None, keepdims=True)
    assert value.content is not None and value.content.tolist() == [d.n * d.m * 4]
    matrix = d.graph.add("reshape", d.value(d.n, 2, 3, d.m), shape=(2, 2))
    columns = d.graph.add("reduce_prod", matrix, axes=(0,), keepdims=False)
    assert columns.content is not None and columns.content.tolist() == [d.n * 3, d.m * 2]
    mean = d.graph.add("reduce_mean", d.value(d.n, d.m), axes=None)
    assert mean.content is None


def test_concrete_contents_come_from_the_kernel() -> None:
    """Wrapping and rounding are the kernel's, not Python's."""
    d = Dims()
    wrapped = d.graph.add("add", d.constant([127], np.int8), d.constant([1], np.int8))
    assert wrapped.content is not None and wrapped.content.tolist() == [-128]
    thirds = d.graph.add("div", d.constant([1], np.float32), d.constant([3], np.float32))
    assert thirds.content is not None and thirds.content.tolist() == [float(np.float32(1) / np.float32(3))]
