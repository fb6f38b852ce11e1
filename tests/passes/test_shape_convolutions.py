"""shape-convolutions: lines become images, transposed ones and single channels ordinary ones, or say why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

import fusible
from fusible.compiler.ir.graph import Graph, Value
from fusible.passes.ledger import Kind
from fusible.passes.shape_convolutions import shape_convolutions
from tests.passes.rewriting import apply, graph_of

RNG = np.random.default_rng(7)


def _convolution(op: str, weights: tuple[int, ...], outputs: int, x: tuple[int, ...], **attrs: Any) -> Graph:
    def build(g: Graph, image: Value) -> Value:
        w, b = (g.constant(RNG.standard_normal(s).astype(np.float32)) for s in (weights, (outputs,)))
        return g.add(op, image, w, b, **attrs)

    return graph_of(build, x)


def _constant_ops(graph: Graph) -> list[str]:
    ops, _ = apply(shape_convolutions(), graph)
    return ops


@pytest.mark.parametrize(
    "attrs", [{}, {"strides": (2,), "pads": (1, 2)}, {"dilations": (3,), "group": 2}, {"auto_pad": "SAME_UPPER"}]
)
def test_a_line_is_an_image(attrs: dict[str, Any]) -> None:
    graph = _convolution("conv", (6, 4 // attrs.get("group", 1), 3), 6, (2, 4, 11), **attrs)
    assert _constant_ops(graph) == ["reshape", "conv", "reshape"]


@pytest.mark.parametrize("attrs", [{"strides": (2,), "output_padding": (1,)}, {"strides": (3,), "pads": (1, 1)}])
def test_a_transposed_line_is_an_image(attrs: dict[str, Any]) -> None:
    ops = _constant_ops(_convolution("conv_transpose", (4, 5, 3), 5, (2, 4, 6), **attrs))
    assert "conv_transpose" not in ops and "conv" in ops


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (4, 5)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("pads", [(), (1, 0, 0, 1), (2, 3, 1, 2)])
@pytest.mark.parametrize("extra", [(), (0, 1)])
def test_transposed(kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...], extra: Any) -> None:
    attrs = {"strides": strides, "pads": pads, "output_padding": extra if strides[1] > 1 else ()}
    graph = _convolution("conv_transpose", (3, 5, *kernel), 5, (2, 3, 9, 8), **attrs)
    ops, context = apply(shape_convolutions(), graph)
    refused = any("cuts off" in e.reason for e in context.ledger.select(Kind.DECLINED))
    assert ("conv_transpose" in ops) is refused
    cut = [p - k for p, k in zip(pads[2:], kernel, strict=False)]
    assert not refused or max(cut) >= 0


@pytest.mark.parametrize("width", [50, 53, 80])
@pytest.mark.parametrize(
    ("kernel", "attrs"),
    [
        ((5, 5), {"pads": (2, 2, 2, 2)}),
        ((1, 21), {"strides": (1, 2), "pads": (0, 30, 0, 30)}),
        ((3, 2), {"strides": (2, 3), "pads": (0, 30, 1, 31), "dilations": (2, 1)}),
    ],
)
def test_one_channel(width: int, kernel: tuple[int, int], attrs: dict[str, Any]) -> None:
    ops = _constant_ops(_convolution("conv", (1, 3, *kernel), 1, (2, 3, 7, width), **attrs))
    assert ops[:3] == ["conv", "transpose", "reshape"] and ops[3:] in ([], ["slice"])


@pytest.mark.parametrize("attrs", [{"pads": (0, 1, 0, 1)}, {"pads": (0, 2, 0, 0), "strides": (1, 2)}])
def test_a_short_line_is_padded(attrs: dict[str, Any]) -> None:
    assert _constant_ops(_convolution("conv", (6, 5, 1, 3), 6, (1, 5, 1, 4), **attrs)) == ["fused", "conv"]
    assert _constant_ops(_convolution("conv", (6, 5, 1, 3), 6, (1, 5, 1, 9), pads=(0, 1, 0, 1))) == ["conv"]


def test_what_is_left_alone_says_why() -> None:
    def refusal(op: str, weights: tuple[int, ...], outputs: int, **attrs: Any) -> str:
        graph = _convolution(op, weights, outputs, (1, 4, 7, 9), **attrs)
        ops, context = apply(shape_convolutions(), graph)
        assert ops == [op]
        return " ".join(e.reason for e in context.ledger.select(Kind.DECLINED))

    assert "several output channels" in refusal("conv", (2, 4, 3, 3), 2)
    assert "neighbours share nothing" in refusal("conv", (1, 4, 3, 3), 1)
    assert "groups or dilations" in refusal("conv_transpose", (4, 1, 3, 3), 2, group=2)
    assert "size of its result" in refusal("conv_transpose", (4, 1, 3, 3), 1, output_shape=(7, 9))


@pytest.mark.parametrize("filters", [1, 16])
def test_images_of_unknown_rank_stay_as_they_are(filters: int) -> None:
    """`Squeeze` without axes: how many dimensions its result has is known only when it has run."""
    text = """<ir_version: 9, opset_import: ["": 20]>
    g (float[n,8,12,12] x, bool[n] keep) => (float y) {
        found = NonZero (keep) which = Squeeze (found) taken = Gather <axis = 0> (x, which) y = Conv (taken, w)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((filters, 8, 1, 3), np.float32), "w"))
    feeds = {"x": np.ones((2, 8, 12, 12), np.float32), "keep": np.array([True, True])}
    assert fusible.compile(model, target="cpu").run(feeds)["y"].shape == (2, filters, 12, 10)
