"""RNN, GRU, LSTM and ONNX Runtime's DynamicQuantizeLSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import TensorType


@onnx_op("RNN")
def rnn(c: NodeContext) -> Sequence[Value]:
    """RNN (layout since opset 14; output_sequence of opset 1 asked for what is always there)."""
    return _layer(c, "rnn", inputs=6, gates=1, outputs=2, **_attributes(c))


@onnx_op("GRU")
def gru(c: NodeContext) -> Sequence[Value]:
    """GRU (linear_before_reset since opset 3)."""
    linear = c.attr_int("linear_before_reset", 0)
    return _layer(c, "gru", inputs=6, gates=3, outputs=2, linear_before_reset=int(linear != 0), **_attributes(c))


@onnx_op("LSTM")
def lstm(c: NodeContext) -> Sequence[Value]:
    """LSTM."""
    coupled = c.attr_int("input_forget", 0)
    return _layer(c, "lstm", inputs=8, gates=4, outputs=3, input_forget=int(coupled != 0), **_attributes(c))


@onnx_op("DynamicQuantizeLSTM", domain="com.microsoft")
def dynamic_quantize_lstm(c: NodeContext) -> Sequence[Value]:
    """DynamicQuantizeLSTM: as LSTM, with scales and zero points of W and R as inputs 8 to 11."""
    for index in (1, 2, 8, 9, 10, 11):
        c.required(index)
    for weight, zero_point in ((1, 9), (2, 11)):
        if c.tensor_type(weight).dtype is not c.tensor_type(zero_point).dtype:
            c.invalid(f"inputs {weight} and {zero_point} must have the same type")
    coupled = c.attr_int("input_forget", 0)
    return _layer(
        c, "dynamic_quantize_lstm", inputs=12, gates=None, outputs=3, input_forget=int(coupled != 0), **_attributes(c)
    )


def _attributes(c: NodeContext) -> dict[str, Any]:
    """What the layers have in common."""
    return {
        "direction": c.attr_string("direction", "forward").lower(),
        "activations": c.attr_strings("activations") or (),
        "activation_alpha": c.attr_floats("activation_alpha") or (),
        "activation_beta": c.attr_floats("activation_beta") or (),
        "clip": c.attr_float("clip") if c.has_attr("clip") else None,
        "layout": c.attr_int("layout", 0),
    }


def _layer(
    c: NodeContext, op: str, *, inputs: int, gates: int | None, outputs: int, **attributes: Any
) -> Sequence[Value]:
    _check_hidden_size(c, gates)
    operands = [c.required(i) if i < 3 else c.optional(i) for i in range(inputs)]
    return c.add_node(op, *operands, outputs=outputs, **attributes).outputs


def _check_hidden_size(c: NodeContext, gates: int | None) -> None:
    """The attribute repeats what the shape of R says; they must agree."""
    type_ = c.required(2).type
    shape = type_.shape if isinstance(type_, TensorType) else None
    if not c.has_attr("hidden_size") or shape is None or len(shape) != 3:
        return
    stated, found = c.attr_int("hidden_size"), shape[1 if gates is None else 2]
    if isinstance(found, int) and found != stated:
        c.invalid(f"hidden_size is {stated}, but R has states of {found} elements")
