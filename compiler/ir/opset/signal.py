"""Signals: Fourier transforms, windows, the mel filter bank. Complex numbers are pairs along the last axis."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.symbols import Dim, floordiv
from fusible.compiler.ir.types import DType, Shape, TensorType

__all__ = ["DftAttrs", "MelWeightMatrixAttrs", "StftAttrs", "WindowAttrs"]

_FLOATS = (DType.F32, DType.F64, DType.F16, DType.BF16)


@dataclass(frozen=True, slots=True)
class DftAttrs:
    """axis; dft_length: None for that of the axis; inverse; onesided: half of a real signal's spectrum."""

    axis: int = -2
    dft_length: Dim | None = None
    inverse: bool = False
    onesided: bool = False


@dataclass(frozen=True, slots=True)
class DftDynamicAttrs:
    """As DftAttrs; length and axis are operands."""

    inverse: bool = False
    onesided: bool = False


@dataclass(frozen=True, slots=True)
class StftAttrs:
    """frame_step; frame_length: None for that of the window, or of the signal; onesided: half of the spectrum."""

    frame_step: Dim
    frame_length: Dim | None = None
    onesided: bool = True


@dataclass(frozen=True, slots=True)
class StftDynamicAttrs:
    """As StftAttrs; step and length are operands."""

    onesided: bool = True


@dataclass(frozen=True, slots=True)
class WindowAttrs:
    """size, dtype: of the result; periodic: a period has `size` elements, not one less."""

    size: Dim
    dtype: DType
    periodic: bool = True


@dataclass(frozen=True, slots=True)
class WindowDynamicAttrs:
    """As WindowAttrs; the size is an operand."""

    dtype: DType
    periodic: bool = True


@dataclass(frozen=True, slots=True)
class MelWeightMatrixAttrs:
    """The operands of ONNX MelWeightMatrix; dtype: of the result."""

    num_mel_bins: Dim
    dft_length: Dim
    sample_rate: Dim
    lower_edge_hertz: float
    upper_edge_hertz: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class MelWeightMatrixDynamicAttrs:
    """dtype: of the result."""

    dtype: DType


def _signal(ctx: Infer) -> Shape | None:
    """The shape of a signal [..., 1 or 2]."""
    if ctx.dtype(0) not in _FLOATS:
        ctx.fail(f"input 0 must be a float of at least 16 bits, got {ctx.type(0)}")
    shape = ctx.shape(0)
    if shape is not None and (len(shape) < 2 or (isinstance(shape[-1], int) and shape[-1] not in (1, 2))):
        ctx.fail(f"a signal has shape [..., 1] or [..., 2], got {ctx.type(0)}")
    return shape


def _positive(ctx: Infer, name: str, value: Dim | None) -> None:
    if isinstance(value, int) and not 1 <= value < 2**31:
        ctx.fail(f"{name} must be positive, got {value}")


def _dft(ctx: Infer) -> TensorType:
    attrs, shape = ctx.attrs, _signal(ctx)
    _positive(ctx, "dft_length", attrs.dft_length)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    axis = ctx.axis(attrs.axis, len(shape))
    if axis == len(shape) - 1:
        ctx.fail("the last axis holds real and imaginary parts and cannot be transformed")
    if attrs.dft_length is not None:
        length = attrs.dft_length
    else:
        length = 2 * (shape[axis] - 1) if attrs.inverse and attrs.onesided else shape[axis]
        _positive(ctx, "the length of the axis", length)
    kept = floordiv(length, 2) + 1 if attrs.onesided and not attrs.inverse else length
    parts = 1 if attrs.onesided and attrs.inverse else 2
    return TensorType(ctx.dtype(0), (*shape[:axis], kept, *shape[axis + 1 : -1], parts))


def _dft_dynamic(ctx: Infer) -> TensorType:
    shape = _signal(ctx)
    if shape is None:
        return TensorType(ctx.dtype(0), None)
    parts = 1 if ctx.attrs.onesided and ctx.attrs.inverse else 2
    return TensorType(ctx.dtype(0), (*(ctx.fresh("frequencies") for _ in shape[:-1]), parts))


def _frames(ctx: Infer, window: int) -> tuple[Shape, Dim | None] | None:
    """The shape of the signal and the length that the window states."""
    shape = _signal(ctx)
    taps = ctx.shape(window) if ctx.has(window) else None
    if taps is not None and len(taps) != 1:
        ctx.fail(f"the window must be a vector, got {ctx.type(window)}")
    if ctx.has(window) and ctx.dtype(window) is not ctx.dtype(0):
        ctx.fail(f"the window must have the type of the signal, got {ctx.type(window)}")
    if shape is None:
        return None
    if len(shape) != 3:
        ctx.fail(f"takes [B, length, 1 or 2], got {ctx.type(0)}")
    return shape, None if taps is None else taps[0]


def _stft(ctx: Infer) -> TensorType:
    attrs, found = ctx.attrs, _frames(ctx, 1)
    _positive(ctx, "frame_step", attrs.frame_step)
    _positive(ctx, "frame_length", attrs.frame_length)
    if found is None or (attrs.frame_length is None and ctx.has(1) and found[1] is None):
        return TensorType(ctx.dtype(0), None)
    shape, taps = found
    length = attrs.frame_length if attrs.frame_length is not None else shape[1] if taps is None else taps
    if taps is not None and not ctx.equal(taps, length):
        ctx.fail(f"the window has {taps} elements, a frame {length}")
    if not ctx.at_most(1, length) or not ctx.at_most(length, shape[1]):
        ctx.fail(f"a frame of {length} elements does not fit a signal of {shape[1]}")
    if attrs.onesided and not ctx.equal(shape[2], 1):
        ctx.fail("a one-sided transform takes a real signal")
    frames = floordiv(shape[1] - length, attrs.frame_step) + 1
    return TensorType(ctx.dtype(0), (shape[0], frames, floordiv(length, 2) + 1 if attrs.onesided else length, 2))


def _stft_dynamic(ctx: Infer) -> TensorType:
    found = _frames(ctx, 2)
    batch = ctx.fresh("batch") if found is None else found[0][0]
    return TensorType(ctx.dtype(0), (batch, ctx.fresh("frames"), ctx.fresh("frequencies"), 2))


def _number(ctx: Infer) -> None:
    """The result is a number of a type that ONNX allows here."""
    dtype = ctx.attrs.dtype
    if dtype not in _FLOATS and not (dtype.is_integer and dtype.numpy.kind in "iu"):
        ctx.fail(f"the result cannot be {dtype.value}")


def _window(ctx: Infer) -> TensorType:
    _number(ctx)
    if isinstance(ctx.attrs.size, int) and ctx.attrs.size < 0:
        ctx.fail(f"size must not be negative, got {ctx.attrs.size}")
    return TensorType(ctx.attrs.dtype, (ctx.attrs.size,))


def _window_dynamic(ctx: Infer) -> TensorType:
    _number(ctx)
    return TensorType(ctx.attrs.dtype, (ctx.fresh("window"),))


def _mel(ctx: Infer) -> TensorType:
    _number(ctx)
    attrs = ctx.attrs
    for name in ("dft_length", "sample_rate"):
        _positive(ctx, name, getattr(attrs, name))
    return TensorType(attrs.dtype, (floordiv(attrs.dft_length, 2) + 1, attrs.num_mel_bins))


def _mel_dynamic(ctx: Infer) -> TensorType:
    _number(ctx)
    return TensorType(ctx.attrs.dtype, (ctx.fresh("frequencies"), ctx.fresh("bands")))


_TRANSFORM = same(Opaque("a fast transform does in n log n steps what the sum that it stands for does in n * n"))
_POSITIONS = same(Opaque("its elements follow from their positions, which expressions have no words for"))

OPS.register(Op("dft", _dft, _TRANSFORM, "signal:dft", DftAttrs))
OPS.register(
    Op("dft_dynamic", _dft_dynamic, _TRANSFORM, "signal:dft_dynamic", DftDynamicAttrs, inputs=(1, 3), dynamic=True)
)
OPS.register(Op("stft", _stft, _TRANSFORM, "signal:stft", StftAttrs, inputs=(1, 2)))
OPS.register(
    Op("stft_dynamic", _stft_dynamic, _TRANSFORM, "signal:stft_dynamic", StftDynamicAttrs, inputs=(2, 4), dynamic=True)
)
for _name in ("hann_window", "hamming_window", "blackman_window"):
    OPS.register(Op(_name, _window, _POSITIONS, f"signal:{_name}", WindowAttrs, inputs=(0, 0)))
    _dynamic = f"{_name}_dynamic"
    OPS.register(Op(_dynamic, _window_dynamic, _POSITIONS, f"signal:{_dynamic}", WindowDynamicAttrs, dynamic=True))
OPS.register(Op("mel_weight_matrix", _mel, _POSITIONS, "signal:mel_weight_matrix", MelWeightMatrixAttrs, inputs=(0, 0)))
OPS.register(
    Op(
        "mel_weight_matrix_dynamic",
        _mel_dynamic,
        _POSITIONS,
        "signal:mel_weight_matrix_dynamic",
        MelWeightMatrixDynamicAttrs,
        inputs=(5, 5),
        dynamic=True,
    )
)
