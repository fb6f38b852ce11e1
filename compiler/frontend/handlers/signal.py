"""DFT, STFT, HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix."""

from __future__ import annotations

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType

_WINDOWS = {"HannWindow": "hann_window", "HammingWindow": "hamming_window", "BlackmanWindow": "blackman_window"}


@onnx_op("DFT")
def dft_17(c: NodeContext) -> Value:
    """DFT of opset 17: the axis is an attribute and counts from 0."""
    return _dft(c, c.attr_int("axis", 1))


@onnx_op("DFT", since=20)
def dft(c: NodeContext) -> Value:
    """DFT: the axis is operand 2."""
    if c.optional(2) is None:
        return _dft(c, -2)
    axis = _scalar(c, 2)
    return _dft(c, axis if isinstance(axis, int) else None)


def _dft(c: NodeContext, axis: int | None) -> Value:
    attrs = {"inverse": c.attr_int("inverse", 0) != 0, "onesided": c.attr_int("onesided", 0) != 0}
    length = _scalar(c, 1)
    if axis is None or (c.optional(1) is not None and length is None):
        where = c.optional(2) if axis is None else c.ints_constant([axis])
        return c.add("dft_dynamic", c.required(0), c.optional(1), where, **attrs)
    return c.add("dft", c.required(0), axis=axis, dft_length=length, **attrs)


@onnx_op("STFT")
def stft(c: NodeContext) -> Value:
    """STFT."""
    step, length = _scalar(c, 1), _scalar(c, 3)
    onesided = c.attr_int("onesided", 1) != 0
    if step is None or (c.optional(3) is not None and length is None):
        return c.add("stft_dynamic", c.required(0), c.required(1), c.optional(2), c.optional(3), onesided=onesided)
    return c.add("stft", c.required(0), c.optional(2), frame_step=step, frame_length=length, onesided=onesided)


@onnx_op("HannWindow", "HammingWindow", "BlackmanWindow")
def window(c: NodeContext) -> Value:
    """HannWindow, HammingWindow, BlackmanWindow."""
    op = _WINDOWS[c.node.op_type]
    attrs = {"dtype": c.attr_dtype("output_datatype", DType.F32), "periodic": c.attr_int("periodic", 1) != 0}
    size = _scalar(c, 0)
    if size is None:
        return c.add(f"{op}_dynamic", c.required(0), **attrs)
    return c.add(op, size=size, **attrs)


@onnx_op("MelWeightMatrix")
def mel_weight_matrix(c: NodeContext) -> Value:
    """MelWeightMatrix."""
    dtype = c.attr_dtype("output_datatype", DType.F32)
    bands, length, rate = (_scalar(c, i) for i in range(3))
    low, high = c.static(3), c.static(4)
    if bands is None or length is None or rate is None or low is None or high is None:
        return c.add("mel_weight_matrix_dynamic", *(c.required(i) for i in range(5)), dtype=dtype)
    return c.add(
        "mel_weight_matrix",
        num_mel_bins=bands,
        dft_length=length,
        sample_rate=rate,
        lower_edge_hertz=float(low.reshape(())),
        upper_edge_hertz=float(high.reshape(())),
        dtype=dtype,
    )


def _scalar(c: NodeContext, index: int) -> Dim | None:
    """An integer operand of one element, None if absent or unknown."""
    dims = c.dims(index)
    if dims is not None and len(dims) != 1:
        c.invalid(f"input {index} must have one element, got {len(dims)}")
    return None if dims is None else dims[0]
