"""fold-batch-norm: into convolutions of any grouping, as an affine map elsewhere, refused where a statistic varies."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.passes.fold_batch_norm import fold_batch_norm
from fusible.passes.ledger import Kind
from tests.passes.rewriting import apply, graph_of

RNG = np.random.default_rng(5)


def _batch_norm(g: Graph, x: Value, channels: int, variance: float = 1.0) -> Value:
    scale, bias, mean = (g.constant(RNG.standard_normal(channels).astype(np.float32)) for _ in range(3))
    var = g.constant((variance * RNG.uniform(0.5, 2, channels)).astype(np.float32))
    return g.add("batch_normalization", x, scale, bias, mean, var, epsilon=1e-5)


@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("biased", [True, False])
def test_into_convolutions(op: str, group: int, biased: bool) -> None:
    def build(g: Graph, x: Value) -> Value:
        shape = (6, 4 // group, 3, 3) if op == "conv" else (4, 6 // group, 3, 3)
        w = g.constant(RNG.standard_normal(shape).astype(np.float32))
        b = g.constant(RNG.standard_normal(6).astype(np.float32)) if biased else None
        attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": group}
        more = {"output_padding": (0, 0)} if op == "conv_transpose" else {}
        return _batch_norm(g, g.add(op, x, w, b, **attrs, **more), 6)

    assert apply(fold_batch_norm, graph_of(build, (2, 4, 5, 7)))[0] == [op]


def test_alone_it_becomes_a_multiplication_and_an_addition() -> None:
    assert apply(fold_batch_norm, graph_of(lambda g, x: _batch_norm(g, x, 3), (2, 3, 5)))[0] == ["mul", "add"]


def test_statistics_that_vary_are_refused() -> None:
    def build(g: Graph, x: Value) -> Value:
        varying = g.add("reduce_mean", x, axes=(0, 2), keepdims=False)
        c = g.constant(np.ones(3, np.float32))
        return g.add("batch_normalization", x, c, c, varying, c, epsilon=1e-5)

    ops, context = apply(fold_batch_norm, graph_of(build, (2, 3, 5)))
    assert "batch_normalization" in ops
    assert any("not constant" in e.reason for e in context.ledger.select(Kind.DECLINED))


def test_a_negative_variance_is_refused() -> None:
    ops, context = apply(fold_batch_norm, graph_of(lambda g, x: _batch_norm(g, x, 3, -1.0), (0, 3, 5)))
    assert ops == ["batch_normalization"]
    assert any("negative" in e.reason for e in context.ledger.select(Kind.DECLINED))
