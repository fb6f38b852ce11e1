"""What a recurrent layer computes, as a graph of simpler ops: one projection of the whole input, then a loop over time.

For layers whose sequences all have the same length. Halves are computed in float32 and rounded at the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fusible.compiler.ir.definition import Composite, Definition, Opaque
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, TensorType
from fusible.kernels.numpy.recurrent_activations import ActivationChoice, choose_activations

__all__ = ["recurrent_definition"]

_DEFAULTS = {"rnn": ("Tanh",), "gru": ("Sigmoid", "Tanh"), "lstm": ("Sigmoid", "Tanh", "Tanh")}
_REVERSED = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_LENGTHS = 4  # the input that holds the lengths of the sequences


def recurrent_definition(node: Node) -> Definition:
    """The definition of an rnn, gru or lstm."""
    types = [None if v is None else v.type for v in node.inputs]
    x, recurrent = types[0], types[2]
    assert isinstance(x, TensorType) and isinstance(recurrent, TensorType)
    if x.shape is None or recurrent.shape is None or not isinstance(recurrent.shape[2], int):
        return Opaque("the sizes of its operands are not known")
    if len(types) > _LENGTHS and types[_LENGTHS] is not None:
        return Opaque("its sequences differ in length")
    return Composite(_build)


@dataclass(frozen=True)
class _Layer:
    """The operands as values of the graph that is built, time first and in the type that is computed in."""

    g: Graph
    node: Node
    x: Value  # [T, B, I]
    time: Dim
    batch: Dim
    hidden: int
    operands: tuple[Value | None, ...]
    dtype: DType  # of the results

    def operand(self, index: int, direction: int) -> Value | None:
        """One direction of an operand [D, ...]; None if it is absent."""
        value = self.operands[index] if index < len(self.operands) else None
        at = self.g.constant(np.asarray(direction, np.int64))
        return None if value is None else self.g.add("gather", value, at, axis=0)

    def state(self, index: int, direction: int) -> Value:
        """An initial state [B, H]; zeros if it is absent."""
        given = self.operand(index, direction)
        if given is not None:
            return given
        zero = self.g.constant(np.zeros((), _compute(self.dtype).numpy))
        return self.g.add("expand", zero, shape=(self.batch, self.hidden))


# (body, what the step captures, input projection [B, G*H], states) -> new states
_Step = Callable[[Graph, dict[str, Value], Value, list[Value]], list[Value]]


def _build(node: Node) -> Graph:
    layer = _layer(node)
    g, reverse = layer.g, _REVERSED[node.attrs.direction]
    choices = _choices(node, len(reverse))
    outputs, finals = [], []
    for d, backwards in enumerate(reverse):
        y, states = _direction(layer, d, backwards, choices[d])
        outputs.append(g.add("reshape", y, shape=(layer.time, 1, layer.batch, layer.hidden)))
        finals.append([g.add("reshape", s, shape=(1, layer.batch, layer.hidden)) for s in states])
    results = [_joined(g, outputs, axis=1), *(_joined(g, list(s), axis=0) for s in zip(*finals, strict=True))]
    if node.attrs.layout:
        perms = [(2, 0, 1, 3), *[(1, 0, 2)] * (len(results) - 1)]
        results = [g.add("transpose", r, perm=perm) for r, perm in zip(results, perms, strict=True)]
    if layer.dtype.is_small_float:
        results = [g.add("cast", r, dtype=layer.dtype) for r in results]
    g.set_outputs(results, ["Y", "Y_h", "Y_c"][: len(results)])
    return g


def _layer(node: Node) -> _Layer:
    g = Graph(node.op.name)
    operands: list[Value | None] = [
        None if v is None else g.input(v.type, f"x{k}") for k, v in enumerate(node.inputs)
    ]
    x = node.inputs[0]
    recurrent = node.inputs[2]
    assert x is not None and isinstance(x.type, TensorType) and x.type.shape is not None
    assert recurrent is not None and isinstance(recurrent.type, TensorType) and recurrent.type.shape is not None
    dtype, hidden = x.type.dtype, recurrent.type.shape[2]
    assert isinstance(hidden, int)
    if dtype.is_small_float:
        operands = [None if v is None else g.add("cast", v, dtype=DType.F32) for v in operands]
    if node.attrs.layout:
        moved = [k for k in (0, 5, 6) if k < len(operands)]
        for k in moved:
            value = operands[k]
            operands[k] = None if value is None else g.add("transpose", value, perm=(1, 0, 2))
    first = operands[0]
    assert first is not None
    time, batch = (x.type.shape[1], x.type.shape[0]) if node.attrs.layout else x.type.shape[:2]
    return _Layer(g, node, first, time, batch, hidden, tuple(operands), dtype)


def _compute(dtype: DType) -> DType:
    return DType.F32 if dtype.is_small_float else dtype


def _choices(node: Node, directions: int) -> list[list[ActivationChoice]]:
    attrs, defaults = node.attrs, _DEFAULTS[node.op.name]
    names = (attrs.activations or defaults * directions)[: len(defaults) * directions]
    found = choose_activations(names, attrs.activation_alpha, attrs.activation_beta)
    return [found[d * len(defaults) : (d + 1) * len(defaults)] for d in range(directions)]


def _joined(g: Graph, values: list[Value], axis: int) -> Value:
    return values[0] if len(values) == 1 else g.add("concat", *values, axis=axis)


def _direction(
    layer: _Layer, d: int, backwards: bool, choices: Sequence[ActivationChoice]
) -> tuple[Value, tuple[Value, ...]]:
    """Y [T, B, H] and the final states [B, H] of one direction."""
    g, node = layer.g, layer.node
    weight = layer.operand(1, d)
    recurrent = layer.operand(2, d)
    assert weight is not None and recurrent is not None
    projected = g.add("matmul", layer.x, g.add("transpose", weight, perm=(1, 0)))
    captured = {"projected": projected, "R": g.add("transpose", recurrent, perm=(1, 0))}
    captured.update(_biases(layer, d))
    states = [layer.state(5, d)]
    if node.op.name == "lstm":
        states.append(layer.state(6, d))
        peepholes = layer.operand(7, d)
        captured.update({} if peepholes is None else {"P": peepholes})
    step = _STEPS[node.op.name](layer, choices)
    *finals, y = _loop(layer, captured, states, backwards, step)
    if backwards:
        y = g.add("slice", y, starts=(-1,), ends=(-(2**63),), axes=(0,), steps=(-1,))
    return y, tuple(finals)


def _biases(layer: _Layer, d: int) -> dict[str, Value]:
    """The input and the recurrent bias, each [G*H], if there are any."""
    both = layer.operand(3, d)
    if both is None:
        return {}
    rows = len(_GATES[layer.node.op.name]) * layer.hidden
    return {"Wb": _part(layer.g, both, 0, rows, axis=0), "Rb": _part(layer.g, both, 1, rows, axis=0)}


_GATES = {"rnn": "h", "gru": "zrh", "lstm": "iofc"}


def _loop(
    layer: _Layer, captured: dict[str, Value], states: Sequence[Value], backwards: bool, step: _Step
) -> tuple[Value, ...]:
    """The loop over time: final states, then Y in the order of the steps."""
    g, time = layer.g, layer.time
    body = Graph("step", g.symbols)
    iteration = body.input(TensorType(DType.I64, ()), "t")
    condition = body.input(TensorType(DType.BOOL, ()), "going")
    carried = [body.input(s.type, f"state{k}") for k, s in enumerate(states)]
    inner = {name: body.input(v.type, name) for name, v in captured.items()}
    at = body.add("sub", _number(body, time - 1), iteration) if backwards else iteration
    new = step(body, inner, body.add("gather", inner["projected"], at, axis=0), carried)
    body.set_outputs([condition, *new, new[0]], ["going", *(f"state{k}" for k in range(len(new))), "y"])
    node = g.add_node(
        "loop",
        [_number(g, time), None, *states, *captured.values()],
        {"carried": len(states)},
        outputs=len(states) + 1,
        subgraphs=[body],
    )
    return node.outputs


def _number(g: Graph, dim: Dim) -> Value:
    return g.constant(np.asarray(dim, np.int64)) if isinstance(dim, int) else g.add("dims", values=(dim,), shape=())


def _part(g: Graph, x: Value, k: int, size: int, axis: int = 1) -> Value:
    """Slice k of `size` elements."""
    return g.add("slice", x, starts=(k * size,), ends=((k + 1) * size,), axes=(axis,), steps=(1,))


def _sum(g: Graph, *terms: Value | None) -> Value:
    """The sum of the terms that there are."""
    total, *rest = (term for term in terms if term is not None)
    for term in rest:
        total = g.add("add", total, term)
    return total


def _activated(g: Graph, choice: ActivationChoice, x: Value, clip: float | None) -> Value:
    """f(x), its argument bounded by +-clip."""
    assert isinstance(x.type, TensorType)
    dtype = x.type.dtype.numpy

    def number(value: float) -> Value:
        return g.constant(np.asarray(value, dtype))

    if clip is not None:
        x = g.add("clip", x, number(-clip), number(clip))
    match choice.name:
        case "affine":
            return g.add("add", g.add("mul", number(choice.alpha), x), number(choice.beta))
        case "scaledtanh":
            return g.add("mul", number(choice.alpha), g.add("tanh", g.add("mul", number(choice.beta), x)))
        case "hardsigmoid":
            return g.add("hard_sigmoid", x, alpha=choice.alpha, beta=choice.beta)
        case "leakyrelu":
            return g.add("leaky_relu", x, alpha=choice.alpha)
        case "thresholdedrelu":
            # Unlike the operator of that name it keeps x = alpha.
            return g.add("where", g.add("greater_or_equal", x, number(choice.alpha)), x, number(0))
        case "elu":
            return g.add("elu", x, alpha=choice.alpha)
        case name:
            return g.add(name, x)


def _rnn_step(layer: _Layer, choices: Sequence[ActivationChoice]) -> _Step:
    clip = layer.node.attrs.clip

    def step(g: Graph, own: dict[str, Value], x: Value, states: list[Value]) -> list[Value]:
        total = _sum(g, x, g.add("matmul", states[0], own["R"]), own.get("Wb"), own.get("Rb"))
        return [_activated(g, choices[0], total, clip)]

    return step


def _gru_step(layer: _Layer, choices: Sequence[ActivationChoice]) -> _Step:
    size, clip = layer.hidden, layer.node.attrs.clip
    f, g_ = choices

    def step(g: Graph, own: dict[str, Value], x: Value, states: list[Value]) -> list[Value]:
        (state,) = states

        def given(k: int) -> Value:
            bias = _part(g, own["Wb"], k, size, axis=0) if "Wb" in own else None
            return _sum(g, _part(g, x, k, size), bias)

        def recurrent(k: int, operand: Value) -> Value:
            bias = _part(g, own["Rb"], k, size, axis=0) if "Rb" in own else None
            return _sum(g, g.add("matmul", operand, _part(g, own["R"], k, size)), bias)

        z, r = (_activated(g, f, g.add("add", given(k), recurrent(k, state)), clip) for k in range(2))
        if layer.node.attrs.linear_before_reset:
            inner = g.add("mul", r, recurrent(2, state))
        else:
            inner = recurrent(2, g.add("mul", r, state))
        h = _activated(g, g_, g.add("add", given(2), inner), clip)
        return [g.add("add", h, g.add("mul", z, g.add("sub", state, h)))]

    return step


def _lstm_step(layer: _Layer, choices: Sequence[ActivationChoice]) -> _Step:
    size, clip = layer.hidden, layer.node.attrs.clip
    f, g_, h_ = choices

    def step(g: Graph, own: dict[str, Value], x: Value, states: list[Value]) -> list[Value]:
        hidden, cell = states
        total = _sum(g, x, g.add("matmul", hidden, own["R"]), own.get("Wb"), own.get("Rb"))
        i, o, forget, c = (_part(g, total, k, size) for k in range(4))
        i = _activated(g, f, _with_peephole(g, own, i, 0, cell, size), clip)
        if layer.node.attrs.input_forget:
            forget = g.add("sub", g.constant(np.ones((), _compute(layer.dtype).numpy)), i)
        else:
            forget = _activated(g, f, _with_peephole(g, own, forget, 2, cell, size), clip)
        c = _activated(g, g_, c, clip)
        cell = g.add("add", g.add("mul", forget, cell), g.add("mul", i, c))
        o = _activated(g, f, _with_peephole(g, own, o, 1, cell, size), clip)
        return [g.add("mul", o, _activated(g, h_, cell, None)), cell]

    return step


def _with_peephole(g: Graph, own: dict[str, Value], gate: Value, k: int, cell: Value, size: int) -> Value:
    if "P" not in own:
        return gate
    return g.add("add", gate, g.add("mul", _part(g, own["P"], k, size, axis=0), cell))


_STEPS: dict[str, Callable[[_Layer, Sequence[ActivationChoice]], _Step]] = {
    "rnn": _rnn_step,
    "gru": _gru_step,
    "lstm": _lstm_step,
}
