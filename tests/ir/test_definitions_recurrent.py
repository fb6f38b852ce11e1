"""Recurrent layers: types, definition (a loop over time) and NumPy meaning agree; bad operands are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusible.compiler.ir.definition import Opaque
from fusible.errors import InvalidModel
from tests.ir.single_op import add_op, check_definition

KINDS = {"rnn": (1, 1), "gru": (3, 1), "lstm": (4, 2)}
TIME, BATCH, WIDTH, HIDDEN = 4, 3, 2, 5


def operands(op: str, directions: int = 1, *, layout: int = 0, dtype: Any = np.float32) -> list[np.ndarray | None]:
    """X, W, R, B, no sequence_lens, the initial states."""
    gates, states = KINDS[op]
    random = np.random.default_rng(0)
    state = (BATCH, directions, HIDDEN) if layout else (directions, BATCH, HIDDEN)
    shapes = [
        (BATCH, TIME, WIDTH) if layout else (TIME, BATCH, WIDTH),
        (directions, gates * HIDDEN, WIDTH),
        (directions, gates * HIDDEN, HIDDEN),
        (directions, 2 * gates * HIDDEN),
        *[state] * states,
    ]
    arrays: list[np.ndarray | None] = [random.standard_normal(shape).astype(dtype) for shape in shapes]
    return [*arrays[:4], None, *arrays[4:]]


def check(op: str, given: list[np.ndarray | None], symbolic: Any = (), **attrs: Any) -> None:
    check_definition(op, given, symbolic, accumulation=TIME * (WIDTH + HIDDEN), outputs=1 + KINDS[op][1], **attrs)


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
def test_directions(op: str, direction: str, layout: int) -> None:
    directions = 2 if direction == "bidirectional" else 1
    given = operands(op, directions, layout=layout)
    batches = [(k, 1 - layout) for k in range(5, len(given))]
    check(op, given, [(0, 0), (0, 1), *batches], direction=direction, layout=layout)


@pytest.mark.parametrize("op", KINDS)
def test_without_the_optional_operands(op: str) -> None:
    check(op, operands(op)[:3], [(0, 0), (0, 1)])


@pytest.mark.parametrize("op", KINDS)
def test_no_time_at_all(op: str) -> None:
    given = operands(op)
    assert given[0] is not None
    check(op, [given[0][:0], *given[1:]])


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_types(op: str, dtype: Any) -> None:
    check(op, operands(op, dtype=dtype))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("gru", {"linear_before_reset": 1, "clip": 0.5}),
        ("lstm", {"input_forget": 1, "clip": 0.5}),
        ("rnn", {"activations": ("Affine",), "activation_alpha": (0.5,), "activation_beta": (0.1,)}),
        ("rnn", {"activations": ("ThresholdedRelu",), "activation_alpha": (0.5,)}),
        ("gru", {"activations": ("HardSigmoid", "Softsign")}),
        ("gru", {"activations": ("Softplus", "ScaledTanh"), "activation_alpha": (0.9,), "activation_beta": (0.8,)}),
        ("lstm", {"activations": ("sigmoid", "LeakyRelu", "Elu"), "activation_alpha": (0.2, 0.9)}),
        ("lstm", {"activations": ("Relu", "Tanh", "Relu")}),
    ],
)
def test_variants(op: str, attrs: dict[str, Any]) -> None:
    check(op, operands(op), **attrs)


def test_peepholes() -> None:
    peepholes = np.random.default_rng(1).standard_normal((2, 3 * HIDDEN)).astype(np.float32)
    check("lstm", [*operands("lstm", 2), peepholes], direction="bidirectional")


def test_sequences_of_different_lengths_are_opaque() -> None:
    given = operands("lstm")
    given[4] = np.array([1, 2, 3], np.int32)
    node = add_op("lstm", given, outputs=3)
    assert node.op.definition(node) == Opaque("its sequences differ in length")


@pytest.mark.parametrize(
    ("index", "shape", "attrs", "message"),
    [
        (0, (TIME, BATCH), {}, "rank 3"),
        (1, (1, 4 * HIDDEN, WIDTH + 1), {}, "input 1 must have shape"),
        (2, (1, 3 * HIDDEN, HIDDEN), {}, "input 2 must have shape"),
        (3, (1, 4 * HIDDEN), {}, "input 3 must have shape"),
        (5, (BATCH, 1, HIDDEN), {}, "input 5 must have shape"),
        (0, (TIME, BATCH, WIDTH), {"direction": "both"}, "direction"),
        (0, (TIME, BATCH, WIDTH), {"layout": 2}, "layout"),
        (0, (TIME, BATCH, WIDTH), {"activations": ("Tanh",)}, "activations"),
        (0, (TIME, BATCH, WIDTH), {"activations": ("Gelu", "Tanh", "Tanh")}, "Gelu"),
    ],
)
def test_bad_operands(index: int, shape: tuple[int, ...], attrs: dict[str, Any], message: str) -> None:
    given = operands("lstm")
    given[index] = np.zeros(shape, np.float32)
    with pytest.raises(InvalidModel, match=message):
        add_op("lstm", given, outputs=3, **attrs)
