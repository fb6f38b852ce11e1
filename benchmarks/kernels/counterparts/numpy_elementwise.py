"""NumPy expressions for element-wise ops, reductions and scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import numpy as np

from fusible.benchmarks.kernels.counterparts.forms import Form, Use, applied, need
from fusible.compiler.ir.types import DType

__all__ = ["FORMS"]

Array = np.ndarray[Any, Any]


def _folded(function: Callable[[Array, Array], Array]) -> Form:
    return lambda use: lambda: reduce(function, use.present)


def _cast(use: Use) -> Callable[[], Any]:
    dtype: DType = use.attrs.dtype
    need(dtype.numpy.isbuiltin == 1 and use.x.dtype.isbuiltin == 1 and dtype is not DType.STRING, f"a cast to {dtype}")
    return lambda: use.x.astype(dtype.numpy)


def _clip(use: Use) -> Callable[[], Any]:
    return partial(np.clip, use.x, use.operand(1), use.operand(2))


def _mod(use: Use) -> Callable[[], Any]:
    return partial(np.fmod if use.attrs.fmod else np.mod, *use.present)


def _bit_shift(use: Use) -> Callable[[], Any]:
    return partial(np.left_shift if use.attrs.direction == "LEFT" else np.right_shift, *use.present)


def _is_inf(use: Use) -> Callable[[], Any]:
    need(use.attrs.detect_negative and use.attrs.detect_positive, "one sign of infinity")
    return partial(np.isinf, use.x)


def _gelu(use: Use) -> Callable[[], Any]:
    need(use.attrs.approximate == "tanh", "erf")
    x = use.x
    return lambda: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def _swish(use: Use) -> Callable[[], Any]:
    x, alpha = use.x, use.attrs.alpha
    return lambda: x / (1 + np.exp(-alpha * x))


def _swiglu(use: Use) -> Callable[[], Any]:
    gate, value, alpha = use.x, use.operands[1], use.attrs.alpha
    return lambda: gate / (1 + np.exp(-alpha * gate)) * value


def _shrink(use: Use) -> Callable[[], Any]:
    x, a = use.x, use.attrs
    return lambda: np.where(x < -a.lambd, x + a.bias, np.where(x > a.lambd, x - a.bias, x.dtype.type(0)))


def _selu(use: Use) -> Callable[[], Any]:
    x, a = use.x, use.attrs
    return lambda: a.gamma * np.where(x > 0, x, a.alpha * np.expm1(x))


def _parametric(expression: Callable[[Array, Any], Any]) -> Form:
    """An expression of x and the attributes."""
    return lambda use: lambda: expression(use.x, use.attrs)


def _axes(use: Use) -> tuple[int, ...] | None:
    axes: tuple[int, ...] | None = use.attrs.axes
    return axes


def _reduction(expression: Callable[[Array, tuple[int, ...] | None, bool], Any]) -> Form:
    """An expression of x, axes and keepdims; integers keep their type."""

    def form(use: Use) -> Callable[[], Any]:
        x, axes, keep = use.x, _axes(use), use.attrs.keepdims
        need(x.dtype.kind == "f" or use.case.op in ("reduce_max", "reduce_min"), "integers in their own type")
        return lambda: np.asarray(expression(x, axes, keep))

    return form


def _log_sum_exp(x: Array, axes: tuple[int, ...] | None, keep: bool) -> Any:
    top = x.max(axis=axes, keepdims=True)
    total = np.log(np.exp(x - top).sum(axis=axes, keepdims=True)) + top
    return total if keep else total.squeeze(axes)


def _extreme(function: Callable[..., Any]) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        need(not use.attrs.select_last_index, "the last of equal extremes")
        return partial(function, use.x, axis=use.attrs.axis, keepdims=use.attrs.keepdims)

    return form


def _scan(function: Callable[..., Any]) -> Form:
    def form(use: Use) -> Callable[[], Any]:
        attrs = use.attrs
        need(not attrs.exclusive, "an exclusive scan")
        axis = attrs.axis if hasattr(attrs, "axis") else int(use.operands[1])
        x, dtype = use.x, use.x.dtype
        if attrs.reverse:
            return lambda: np.flip(function(np.flip(x, axis), axis=axis, dtype=dtype), axis)
        return partial(function, x, axis=axis, dtype=dtype)

    return form


_UFUNCS = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atanh": np.arctanh, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh, "exp": np.exp, "floor": np.floor,
    "is_nan": np.isnan, "log": np.log, "neg": np.negative, "not": np.logical_not, "reciprocal": np.reciprocal,
    "round": np.rint, "sign": np.sign, "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "tan": np.tan,
    "tanh": np.tanh, "bitwise_not": np.invert,
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "pow": np.power, "and": np.logical_and,
    "or": np.logical_or, "xor": np.logical_xor, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor, "equal": np.equal, "greater": np.greater, "greater_or_equal": np.greater_equal,
    "less": np.less, "less_or_equal": np.less_equal, "string_concat": np.add,
}  # fmt: skip


def _div(use: Use) -> Callable[[], Any]:
    need(use.x.dtype.kind == "f", "division that truncates")
    return partial(np.divide, *use.present)


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        **{op: applied(function) for op, function in _UFUNCS.items()},
        "div": _div,
        "max": _folded(np.maximum),
        "min": _folded(np.minimum),
        "sum": _folded(np.add),
        "mean": lambda use: lambda: reduce(np.add, use.present) / len(use.present),
        "cast": _cast,
        "clip": _clip,
        "mod": _mod,
        "bit_shift": _bit_shift,
        "is_inf": _is_inf,
        "where": applied(np.where),
        "relu": _parametric(lambda x, a: np.maximum(x, 0)),
        "sigmoid": _parametric(lambda x, a: 1 / (1 + np.exp(-x))),
        "hard_sigmoid": _parametric(lambda x, a: np.clip(a.alpha * x + a.beta, 0, 1)),
        "hard_swish": _parametric(lambda x, a: x * np.clip(x / 6 + 0.5, 0, 1)),
        "leaky_relu": _parametric(lambda x, a: np.where(x < 0, a.alpha * x, x)),
        "elu": _parametric(lambda x, a: np.where(x < 0, a.alpha * np.expm1(x), x)),
        "celu": _parametric(lambda x, a: np.maximum(x, 0) + np.minimum(a.alpha * np.expm1(x / a.alpha), 0)),
        "selu": _selu,
        "softplus": _parametric(lambda x, a: np.logaddexp(x, x.dtype.type(0))),
        "softsign": _parametric(lambda x, a: x / (1 + np.abs(x))),
        "mish": _parametric(lambda x, a: x * np.tanh(np.logaddexp(x, x.dtype.type(0)))),
        "gelu": _gelu,
        "swish": _swish,
        "swiglu": _swiglu,
        "shrink": _shrink,
        "thresholded_relu": _parametric(lambda x, a: np.where(x > a.alpha, x, x.dtype.type(0))),
        "prelu": lambda use: lambda: np.where(use.x < 0, use.x * use.operands[1], use.x),
        "binarizer": _parametric(lambda x, a: (x > a.threshold).astype(x.dtype)),
        "scaler": lambda use: lambda: (use.x - use.operands[1]) * use.operands[2],
        "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axis=axes, keepdims=keep)),
        "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axis=axes, keepdims=keep)),
        "reduce_prod": _reduction(lambda x, axes, keep: x.prod(axis=axes, keepdims=keep)),
        "reduce_max": _reduction(lambda x, axes, keep: x.max(axis=axes, keepdims=keep)),
        "reduce_min": _reduction(lambda x, axes, keep: x.min(axis=axes, keepdims=keep)),
        "reduce_l1": _reduction(lambda x, axes, keep: np.abs(x).sum(axis=axes, keepdims=keep)),
        "reduce_l2": _reduction(lambda x, axes, keep: np.sqrt((x * x).sum(axis=axes, keepdims=keep))),
        "reduce_log_sum": _reduction(lambda x, axes, keep: np.log(x.sum(axis=axes, keepdims=keep))),
        "reduce_log_sum_exp": _reduction(_log_sum_exp),
        "reduce_sum_square": _reduction(lambda x, axes, keep: (x * x).sum(axis=axes, keepdims=keep)),
        "arg_max": _extreme(np.argmax),
        "arg_min": _extreme(np.argmin),
        "cum_sum": _scan(np.cumsum),
        "cum_sum_dynamic": _scan(np.cumsum),
        "cum_prod": _scan(np.cumprod),
        "cum_prod_dynamic": _scan(np.cumprod),
    }
)
