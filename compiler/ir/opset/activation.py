"""Activation functions: element-wise, with parameters as attributes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusible.compiler.ir.definition import Definition, Elementwise, Opaque, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.inference import broadcasts_to, like_input
from fusible.compiler.ir.ops import OPS, Infer, NoAttrs, Op
from fusible.compiler.ir.propagation import symbolic_content
from fusible.compiler.ir.symbols import maximum
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.expr import Apply, Arg, Expr, apply
from fusible.kernels.numpy.activations import SELU_ALPHA, SELU_GAMMA

__all__ = [
    "CeluAttrs",
    "EluAttrs",
    "GeluAttrs",
    "HardSigmoidAttrs",
    "LeakyReluAttrs",
    "SeluAttrs",
    "ShrinkAttrs",
    "SwishAttrs",
    "ThresholdedReluAttrs",
]


@dataclass(frozen=True, slots=True)
class LeakyReluAttrs:
    """alpha: the slope below zero."""

    alpha: float = 0.01


@dataclass(frozen=True, slots=True)
class ThresholdedReluAttrs:
    """alpha: what x must exceed."""

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class EluAttrs:
    """alpha: minus the limit at -infinity."""

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class SeluAttrs:
    """alpha, gamma: as in the formula."""

    alpha: float = SELU_ALPHA
    gamma: float = SELU_GAMMA


@dataclass(frozen=True, slots=True)
class CeluAttrs:
    """alpha: minus the limit at -infinity; not 0."""

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class HardSigmoidAttrs:
    """alpha: the slope; beta: the value at zero."""

    alpha: float = 0.2
    beta: float = 0.5


@dataclass(frozen=True, slots=True)
class GeluAttrs:
    """approximate: "none" (erf) or "tanh"."""

    approximate: str = "none"


@dataclass(frozen=True, slots=True)
class SwishAttrs:
    """alpha: scales x inside the sigmoid."""

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class ShrinkAttrs:
    """lambd: half the width of the dead zone; bias: how far the rest moves towards zero."""

    bias: float = 0.0
    lambd: float = 0.5


_X, _Y = Arg(0), Arg(1)


def _fixed(name: str, expr: Expr) -> None:
    OPS.register(Op(name, like_input, same(Elementwise(expr)), f"activations:{name}", accepts_out=True))


def _parametric(
    name: str, attrs: type, expr: Callable[[Any], Expr], infer: Callable[[Infer], TensorType] = like_input
) -> None:
    OPS.register(
        Op(
            name,
            infer,
            lambda node: Elementwise(expr(node.attrs)),
            f"activations:{name}",
            attrs,
            accepts_out=True,
        )
    )


def _decay(x: Expr) -> Apply:
    """e^x - 1 where x <= 0, else 0."""
    return apply("expm1", apply("min", x, 0.0))


def _below_zero(then: Expr, otherwise: Expr) -> Apply:
    return apply("select", apply("lt", _X, 0.0), then, otherwise)


def _hard_sigmoid(alpha: float, beta: float) -> Apply:
    return apply("max", apply("min", apply("add", apply("mul", _X, alpha), beta), 1.0), 0.0)


def _swish(alpha: float) -> Apply:
    return apply("mul", _X, apply("sigmoid", _X if alpha == 1 else apply("mul", _X, alpha)))


def _gelu(attrs: GeluAttrs) -> Apply:
    if attrs.approximate == "none":
        bell = apply("erf", apply("mul", _X, math.sqrt(0.5)))
    else:
        cubic = apply("mul", apply("add", apply("mul", apply("mul", _X, _X), 0.044715), 1.0), _X)
        bell = apply("tanh", apply("mul", cubic, math.sqrt(2 / math.pi)))
    return apply("mul", apply("mul", apply("add", bell, 1.0), 0.5), _X)


GELU, GELU_TANH = (_gelu(GeluAttrs(approximate)) for approximate in ("none", "tanh"))
"""The expressions of both forms, of argument 0."""


def _mish() -> Apply:
    """tanh(ln(1 + e)) = n / (n + 2) with n = e (e + 2); from x = 20 on it is 1, which bounds e = e^x."""
    e = apply("exp", apply("min", _X, 20.0))
    n = apply("mul", e, apply("add", e, 2.0))
    return apply("mul", _X, apply("div", n, apply("add", n, 2.0)))


def _celu(alpha: float) -> Apply:
    curve = apply("mul", apply("expm1", apply("div", _X, alpha)), alpha)
    return apply("add", apply("max", _X, 0.0), apply("min", curve, 0.0))


def _shrink(node: Node) -> Definition:
    if _dtype_is_integer(node):
        return Opaque("integers are shifted as floats and truncated")
    attrs: ShrinkAttrs = node.attrs
    right = apply("select", apply("gt", _X, attrs.lambd), apply("sub", _X, attrs.bias), 0.0)
    return Elementwise(apply("select", apply("lt", _X, -attrs.lambd), apply("add", _X, attrs.bias), right))


def _dtype_is_integer(node: Node) -> bool:
    value = node.inputs[0]
    assert value is not None and isinstance(value.type, TensorType)
    return value.type.dtype.is_integer


def _infer_gelu(ctx: Infer) -> TensorType:
    if ctx.attrs.approximate not in ("none", "tanh"):
        ctx.fail(f"approximate must be 'none' or 'tanh', got {ctx.attrs.approximate!r}")
    return ctx.type(0)


def _infer_celu(ctx: Infer) -> TensorType:
    if ctx.attrs.alpha == 0:
        ctx.fail("alpha must not be 0")
    return ctx.type(0)


def _infer_prelu(ctx: Infer) -> TensorType:
    if ctx.dtype(0) is not ctx.dtype(1):
        ctx.fail(f"x has type {ctx.dtype(0).value}, the slope {ctx.dtype(1).value}")
    broadcasts_to(ctx, 1, ctx.shape(0))
    return ctx.type(0)


def _infer_swiglu(ctx: Infer) -> TensorType:
    if ctx.dtype(0) is not ctx.dtype(1):
        ctx.fail(f"the gate has type {ctx.dtype(0).value}, the value {ctx.dtype(1).value}")
    if not ctx.dtype(0).is_float:
        ctx.fail(f"takes floats, got {ctx.dtype(0).value}")
    gate, value = ctx.shape(0), ctx.shape(1)
    if gate is None or value is None:
        return ctx.type(0 if value is None else 1)
    if not ctx.equal_shapes(gate, value):
        ctx.fail(f"gate and value must have one shape, got {ctx.type(0)} and {ctx.type(1)}")
    return ctx.type(0)


OPS.register(
    Op(
        "relu",
        like_input,
        lambda node: Elementwise(apply("max", _X, 0 if _dtype_is_integer(node) else 0.0)),
        "activations:relu",
        accepts_out=True,
        propagate=symbolic_content(lambda a: maximum(a, 0)),
    )
)
_fixed("sigmoid", apply("sigmoid", _X))
_fixed("hard_swish", apply("mul", _X, _hard_sigmoid(1 / 6, 0.5)))
_fixed(
    "softplus",
    apply("add", apply("max", _X, 0.0), apply("log1p", apply("exp", apply("neg", apply("abs", _X))))),
)
_fixed("softsign", apply("div", _X, apply("add", apply("abs", _X), 1.0)))
_fixed("mish", _mish())
_parametric("leaky_relu", LeakyReluAttrs, lambda a: _below_zero(apply("mul", _X, a.alpha), _X))
_parametric("thresholded_relu", ThresholdedReluAttrs, lambda a: apply("select", apply("gt", _X, a.alpha), _X, 0.0))
_parametric("elu", EluAttrs, lambda a: _below_zero(apply("mul", _decay(_X), a.alpha), _X))
_parametric(
    "selu",
    SeluAttrs,
    lambda a: apply("mul", apply("select", apply("gt", _X, 0.0), _X, apply("mul", _decay(_X), a.alpha)), a.gamma),
)
_parametric("hard_sigmoid", HardSigmoidAttrs, lambda a: _hard_sigmoid(a.alpha, a.beta))
_parametric("swish", SwishAttrs, lambda a: _swish(a.alpha))
_parametric("gelu", GeluAttrs, _gelu, _infer_gelu)
_parametric("celu", CeluAttrs, lambda a: _celu(a.alpha), _infer_celu)
OPS.register(Op("shrink", like_input, _shrink, "activations:shrink", ShrinkAttrs, accepts_out=True))
OPS.register(
    Op(
        "prelu",
        _infer_prelu,
        lambda node: Elementwise(
            apply("select", apply("lt", _X, 0 if _dtype_is_integer(node) else 0.0), apply("mul", _X, _Y), _X)
        ),
        "activations:prelu",
        NoAttrs,
        inputs=(2, 2),
        accepts_out=True,
    )
)
OPS.register(
    Op(
        "swiglu",
        _infer_swiglu,
        lambda node: Elementwise(apply("mul", _swish(node.attrs.alpha), _Y)),
        "activations:swiglu",
        SwishAttrs,
        inputs=(2, 2),
        accepts_out=True,
    )
)
