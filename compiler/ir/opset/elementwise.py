"""Element-wise ops of one or more tensors: one scalar expression an element, NumPy broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from fusible.compiler.ir.definition import Definition, Elementwise, Opaque, same
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.inference import broadcast_type, like_input
from fusible.compiler.ir.ops import OPS, Infer, NoAttrs, Op, PropagateFunction
from fusible.compiler.ir.propagation import (
    absolute,
    clip_content,
    compare,
    divide,
    remainder,
    symbolic_content,
    where_content,
)
from fusible.compiler.ir.symbols import Dim, maximum, minimum
from fusible.compiler.ir.types import DType, TensorType
from fusible.compiler.region.expr import Arg, Expr, apply

__all__ = ["BitShiftAttrs", "IsInfAttrs", "ModAttrs", "broadcast_same"]

_STRINGS = Opaque("it works on strings")


@dataclass(frozen=True, slots=True)
class IsInfAttrs:
    """Which infinities count."""

    detect_negative: bool = True
    detect_positive: bool = True


@dataclass(frozen=True, slots=True)
class ModAttrs:
    """fmod: the remainder has the sign of the dividend (C) instead of the divisor's (Python)."""

    fmod: bool = False


@dataclass(frozen=True, slots=True)
class BitShiftAttrs:
    """direction: "LEFT" or "RIGHT"."""

    direction: str


def broadcast_same(ctx: Infer) -> TensorType:
    """The broadcast of all inputs, which must have one element type."""
    _one_dtype(ctx, range(len(ctx.inputs)))
    return broadcast_type(ctx)


def _one_dtype(ctx: Infer, indices: range) -> None:
    kinds = {ctx.dtype(i) for i in indices if ctx.has(i)}
    if len(kinds) > 1:
        ctx.fail(f"the inputs have different element types: {', '.join(sorted(k.value for k in kinds))}")


def _comparison(ctx: Infer) -> TensorType:
    _one_dtype(ctx, range(2))
    return broadcast_type(ctx, DType.BOOL)


def _predicate(ctx: Infer) -> TensorType:
    return TensorType(DType.BOOL, ctx.shape(0))


def _where(ctx: Infer) -> TensorType:
    if ctx.dtype(0) is not DType.BOOL:
        ctx.fail(f"the condition must be bool, got {ctx.dtype(0).value}")
    _one_dtype(ctx, range(1, 3))
    return broadcast_type(ctx, ctx.dtype(1))


def _clip(ctx: Infer) -> TensorType:
    _one_dtype(ctx, range(len(ctx.inputs)))
    for index in (1, 2):
        elements = ctx.type(index).elements if ctx.has(index) else 1
        if elements is not None and not ctx.equal(elements, 1):
            ctx.fail(f"a bound must be one number, input {index} is {ctx.type(index)}")
    return ctx.type(0)


def _unless_strings(definition: Callable[[Node], Definition]) -> Callable[[Node], Definition]:
    """The definition, or an opaque one where the last input is a tensor of strings."""

    def choose(node: Node) -> Definition:
        last = node.inputs[-1]
        assert last is not None
        if isinstance(last.type, TensorType) and last.type.dtype is DType.STRING:
            return _STRINGS
        return definition(node)

    return choose


def _unless_integers(expr: Expr) -> Callable[[Node], Definition]:
    def choose(node: Node) -> Definition:
        value = node.inputs[0]
        assert value is not None and isinstance(value.type, TensorType)
        if value.type.dtype.is_integer:
            return Opaque("integers are computed in float64 and truncated")
        return Elementwise(expr)

    return choose


_X, _Y = Arg(0), Arg(1)
_NUMERIC_UNARY: dict[str, tuple[str, Callable[[Dim], Dim] | None]] = {
    "abs": ("abs", absolute),
    "neg": ("neg", lambda a: -a),
    "sign": ("sign", None),
    "ceil": ("ceil", lambda a: a),
    "floor": ("floor", lambda a: a),
    "round": ("round", lambda a: a),
    "bitwise_not": ("bitwise_not", None),
    "not": ("logical_not", None),
}
_FLOAT_UNARY = (
    "reciprocal", "sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
)  # fmt: skip


def _python_name(op: str) -> str:
    """Words that Python reserves carry an underscore there."""
    return f"{op}_" if op in ("and", "or", "not") else op


def _unary(name: str, function: str, content: Callable[[Dim], Dim] | None = None) -> None:
    OPS.register(
        Op(
            name,
            like_input,
            same(Elementwise(apply(function, _X))),
            f"elementwise:{_python_name(name)}",
            accepts_out=True,
            propagate=symbolic_content(content) if content is not None else None,
        )
    )


def _binary(
    name: str,
    function: str,
    module: str = "arithmetic",
    *,
    infer: Callable[[Infer], TensorType] = broadcast_same,
    propagate: PropagateFunction | None = None,
    commutative: bool = False,
) -> None:
    OPS.register(
        Op(
            name,
            infer,
            _unless_strings(same(Elementwise(apply(function, _X, _Y)))),
            f"{module}:{_python_name(name)}",
            inputs=(2, 2),
            commutative=commutative,
            accepts_out=True,
            propagate=propagate,
        )
    )


def _variadic(name: str, fold: str, content: Callable[[Dim, Dim], object], *, mean: bool = False) -> None:
    def definition(node: Node) -> Definition:
        count = len(node.inputs)
        operands: list[Expr] = [Arg(i) for i in range(count)]
        expr = reduce(lambda left, right: apply(fold, left, right), operands)
        return Elementwise(apply("div", expr, count) if mean else expr)

    OPS.register(
        Op(
            name,
            broadcast_same,
            definition,
            f"arithmetic:{name}",
            inputs=(1, None),
            commutative=True,
            accepts_out=True,
            propagate=None if mean else symbolic_content(lambda *xs: reduce(content, xs)),
        )
    )


def _is_inf_definition(node: Node) -> Definition:
    attrs: IsInfAttrs = node.attrs
    found = apply("isinf", _X)
    if not attrs.detect_negative:
        found = apply("logical_and", found, apply("gt", _X, 0.0))
    if not attrs.detect_positive:
        found = apply("logical_and", found, apply("lt", _X, 0.0))
    return Elementwise(found)


def _clip_definition(node: Node) -> Definition:
    expr: Expr = _X
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        expr = apply("max", expr, Arg(1))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        expr = apply("min", expr, Arg(2))
    for bound in node.inputs[1:]:
        if bound is not None and (not isinstance(bound.type, TensorType) or bound.type.rank != 0):
            return Opaque("a bound is no scalar, which broadcasting would not reduce to one")
    return Elementwise(expr)


for _name, (_function, _content) in _NUMERIC_UNARY.items():
    _unary(_name, _function, _content)
for _name in _FLOAT_UNARY:
    _unary(_name, _name)
OPS.register(Op("erf", like_input, _unless_integers(apply("erf", _X)), "elementwise:erf", accepts_out=True))
OPS.register(Op("is_nan", _predicate, same(Elementwise(apply("isnan", _X))), "elementwise:is_nan", accepts_out=True))
OPS.register(Op("is_inf", _predicate, _is_inf_definition, "elementwise:is_inf", IsInfAttrs, accepts_out=True))

_binary("add", "add", propagate=symbolic_content(lambda a, b: a + b), commutative=True)
_binary("sub", "sub", propagate=symbolic_content(lambda a, b: a - b))
_binary("mul", "mul", propagate=symbolic_content(lambda a, b: a * b), commutative=True)
_binary("div", "div", propagate=symbolic_content(divide, needs_dtype=True))
_binary("pow", "pow", infer=broadcast_type)
_variadic("max", "max", maximum)
_variadic("min", "min", minimum)
_variadic("sum", "add", lambda a, b: a + b)
_variadic("mean", "add", lambda a, b: a + b, mean=True)

_COMPARISONS: dict[str, tuple[str, Callable[[Dim, Dim], bool]]] = {
    "equal": ("eq", lambda a, b: compare("eq", a, b)),
    "less": ("lt", lambda a, b: compare("lt", a, b)),
    "less_or_equal": ("le", lambda a, b: compare("le", a, b)),
    "greater": ("gt", lambda a, b: compare("lt", b, a)),
    "greater_or_equal": ("ge", lambda a, b: compare("le", b, a)),
}
for _name, (_function, _relation) in _COMPARISONS.items():
    _binary(
        _name,
        _function,
        "comparison",
        infer=_comparison,
        propagate=symbolic_content(_relation),
        commutative=_name == "equal",
    )
for _name in ("and", "or", "xor"):
    _binary(_name, f"logical_{_name}", "comparison", commutative=True)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    _binary(_name, _name, "comparison", commutative=True)

OPS.register(
    Op(
        "mod",
        broadcast_same,
        lambda node: Elementwise(apply("fmod" if node.attrs.fmod else "mod", _X, _Y)),
        "arithmetic:mod",
        ModAttrs,
        inputs=(2, 2),
        accepts_out=True,
        propagate=symbolic_content(remainder, needs_dtype=True),
    )
)
OPS.register(
    Op(
        "bit_shift",
        broadcast_same,
        lambda node: Elementwise(apply("shift_left" if node.attrs.direction == "LEFT" else "shift_right", _X, _Y)),
        "comparison:bit_shift",
        BitShiftAttrs,
        inputs=(2, 2),
        accepts_out=True,
    )
)
OPS.register(
    Op(
        "where",
        _where,
        _unless_strings(same(Elementwise(apply("select", Arg(0), Arg(1), Arg(2))))),
        "comparison:where",
        inputs=(3, 3),
        accepts_out=True,
        propagate=where_content,
    )
)
OPS.register(
    Op(
        "clip",
        _clip,
        _clip_definition,
        "arithmetic:clip",
        NoAttrs,
        inputs=(1, 3),
        accepts_out=True,
        propagate=clip_content,
    )
)
