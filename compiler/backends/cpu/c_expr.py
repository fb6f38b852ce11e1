"""Scalar expressions as C: over floats, truth values and integers, each one number or a vector of lanes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal

__all__ = ["Code", "Kind", "c_float", "kind_of", "print_expr", "promoted"]


class Kind(Enum):
    """What C computes with. The value is the pair of its types: one number, a vector."""

    FLOAT = ("float", "vf")
    MASK = ("int", "vi")
    INT = ("long", "vi")

    def c_type(self, vector: bool) -> str:
        """The C type of a value."""
        return self.value[1] if vector else self.value[0]


@dataclass(frozen=True, slots=True)
class Code:
    """A C expression, its kind, and whether it is a vector."""

    text: str
    kind: Kind
    vector: bool


_KINDS = {DType.F32: Kind.FLOAT, DType.BOOL: Kind.MASK, DType.I64: Kind.INT, DType.I32: Kind.INT}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_NUMBER = re.compile(r"vf_all\(\(?-?[0-9][0-9.e+-]*f\)?\)")
_LOGICAL = {"logical_and": "&", "logical_or": "|", "logical_xor": "^"}
_VECTOR_FUNCTIONS = frozenset(
    {"abs", "exp", "log", "sqrt", "floor", "ceil", "round", "sign", "trunc", "sin", "cos", "tan", "asin", "acos",
     "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "log1p", "expm1", "max", "min",
     "pow", "mod", "fmod"}
)  # fmt: skip


def kind_of(dtype: DType) -> Kind:
    """The kind that computes an element type. Raises NotPrintable for one that C code here does not compute."""
    if dtype not in _KINDS:
        raise NotPrintable(f"it computes in {dtype.value}")
    return _KINDS[dtype]


def c_float(value: float) -> str:
    """A float literal that reads back as the same number."""
    number = float(np.float32(value))
    if np.isnan(number):
        return "NAN"
    if np.isinf(number):
        return "INFINITY" if number > 0 else "(-INFINITY)"
    text = f"{np.float32(value)!s}f" if "." in str(np.float32(value)) or "e" in str(np.float32(value)) else f"{number}f"
    return f"({text})" if number < 0 or text.startswith("-") else text


def promoted(code: Code) -> Code:
    """The same value in every lane."""
    if code.vector:
        return code
    cast = {Kind.FLOAT: "vf_all({})", Kind.MASK: "mask_all({})", Kind.INT: "vi_all((int32_t)({}))"}[code.kind]
    return Code(cast.format(code.text), code.kind, True)


def print_expr(expr: Expr, values: Mapping[int, Code], kind: Kind) -> Code:
    """The C expression. `kind`: of the result, which a literal that stands alone takes. Raises NotPrintable."""
    match expr:
        case Arg(index):
            return values[index]
        case Literal(value):
            return Code(_literal(value, kind), kind, False)
        case Convert(arg, dtype):
            return _converted(print_expr(arg, values, kind), kind_of(dtype))
        case Apply(function, args):
            return _applied(function, _operands(function, args, values, kind))


def _literal(value: float | int | bool, kind: Kind) -> str:
    match kind:
        case Kind.FLOAT:
            return c_float(float(value))
        case Kind.MASK:
            return str(int(bool(value)))
    return f"{int(value)}L"


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
    texts = [code.text for code in args]
    if function == "select":
        return Code(_select(kind, texts, vector), kind, vector)
    if function in _COMPARE:
        text = f"({texts[0]} {_COMPARE[function]} {texts[1]})"
        return Code(f"(vi){text}" if vector else text, Kind.MASK, vector)
    if function in ("isnan", "isinf"):
        return Code(_classified(function, kind, texts[0], vector), Kind.MASK, vector)
    match kind:
        case Kind.MASK:
            return Code(_logical(function, texts, vector), kind, vector)
        case Kind.INT:
            return Code(_integer(function, texts, vector), kind, vector)
    return Code(_float(function, texts, vector), kind, vector)


def _select(kind: Kind, texts: list[str], vector: bool) -> str:
    if not vector:
        return f"({texts[0]} ? {texts[1]} : {texts[2]})"
    return f"{'vf' if kind is Kind.FLOAT else 'vi'}_select({', '.join(texts)})"


def _classified(function: str, kind: Kind, text: str, vector: bool) -> str:
    if kind is not Kind.FLOAT:
        return "mask_all(0)" if vector else "0"
    return f"vf_{function}({text})" if vector else f"({function}({text}) != 0)"


def _logical(function: str, texts: list[str], vector: bool) -> str:
    if function == "logical_not":
        return f"~{texts[0]}" if vector else f"!{texts[0]}"
    if function in ("max", "min"):
        return f"({texts[0]} {'|' if function == 'max' else '&'} {texts[1]})"
    if function in _LOGICAL:
        return f"({texts[0]} {_LOGICAL[function]} {texts[1]})"
    raise NotPrintable(f"{function} of truth values is not printed")


def _integer(function: str, texts: list[str], vector: bool) -> str:
    if function in ("add", "sub", "mul"):
        return f"({texts[0]} {_INFIX[function]} {texts[1]})"
    if function == "neg":
        return f"(-{texts[0]})"
    if function in ("max", "min") and not vector:
        return f"long_{function}({', '.join(texts)})"
    raise NotPrintable(f"{function} of integers is not printed")


def _float(function: str, texts: list[str], vector: bool) -> str:
    if function in _INFIX:
        return f"({texts[0]} {_INFIX[function]} {texts[1]})"
    if function == "neg":
        return f"(-{texts[0]})"
    if function == "reciprocal":
        return f"({'vf_all(1.0f)' if vector else '1.0f'} / {texts[0]})"
    if function == "pow" and (square := _power(texts, vector)) is not None:
        return square
    if function not in _VECTOR_FUNCTIONS:
        raise NotPrintable(f"{function} of floats is not printed")
    if vector and function in ("max", "min"):
        # One instruction that gives its second operand where one is NaN: right if the first cannot be.
        for number, other in (texts, texts[::-1]):
            if _NUMBER.fullmatch(number):
                return f"vf_{function}_number({number}, {other})"
    if vector:
        return f"vf_{function}({', '.join(texts)})"
    return f"vf_{function}({', '.join(f'vf_all({t})' for t in texts)})[0]"  # the same digits as in a vector


def _power(texts: list[str], vector: bool) -> str | None:
    """Powers that are products or roots."""
    base, exponent = texts
    number = exponent.removeprefix("vf_all(").removesuffix(")")
    if number == "2.0f" and base.isidentifier():
        return f"({base} * {base})"
    if number == "0.5f":
        return f"vf_sqrt({base})" if vector else f"sqrtf({base})"
    return None


def _converted(code: Code, kind: Kind) -> Code:
    if code.kind is kind:
        return code
    text = code.text
    match code.kind, kind:
        case Kind.MASK, Kind.FLOAT:
            text = f"vf_select({text}, vf_all(1.0f), vf_all(0.0f))" if code.vector else f"(float)({text})"
        case Kind.INT, Kind.FLOAT:
            text = f"vi_to_float({text})" if code.vector else f"(float)({text})"
        case Kind.MASK, Kind.INT:
            text = f"-{text}" if code.vector else f"(long)({text})"
        case _, Kind.MASK:
            zero = "0.0f" if code.kind is Kind.FLOAT else "0"
            text = f"(vi)({text} != {zero})" if code.vector else f"({text} != {zero})"
        case _:
            raise NotPrintable("floats become integers")
    return Code(text, kind, code.vector)
