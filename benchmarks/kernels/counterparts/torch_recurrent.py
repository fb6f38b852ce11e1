"""torch layers for rnn, gru and lstm: their weights in torch's order of gates, once, before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from fusible.benchmarks.kernels.counterparts.forms import Form, Use, need

__all__ = ["FORMS"]

# The blocks of ONNX weights in the order that torch has: lstm i, o, f, c -> i, f, g, o; gru z, r, h -> r, z, n.
_ORDER: Mapping[str, Sequence[int]] = MappingProxyType({"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 2, 3, 1)})
_LAYERS = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
_SUFFIXES = {"forward": ("",), "bidirectional": ("", "_reverse")}
_LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = 4, 5, 6, 7


def _reordered(block: Any, order: Sequence[int]) -> Any:
    parts = block.chunk(len(order), 0)
    return torch.cat([parts[place] for place in order], 0)


def _layer(use: Use) -> Any:
    op, (x, w, r), b = use.case.op, use.operands[:3], use.operand(3)
    directions, hidden = w.shape[0], r.shape[2]
    layer = _LAYERS[op](x.shape[2], hidden, bias=b is not None, bidirectional=directions == 2)
    for number, suffix in enumerate(_SUFFIXES[use.attrs.direction]):
        named = {f"weight_ih_l0{suffix}": w[number], f"weight_hh_l0{suffix}": r[number]}
        if b is not None:
            inner, outer = b[number].chunk(2)
            named |= {f"bias_ih_l0{suffix}": inner, f"bias_hh_l0{suffix}": outer}
        for name, value in named.items():
            getattr(layer, name).copy_(_reordered(value, _ORDER[op]))
    return layer.eval()


def _recurrent(use: Use) -> Callable[[], Any]:
    attrs, x = use.attrs, use.x
    need(attrs.direction in _SUFFIXES and not attrs.layout and attrs.clip is None, "this direction, layout or clip")
    need(not attrs.activations or tuple(attrs.activations) in _usual(use), "other activations")
    need(not getattr(attrs, "input_forget", 0) and use.operand(_PEEPHOLES) is None, "peepholes, coupled gates")
    need(use.operand(_LENGTHS) is None, "sequences of different lengths")
    need(use.case.op != "gru" or attrs.linear_before_reset == 1, "a gru that resets before the product")
    layer, first = _layer(use), use.operand(_HIDDEN)
    state = None if first is None else (first, use.operand(_CELL)) if use.case.op == "lstm" else first
    need(state is None or not isinstance(state, tuple) or state[1] is not None, "one of two states")

    def call() -> Any:
        y, states = layer(x, state)
        both = y.reshape(*y.shape[:2], layer.bidirectional + 1, -1).transpose(1, 2)
        return (both, *states) if isinstance(states, tuple) else (both, states)

    return call


def _usual(use: Use) -> set[tuple[str, ...]]:
    usual = {"rnn": ("Tanh",), "gru": ("Sigmoid", "Tanh"), "lstm": ("Sigmoid", "Tanh", "Tanh")}[use.case.op]
    return {usual, usual * 2}


FORMS: Mapping[str, Form] = MappingProxyType(dict.fromkeys(("rnn", "gru", "lstm"), _recurrent))
