"""Scalar expressions as C: over floats, doubles, truth values and integers, each one number or a vector of lanes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fusible.compiler.backends.cpu.c_kinds import Code, Kind, c_float, kind_of, literal, promoted, rounded
from fusible.compiler.backends.cpu.c_steps import step_of
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal

__all__ = ["print_expr"]

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_NUMBER = re.compile(r"vf_all\(\(?(-?[0-9][0-9.e+-]*)f\)?\)")
_LONE_NUMBER = re.compile(r"\(?(-?[0-9][0-9.e+-]*)f\)?")
_WHOLE = re.compile(r"\(?(-?[0-9]+)L?\)?")
_LEVELS = (DType.I8, DType.U8)
_MODERATE = 2.0**60  # divisors from its reciprocal to this have reciprocals, and quotients' rests, far from all limits
_LOGICAL = {"logical_and": "&", "logical_or": "|", "logical_xor": "^"}
_BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}
_FLOAT_FUNCTIONS = frozenset(
    {"abs", "exp", "log", "sqrt", "floor", "ceil", "round", "sign", "trunc", "sin", "cos", "tan", "asin", "acos",
     "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "log1p", "expm1", "max", "min",
     "pow", "mod", "fmod"}
)  # fmt: skip
_INTEGER_FUNCTIONS = {"max": "larger", "min": "smaller"} | {
    name: name
    for name in ("add", "sub", "mul", "div", "mod", "fmod", "neg", "abs", "sign", "shift_left", "shift_right")
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """A function over operands of one kind; all of them are vectors if one is."""

    function: str
    kind: Kind
    vector: bool
    texts: list[str]

    def call(self, name: str) -> str:
        """A function of our headers."""
        return f"{self.kind.prefix(self.vector)}_{name}({', '.join(self.texts)})"


def print_expr(expr: Expr, values: Mapping[int, Code], kind: Kind) -> Code:
    """The C expression. `kind`: of the result, which a literal that stands alone takes. Raises NotPrintable."""
    match expr:
        case Arg(index):
            return values[index]
        case Literal(value):
            return Code(literal(value, kind), kind, False)
        case Convert(Literal(value), dtype):
            return rounded(Code(literal(value, kind_of(dtype)), kind_of(dtype), False), dtype)
        case Convert(Arg(index), DType.F32) if values[index].number:
            return Code(values[index].number, Kind.FLOAT, values[index].vector)
        case Convert(arg, dtype) if dtype in _LEVELS and (level := _level(arg, values)) is not None:
            return Code(_cast(level, kind_of(dtype)), kind_of(dtype), True, level.text)
        case Convert(arg, dtype):
            return _converted(print_expr(arg, values, kind), dtype)
        case Apply(function, args):
            return _step(expr, values, kind) or _applied(function, _operands(function, args, values, kind))


def _level(expr: Expr, values: Mapping[int, Code]) -> Code | None:
    """The level of a quantisation, bounded and rounded, as a vector of floats that bytes hold; None for anything else.

    Its bounds are numbers, and neither the sign of a zero nor the last digit of what rounds to zero reaches the level.
    """
    zero: Expr | None = None
    if isinstance(expr, Apply) and expr.function == "add" and isinstance(expr.args[1], Convert):
        expr, zero = expr.args
    match expr:
        case Apply("round", (Apply("min", (Apply("select", (Apply("gt", (quotient, low)), same, lowest)), high)),)):
            pass
        case _:
            return None
    match quotient:
        case Apply("div", (x, scale)) if (quotient, low) == (same, lowest):
            operands = [print_expr(e, values, Kind.FLOAT) for e in (x, scale)]
        case _:
            return None
    if not operands[0].vector or any(code.kind is not Kind.FLOAT for code in operands):
        return None
    bounds = [promoted(print_expr(e, values, Kind.FLOAT)).text for e in (low, high)]
    text = f"vf_max_number({_quotient(*(promoted(code).text for code in operands))}, {bounds[0]})"
    text = f"vf_round(vf_min_number({bounds[1]}, {text}))"
    if zero is None:
        return Code(text, Kind.FLOAT, True)
    return Code(f"({text} + {promoted(print_expr(zero, values, Kind.FLOAT)).text})", Kind.FLOAT, True)


def _quotient(dividend: str, divisor: str) -> str:
    """A quotient of vectors: by a number a product, or what rounds as quotients do."""
    found = _NUMBER.fullmatch(divisor)
    if found is None or not 1 / _MODERATE <= abs(number := np.float32(found[1])) <= _MODERATE:
        return f"({dividend} / {divisor})"
    reciprocal = c_float(float(np.float32(1) / number))
    if np.frexp(number)[0] in (0.5, -0.5):
        return f"({dividend} * vf_all({reciprocal}))"
    return f"vf_divide({dividend}, {c_float(float(number))}, {reciprocal})"


def _step(expr: Expr, values: Mapping[int, Code], kind: Kind) -> Code | None:
    """The code of x times a step, in floats, or None."""
    found = step_of(expr)
    if found is None:
        return None
    function, x, argument = found
    factor, code = print_expr(x, values, kind), print_expr(argument, values, kind)
    if factor.kind is not Kind.FLOAT:
        return None
    text = code.text if code.vector else f"vf_all({code.text})"
    text = f"vf_{function}({text})" if code.vector else f"vf_{function}({text})[0]"
    return Code(f"({factor.text} * {text})" if function == "sigmoid_step" else text, Kind.FLOAT, code.vector)


def _operands(function: str, args: tuple[Expr, ...], values: Mapping[int, Code], kind: Kind) -> list[Code]:
    """The arguments, literals with the kind of those beside them; all vectors if one is."""
    first = 1 if function == "select" else 0
    known = [None if isinstance(a, Literal) else print_expr(a, values, kind) for a in args]
    own = next((code.kind for code in known[first:] if code is not None), kind)
    codes = [
        print_expr(a, values, Kind.MASK if n < first else own) if code is None else code
        for n, (a, code) in enumerate(zip(args, known, strict=True))
    ]
    if any(code.kind is not own for code in codes[first:]):
        raise NotPrintable(f"{function} mixes element types")
    return [promoted(code) for code in codes] if any(code.vector for code in codes) else codes


def _applied(function: str, args: list[Code]) -> Code:
    kind, vector = args[-1].kind, args[0].vector
    made = _Operation(function, kind, vector, [code.text for code in args])
    if function == "select":
        return Code(_select(made), kind, vector)
    if function in _COMPARE:
        return Code(_compared(made), Kind.MASK, vector)
    if function in ("isnan", "isinf"):
        return Code(_classified(made), Kind.MASK, vector)
    match kind:
        case Kind.MASK:
            return Code(_logical(made), kind, vector)
        case Kind.INT | Kind.LONG:
            return Code(_integer(made), kind, vector)
        case Kind.DOUBLE:
            return Code(_double(made), kind, vector)
    return Code(_float(function, made.texts, vector), kind, vector)


def _select(made: _Operation) -> str:
    mask, yes, no = made.texts
    return made.call("select") if made.vector else f"({mask} ? {yes} : {no})"


def _compared(made: _Operation) -> str:
    text = f"({made.texts[0]} {_COMPARE[made.function]} {made.texts[1]})"
    if not made.vector:
        return text
    return f"vl_truth((vl){text})" if made.kind.wide else f"(vi){text}"


def _classified(made: _Operation) -> str:
    if made.kind not in (Kind.FLOAT, Kind.DOUBLE):
        return "mask_all(0)" if made.vector else "0"
    return made.call(made.function) if made.vector else f"({made.function}({made.texts[0]}) != 0)"


def _logical(made: _Operation) -> str:
    function, texts = made.function, made.texts
    if function == "logical_not":
        return f"~{texts[0]}" if made.vector else f"!{texts[0]}"
    if function in ("max", "min"):
        return f"({texts[0]} {'|' if function == 'max' else '&'} {texts[1]})"
    if function in _LOGICAL:
        return f"({texts[0]} {_LOGICAL[function]} {texts[1]})"
    raise NotPrintable(f"{function} of truth values is not printed")


def _integer(made: _Operation) -> str:
    if made.function in _BITWISE:
        return f"({made.texts[0]} {_BITWISE[made.function]} {made.texts[1]})"
    if made.function == "bitwise_not":
        return f"(~{made.texts[0]})"
    if made.function not in _INTEGER_FUNCTIONS:
        raise NotPrintable(f"{made.function} of integers is not printed")
    return made.call(_INTEGER_FUNCTIONS[made.function])


def _double(made: _Operation) -> str:
    if made.function in _INFIX:
        return f"({made.texts[0]} {_INFIX[made.function]} {made.texts[1]})"
    if made.function == "neg":
        return f"(-{made.texts[0]})"
    if made.function == "reciprocal":
        return f"({'vd_all(1.0)' if made.vector else '1.0'} / {made.texts[0]})"
    if made.function not in _FLOAT_FUNCTIONS:
        raise NotPrintable(f"{made.function} of floats is not printed")
    return made.call(made.function)


def _float(function: str, texts: list[str], vector: bool) -> str:
    if function in _INFIX:
        return _arithmetic(function, texts)
    if function == "neg":
        return f"(-{texts[0]})"
    if function == "reciprocal":
        return f"({'vf_all(1.0f)' if vector else '1.0f'} / {texts[0]})"
    if function == "pow" and (square := _power(texts, vector)) is not None:
        return square
    if function not in _FLOAT_FUNCTIONS:
        raise NotPrintable(f"{function} of floats is not printed")
    if vector and function in ("max", "min"):
        # One instruction that gives its second operand where one is NaN: right if the first cannot be.
        for number, other in (texts, texts[::-1]):
            if _NUMBER.fullmatch(number):
                return f"vf_{function}_number({number}, {other})"
    if vector:
        return f"vf_{function}({', '.join(texts)})"
    return f"vf_{function}({', '.join(f'vf_all({t})' for t in texts)})[0]"  # the same digits as in a vector


def _arithmetic(function: str, texts: list[str]) -> str:
    """The four operations; of numbers their result."""
    numbers = [_LONE_NUMBER.fullmatch(text) for text in texts]
    if function != "div" and numbers[0] and numbers[1]:
        a, b = (np.float32(found[1]) for found in numbers if found is not None)
        with np.errstate(all="ignore"):
            return c_float(float({"add": a + b, "sub": a - b, "mul": a * b}[function]))
    return f"({texts[0]} {_INFIX[function]} {texts[1]})"


def _power(texts: list[str], vector: bool) -> str | None:
    """Powers that are products or roots."""
    base, exponent = texts
    number = exponent.removeprefix("vf_all(").removesuffix(")")
    if number == "2.0f" and base.isidentifier():
        return f"({base} * {base})"
    if number == "0.5f":
        return f"vf_sqrt({base})" if vector else f"sqrtf({base})"
    return None


def _converted(code: Code, dtype: DType) -> Code:
    """A cast by C's rules; what is stored in fewer bits than it is computed in is rounded or cut down."""
    kind = kind_of(dtype)
    return rounded(code if code.kind is kind else Code(_cast(code, kind), kind, code.vector), dtype)


def _cast(code: Code, kind: Kind) -> str:
    text = code.text
    if kind is Kind.MASK:
        zero = literal(0, code.kind)
        if not code.vector:
            return f"({text} != {zero})"
        return f"vl_truth((vl)({text} != {zero}))" if code.kind.wide else f"(vi)({text} != {zero})"
    if not code.vector and code.kind is Kind.INT and kind is Kind.FLOAT and (whole := _WHOLE.fullmatch(text)):
        return c_float(float(whole[1]))
    if not code.vector:
        return f"({kind.c_type(False)})({text})"
    if code.kind is Kind.MASK:
        if kind is Kind.FLOAT:
            return f"vf_select({text}, vf_all(1.0f), vf_all(0.0f))"
        text = f"(-{text})"  # all bits are -1
        return text if kind is Kind.INT else f"__builtin_convertvector({text}, {kind.c_type(True)})"
    if (code.kind, kind) == (Kind.INT, Kind.FLOAT):
        return f"vi_to_float({text})"
    return f"__builtin_convertvector({text}, {kind.c_type(True)})"
