"""fuse-elementwise: chains become one node and one kernel, bit-equal; every pair kept apart has a reason."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.backends.numpy import NumpyBackend
from fusible.compiler.ir.clone import clone_graph
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.types import DType
from fusible.compiler.lower import lower
from fusible.compiler.options import Options
from fusible.compiler.outcome import Outcome
from fusible.compiler.region.build import region_of
from fusible.compiler.region.text import region_text
from fusible.passes.fuse_elementwise import FuseElementwise
from fusible.passes.ledger import Kind
from tests.passes.rewriting import apply, graph_of, scalar


def _chain(g: Graph, x: Value) -> Value:
    bias = g.constant(np.linspace(-1, 1, 5).astype(np.float32))
    y = g.add("mul", g.add("add", x, bias), scalar(g, 1.5))
    return g.add("sub", g.add("sigmoid", y), g.add("relu", x))


@pytest.mark.parametrize("shape", [(3, 5), (0, 5), (1, 1, 5)])
def test_a_chain_becomes_one_kernel_with_equal_bits(shape: tuple[int, ...]) -> None:
    graph = graph_of(_chain, shape)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    before = lower(clone_graph(graph), NumpyBackend(), Options(), Outcome()).run({"x": x})["y"]
    ops, context = apply(FuseElementwise(), graph)
    assert ops == ["relu", "fused"]  # relu(x) starts a chain of its own; the last node joins the first operand's
    fused = context.ledger.select(Kind.FUSED)
    assert [e.reason for e in fused] == ["add -> mul -> sigmoid -> sub"]
    assert fused[0].saved is not None and fused[0].saved.launches == 3
    executable = lower(graph, NumpyBackend(), Options(), Outcome())
    session = executable.session()
    session._poison = True
    got = session.run({"x": x})["y"]
    assert np.array_equal(got, before)
    assert executable.source.count("def step_") == 2


def test_the_region_of_a_group_has_a_text() -> None:
    graph = graph_of(_chain, (3, 5))
    FuseElementwise().run(graph, apply(FuseElementwise(), graph_of(_chain, (3, 5)))[1])
    regions = [r for r in map(region_of, graph) if r is not None]
    text = region_text(regions[-1])
    assert text.startswith("region [i0=3, i1=5]\n  in x0: f32[3, 5]\n")
    assert "f32 = load x0[i0, i1]" in text and "f32 = sigmoid(" in text
    assert text.split("\n")[-1].startswith("  store y0")


def test_a_value_with_two_users_is_refused_with_the_reason() -> None:
    def build(g: Graph, x: Value) -> Value:
        shared = g.add("exp", x)
        return g.add("matmul", g.add("tanh", shared), g.add("neg", shared))

    ops, context = apply(FuseElementwise(), graph_of(build, (4, 4)))
    assert "fused" not in ops
    assert {e.reason for e in context.ledger.select(Kind.REFUSED)} == {"the value has 2 users"}


def test_shapes_that_differ_are_refused() -> None:
    def build(g: Graph, x: Value) -> Value:
        row = g.add("exp", g.constant(np.ones((1, 4), np.float32)))
        return g.add("add", row, x)

    ops, context = apply(FuseElementwise(), graph_of(build, (3, 4)))
    assert "fused" not in ops
    assert any("shapes differ" in e.reason for e in context.ledger.select(Kind.REFUSED))


def test_small_floats_are_left_to_their_kernels() -> None:
    graph = graph_of(lambda g, x: g.add("exp", g.add("neg", x)), (3,), DType.F16)
    assert apply(FuseElementwise(), graph)[0] == ["neg", "exp"]
