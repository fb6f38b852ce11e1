"""Random element-wise nodes: unary and binary functions, comparisons, choices, casts."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product as pairs

import numpy as np

from tests.differential.builder import Builder
from tests.differential.tensors import BF16, BOOL, F16, F32, F64, FLOATS, I32, I64, INTEGERS, U8, Tensor, is_float

__all__ = ["GENERATORS", "broadcast", "guarded", "operand_for"]

_MOSTLY_F32 = (F32, F32, F32, F32, F64, F16, BF16)
# Function -> its values on an interval, and what it takes at most.
_SMOOTH: dict[str, tuple[Callable[[float], float], float]] = {
    "Sigmoid": (lambda x: 1 / (1 + math.exp(-x)), 50),
    "Tanh": (math.tanh, 50),
    "Erf": (math.erf, 50),
    "Exp": (math.exp, 5),
    "Atan": (math.atan, 1000),
    "Softplus": (lambda x: math.log1p(math.exp(x)), 50),
    "Softsign": (lambda x: x / (1 + abs(x)), 1000),
    "Elu": (lambda x: x if x > 0 else math.expm1(x), 1000),
    "Selu": (lambda x: 1.0507 * (x if x > 0 else 1.6733 * math.expm1(x)), 1000),
    "Celu": (lambda x: x if x > 0 else math.expm1(x), 1000),
    "HardSigmoid": (lambda x: min(1.0, max(0.0, 0.2 * x + 0.5)), 1000),
    "Asinh": (math.asinh, 1000),
    "Sinh": (math.sinh, 4),
}
# Functions that are not monotonic: bounds of the values over [-m, m].
_WAVES: dict[str, tuple[Callable[[float], tuple[float, float]], float]] = {
    "Sin": (lambda m: (-1, 1), 50),
    "Cos": (lambda m: (-1, 1), 50),
    "Gelu": (lambda m: (-0.2, m), 1000),
    "Mish": (lambda m: (-0.4, m), 50),
    "HardSwish": (lambda m: (-0.4, m), 1000),
    "Cosh": (lambda m: (1, math.cosh(m)), 4),
}
_COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The common shape by ONNX's rule, None if there is none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def operand_for(b: Builder, tensor: Tensor, *, exact: bool = False, wild: bool = False) -> Tensor:
    """A second operand of a tensor's type that broadcasts with it: one that is there, a scalar, or a new leaf."""
    fit = [
        t
        for t in b.tensors
        if t.dtype == tensor.dtype and (t.exact or not exact) and (wild or not t.wild)
        if (common := broadcast(t.shape, tensor.shape)) is not None and np.prod(common, dtype=object) <= b.largest
    ]
    if fit and b.chance(0.6):
        return b.rng.choice(fit[-6:])
    if b.chance(0.2):
        numbers = (0.5, 1.0, 2.0, -1.5, 3.0) if is_float(tensor.dtype) else (1, 2, 3)
        return b.scalar(b.rng.choice(numbers), tensor.dtype)
    shape = [1 if b.chance(0.3) else e for e in tensor.shape]
    return b.leaf(shape[b.rng.randrange(len(shape) + 1) if b.chance(0.4) else 0 :], tensor.dtype)


def guarded(b: Builder, tensor: Tensor, least: float = 0.5) -> Tensor:
    """|tensor| + least: a denominator, or an argument of a logarithm."""
    size = b.node("Abs", [tensor], tensor.shape, low=0, high=tensor.magnitude, grid=tensor.grid, exact=True)
    constant = b.scalar(least, tensor.dtype)
    grid = None if size.grid is None else max(size.grid, 1)
    return b.node("Add", [size, constant], tensor.shape, low=least, high=size.high + least, grid=grid, terms=1)


def _preserving(b: Builder) -> None:
    op = b.rng.choice(("Relu", "Abs", "Neg", "Clip", "Identity", "LeakyRelu"))
    kinds = FLOATS if op in ("Relu", "LeakyRelu") else (*FLOATS, F32, F32, I64, I32)
    x = b.pick(*_MOSTLY_F32[:4], *kinds, wild=op in ("Relu", "Abs", "Neg", "Identity"))
    low, high, attributes = {
        "Relu": (max(x.low, 0), max(x.high, 0), {}),
        "Abs": (0, x.magnitude, {}),
        "Neg": (-x.high, -x.low, {}),
        "Identity": (x.low, x.high, {}),
        "LeakyRelu": (min(x.low * 0.25, x.low), max(x.high, 0), {"alpha": 0.25}),
    }.get(op, (max(x.low, -3), min(max(x.high, -3), 6), {}))
    if op == "Clip":
        ends = [b.scalar(-2, x.dtype) if b.chance(0.8) else None, b.scalar(5, x.dtype) if b.chance(0.8) else None]
        b.node(op, [x, *ends], x.shape, low=min(x.low, -2), high=max(x.high, 5), grid=x.grid, exact=True)
        return
    grid = x.grid if op != "LeakyRelu" or x.grid is None else x.grid + 2
    b.node(op, [x], x.shape, low=low, high=high, grid=grid, exact=None if op == "LeakyRelu" else True, **attributes)


def _rounding(b: Builder) -> None:
    op = b.rng.choice(("Floor", "Ceil", "Round", "Sign"))
    x = b.pick(*_MOSTLY_F32, exact=True, wild=op != "Sign")
    low, high = (-1, 1) if op == "Sign" else (x.low - 1, x.high + 1)
    b.node(op, [x], x.shape, low=low, high=high, grid=0, exact=True)


def _smooth(b: Builder) -> None:
    op = b.rng.choice((*_SMOOTH, *_WAVES))
    x = b.pick(*(_MOSTLY_F32 if op != "Celu" else (F32,)))
    most = (_SMOOTH.get(op) or _WAVES[op])[1]
    if x.magnitude > most:
        x = _shrunk(b, x, most)
    if op in _SMOOTH:
        low, high = (_SMOOTH[op][0](end) for end in (x.low, x.high))
    else:
        low, high = _WAVES[op][0](x.magnitude)
    attributes = {"approximate": "tanh"} if op == "Gelu" and b.chance(0.5) else {}
    b.node(op, [x], x.shape, low=min(low, high), high=max(low, high), terms=8, exact=False, **attributes)


def _shrunk(b: Builder, x: Tensor, most: float) -> Tensor:
    """The tensor clipped to [-most, most]: every function stays where a rounding of its argument matters little."""
    ends = [b.scalar(-most, x.dtype), b.scalar(most, x.dtype)]
    low, high = max(x.low, -most), min(x.high, most)
    return b.node("Clip", [x, *ends], x.shape, low=min(low, most), high=max(high, -most), grid=x.grid, exact=True)


def _partial(b: Builder) -> None:
    op = b.rng.choice(("Sqrt", "Log", "Reciprocal", "Pow", "Acosh"))
    x = b.pick(*_MOSTLY_F32)
    if x.magnitude > 1000:
        x = _shrunk(b, x, 30)
    y = guarded(b, x, 1.5 if op == "Acosh" else 0.5)
    function = {"Sqrt": math.sqrt, "Log": math.log, "Reciprocal": lambda v: 1 / v, "Acosh": math.acosh}
    if op == "Pow":
        exponent = b.rng.choice((0.5, 2.0, 3.0, -1.0, 1.5, 0.0))
        ends = [float(v) ** exponent for v in (y.low, y.high)]
        if max(ends) > 1e4:
            return
        b.node(op, [y, b.scalar(exponent, y.dtype)], y.shape, low=min(ends), high=max(ends), terms=16, exact=False)
        return
    ends = [function[op](v) for v in (y.low, y.high)]
    b.node(op, [y], y.shape, low=min(ends), high=max(ends), terms=8, exact=False)


def _arithmetic(b: Builder) -> None:
    op = b.rng.choice(("Add", "Add", "Sub", "Mul", "Mul", "Max", "Min", "Div"))
    x = b.pick(*_MOSTLY_F32)
    y = operand_for(b, x)
    if op == "Div":
        y = guarded(b, y)
    if b.chance(0.3) and op != "Div":
        x, y = y, x
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    low, high = _interval(op, x, y)
    if max(abs(low), abs(high)) > (200 if x.dtype in (F16, BF16) else 1e4):
        return
    on_grid = x.grid is not None and y.grid is not None
    grids = (x.grid or 0, y.grid or 0)
    grid = (sum(grids) if op == "Mul" else max(grids)) if on_grid and op != "Div" else None
    exact = True if op in ("Max", "Min") else False if op == "Div" else None
    b.node(op, [x, y], shape, low=low, high=high, grid=grid, terms=4, exact=exact)


def _interval(op: str, x: Tensor, y: Tensor) -> tuple[float, float]:
    match op:
        case "Add":
            return x.low + y.low, x.high + y.high
        case "Sub":
            return x.low - y.high, x.high - y.low
        case "Max":
            return max(x.low, y.low), max(x.high, y.high)
        case "Min":
            return min(x.low, y.low), min(x.high, y.high)
    if op == "Div":
        ends = [a / c for a, c in pairs((x.low, x.high), (y.low, y.high))]
    else:
        ends = [a * c for a, c in pairs((x.low, x.high), (y.low, y.high))]
    return min(ends), max(ends)


def _integers(b: Builder) -> None:
    op = b.rng.choice(("Add", "Sub", "Mul", "Max", "Min", "Div", "Mod", "BitwiseAnd", "BitwiseOr", "BitwiseXor"))
    x = b.pick(*INTEGERS)
    y = operand_for(b, x)
    if op in ("Div", "Mod"):
        y = b.scalar(b.rng.choice((1, 2, 3, 7, *(() if x.dtype == U8 else (-3,)))), x.dtype)
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    info = np.iinfo(x.dtype)
    match op:
        case "Div":
            low, high = -x.magnitude, x.magnitude
        case "Mod":
            low, high = -y.magnitude, y.magnitude
        case "BitwiseAnd" | "BitwiseOr" | "BitwiseXor":
            top = float(2 ** (int(max(x.magnitude, y.magnitude)).bit_length() + 1))
            low, high = -top, top
        case _:
            low, high = _interval(op, x, y)
    if x.dtype == U8 and op not in ("Add", "Sub", "Mul"):
        low, high = 0, 255
    elif low < info.min or high > info.max:
        return  # overflow is not defined
    b.node(op, [x, y], shape, low=low, high=high, grid=0)


def _comparison(b: Builder) -> None:
    x = b.pick(*_MOSTLY_F32, I64, I32, U8, exact=True, wild=True)
    op = b.rng.choice((*_COMPARISONS, "IsNaN", "IsInf"))
    if op in ("IsNaN", "IsInf"):
        if is_float(x.dtype):
            b.node(op, [x], x.shape, BOOL, 0, 1, 0, exact=True)
        return
    y = operand_for(b, x, exact=True, wild=True)
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    b.node(op, [x, y], shape, BOOL, 0, 1, 0, exact=True)


def _logic(b: Builder) -> None:
    x = b.pick(BOOL)
    op = b.rng.choice(("And", "Or", "Xor", "Not", "Equal"))
    operands = [x] if op == "Not" else [x, operand_for(b, x)] if len(x.shape) else [x, b.pick(BOOL, ranks=(0,))]
    shape = broadcast(*(t.shape for t in operands))
    assert shape is not None
    b.node(op, operands, shape, BOOL, 0, 1, 0, exact=True)


def _where(b: Builder) -> None:
    x = b.pick(*_MOSTLY_F32, I64, I32, BOOL, wild=True)
    y = operand_for(b, x, wild=True)
    inner = broadcast(x.shape, y.shape)
    assert inner is not None
    conditions = [t for t in b.tensors if t.dtype == BOOL and broadcast(t.shape, inner) is not None]
    condition = b.rng.choice(conditions[-4:]) if conditions and b.chance(0.7) else b.leaf(inner, BOOL)
    shape = broadcast(condition.shape, inner)
    if shape is None or np.prod(shape, dtype=object) > b.largest:
        return
    grid = None if x.grid is None or y.grid is None else max(x.grid, y.grid)
    low, high = min(x.low, y.low), max(x.high, y.high)
    b.node("Where", [condition, x, y], shape, x.dtype, low, high, grid, exact=True)


def _cast(b: Builder) -> None:
    to = b.rng.choice((F32, F32, F64, F16, BF16, I64, I32, U8, BOOL))
    whole = not is_float(to)
    x = b.pick(*_MOSTLY_F32, I64, I32, U8, BOOL, exact=whole)
    if x.dtype == to:
        return
    if whole and to != BOOL and not (np.iinfo(to).min <= x.low and x.high <= np.iinfo(to).max):
        return  # what is out of range is not defined
    if to in (F16, BF16) and x.magnitude > 500:
        return
    if to == BOOL:
        low, high, grid = 0.0, 1.0, 0
    else:
        low, high, grid = x.low, x.high, 0 if whole else x.grid
    attribute = {F32: 1, U8: 2, I32: 6, I64: 7, BOOL: 9, F16: 10, F64: 11, BF16: 16}[to]
    b.node("Cast", [x], x.shape, to, low, high, grid, terms=1, exact=True, to=attribute)


def _variadic(b: Builder) -> None:
    op = b.rng.choice(("Sum", "Mean", "Max", "Min"))
    x = b.pick(*_MOSTLY_F32)
    operands = [x, operand_for(b, x), operand_for(b, x)]
    shape = broadcast(*(t.shape for t in operands))
    if shape is None or np.prod(shape, dtype=object) > b.largest:
        return
    low, high = (sum(t.low for t in operands), sum(t.high for t in operands))
    if op in ("Max", "Min", "Mean"):
        low, high = min(t.low for t in operands), max(t.high for t in operands)
    grids = [t.grid for t in operands]
    grid = None if None in grids else max(g for g in grids if g is not None)
    exact = {"Sum": None, "Mean": False}.get(op, True)
    b.node(op, operands, shape, low=low, high=high, grid=grid, terms=4, exact=exact)


def _prelu(b: Builder) -> None:
    x = b.pick(F32, F32, F64, F16)
    slope = b.leaf([e if b.chance(0.6) else 1 for e in x.shape][b.rng.randrange(len(x.shape) + 1) :], x.dtype)
    most = x.magnitude * slope.magnitude
    if most > 500:
        return
    b.node("PRelu", [x, slope], x.shape, low=-most, high=max(most, x.magnitude), terms=2, exact=False)


GENERATORS = {
    _preserving: 4,
    _rounding: 1,
    _smooth: 6,
    _partial: 3,
    _arithmetic: 10,
    _integers: 3,
    _comparison: 3,
    _logic: 2,
    _where: 3,
    _cast: 4,
    _variadic: 1,
    _prelu: 1,
}
