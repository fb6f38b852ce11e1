"""torch functions for element-wise ops, reductions and scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from fusible.benchmarks.kernels.counterparts.forms import Form, Use, applied, need, with_attrs
from fusible.compiler.ir.types import DType

__all__ = ["DTYPES", "FORMS"]

DTYPES: Mapping[DType, Any] = MappingProxyType(
    {
        DType.F64: torch.float64, DType.F32: torch.float32, DType.F16: torch.float16, DType.BF16: torch.bfloat16,
        DType.I64: torch.int64, DType.I32: torch.int32, DType.I16: torch.int16, DType.I8: torch.int8,
        DType.U8: torch.uint8, DType.BOOL: torch.bool,
    }
)  # fmt: skip
_NAMES = (
    "abs acos acosh add asin asinh atan atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil cos cosh erf exp "
    "floor log mul neg pow reciprocal round sigmoid sign sin sinh sqrt sub tan tanh where"
)
_RENAMED = {
    "and": torch.logical_and, "or": torch.logical_or, "xor": torch.logical_xor, "not": torch.logical_not,
    "equal": torch.eq, "greater": torch.gt, "greater_or_equal": torch.ge, "less": torch.lt, "less_or_equal": torch.le,
    "is_nan": torch.isnan,
}  # fmt: skip


def _folded(function: Callable[[Any, Any], Any]) -> Form:
    return lambda use: lambda: reduce(function, use.present)


def _cast(use: Use) -> Callable[[], Any]:
    need(use.attrs.dtype in DTYPES, f"elements of type {use.attrs.dtype.value}")
    need(not (use.x.is_floating_point() and use.attrs.dtype.is_integer), "floats that become integers by C's rules")
    return partial(use.x.to, DTYPES[use.attrs.dtype])


def _clip(use: Use) -> Callable[[], Any]:
    return partial(torch.clamp, use.x, use.operand(1), use.operand(2))


def _div(use: Use) -> Callable[[], Any]:
    mode = None if use.x.is_floating_point() else "trunc"
    return partial(torch.div, *use.present, rounding_mode=mode)


def _shift(use: Use) -> Callable[[], Any]:
    left = use.attrs.direction == "LEFT"
    return partial(torch.bitwise_left_shift if left else torch.bitwise_right_shift, *use.present)


def _mod(use: Use) -> Callable[[], Any]:
    return partial(torch.fmod if use.attrs.fmod else torch.remainder, *use.present)


def _is_inf(use: Use) -> Callable[[], Any]:
    need(use.attrs.detect_negative and use.attrs.detect_positive, "one sign of infinity")
    return partial(torch.isinf, use.x)


def _prelu(use: Use) -> Callable[[], Any]:
    x, slope = use.present
    if slope.ndim >= 1 and slope.numel() == slope.shape[0] and x.ndim > 1 and slope.shape[0] in (1, x.shape[1]):
        return partial(F.prelu, x, slope.reshape(-1))
    return lambda: torch.where(x < 0, x * slope, x)


def _swish(use: Use) -> Callable[[], Any]:
    x, alpha = use.x, use.attrs.alpha
    return partial(F.silu, x) if alpha == 1 else lambda: x * torch.sigmoid(alpha * x)


def _shrink(use: Use) -> Callable[[], Any]:
    x, a = use.x, use.attrs
    if a.bias == a.lambd:
        return partial(F.softshrink, x, a.lambd)
    need(a.bias == 0, "a shift other than the threshold")
    return partial(F.hardshrink, x, a.lambd)


def _hard_sigmoid(use: Use) -> Callable[[], Any]:
    x, a = use.x, use.attrs
    if abs(a.alpha - 1 / 6) < 1e-6 and a.beta == 0.5:
        return partial(F.hardsigmoid, x)
    return lambda: torch.clamp(x * a.alpha + a.beta, 0, 1)


def _selu(use: Use) -> Callable[[], Any]:
    need(abs(use.attrs.alpha - 1.6732632) < 1e-6 and abs(use.attrs.gamma - 1.0507009) < 1e-6, "other factors")
    return partial(F.selu, use.x)


def _reduction(function: Callable[..., Any]) -> Form:
    """function(x, axes, keepdims)."""

    def form(use: Use) -> Callable[[], Any]:
        x, keep = use.x, use.attrs.keepdims
        need(x.is_floating_point() or use.case.op in ("reduce_max", "reduce_min"), "integers in their own type")
        axes = tuple(range(x.ndim)) if use.attrs.axes is None else use.attrs.axes
        need(len(axes) > 0, "no axes")
        return partial(function, x, axes, keep)

    return form


def _product(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(function: Callable[..., Any]) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        need(not use.attrs.select_last_index and use.x.is_floating_point(), "ties, whose order torch leaves open")
        return partial(function, use.x, dim=use.attrs.axis, keepdim=use.attrs.keepdims)

    return form


def _scan(function: Callable[..., Any]) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        attrs, x = use.attrs, use.x
        axis = attrs.axis if hasattr(attrs, "axis") else int(use.operands[1])
        need(not attrs.exclusive, "an exclusive scan")
        if attrs.reverse:
            return lambda: function(x.flip(axis), axis, dtype=x.dtype).flip(axis)
        return partial(function, x, axis, dtype=x.dtype)

    return form


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        **{name: applied(getattr(torch, name)) for name in _NAMES.split()},
        **{op: applied(function) for op, function in _RENAMED.items()},
        "max": _folded(torch.maximum),
        "min": _folded(torch.minimum),
        "sum": _folded(torch.add),
        "mean": lambda use: lambda: reduce(torch.add, use.present) / len(use.present),
        "div": _div,
        "mod": _mod,
        "bit_shift": _shift,
        "is_inf": _is_inf,
        "cast": _cast,
        "clip": _clip,
        "relu": applied(torch.relu),
        "leaky_relu": with_attrs(F.leaky_relu, negative_slope="alpha"),
        "elu": with_attrs(F.elu, alpha="alpha"),
        "celu": with_attrs(F.celu, alpha="alpha"),
        "selu": _selu,
        "gelu": with_attrs(F.gelu, approximate="approximate"),
        "hard_sigmoid": _hard_sigmoid,
        "hard_swish": applied(F.hardswish),
        "mish": applied(F.mish),
        "softplus": applied(F.softplus),
        "softsign": applied(F.softsign),
        "swish": _swish,
        "swiglu": lambda use: lambda: F.silu(use.x) * use.operands[1],
        "thresholded_relu": lambda use: partial(F.threshold, use.x, use.attrs.alpha, 0.0),
        "shrink": _shrink,
        "prelu": _prelu,
        "reduce_sum": _reduction(lambda x, axes, keep: torch.sum(x, axes, keepdim=keep)),
        "reduce_mean": _reduction(lambda x, axes, keep: torch.mean(x, axes, keepdim=keep)),
        "reduce_prod": _reduction(_product),
        "reduce_max": _reduction(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
        "reduce_min": _reduction(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
        "reduce_l1": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 1, axes, keepdim=keep)),
        "reduce_l2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep)),
        "reduce_log_sum": _reduction(lambda x, axes, keep: torch.log(torch.sum(x, axes, keepdim=keep))),
        "reduce_log_sum_exp": _reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
        "reduce_sum_square": _reduction(lambda x, axes, keep: torch.sum(x * x, axes, keepdim=keep)),
        "arg_max": _extreme(torch.argmax),
        "arg_min": _extreme(torch.argmin),
        "cum_sum": _scan(torch.cumsum),
        "cum_sum_dynamic": _scan(torch.cumsum),
        "cum_prod": _scan(torch.cumprod),
        "cum_prod_dynamic": _scan(torch.cumprod),
    }
)
