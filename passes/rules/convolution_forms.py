"""Convolutions in the form that kernels for images take:

conv(x, w), one-dimensional     ->  conv(x, w) of images that are one pixel high
conv_transpose(x, w), stride s  ->  a convolution with stride 1 whose channels are s x s pixels of the result
conv(x, w), one output channel  ->  a convolution whose channels are P neighbours of a row of the result
conv(x, w), few results         ->  the same of a padded line

The second form: with k = s * j + r, the pixel u = s * q + r of the whole result is the sum over j of
x[q - j] * w[s * j + r], for each r a convolution over q; the result begins at u = pad (the sub-pixel convolution of Shi
et al., "Real-Time Single Image and Video Super-Resolution", 2016).

The third: y[P * q + p] is the sum over k of x[s * P * q + (s * p + k)] * w[k], so channel p has the taps of w moved by
s * p. A vector of results shares what it reads, where one channel alone would leave all lanes but one idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fusible.compiler.ir.assumed import assumed_size
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType
from fusible.passes.exactness import Exactness
from fusible.passes.pattern import any_of, op, optional
from fusible.passes.rewrite import Reject, rule

__all__ = ["RULES"]

_FEW_RESULTS = 4  # rows that gemv.h multiplies at once
_WIDE_TAPS = 16  # from here on, 16 neighbours at once are worth the taps that they add


def _shape(value: Value) -> tuple[Dim, ...]:
    assert isinstance(value.type, TensorType)
    return value.type.shape or ()


def _weights(w: Value, rank: int) -> np.ndarray | Reject:
    if len(_shape(w)) != rank:
        return Reject(f"its kernel has not {rank - 2} dimensions", w)
    return Reject("its weights are not constant", w) if w.constant is None else w.constant.array


@dataclass(frozen=True)
class _Windows:
    """Attributes with their defaults written out: a number for each spatial axis."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @staticmethod
    def of(attrs: Any, axes: int) -> _Windows:
        ones, zeros = (1,) * axes, (0,) * (2 * axes)
        pads = attrs.pads or zeros
        return _Windows(attrs.strides or ones, attrs.dilations or ones, pads[:axes], pads[axes:])


@rule(exactness=Exactness.EXACT)
def line_as_image(x: Any, w: Any, b: Any, c: Any) -> Any:
    """conv(x [N, C, W], w [O, C, K])  ->  reshape(conv(x [N, C, 1, W], w [O, C, 1, K])); conv_transpose likewise."""

    def build(graph: Graph, x: Value, w: Value, b: Value | None, c: Node) -> Value | Reject:
        weights = _weights(w, 3)
        if isinstance(weights, Reject):
            return weights
        if len(_shape(x)) != 3 or len(_shape(c.output)) != 3:
            return Reject("the shape of its image is not known", x)
        images, channels, width = _shape(x)
        attrs, windows = c.attrs, _Windows.of(c.attrs, 1)
        more: dict[str, Any] = {}
        if c.op.name == "conv_transpose":
            more["output_padding"] = (0, *attrs.output_padding) if attrs.output_padding else ()
            more["output_shape"] = (1, *attrs.output_shape) if attrs.output_shape else ()
        image = graph.add("reshape", x, shape=(images, channels, 1, width))
        made = graph.add(
            c.op.name,
            image,
            graph.constant(np.ascontiguousarray(weights)[:, :, None]),
            b,
            strides=(1, *windows.strides),
            pads=(0, *windows.begins, 0, *windows.ends),
            dilations=(1, *windows.dilations),
            group=attrs.group,
            auto_pad=attrs.auto_pad,
            **more,
        )
        return graph.add("reshape", made, shape=_shape(c.output))

    either = any_of(op.conv(x, w, optional(b)).named(c), op.conv_transpose(x, w, optional(b)).named(c))
    return either, build


@dataclass(frozen=True)
class _Phases:
    """One axis of a transposed convolution as `stride` convolutions of `taps` taps each.

    Their results are interleaved; the first `skipped` elements of that are not wanted.
    """

    stride: int
    taps: int
    begin: int
    end: int
    skipped: int

    @staticmethod
    def of(kernel: int, stride: int, begin: int, end: int, extra: int) -> _Phases:
        taps = -(-kernel // stride)
        first = min(begin // stride, taps - 1)  # the first q; what lies before would only be cut off
        return _Phases(stride, taps, taps - 1 - first, -(-(kernel - end + extra) // stride) - 1, begin - first * stride)


@rule(exactness=Exactness.REASSOCIATING)
def transposed_as_convolution(x: Any, w: Any, b: Any, c: Any) -> Any:
    """conv_transpose(x, w), stride s  ->  s x s pixels as channels of conv(x, w), put in their places."""

    def build(graph: Graph, x: Value, w: Value, b: Value | None, c: Node) -> Value | Reject:
        attrs, windows = c.attrs, _Windows.of(c.attrs, 2)
        weights = _weights(w, 4)
        if isinstance(weights, Reject):
            return weights
        if attrs.group != 1 or windows.dilations != (1, 1):
            return Reject("it has groups or dilations", c)
        if attrs.output_shape or attrs.auto_pad != "NOTSET":
            return Reject("its padding follows from the size of its result", c)
        if b is not None and b.constant is None:
            return Reject("its bias is not constant", b)
        extra = attrs.output_padding or (0, 0)
        phases = [
            _Phases.of(weights.shape[2 + a], windows.strides[a], windows.begins[a], windows.ends[a], extra[a])
            for a in range(2)
        ]
        if any(p.end < 0 for p in phases):
            return Reject("it cuts off more than a kernel's width", c)
        bias = None if b is None or b.constant is None else _repeated(graph, b.constant.array, phases)
        pads = tuple(p.begin for p in phases) + tuple(p.end for p in phases)
        made = graph.add("conv", x, graph.constant(_phase_weights(weights, phases)), bias, pads=pads)
        return _interleaved(graph, made, weights.shape[1], phases, _shape(c.output))

    return op.conv_transpose(x, w, optional(b)).named(c), build


def _repeated(graph: Graph, bias: np.ndarray, phases: list[_Phases]) -> Value:
    return graph.constant(np.tile(bias, phases[0].stride * phases[1].stride))


def _phase_weights(weights: np.ndarray, phases: list[_Phases]) -> np.ndarray:
    """[C, O, KH, KW] as [SH * SW * O, C, JH, JW]: tap t of phase r is w[s * (J - 1 - t) + r], or zero."""
    y, x = phases
    channels, outputs = weights.shape[:2]
    whole = np.zeros((channels, outputs, y.taps * y.stride, x.taps * x.stride), weights.dtype)
    whole[:, :, : weights.shape[2], : weights.shape[3]] = weights
    parts = whole.reshape(channels, outputs, y.taps, y.stride, x.taps, x.stride)[:, :, ::-1, :, ::-1]
    return np.ascontiguousarray(parts.transpose(3, 5, 1, 0, 2, 4)).reshape(-1, channels, y.taps, x.taps)


def _interleaved(graph: Graph, made: Value, outputs: int, phases: list[_Phases], shape: tuple[Dim, ...]) -> Value:
    """[N, SH * SW * O, QH, QW] as [N, O, QH * SH, QW * SW], without what is skipped and what lies beyond `shape`."""
    y, x = phases
    images, _, height, width = _shape(made)
    apart = graph.add("reshape", made, shape=(images, y.stride, x.stride, outputs, height, width))
    turned = graph.add("transpose", apart, perm=(0, 3, 4, 1, 5, 2))
    whole = graph.add("reshape", turned, shape=(images, outputs, height * y.stride, width * x.stride))
    if _shape(whole) == shape:
        return whole
    starts = (y.skipped, x.skipped)
    ends = tuple(s + d for s, d in zip(starts, shape[2:], strict=True))
    return graph.add("slice", whole, starts=starts, ends=ends, axes=(2, 3), steps=(1, 1))


@rule(exactness=Exactness.REASSOCIATING)
def neighbours_as_channels(x: Any, w: Any, b: Any, c: Any) -> Any:
    """conv(x, w [1, C, KH, KW])  ->  P neighbours of a row as channels of conv(x, w), put in their places."""

    def build(graph: Graph, x: Value, w: Value, b: Value | None, c: Node) -> Value | Reject:
        attrs, windows = c.attrs, _Windows.of(c.attrs, 2)
        weights = _weights(w, 4)
        if isinstance(weights, Reject):
            return weights
        if weights.shape[0] != 1:
            return Reject("it has several output channels", w)
        if len(_shape(c.output)) != 4:
            return Reject("the rank of its image is not known", c)
        images, _, height, width = _shape(c.output)
        if weights.shape[1] == 1:
            return Reject("its image has one channel: vectors lie along its rows", c)
        together = 16 if weights.shape[3] >= _WIDE_TAPS else 8
        if weights.shape[3] == 1 or assumed_size(width) < 2 * together:
            return Reject("neighbours share nothing, or are few", c)
        if attrs.auto_pad != "NOTSET" or windows.dilations[1] != 1:
            return Reject("its padding follows from sizes, or its taps lie apart", c)
        if b is not None and b.constant is None:
            return Reject("its bias is not constant", b)
        stride = windows.strides[1]
        moved = np.zeros((together, *weights.shape[1:3], weights.shape[3] + stride * (together - 1)), weights.dtype)
        for p in range(together):
            moved[p, :, :, stride * p : stride * p + weights.shape[3]] = weights[0]
        missing = (-width % together if isinstance(width, int) else together - 1) * stride  # of the last group, at most
        made = graph.add(
            "conv",
            x,
            graph.constant(moved),
            None if b is None or b.constant is None else graph.constant(np.tile(b.constant.array, together)),
            strides=(windows.strides[0], stride * together),
            pads=(*windows.begins, windows.ends[0], windows.ends[1] + missing),
            dilations=(windows.dilations[0], 1),
        )
        turned = graph.add("transpose", made, perm=(0, 2, 3, 1))
        whole = graph.add("reshape", turned, shape=(images, 1, height, _shape(made)[3] * together))
        if not missing:
            return whole
        return graph.add("slice", whole, starts=(0,), ends=(width,), axes=(3,), steps=(1,))

    return op.conv(x, w, optional(b)).named(c), build


@rule(exactness=Exactness.EXACT)
def short_line_padded(x: Any, w: Any, b: Any, c: Any) -> Any:
    """conv(x, w, pads) of one line with few results  ->  conv(pad(x), w): then it is a product of matrices."""

    def build(graph: Graph, x: Value, w: Value, b: Value | None, c: Node) -> Value | Reject:
        attrs, windows = c.attrs, _Windows.of(c.attrs, 2)
        weights = _weights(w, 4)
        if isinstance(weights, Reject):
            return weights
        if len(_shape(c.output)) != 4:
            return Reject("the rank of its image is not known", c)
        images, _, height, width = _shape(c.output)
        lone = (images, height, _shape(x)[2]) == (1, 1, 1) and weights.shape[2] == 1
        if not lone or not isinstance(width, int) or width > _FEW_RESULTS:
            return Reject("it has many results", c)
        if attrs.auto_pad != "NOTSET" or attrs.group != 1 or windows.dilations != (1, 1):
            return Reject("its padding follows from sizes, or it has groups or dilations", c)
        if not any(windows.begins) and not any(windows.ends):
            return Reject("it has no padding", c)
        pads = (0, 0, *windows.begins, 0, 0, *windows.ends)
        return graph.add("conv", _padded(graph, x, pads), w, b, strides=windows.strides)

    return op.conv(x, w, optional(b)).named(c), build


def _padded(graph: Graph, x: Value, pads: tuple[int, ...]) -> Value:
    """A copy of x with zeros around it: a group of its own, lest fusion puts the padding back into the convolution."""
    inner = Graph("copy", graph.symbols)
    inner.set_outputs([inner.add("pad", inner.input(x.type, x.name), pads=pads, mode="constant")])
    return graph.add_node("fused", [x], {}, outputs=1, subgraphs=[inner]).outputs[0]


RULES = (line_as_image, transposed_as_convolution, neighbours_as_channels, short_line_padded)
