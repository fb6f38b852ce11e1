"""recompose: each form an exporter writes becomes one op; near misses stay as they are, with a reason."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import numpy as np
import pytest

from fusible.compiler.ir.graph import Graph, Value
from fusible.passes.ledger import Kind
from fusible.passes.recompose import recompose
from tests.passes.rewriting import apply, graph_of, scalar

Build = Callable[[Graph, Value], Value]


def _erf(g: Graph, x: Value, multiply: bool) -> Value:
    inner = g.add("mul", x, scalar(g, 1 / sqrt(2))) if multiply else g.add("div", x, scalar(g, sqrt(2)))
    return g.add("add", g.add("erf", inner), scalar(g, 1.0))


def _tanh(g: Graph, x: Value) -> Value:
    cube = g.add("mul", g.add("pow", x, scalar(g, 3.0)), scalar(g, 0.044715))
    inner = g.add("mul", g.add("add", x, cube), scalar(g, sqrt(2 / pi)))
    return g.add("add", g.add("tanh", inner), scalar(g, 1.0))


def _relu6(g: Graph, x: Value) -> Value:
    return g.add("clip", g.add("add", x, scalar(g, 3.0)), scalar(g, 0.0), scalar(g, 6.0))


ACTIVATIONS: dict[str, tuple[str, Build]] = {
    "silu": ("swish", lambda g, x: g.add("mul", g.add("sigmoid", x), x)),
    "quick gelu": ("swish", lambda g, x: g.add("mul", x, g.add("sigmoid", g.add("mul", x, scalar(g, 1.702))))),
    "mish": ("mish", lambda g, x: g.add("mul", x, g.add("tanh", g.add("softplus", x)))),
    "gelu, half first": ("gelu", lambda g, x: g.add("mul", g.add("mul", x, scalar(g, 0.5)), _erf(g, x, False))),
    "gelu, half last": ("gelu", lambda g, x: g.add("mul", g.add("mul", x, _erf(g, x, True)), scalar(g, 0.5))),
    "gelu, half inside": ("gelu", lambda g, x: g.add("mul", x, g.add("mul", scalar(g, 0.5), _erf(g, x, False)))),
    "gelu tanh": ("gelu", lambda g, x: g.add("mul", g.add("mul", scalar(g, 0.5), x), _tanh(g, x))),
    "hard swish, gate": ("hard_swish", lambda g, x: g.add("mul", x, g.add("div", _relu6(g, x), scalar(g, 6.0)))),
    "hard swish, last": ("hard_swish", lambda g, x: g.add("div", g.add("mul", x, _relu6(g, x)), scalar(g, 6.0))),
    "hard sigmoid": ("hard_swish", lambda g, x: g.add("mul", x, g.add("hard_sigmoid", x, alpha=1 / 6, beta=0.5))),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    wanted, build = ACTIVATIONS[name]
    assert apply(recompose(), graph_of(build, (3, 5)))[0] == [wanted]


def _layer_norm(
    g: Graph, x: Value, *, bias: bool, power: bool, axes: tuple[int, ...] = (2,), shift: float = 0
) -> Value:
    d = g.add("sub", x, g.add("reduce_mean", x, axes=axes, keepdims=True))
    square = g.add("pow", d, scalar(g, 2.0)) if power else g.add("mul", d, d)
    v = g.add("reduce_mean", square, axes=axes, keepdims=True)
    y = g.add("div", d, g.add("sqrt", g.add("add", v, scalar(g, 1e-5 + shift))))
    shape = tuple(x.type.shape[a] for a in axes)  # type: ignore[union-attr, index]
    rng = np.random.default_rng(1)
    y = g.add("mul", y, g.constant(rng.standard_normal(shape).astype(np.float32)))
    return g.add("add", y, g.constant(rng.standard_normal(shape).astype(np.float32))) if bias else y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("power", [True, False])
def test_layer_norm(bias: bool, power: bool) -> None:
    ops, _ = apply(recompose(), graph_of(lambda g, x: _layer_norm(g, x, bias=bias, power=power), (2, 3, 7)))
    assert ops == ["layer_normalization"]


def test_layer_norm_over_a_middle_axis_is_refused_with_the_reason() -> None:
    graph = graph_of(lambda g, x: _layer_norm(g, x, bias=False, power=True, axes=(1,)), (2, 7, 7))
    ops, context = apply(recompose(), graph)
    assert "layer_normalization" not in ops
    assert any("not the last ones" in e.reason for e in context.ledger.select(Kind.DECLINED))


def _softmax(g: Graph, x: Value, axis: int, other: int) -> Value:
    e = g.add("exp", g.add("sub", x, g.add("reduce_max", x, axes=(axis,), keepdims=True)))
    return g.add("div", e, g.add("reduce_sum", e, axes=(other,), keepdims=True))


def test_softmax() -> None:
    assert apply(recompose(), graph_of(lambda g, x: _softmax(g, x, 1, 1), (3, 5, 2)))[0] == ["softmax"]
    ops, context = apply(recompose(), graph_of(lambda g, x: _softmax(g, x, 1, 2), (3, 5, 2)))
    assert "softmax" not in ops
    assert any("not one common axis" in e.reason for e in context.ledger)
    log = graph_of(lambda g, x: g.add("log", _softmax(g, x, 1, 1)), (3, 5))
    assert apply(recompose(), log)[0] == ["log_softmax"]


def test_rms_norm() -> None:
    def build(g: Graph, x: Value) -> Value:
        square = g.add("reduce_mean", g.add("pow", x, scalar(g, 2.0)), axes=(1,), keepdims=True)
        root = g.add("sqrt", g.add("add", square, scalar(g, 1e-6)))
        weight = g.constant(np.linspace(0.5, 2, 6).astype(np.float32))
        return g.add("mul", g.add("mul", x, g.add("reciprocal", root)), weight)

    assert apply(recompose(), graph_of(build, (4, 6)))[0] == ["rms_normalization"]


def test_a_near_miss_stays() -> None:
    ops, _ = apply(recompose(), graph_of(lambda g, x: g.add("mul", x, g.add("sigmoid", g.add("neg", x))), (3,)))
    assert "swish" not in ops
    wrong = graph_of(lambda g, x: g.add("mul", g.add("mul", x, scalar(g, 0.6)), _erf(g, x, False)), (3,))
    assert "gelu" not in apply(recompose(), wrong)[0]
