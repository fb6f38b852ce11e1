"""merge-sibling-products: queries, keys and values by one product; everything else stays, with a reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType
from fusible.passes.ledger import Kind
from fusible.passes.merge_siblings import MergeSiblings
from tests.passes.rewriting import apply, graph_of

RNG = np.random.default_rng(11)


def _projected(g: Graph, x: Value, size: int, form: str) -> Value:
    w = RNG.standard_normal((12, size)).astype(np.float32)
    b = g.constant(RNG.standard_normal(size).astype(np.float32))
    if form == "gemm":
        return g.add("gemm", x, g.constant(np.ascontiguousarray(w.T)), b, transB=True)
    if form in ("packed", "blocks"):
        return g.add("matmul", x, _dequantised(g, size, 4 if form == "blocks" else 0))
    product = g.add("matmul", x, g.constant(w))
    return product if form == "plain" else g.add("add", b, product)


def _dequantised(g: Graph, size: int, block: int) -> Value:
    codes = g.constant(RNG.integers(-8, 8, (12, size)).astype(DType.I4.numpy))
    scales = g.constant(RNG.uniform(0.01, 0.02, (3, size) if block else size).astype(np.float32))
    axis = 0 if block else 1
    return g.add("dequantize_linear", codes, scales, output_dtype=DType.F32, axis=axis, block_size=block)


def _attention(forms: tuple[str, str, str], size: int = 8) -> Callable[[Graph, Value], Value]:
    def build(g: Graph, x: Value) -> Value:
        if "gemm" in forms:
            x = g.add("reshape", x, shape=(14, 12))
        q, k, v = (g.add("reshape", _projected(g, x, size, form), shape=(2, 7, size)) for form in forms)
        scaled = g.add("mul", q, g.constant(np.asarray(0.25, np.float32)))
        scores = g.add("matmul", scaled, g.add("transpose", k, perm=(0, 2, 1)))
        return g.add("matmul", g.add("softmax", scores, axis=-1), v)

    return build


FORMS = [("plain",) * 3, ("added", "plain", "added"), ("gemm",) * 3, ("gemm", "plain", "gemm")]
FORMS += [("packed",) * 3, ("blocks",) * 3]


@pytest.mark.parametrize("forms", FORMS)
def test_queries_keys_and_values(forms: tuple[str, str, str]) -> None:
    ops, context = apply(MergeSiblings(), graph_of(_attention(forms), (2, 7, 12)))
    assert ops.count("slice") == 3 and ops.count("gemm") == 0
    assert ops.count("matmul") == 3  # the one product, scores, result
    assert len(context.ledger.select(Kind.FUSED)) == 1


def test_weights_that_are_stored_otherwise_are_not_put_together() -> None:
    ops, _ = apply(MergeSiblings(), graph_of(_attention(("packed", "blocks", "packed")), (2, 7, 12)))
    assert ops.count("slice") == 2 and ops.count("matmul") == 4


def test_what_something_else_reads_stays() -> None:
    def build(g: Graph, x: Value) -> Value:
        gate = g.add("sigmoid", _projected(g, x, 8, "plain"))
        return g.add("mul", gate, _projected(g, x, 8, "added"))

    ops, context = apply(MergeSiblings(), graph_of(build, (2, 7, 12)))
    assert "slice" not in ops and ops.count("matmul") == 2
    assert any("more than views" in e.reason for e in context.ledger.select(Kind.REFUSED))


def test_weights_of_products_by_rows_stay_packed() -> None:
    """[N, K] in blocks of K, transposed, as MatMulNBits has it."""

    def projected(g: Graph, x: Value) -> Value:
        codes = g.constant(RNG.integers(-8, 8, (8, 12)).astype(DType.I4.numpy))
        scales = g.constant(RNG.uniform(0.01, 0.02, (8, 3)).astype(np.float32))
        weight = g.add("dequantize_linear", codes, scales, output_dtype=DType.F32, axis=1, block_size=4)
        return g.add("matmul", x, g.add("transpose", weight, perm=(1, 0)))

    def build(g: Graph, x: Value) -> Value:
        q, k, v = (projected(g, x) for _ in range(3))
        scores = g.add("matmul", q, g.add("transpose", k, perm=(0, 2, 1)))
        return g.add("matmul", g.add("softmax", scores, axis=-1), v)

    ops, _ = apply(MergeSiblings(), graph_of(build, (2, 7, 12)))
    assert ops.count("slice") == 3 and ops.count("matmul") == 3
