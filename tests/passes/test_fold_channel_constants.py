"""fold-channel-constants: one number a channel goes into the convolution before it, anything else stays."""

from __future__ import annotations

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.passes.fold_channel_constants import fold_channel_constants
from fusible.passes.ledger import Kind
from tests.passes.rewriting import apply, graph_of

RNG = np.random.default_rng(6)


def _graph(op: str, operation: str, shape: tuple[int, ...], group: int = 1, *, biased: bool = False) -> Graph:
    def build(g: Graph, x: Value) -> Value:
        weights = (6, 4 // group, 3, 3) if op == "conv" else (4, 6 // group, 3, 3)
        w = g.constant(RNG.standard_normal(weights).astype(np.float32))
        b = g.constant(RNG.standard_normal(6).astype(np.float32)) if biased else None
        attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": group}
        more = {"output_padding": (0, 0)} if op == "conv_transpose" else {}
        c = g.constant(RNG.standard_normal(shape).astype(np.float32))
        return g.add(operation, g.add(op, x, w, b, **attrs, **more), c)

    return graph_of(build, (2, 4, 5, 7))


@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize("operation", ["add", "mul"])
@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (6, 1, 1), (), (1, 1)])
@pytest.mark.parametrize(("group", "biased"), [(1, False), (2, True)])
def test_by_channel(op: str, operation: str, shape: tuple[int, ...], group: int, biased: bool) -> None:
    assert apply(fold_channel_constants, _graph(op, operation, shape, group, biased=biased))[0] == [op]


@pytest.mark.parametrize("shape", [(7,), (5, 1), (2, 6, 1, 1), (1, 1, 6, 1, 1)])
@pytest.mark.parametrize("operation", ["add", "mul"])
def test_other_constants_stay(operation: str, shape: tuple[int, ...]) -> None:
    ops, context = apply(fold_channel_constants, _graph("conv", operation, shape))
    assert ops == ["conv", operation]
    assert context.ledger.select(Kind.DECLINED)
