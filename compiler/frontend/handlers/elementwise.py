"""Element-wise operators: arithmetic, comparison, logic, activation functions, casts."""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto

from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.handlers import onnx_op
from fusible.compiler.frontend.load import dtype_of
from fusible.compiler.ir.graph import Value
from fusible.compiler.ir.types import DType
from fusible.kernels.numpy.activations import SELU_ALPHA, SELU_GAMMA

_UNARY = {
    "Abs": "abs", "Neg": "neg", "Sign": "sign", "Ceil": "ceil", "Floor": "floor", "Round": "round",
    "Reciprocal": "reciprocal", "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Erf": "erf",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan",
    "Sinh": "sinh", "Cosh": "cosh", "Tanh": "tanh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
    "Not": "not", "BitwiseNot": "bitwise_not", "IsNaN": "is_nan",
    "Relu": "relu", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign",
    "HardSwish": "hard_swish", "Mish": "mish",
}  # fmt: skip
# Until opset 6 these broadcast the second operand only, by the attributes `broadcast` and `axis`.
_BINARY_WITH_AXIS = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "And": "and", "Or": "or", "Xor": "xor",
    "Equal": "equal", "Less": "less", "Greater": "greater",
}  # fmt: skip
_NARY = {
    "LessOrEqual": "less_or_equal", "GreaterOrEqual": "greater_or_equal", "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "Where": "where",
}  # fmt: skip
_FOLDS = {"Max": "max", "Min": "min", "Sum": "sum", "Mean": "mean"}
_TOGETHER = 32  # operands of one fold, whose expression is as deep as they are many


def _plain(op: str) -> Callable[[NodeContext], Value]:
    return lambda context: context.add(op, *context.all_inputs())


for _onnx, _op in (_UNARY | _NARY).items():
    onnx_op(_onnx)(_plain(_op))


def _fold(op: str) -> Callable[[NodeContext], Value]:
    """Of any number of operands: 32 at a time, then 32 of these results, and so on."""

    def convert(context: NodeContext) -> Value:
        operands = context.all_inputs()
        if len(operands) <= _TOGETHER:
            return context.add(op, *operands)
        count, part = len(operands), "sum" if op == "mean" else op
        while len(operands) > 1:
            operands = [context.add(part, *operands[n : n + _TOGETHER]) for n in range(0, len(operands), _TOGETHER)]
        y = operands[0]
        return context.add("div", y, context.scalar_like(y, count)) if op == "mean" else y

    return convert


for _onnx, _op in _FOLDS.items():
    onnx_op(_onnx)(_fold(_op))


def _binary_with_axis(op: str) -> Callable[[NodeContext], Value]:
    def convert(context: NodeContext) -> Value:
        a, b = context.required(0), context.required(1)
        if context.opset < 7:
            b = _placed(context, b)
        return context.add(op, a, b)

    return convert


for _onnx, _op in _BINARY_WITH_AXIS.items():
    onnx_op(_onnx)(_binary_with_axis(_op))


def _placed(context: NodeContext, b: Value) -> Value:
    """The second operand reshaped so that NumPy broadcasting does what `broadcast` and `axis` say."""
    if not context.attr_int("broadcast", 0) or not context.has_attr("axis"):
        return b
    rank, shape = context.known_rank(0), context.shape(1)
    if shape is None:
        context.unsupported("the rank of input 1 is not known")
    axis = context.attr_int("axis")
    axis = axis + rank if axis < 0 else axis
    trailing = rank - axis - len(shape)
    if axis < 0 or trailing < 0:
        context.invalid(f"axis {axis} does not place input 1 of rank {len(shape)} within rank {rank}")
    return context.add("reshape", b, shape=(*shape, *(1,) * trailing)) if trailing else b


@onnx_op("Mod", since=10)
def mod(context: NodeContext) -> Value:
    """Mod."""
    fmod = bool(context.attr_int("fmod", 0))
    return context.add("mod", context.required(0), context.required(1), fmod=fmod)


@onnx_op("BitShift", since=11)
def bit_shift(context: NodeContext) -> Value:
    """BitShift."""
    direction = context.attr_string("direction")
    if direction not in ("LEFT", "RIGHT"):
        context.invalid(f"direction must be LEFT or RIGHT, got {direction!r}")
    return context.add("bit_shift", context.required(0), context.required(1), direction=direction)


@onnx_op("IsInf", since=10)
def is_inf(context: NodeContext) -> Value:
    """IsInf."""
    return context.add(
        "is_inf",
        context.required(0),
        detect_negative=bool(context.attr_int("detect_negative", 1)),
        detect_positive=bool(context.attr_int("detect_positive", 1)),
    )


@onnx_op("Clip")
def clip_by_attributes(context: NodeContext) -> Value:
    """Clip with its bounds as attributes, until opset 10; an infinite operand stays so if it has no bound."""
    x = context.required(0)
    bounds = [context.scalar_like(x, context.attr_float(n)) if context.has_attr(n) else None for n in ("min", "max")]
    return context.add("clip", x, *bounds)


@onnx_op("Clip", since=11)
def clip(context: NodeContext) -> Value:
    """Clip with its bounds as optional inputs."""
    return context.add("clip", context.required(0), *(_scalar(context, i) for i in (1, 2)))


def _scalar(context: NodeContext, index: int) -> Value | None:
    """An optional input of one element, without dimensions."""
    value = context.optional(index)
    if value is None or context.rank(index) in (0, None):
        return value
    elements = context.tensor_type(index).elements
    if isinstance(elements, int) and elements != 1:
        context.invalid(f"input {index} must be one number, got {value.type}")
    return context.add("reshape", value, shape=())


@onnx_op("PRelu")
def prelu_by_channel(context: NodeContext) -> Value:
    """PRelu until opset 6: one slope for all, or one a channel."""
    x, slope = context.required(0), context.required(1)
    shape = context.shape(1)
    if shape is None or len(shape) != 1 or shape[0] == 1:
        return context.add("prelu", x, slope)
    trailing = context.known_rank(0) - 2
    return context.add("prelu", x, context.add("reshape", slope, shape=(shape[0], *(1,) * max(trailing, 0))))


@onnx_op("PRelu", since=7)
def prelu(context: NodeContext) -> Value:
    """PRelu with a slope that broadcasts to x."""
    return context.add("prelu", context.required(0), context.required(1))


_Defaults = tuple[tuple[str, float], ...]
_FLOAT_ATTRIBUTES: dict[str, tuple[str, _Defaults]] = {
    "LeakyRelu": ("leaky_relu", (("alpha", 0.01),)),
    "ThresholdedRelu": ("thresholded_relu", (("alpha", 1.0),)),
    "Elu": ("elu", (("alpha", 1.0),)),
    "Celu": ("celu", (("alpha", 1.0),)),
    "HardSigmoid": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "Shrink": ("shrink", (("bias", 0.0), ("lambd", 0.5))),
    "Swish": ("swish", (("alpha", 1.0),)),
    "SwiGLU": ("swiglu", (("alpha", 1.0),)),
}


def _with_floats(op: str, defaults: _Defaults) -> Callable[[NodeContext], Value]:
    def convert(context: NodeContext) -> Value:
        attributes = {name: context.attr_float(name, default) for name, default in defaults}
        return context.add(op, *context.all_inputs(), **attributes)

    return convert


for _onnx, (_op, _defaults) in _FLOAT_ATTRIBUTES.items():
    onnx_op(_onnx)(_with_floats(_op, _defaults))
onnx_op("Selu")(_with_floats("selu", (("alpha", 1.6732), ("gamma", 1.0507))))
onnx_op("Selu", since=6)(_with_floats("selu", (("alpha", SELU_ALPHA), ("gamma", SELU_GAMMA))))


@onnx_op("Gelu", since=20)
def gelu(context: NodeContext) -> Value:
    """Gelu."""
    return context.add("gelu", context.required(0), approximate=context.attr_string("approximate", "none"))


@onnx_op("Cast")
def cast_by_name(context: NodeContext) -> Value:
    """Cast until opset 5, which names the type."""
    name = context.attr_string("to")
    if name not in TensorProto.DataType.keys():  # noqa: SIM118 - an enum wrapper, no dict
        context.invalid(f"{name!r} is no element type")
    dtype = dtype_of(TensorProto.DataType.Value(name), f"Cast at {context.label!r}")
    return context.add("cast", context.required(0), dtype=dtype)


@onnx_op("Cast", since=6)
def cast(context: NodeContext) -> Value:
    """Cast."""
    return _cast(context, context.attr_dtype("to"))


@onnx_op("CastLike", since=15)
def cast_like(context: NodeContext) -> Value:
    """CastLike: the second input gives only its type."""
    return _cast(context, context.tensor_type(1).dtype)


def _cast(context: NodeContext, dtype: DType) -> Value:
    saturate = bool(context.attr_int("saturate", 1))
    round_mode = context.attr_string("round_mode", "up")
    return context.add("cast", context.required(0), dtype=dtype, saturate=saturate, round_mode=round_mode)


@onnx_op("BitCast", since=26)
def bit_cast(context: NodeContext) -> Value:
    """BitCast."""
    return context.add("bit_cast", context.required(0), dtype=context.attr_dtype("to"))
