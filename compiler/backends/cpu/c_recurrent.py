"""Recurrent layers as calls of recurrent.h: weights are packed when the model is compiled, attributes are literals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fusible.compiler.backends.cpu.c_kinds import c_float
from fusible.compiler.backends.cpu.c_library import LibraryCall, exported, in_scratch, unless
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.opset.recurrent import GruAttrs, LstmAttrs, RnnAttrs
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, TensorType
from fusible.kernels.cpu.recurrent import pack_bias, pack_gates, pack_recurrent

__all__ = ["RECURRENT", "recurrent_call"]

RECURRENT = {"lstm": 4, "gru": 3, "rnn": 1}
"""The ops, and how many gates they have."""

_DEFAULTS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}
_MEMBERS = ("x", "weights", "recurrent", "bias", "lengths", "h", "c", "peepholes")
_PACKED = {"weights", "recurrent", "bias", "peepholes"}


def recurrent_call(node: Node, name: str) -> LibraryCall:
    """The call for an `lstm`, `gru` or `rnn` node. Raises NotPrintable with what the kernel does not do."""
    attrs, gates = node.attrs, RECURRENT[node.op.name]
    assert isinstance(attrs, (LstmAttrs, GruAttrs, RnnAttrs))
    operands = {member: v for member, v in zip(_MEMBERS, node.inputs, strict=False) if v is not None}
    _check(node, operands)
    inputs = tuple(operands.values())
    constants = {n: _packed(m, v, gates, attrs) for n, (m, v) in enumerate(operands.items()) if m in _PACKED}
    return LibraryCall(
        _text(operands, node, name), _sizes(operands["x"], operands["recurrent"], attrs.layout), inputs, constants
    )


def _check(node: Node, operands: Mapping[str, Value]) -> None:
    attrs, wanted = node.attrs, _DEFAULTS[node.op.name]
    named = tuple(a.lower() for a in attrs.activations)
    if (
        attrs.activation_alpha
        or attrs.activation_beta
        or any(named[n : n + len(wanted)] != wanted for n in range(0, len(named), len(wanted)))
    ):
        raise NotPrintable(f"its activations are not {', '.join(wanted)}")
    for member, value in operands.items():
        type_ = value.type
        if not isinstance(type_, TensorType) or type_.shape is None:
            raise NotPrintable("the rank of an operand is not known")
        if type_.dtype is not (DType.I32 if member == "lengths" else DType.F32):
            raise NotPrintable(f"it has an operand of {type_.dtype.value}")
        if member in _PACKED and value.constant is None:
            raise NotPrintable(f"its {member} are no constant")


def _packed(member: str, value: Value, gates: int, attrs: LstmAttrs | GruAttrs | RnnAttrs) -> np.ndarray:
    assert value.constant is not None
    array = np.ascontiguousarray(value.constant.array)
    if member == "bias":
        before = isinstance(attrs, GruAttrs) and bool(attrs.linear_before_reset)
        return pack_bias(array, gates, linear_before_reset=before)
    return pack_gates(array, 3) if member == "peepholes" else pack_recurrent(array, gates)


def _sizes(x: Value, recurrent: Value, layout: int) -> tuple[Dim, ...]:
    """(steps, rows, width, hidden)."""
    assert isinstance(x.type, TensorType) and isinstance(recurrent.type, TensorType)
    shape, weights = x.type.shape, recurrent.type.shape
    assert shape is not None and weights is not None
    steps, rows = (shape[1], shape[0]) if layout else (shape[0], shape[1])
    return steps, rows, shape[2], weights[2]


def _text(operands: Mapping[str, Value], node: Node, name: str) -> str:
    attrs, gates = node.attrs, RECURRENT[node.op.name]
    directions = 2 if attrs.direction == "bidirectional" else 1
    results = ("y", "y_h", "y_c")[: len(node.outputs)]
    buffers = [f".{member} = buffers[{n}]" for n, member in enumerate((*operands, *results))]
    sizes = [f".{size} = dims[{n}]" for n, size in enumerate(("steps", "rows", "width", "hidden"))]
    clip = math.inf if attrs.clip is None else attrs.clip
    flags = [f".{flag} = {getattr(attrs, flag, 0)}" for flag in ("input_forget", "linear_before_reset")]
    fixed = [
        f".directions = {directions}",
        f".backward = {int(attrs.direction == 'reverse')}",
        f".clip = {c_float(clip)}",
    ]
    strides = [f".{stride} = {text}" for stride, text in _strides(attrs.layout, directions).items()]
    lines = [
        f"struct recurrent layer = {{{', '.join([*buffers, *sizes])},",
        f"    {', '.join([*fixed, *flags])},",
        f"    {', '.join(strides)}}};",
    ]
    if "lengths" in operands:
        lines += unless("recurrent_lengths_fit(&layer)")
    run = in_scratch(
        f"recurrent_scratch_floats(&layer, {gates})", [f"recurrent_run(&layer, {gates}, pool, scratch);"]
    )
    return exported(name, [*lines, "recurrent_plan(&layer, pool_threads(pool));", *run])


def _strides(layout: int, directions: int) -> dict[str, str]:
    """In floats, from the sizes in dims: steps, rows, width, hidden."""
    steps, rows, width, hidden = (f"dims[{n}]" for n in range(4))
    if layout:
        return {"x_step": width, "x_row": f"{steps} * {width}", "y_step": f"{directions} * {hidden}",
                "y_direction": hidden, "y_row": f"{steps} * {directions} * {hidden}", "state_direction": hidden,
                "state_row": f"{directions} * {hidden}"}  # fmt: skip
    return {"x_step": f"{rows} * {width}", "x_row": width, "y_step": f"{directions} * {rows} * {hidden}",
            "y_direction": f"{rows} * {hidden}", "y_row": hidden, "state_direction": f"{rows} * {hidden}",
            "state_row": hidden}  # fmt: skip
