"""centre-zero-points: the same integers to the bit, by int8 operands and what is the same in each column."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType
from fusible.passes.centre_zero_points import centre_zero_points
from fusible.passes.ledger import Kind
from tests.passes.rewriting import apply, graph_of

RANDOM = np.random.default_rng(3)


def weight(low: int, high: int, dtype: type) -> np.ndarray:
    return RANDOM.integers(low, high, (6, 5)).astype(dtype)


def quantised(g: Graph, x: Value, dtype: DType, zero: int | None) -> tuple[Value, Value | None]:
    """Bytes of a float input, and their zero point."""
    made = None if zero is None else g.constant(np.asarray(zero, dtype.numpy))
    return g.add("quantize_linear", x, g.constant(np.float32(0.01)), made, output_dtype=dtype), made


@pytest.mark.parametrize(
    ("dtype", "zero", "matrix", "matrix_zero", "fires"),
    [
        (DType.U8, 37, weight(-128, 128, np.int8), None, True),
        (DType.U8, None, weight(-128, 128, np.int8), np.int8(0), True),
        (DType.U8, 128, weight(0, 256, np.uint8), np.uint8(128), True),
        (DType.I8, -7, weight(-100, 100, np.int8), np.arange(5, dtype=np.int8), True),
        (DType.U8, 37, weight(0, 256, np.uint8), np.uint8(60), True),
        (DType.I8, None, weight(0, 256, np.uint8), np.arange(5, dtype=np.uint8), True),
        (DType.U8, 9, weight(-128, 128, np.int8), np.arange(5, dtype=np.int8) + np.int8(90), True),
        (DType.U8, 128, weight(-128, 128, np.int8), None, False),
        (DType.I8, None, weight(-128, 128, np.int8), None, False),
    ],
)
def test_products_of_bytes(
    dtype: DType, zero: int | None, matrix: np.ndarray, matrix_zero: np.ndarray | None, fires: bool
) -> None:
    def build(g: Graph, x: Value) -> Value:
        a, a_zero = quantised(g, x, dtype, zero)
        b_zero = None if matrix_zero is None else g.constant(np.asarray(matrix_zero))
        total = g.add("matmul_integer", a, g.constant(matrix), a_zero, b_zero)
        return g.add("cast", total, dtype=DType.F32)

    ops, context = apply(centre_zero_points, graph_of(build, (4, 6)))
    assert ("add" in ops) == fires
    assert bool(context.ledger.select(Kind.FIRED)) == fires


@pytest.mark.parametrize("rows", [(), (4,), (3, 4)])
def test_products_with_a_batch_of_matrices(rows: tuple[int, ...]) -> None:
    def build(g: Graph, x: Value) -> Value:
        a, zero = quantised(g, x, DType.U8, 37)
        matrices = g.constant(RANDOM.integers(-128, 128, (3, 6, 5)).astype(np.int8))
        return g.add("cast", g.add("matmul_integer", a, matrices, zero), dtype=DType.F32)

    ops, _ = apply(centre_zero_points, graph_of(build, (*rows, 6)))
    assert "add" in ops


def test_a_quantised_product_is_its_definition() -> None:
    def build(g: Graph, x: Value) -> Value:
        a, zero = quantised(g, x, DType.U8, 90)
        s = g.constant(np.float32(0.05))
        b = g.constant(weight(-128, 128, np.int8))
        return g.add("qlinear_matmul", a, s, zero, b, s, g.constant(np.int8(0)), s, zero)

    ops, _ = apply(centre_zero_points, graph_of(build, (4, 6)))
    assert "qlinear_matmul" not in ops and ops[-1] == "quantize_linear"


def test_a_product_of_8_bit_floats_is_one_of_dequantised_ones() -> None:
    def build(g: Graph, x: Value) -> Value:
        s, zero = g.constant(np.float32(0.5)), g.constant(np.asarray(0, DType.F8E4M3FN.numpy))
        a = g.add("quantize_linear", x, s, zero, output_dtype=DType.F8E4M3FN)
        b = g.constant(weight(-9, 9, np.int8).astype(DType.F8E4M3FN.numpy))
        y = g.add("qlinear_matmul", a, s, zero, b, s, zero, s, zero)
        return g.add("cast", y, dtype=DType.F32)

    ops, _ = apply(centre_zero_points, graph_of(build, (4, 6)))
    assert ops.count("dequantize_linear") == 2 and "qlinear_matmul" not in ops


@pytest.mark.parametrize("zero", [np.zeros(5, np.int8), np.asarray(3, np.int8)])
def test_zero_points_of_zero_go(zero: np.ndarray) -> None:
    def build(g: Graph, x: Value) -> Value:
        scale = g.constant(np.ones(zero.shape, np.float32))
        w = g.add(
            "dequantize_linear", g.constant(weight(-9, 9, np.int8)), scale, g.constant(zero), output_dtype=DType.F32
        )
        return g.add("matmul", x, w)

    graph = graph_of(build, (4, 6))
    apply(centre_zero_points, graph)
    (dequantised,) = (n for n in graph if n.op.name == "dequantize_linear")
    assert (len([v for v in dequantised.inputs if v is not None]) == 3) == bool(zero.any())
