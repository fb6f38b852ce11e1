"""RNN, GRU, LSTM and DynamicQuantizeLSTM against ONNX Runtime, and against themselves where it is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fusible.kernels.numpy.recurrent import gru, lstm, rnn
from fusible.kernels.numpy.recurrent_activations import choose_activations
from fusible.kernels.numpy.recurrent_quantized import dynamic_quantize_lstm
from tests.kernels.single_node import run_node
from tests.tolerance import assert_close

KINDS: dict[str, tuple[Callable[..., Any], int, int]] = {"RNN": (rnn, 1, 1), "GRU": (gru, 3, 1), "LSTM": (lstm, 4, 2)}
DIRECTIONS = ("forward", "reverse", "bidirectional")
TIME, BATCH, WIDTH, HIDDEN = 5, 3, 4, 3


def operands(gates: int, states: int, directions: int = 1, seed: int = 0) -> list[np.ndarray]:
    """X, W, R, B, sequence_lens (an empty sequence among them) and the states."""
    random = np.random.default_rng(seed)
    shapes = [
        (TIME, BATCH, WIDTH),
        (directions, gates * HIDDEN, WIDTH),
        (directions, gates * HIDDEN, HIDDEN),
        (directions, 2 * gates * HIDDEN),
        *[(directions, BATCH, HIDDEN)] * states,
    ]
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    return [*arrays[:4], np.array([2, 0, TIME], np.int32), *arrays[4:]]


def check(op: str, inputs: list[Any], **attributes: Any) -> None:
    function, _, states = KINDS[op]
    expected = run_node(op, inputs, 1 + states, hidden_size=HIDDEN, **attributes)
    for got, reference in zip(function(*inputs, **attributes), expected, strict=True):
        assert got.dtype == np.float32
        assert_close(got, reference, accumulation=TIME * (WIDTH + HIDDEN))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("clip", [None, 0.4])
def test_directions_lengths_and_clip(op: str, direction: str, clip: float | None) -> None:
    _, gates, states = KINDS[op]
    inputs = operands(gates, states, 2 if direction == "bidirectional" else 1)
    check(op, inputs, direction=direction, **({} if clip is None else {"clip": clip}))


@pytest.mark.parametrize("op", KINDS)
def test_nothing_optional(op: str) -> None:
    _, gates, states = KINDS[op]
    check(op, operands(gates, states)[:3])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gru_linear_before_reset(direction: str) -> None:
    check("GRU", operands(3, 1, 2 if direction == "bidirectional" else 1), direction=direction, linear_before_reset=1)


@pytest.mark.parametrize("input_forget", [0, 1])
@pytest.mark.parametrize("peephole", [False, True])
def test_lstm_gates(input_forget: int, peephole: bool) -> None:
    peepholes = np.random.default_rng(1).standard_normal((2, 3 * HIDDEN)).astype(np.float32)
    inputs = [*operands(4, 2, 2), *([peepholes] if peephole else [])]
    check("LSTM", inputs, direction="bidirectional", input_forget=input_forget, clip=1.5)


@pytest.mark.parametrize(
    ("op", "names", "alpha", "beta"),
    [
        ("RNN", ["Relu"], [], []),
        ("RNN", ["Affine"], [0.3], [0.1]),
        ("RNN", ["Softplus"], [], []),
        ("RNN", ["ThresholdedRelu"], [0.3], []),
        ("GRU", ["HardSigmoid", "ScaledTanh"], [0.3, 0.9], [0.4, 0.8]),
        ("LSTM", ["HardSigmoid", "Softsign", "LeakyRelu"], [0.3, 0.1], [0.4]),
        ("LSTM", ["sigmoid", "Elu", "tanh"], [], []),
    ],
)
def test_activations(op: str, names: list[str], alpha: list[float], beta: list[float]) -> None:
    _, gates, states = KINDS[op]
    parameters = {"activation_alpha": alpha, "activation_beta": beta}
    check(op, operands(gates, states), activations=names, **{k: v for k, v in parameters.items() if v})


def test_activation_parameters() -> None:
    (thresholded,) = choose_activations(["ThresholdedRelu"], [], [])
    # The default of the operator of that name: alpha = 1.
    assert thresholded.build()(np.array([0.5, 1.0, 1.5])).tolist() == [0.0, 1.0, 1.5]
    with pytest.raises(ValueError, match="unknown"):
        choose_activations(["Gelu"], [], [])
    with pytest.raises(ValueError, match="activation_alpha"):
        choose_activations(["ScaledTanh"], [], [])


@pytest.mark.parametrize("op", KINDS)
def test_batch_first_is_a_transposition(op: str) -> None:
    function, gates, states = KINDS[op]
    X, W, R, B, lengths, *initial = operands(gates, states, 2)
    expected = function(X, W, R, B, lengths, *initial, direction="bidirectional")
    moved = [state.transpose(1, 0, 2) for state in initial]
    got = function(X.transpose(1, 0, 2), W, R, B, lengths, *moved, direction="bidirectional", layout=1)
    assert np.array_equal(got[0], expected[0].transpose(2, 0, 1, 3))
    for state, reference in zip(got[1:], expected[1:], strict=True):
        assert np.array_equal(state, reference.transpose(1, 0, 2))


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_types_round_once(op: str, dtype: Any) -> None:
    function, gates, states = KINDS[op]
    inputs = [x if x.dtype == np.int32 else x.astype(dtype) for x in operands(gates, states)]
    wide = [x if x.dtype == np.int32 else x.astype(np.float64) for x in inputs]
    for got, reference in zip(function(*inputs), function(*wide), strict=True):
        assert got.dtype == dtype
        assert_close(got, reference, accumulation=TIME * (WIDTH + HIDDEN))


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize(("time", "batch"), [(0, 3), (4, 0)])
def test_nothing_to_do(op: str, time: int, batch: int) -> None:
    function, gates, states = KINDS[op]
    _, W, R, *_ = operands(gates, states)
    Y, *finals = function(np.zeros((time, batch, WIDTH), np.float32), W, R)
    assert Y.shape == (time, 1, batch, HIDDEN)
    assert all(state.shape == (1, batch, HIDDEN) and not state.any() for state in finals)


def test_inputs_stay_as_they_are() -> None:
    inputs = operands(4, 2)
    copies = [x.copy() for x in inputs]
    lstm(*inputs, clip=0.5)
    assert all(np.array_equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_bad_operands() -> None:
    X, W, R, B, lengths, *_ = operands(4, 2)
    with pytest.raises(ValueError, match="W of a recurrent layer must have shape"):
        lstm(X, W[:, :-1], R)
    with pytest.raises(ValueError, match="sequence_lens"):
        lstm(X, W, R, B, lengths + 1)
    with pytest.raises(ValueError, match="direction"):
        lstm(X, W, R, direction="sideways")
    with pytest.raises(ValueError, match="activations"):
        lstm(X, W, R, activations=("Tanh",))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("dtype", "zero_point"), [(np.uint8, 100), (np.int8, 0)])
def test_dynamic_quantize_lstm(direction: str, per_column: bool, dtype: Any, zero_point: int) -> None:
    random = np.random.default_rng(3)
    D = 2 if direction == "bidirectional" else 1
    X, _, _, B, lengths, h, c = operands(4, 2, D)
    X = np.concatenate([X] * 70, axis=2)  # more than 258 terms do not fit one exact float32 sum
    # ONNX Runtime's int8 products saturate on processors without VNNI unless weights keep to 7 bits.
    low, high = (0, 256) if dtype == np.uint8 else (-64, 64)
    W = random.integers(low, high, (D, X.shape[2], 4 * HIDDEN)).astype(dtype)
    R = random.integers(low, high, (D, HIDDEN, 4 * HIDDEN)).astype(dtype)
    shape = (D, 4 * HIDDEN) if per_column else (D,)
    W_scale, R_scale = (random.uniform(s, 2 * s, shape).astype(np.float32) for s in (0.0005, 0.005))
    zero = np.full(shape, zero_point, dtype)
    inputs = [X, W, R, B, lengths, h, c, None, W_scale, zero, R_scale, zero]
    expected = run_node(
        "DynamicQuantizeLSTM", inputs, 3, domain="com.microsoft", hidden_size=HIDDEN, direction=direction
    )
    for got, reference in zip(dynamic_quantize_lstm(*inputs, direction=direction), expected, strict=True):
        assert_close(got, reference, accumulation=TIME * X.shape[2])
