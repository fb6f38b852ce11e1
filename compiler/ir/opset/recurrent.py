"""Recurrent layers. Gates, shapes and dtypes are those of `fusible.kernels.numpy.recurrent`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.opset.recurrent_definition import recurrent_definition
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, Shape, TensorType
from fusible.kernels.numpy.recurrent_activations import choose_activations

__all__ = ["GruAttrs", "LstmAttrs", "RnnAttrs"]

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


@dataclass(frozen=True, slots=True)
class RnnAttrs:
    """Attributes of ONNX RNN. activations: () for the defaults, else all of each direction; clip: None for none."""

    direction: str = "forward"
    activations: tuple[str, ...] = ()
    activation_alpha: tuple[float, ...] = ()
    activation_beta: tuple[float, ...] = ()
    clip: float | None = None
    layout: int = 0


@dataclass(frozen=True, slots=True)
class GruAttrs:
    """Attributes of ONNX GRU; those of RnnAttrs, and linear_before_reset."""

    direction: str = "forward"
    activations: tuple[str, ...] = ()
    activation_alpha: tuple[float, ...] = ()
    activation_beta: tuple[float, ...] = ()
    clip: float | None = None
    linear_before_reset: int = 0
    layout: int = 0


@dataclass(frozen=True, slots=True)
class LstmAttrs:
    """Attributes of ONNX LSTM; those of RnnAttrs, and input_forget."""

    direction: str = "forward"
    activations: tuple[str, ...] = ()
    activation_alpha: tuple[float, ...] = ()
    activation_beta: tuple[float, ...] = ()
    clip: float | None = None
    input_forget: int = 0
    layout: int = 0


@dataclass(frozen=True)
class _Sizes:
    """What the operands agree on: steps, batch, width of the input, width of the state."""

    time: Dim
    batch: Dim
    width: Dim
    hidden: Dim


def _rnn(ctx: Infer) -> list[TensorType]:
    return _layer(ctx, gates=1, functions=1, states=(5,))


def _gru(ctx: Infer) -> list[TensorType]:
    return _layer(ctx, gates=3, functions=2, states=(5,))


def _lstm(ctx: Infer) -> list[TensorType]:
    return _layer(ctx, gates=4, functions=3, states=(5, 6), peepholes=7)


def _dynamic_quantize_lstm(ctx: Infer) -> list[TensorType]:
    for index in (1, 2):
        if ctx.dtype(index) not in (DType.I8, DType.U8):
            ctx.fail(f"input {index} must be int8 or uint8, got {ctx.dtype(index).value}")
    results = _layer(ctx, gates=4, functions=3, states=(5, 6), peepholes=7, transposed=True)
    directions, recurrent = DIRECTIONS[ctx.attrs.direction], ctx.shape(2)
    for index in (8, 9, 10, 11):
        columns = () if recurrent is None or ctx.rank(index) == 1 else recurrent[2:]
        _fits(ctx, index, (directions, *columns))
    return results


def _layer(
    ctx: Infer,
    gates: int,
    functions: int,
    states: tuple[int, ...],
    peepholes: int | None = None,
    transposed: bool = False,
) -> list[TensorType]:
    """Checks the operands against each other; the types of Y and of the final states."""
    attrs, dtype = ctx.attrs, ctx.dtype(0)
    if attrs.direction not in DIRECTIONS:
        ctx.fail(f"direction must be one of {', '.join(DIRECTIONS)}, got {attrs.direction!r}")
    if attrs.layout not in (0, 1):
        ctx.fail(f"layout must be 0 or 1, got {attrs.layout}")
    directions = DIRECTIONS[attrs.direction]
    if attrs.activations and len(attrs.activations) < functions * directions:
        ctx.fail(f"needs {functions * directions} activations, got {list(attrs.activations)}")
    choose_activations(attrs.activations, attrs.activation_alpha, attrs.activation_beta)
    sizes = _sizes(ctx, transposed)
    if sizes is None:
        return [TensorType(dtype, None)] * (1 + len(states))
    rows = sizes.hidden * gates
    weights: list[Shape] = [(directions, rows, sizes.width), (directions, rows, sizes.hidden)]
    for index, shape in enumerate(weights, 1):
        _fits(ctx, index, (shape[0], shape[2], shape[1]) if transposed else shape)
    _fits(ctx, 3, (directions, rows * 2))
    _fits(ctx, 4, (sizes.batch,))
    state: Shape = (directions, sizes.batch, sizes.hidden)
    outputs: Shape = (sizes.time, directions, sizes.batch, sizes.hidden)
    if attrs.layout:
        state = (sizes.batch, directions, sizes.hidden)
        outputs = (sizes.batch, sizes.time, directions, sizes.hidden)
    for index in states:
        _fits(ctx, index, state)
    if peepholes is not None:
        _fits(ctx, peepholes, (directions, sizes.hidden * 3))
    return [TensorType(dtype, outputs), *[TensorType(dtype, state)] * len(states)]


def _sizes(ctx: Infer, transposed: bool) -> _Sizes | None:
    """The sizes that the operands state; None if the rank of W or R is unknown."""
    for index in (0, 1, 2):
        if ctx.rank(index) not in (3, None):
            ctx.fail(f"X, W and R must have rank 3, input {index} is {ctx.type(index)}")
    weight, recurrent = ctx.shape(1), ctx.shape(2)
    if weight is None or recurrent is None:
        return None
    hidden, width = recurrent[1 if transposed else 2], weight[1 if transposed else 2]
    if hidden == 0:
        ctx.fail("the state must have at least one element")
    x = ctx.shape(0)
    if x is None:
        return _Sizes(ctx.fresh("time"), _batch(ctx), width, hidden)
    time, batch = (x[1], x[0]) if ctx.attrs.layout else (x[0], x[1])
    return _Sizes(time, batch, x[2], hidden)


def _batch(ctx: Infer) -> Dim:
    """The number of sequences where X does not tell."""
    initial = ctx.shape(5) if ctx.has(5) else None
    if initial is not None and len(initial) == 3:
        return initial[0 if ctx.attrs.layout else 1]
    return ctx.fresh("batch")


def _fits(ctx: Infer, index: int, expected: Sequence[Dim]) -> None:
    """Fails if an input that is present has another rank or another literal dimension than expected."""
    shape = ctx.shape(index) if ctx.has(index) else None
    if shape is None:
        return
    if not ctx.equal_shapes(shape, tuple(expected)):
        ctx.fail(f"input {index} must have shape {list(expected)}, got {ctx.type(index)}")


OPS.register(Op("rnn", _rnn, recurrent_definition, "recurrent:rnn", RnnAttrs, inputs=(3, 6), outputs=2))
OPS.register(Op("gru", _gru, recurrent_definition, "recurrent:gru", GruAttrs, inputs=(3, 6), outputs=2))
OPS.register(Op("lstm", _lstm, recurrent_definition, "recurrent:lstm", LstmAttrs, inputs=(3, 8), outputs=3))
OPS.register(
    Op(
        "dynamic_quantize_lstm",
        _dynamic_quantize_lstm,
        same(Opaque("each step quantises the state that the one before left")),
        "recurrent_quantized:dynamic_quantize_lstm",
        LstmAttrs,
        inputs=(12, 12),
        outputs=3,
    )
)
