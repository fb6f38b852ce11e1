"""Optimiser steps: values, gradients and states of any number of tensors in, new values and states out."""

from __future__ import annotations

from dataclasses import dataclass

from fusible.compiler.ir.definition import Opaque, same
from fusible.compiler.ir.ops import OPS, Infer, Op
from fusible.compiler.ir.types import DType, TensorType

__all__ = ["AdagradAttrs", "AdamAttrs", "MomentumAttrs"]


@dataclass(frozen=True, slots=True)
class AdagradAttrs:
    """Attributes of ONNX Adagrad."""

    norm_coefficient: float = 0.0
    decay_factor: float = 0.0
    epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class AdamAttrs:
    """Attributes of ONNX Adam."""

    alpha: float = 0.9
    beta: float = 0.999
    norm_coefficient: float = 0.0
    norm_coefficient_post: float = 0.0
    epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class MomentumAttrs:
    """Attributes of ONNX Momentum; mode is "standard" or "nesterov"."""

    alpha: float
    beta: float
    norm_coefficient: float
    mode: str


def _adagrad(ctx: Infer) -> list[TensorType]:
    return _updated(ctx, groups=3)


def _adam(ctx: Infer) -> list[TensorType]:
    return _updated(ctx, groups=4)


def _momentum(ctx: Infer) -> list[TensorType]:
    if ctx.attrs.mode not in ("standard", "nesterov"):
        ctx.fail(f"mode must be standard or nesterov, got {ctx.attrs.mode!r}")
    return _updated(ctx, groups=3)


def _updated(ctx: Infer, groups: int) -> list[TensorType]:
    """The types of the new values and states: those of the old ones."""
    count, rest = divmod(len(ctx.inputs) - 2, groups)
    if rest or count < 1:
        ctx.fail(f"takes a rate, a count and {groups} tensors for each parameter, got {len(ctx.inputs)} inputs")
    for index in (0, 1):
        if ctx.type(index).elements not in (1, None):
            ctx.fail(f"input {index} must be a scalar, got {ctx.type(index)}")
    if ctx.dtype(1) is not DType.I64:
        ctx.fail(f"the update count must be int64, got {ctx.type(1)}")
    values = [ctx.type(2 + k) for k in range(count)]
    for group in range(1, groups):
        for k, value in enumerate(values):
            _check_alike(ctx, value, 2 + group * count + k)
    return values * (groups - 1)


def _check_alike(ctx: Infer, value: TensorType, index: int) -> None:
    other = ctx.type(index)
    known = (s for s in (value.static_shape, other.static_shape) if s is not None)
    if other.dtype is not value.dtype or len(set(known)) > 1:
        ctx.fail(f"input {index} must be like the tensor it belongs to, {value}, got {other}")


_STEP = same(Opaque("one node updates several tensors"))
OPS.register(Op("adagrad", _adagrad, _STEP, "training:adagrad", AdagradAttrs, inputs=(5, None), outputs=None))
OPS.register(Op("adam", _adam, _STEP, "training:adam", AdamAttrs, inputs=(6, None), outputs=None))
OPS.register(Op("momentum", _momentum, _STEP, "training:momentum", MomentumAttrs, inputs=(5, None), outputs=None))
