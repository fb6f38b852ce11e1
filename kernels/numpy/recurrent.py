"""Recurrent layers: RNN, GRU, LSTM (ONNX opset 22).

All project the whole input at once with one matrix product and then loop over time only. Shapes (layout 0): X
[T, B, I]; W [D, G*H, I]; R [D, G*H, H]; B [D, 2*G*H] (input biases, then recurrent ones); sequence_lens int32 [B];
initial states [D, B, H]; Y [T, D, B, H]; final states [D, B, H]; D = 2 for direction "bidirectional", else 1. Layout 1
puts the batch first: X [B, T, I], Y [B, T, D, H], states [B, D, H]. float16 and bfloat16 are computed in float32 and
rounded at the outputs.

Beyond the length of a sequence Y is 0 and its state stands still. The standard leaves open what a sequence of length 0
has as its final state; it is 0 here, as in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fusible.kernels.numpy.recurrent_activations import Activation, choose_activations

Array = np.ndarray[Any, Any]
# (input projection of this step, states, place for the new hidden state) -> new states, the first of them that place
Step: TypeAlias = Callable[[Array, tuple[Array, ...], Array], tuple[Array, ...]]
# hidden state [B, H] -> its recurrent contribution [B, G*H], in a buffer that the step may overwrite
Recurrence: TypeAlias = Callable[[Array], Array]


def rnn(
    X: Array, W: Array, R: Array, B: Array | None = None, sequence_lens: Array | None = None,
    initial_h: Array | None = None, /, *, direction: str = "forward", activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (), activation_beta: Sequence[float] = (), clip: float | None = None,
    layout: int = 0,
) -> tuple[Array, Array]:  # fmt: skip
    """Y, Y_h of H_t = f(X_t Wi^T + H_{t-1} Ri^T + Wb + Rb); f is tanh, or as `activations` says for each direction."""
    layer, W, R = _layer(X, W, R, B, sequence_lens, (initial_h,), direction, layout, gates=1)
    functions = _per_direction(layer, activations, ("Tanh",), activation_alpha, activation_beta)
    bias = layer.bias.sum(axis=1)

    def step_of(d: int) -> Step:
        recurrent, f, b = _recurrence(layer, R[d]), functions[d][0], bias[d]

        def step(x: Array, states: tuple[Array, ...], out: Array) -> tuple[Array, ...]:
            total = recurrent(states[0])
            total += x
            total += b
            out[...] = f(_clipped(total, clip))
            return (out,)

        return step

    Y, states = _run(layer, _projection(layer, W), step_of)
    return Y, states[0]


def gru(
    X: Array, W: Array, R: Array, B: Array | None = None, sequence_lens: Array | None = None,
    initial_h: Array | None = None, /, *, direction: str = "forward", activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (), activation_beta: Sequence[float] = (), clip: float | None = None,
    linear_before_reset: int = 0, layout: int = 0,
) -> tuple[Array, Array]:  # fmt: skip
    """Y, Y_h of a gated recurrent unit; gates are stored in the order z, r, h.

    z = f(X Wz^T + H Rz^T + Wbz + Rbz); r = f(X Wr^T + H Rr^T + Wbr + Rbr);
    h = g(X Wh^T + (r * H) Rh^T + Rbh + Wbh), or, with linear_before_reset, g(X Wh^T + r * (H Rh^T + Rbh) + Wbh);
    H' = (1 - z) * h + z * H. Defaults: f = sigmoid, g = tanh.
    """
    layer, W, R = _layer(X, W, R, B, sequence_lens, (initial_h,), direction, layout, gates=3)
    functions = _per_direction(layer, activations, ("Sigmoid", "Tanh"), activation_alpha, activation_beta)
    size = layer.hidden
    both = layer.bias.sum(axis=1)

    def step_of(d: int) -> Step:
        f, g = functions[d]
        gate_bias = both[d, : 2 * size]
        if linear_before_reset:
            recurrent, candidate = _recurrence(layer, R[d]), None
            input_bias, inner_bias = layer.bias[d, 0, 2 * size :], layer.bias[d, 1, 2 * size :]
        else:
            recurrent, candidate = (_recurrence(layer, part) for part in (R[d, : 2 * size], R[d, 2 * size :]))
            input_bias, inner_bias = both[d, 2 * size :], None

        def step(x: Array, states: tuple[Array, ...], out: Array) -> tuple[Array, ...]:
            (state,) = states
            total = recurrent(state)
            gates = total[:, : 2 * size]
            gates += x[:, : 2 * size]
            gates += gate_bias
            gates = f(_clipped(gates, clip))
            z, r = gates[:, :size], gates[:, size:]
            if candidate is None:
                inner = total[:, 2 * size :]
                inner += inner_bias
                inner *= r
            else:
                inner = candidate(r * state)
            inner += x[:, 2 * size :]
            inner += input_bias
            h = g(_clipped(inner, clip))
            np.subtract(state, h, out=out)
            out *= z
            out += h
            return (out,)

        return step

    Y, finals = _run(layer, _projection(layer, W), step_of)
    return Y, finals[0]


def lstm(
    X: Array, W: Array, R: Array, B: Array | None = None, sequence_lens: Array | None = None,
    initial_h: Array | None = None, initial_c: Array | None = None, P: Array | None = None, /, *,
    direction: str = "forward", activations: Sequence[str] = (), activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (), clip: float | None = None, input_forget: int = 0, layout: int = 0,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Y, Y_h, Y_c of a long short-term memory; gates are stored in the order i, o, f, c, peepholes P [D, 3*H] i, o, f.

    i = f(X Wi^T + H Ri^T + Pi * C + bi); f = f(X Wf^T + H Rf^T + Pf * C + bf), or 1 - i with input_forget;
    c = g(X Wc^T + H Rc^T + bc); C' = f * C + i * c; o = f(X Wo^T + H Ro^T + Po * C' + bo); H' = o * h(C').
    Defaults: f = sigmoid, g = h = tanh. `clip` bounds the arguments of f and g, not that of h, as ONNX Runtime does.
    """
    layer, W, R = _layer(X, W, R, B, sequence_lens, (initial_h, initial_c), direction, layout, gates=4)
    recurrences = [_recurrence(layer, matrix) for matrix in R]
    return lstm_over(
        layer, _projection(layer, W), recurrences, P, activations=activations, activation_alpha=activation_alpha,
        activation_beta=activation_beta, clip=clip, input_forget=input_forget,
    )  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """The checked operands of one layer, time first, in the type they are computed in."""

    X: Array  # [T, B, I]
    bias: Array  # [D, 2, G*H]
    lengths: Array | None  # [B]
    initial: tuple[Array, ...]  # each [D, B, H]
    reversed: tuple[bool, ...]  # one a direction
    hidden: int
    layout: int
    dtype: np.dtype[Any]  # of the results


def lstm_over(
    layer: Layer, projected: Sequence[Array], recurrences: Sequence[Recurrence], P: Array | None, *,
    activations: Sequence[str], activation_alpha: Sequence[float], activation_beta: Sequence[float],
    clip: float | None, input_forget: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """An LSTM over ready input projections [T, B, 4H] (one a direction), with the recurrent products passed in.

    The quantised LSTM differs from the plain one in these two products only.
    """
    size = layer.hidden
    functions = _per_direction(layer, activations, ("Sigmoid", "Tanh", "Tanh"), activation_alpha, activation_beta)
    peepholes = None if P is None else _shaped(P, "P", (len(layer.reversed), 3 * size)).astype(layer.X.dtype)
    bias = layer.bias.sum(axis=1)

    def step_of(d: int) -> Step:
        f, g, h = functions[d]
        recurrent, b = recurrences[d], bias[d]
        peephole = None if peepholes is None else peepholes[d].reshape(3, 1, size)
        # Without peepholes and coupling i, o and f wait for nothing: one call for the three.
        together = peephole is None and not input_forget

        def step(x: Array, states: tuple[Array, ...], out: Array) -> tuple[Array, ...]:
            hidden, cell = states
            total = recurrent(hidden)
            total += x
            if peephole is not None:
                total[:, :size] += peephole[0] * cell
                total[:, 2 * size : 3 * size] += peephole[2] * cell
            total += b
            i, o, forget, c = (total[:, k * size : (k + 1) * size] for k in range(4))
            if together:
                gates = f(_clipped(total[:, : 3 * size], clip))
                i, o, forget = (gates[:, k * size : (k + 1) * size] for k in range(3))
            else:
                i = f(_clipped(i, clip))
                forget = 1 - i if input_forget else f(_clipped(forget, clip))
            cell = forget * cell
            cell += i * g(_clipped(c, clip))
            if not together:
                if peephole is not None:
                    o += peephole[1] * cell
                o = f(_clipped(o, clip))
            np.multiply(o, h(cell.copy()), out=out)
            return out, cell

        return step

    Y, (Y_h, Y_c) = _run(layer, projected, step_of)
    return Y, Y_h, Y_c


def _recurrence(layer: Layer, matrix: Array) -> Recurrence:
    """h -> h @ matrix^T, into a buffer that the next call overwrites."""
    transposed = np.ascontiguousarray(matrix.T)
    buffer = np.empty((layer.X.shape[1], transposed.shape[1]), transposed.dtype)
    return lambda h: np.matmul(h, transposed, out=buffer)


def _projection(layer: Layer, W: Array) -> list[Array]:
    """X W^T for each direction: [T, B, G*H]."""
    time, batch, width = layer.X.shape
    flat = layer.X.reshape(time * batch, width)
    return [(flat @ matrix.T).reshape(time, batch, matrix.shape[0]) for matrix in W]


def _clipped(x: Array, clip: float | None) -> Array:
    return x if clip is None else np.clip(x, -clip, clip, out=x)


def _run(
    layer: Layer, projected: Sequence[Array], step_of: Callable[[int], Step]
) -> tuple[Array, tuple[Array, ...]]:
    """Y and the final states in the layout and dtype of the layer."""
    time, batch, _ = layer.X.shape
    directions = len(layer.reversed)
    Y = np.zeros((time, directions, batch, layer.hidden), layer.X.dtype)
    finals = tuple(np.zeros((directions, batch, layer.hidden), layer.X.dtype) for _ in layer.initial)
    with np.errstate(all="ignore"):
        for d in range(directions):
            states = tuple(initial[d] for initial in layer.initial)
            x, y = projected[d], Y[:, d]
            if layer.reversed[d] and layer.lengths is None:
                x, y = x[::-1], y[::-1]
            elif layer.reversed[d]:
                x = _reversed(x, layer.lengths)
            states = _loop(x, y, states, layer.lengths, step_of(d))
            if layer.reversed[d] and layer.lengths is not None:
                y[...] = _reversed(y, layer.lengths)
            for final, state in zip(finals, states, strict=True):
                final[d] = state
    if layer.layout == 1:
        Y = Y.transpose(2, 0, 1, 3)
        finals = tuple(final.transpose(1, 0, 2) for final in finals)
    return _result(Y, layer.dtype), tuple(_result(final, layer.dtype) for final in finals)


def _loop(x: Array, y: Array, states: tuple[Array, ...], lengths: Array | None, step: Step) -> tuple[Array, ...]:
    """Steps through time, writing y, and returns the states that follow the last step of each sequence."""
    if lengths is None:
        for t in range(x.shape[0]):
            states = step(x[t], states, y[t])
        return states
    finals = tuple(np.zeros_like(state) for state in states)
    longest, shortest = int(lengths.max(initial=0)), int(lengths.min(initial=x.shape[0]))
    for t in range(longest):
        states = step(x[t], states, y[t])
        if t + 1 >= shortest:
            ending = lengths == t + 1
            for final, state in zip(finals, states, strict=True):
                final[ending] = state[ending]
            y[t][t >= lengths] = 0
    return finals


def _reversed(x: Array, lengths: Array | None) -> Array:
    """The first lengths[b] steps of x[:, b] in reverse order, the rest in place."""
    assert lengths is not None
    steps = np.arange(x.shape[0])[:, None]
    order = np.where(steps < lengths, lengths - 1 - steps, steps)
    return np.take_along_axis(x, order[:, :, None], axis=0)


def _result(x: Array, dtype: np.dtype[Any]) -> Array:
    return np.ascontiguousarray(x, dtype=dtype)


def _per_direction(
    layer: Layer, names: Sequence[str], defaults: tuple[str, ...], alphas: Sequence[float], betas: Sequence[float]
) -> list[list[Activation]]:
    count, directions = len(defaults), len(layer.reversed)
    if names and len(names) < count * directions:
        raise ValueError(f"expected {count * directions} activations ({count} a direction), got {list(names)}")
    choices = choose_activations((names or defaults * directions)[: count * directions], alphas, betas)
    return [[choice.build() for choice in choices[d * count : (d + 1) * count]] for d in range(directions)]


def _layer(
    X: Array, W: Array, R: Array, B: Array | None, lengths: Array | None, initial: tuple[Array | None, ...],
    direction: str, layout: int, gates: int,
) -> tuple[Layer, Array, Array]:  # fmt: skip
    """The layer and its weights in the type they are computed in."""
    x, reverse = time_first(X, layout), directions_of(direction)
    hidden = R.shape[-1]
    _shaped(W, "W", (len(reverse), gates * hidden, x.shape[2]))
    _shaped(R, "R", (len(reverse), gates * hidden, hidden))
    layer = checked_layer(x, B, lengths, initial, reverse, layout, gates, hidden)
    return layer, W.astype(layer.X.dtype, copy=False), R.astype(layer.X.dtype, copy=False)


def checked_layer(
    X: Array, B: Array | None, lengths: Array | None, initial: tuple[Array | None, ...],
    reverse: tuple[bool, ...], layout: int, gates: int, hidden: int,
) -> Layer:  # fmt: skip
    """Brings the operands of a layer into the forms of `Layer`; X is time first."""
    time, batch, _ = X.shape
    compute = np.dtype(np.float64 if X.dtype == np.float64 else np.float32)
    directions, rows = len(reverse), gates * hidden
    bias = np.zeros((directions, 2, rows), compute)
    if B is not None:
        bias = _shaped(B, "B", (directions, 2 * rows)).astype(compute).reshape(directions, 2, rows)
    if lengths is not None:
        lengths = _shaped(lengths, "sequence_lens", (batch,)).astype(np.int64)
        if lengths.size and (lengths.min() < 0 or lengths.max() > time):
            raise ValueError(f"sequence_lens must lie between 0 and the {time} steps of the input, got {lengths}")
    states = tuple(_state(state, directions, batch, hidden, layout, compute) for state in initial)
    return Layer(np.ascontiguousarray(X, compute), bias, lengths, states, reverse, hidden, layout, X.dtype)


def time_first(X: Array, layout: int) -> Array:
    """X with time first."""
    if X.ndim != 3:
        raise ValueError(f"the input of a recurrent layer must have 3 dimensions, got shape {X.shape}")
    if layout not in (0, 1):
        raise ValueError(f"layout must be 0 (time first) or 1 (batch first), got {layout}")
    return X.transpose(1, 0, 2) if layout else X


def directions_of(direction: str) -> tuple[bool, ...]:
    """For each direction whether it runs backwards."""
    known = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if direction not in known:
        raise ValueError(f"direction must be forward, reverse or bidirectional, got {direction!r}")
    return known[direction]


def _state(
    initial: Array | None, directions: int, batch: int, hidden: int, layout: int, compute: np.dtype[Any]
) -> Array:
    if initial is None:
        return np.zeros((directions, batch, hidden), compute)
    if layout:
        return _shaped(initial, "initial state", (batch, directions, hidden)).transpose(1, 0, 2).astype(compute)
    return _shaped(initial, "initial state", (directions, batch, hidden)).astype(compute)


def _shaped(x: Array, name: str, shape: tuple[int, ...]) -> Array:
    if x.shape != shape:
        raise ValueError(f"{name} of a recurrent layer must have shape {shape}, got {x.shape}")
    return x
