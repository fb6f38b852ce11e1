"""Scalar expressions as Triton's language writes them.

fp16 and bf16 are carried as float32 numbers that the type can hold: each stage is computed in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.triton.narrow import FOUR_BITS, from_float8, to_float8, to_four_bits
from fusible.compiler.backends.triton.tile import ELEMENT_TYPES
from fusible.compiler.ir.types import DType
from fusible.compiler.region.expr import Apply, Arg, Convert, Expr, Literal, arguments, interpret
from fusible.compiler.region.scales import FLOATS8

__all__ = ["Code", "carried", "full", "literal_text", "print_expr", "rounded"]


@dataclass(frozen=True, slots=True)
class Code:
    """An expression and the type that it is carried in.

    value: the number, if it is a literal. held: the smaller type that holds it for certain.
    """

    text: str
    dtype: DType
    value: float | int | bool | None = None
    held: DType | None = None

    @property
    def is_literal(self) -> bool:
        """True for a number that stands in the text."""
        return self.value is not None


_INFIX = {"add": "+", "sub": "-", "mul": "*"}
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_LOGICAL = {"logical_and": "&", "logical_or": "|", "logical_xor": "^", "max": "|", "min": "&"}
_BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}
_OWN = frozenset({"exp", "log", "sin", "cos", "erf", "floor", "ceil"})  # functions of the language itself
_EXACT = frozenset({"max", "min", "select", "neg", "abs", "sign", "floor", "ceil", "round", "trunc"})
_LIBRARY = {
    "round": "rint",
    **{n: n for n in ("tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    **{n: n for n in ("log1p", "expm1", "pow", "fmod")},
}
"""Functions of the device library; the interpreter has none of them."""


def carried(dtype: DType) -> DType:
    """The type that values of an element type are carried in."""
    return DType.F32 if dtype.is_small_float else FOUR_BITS.get(dtype, dtype)


def literal_text(value: float | int | bool, dtype: DType) -> str:
    """A number of an element type, as a plain literal. Raises NotPrintable if the type has no such number."""
    if dtype is DType.BOOL:
        return str(bool(value))
    if dtype in FLOATS8:
        return str(int(np.asarray(value, dtype.numpy).view(np.uint8)))
    if not dtype.is_float:
        text = str(int(value))
    else:
        number = np.asarray(value, dtype.numpy)
        wide = float(number)
        if not np.isfinite(wide):
            return f'float("{wide}")' if not wide < 0 else '(-float("inf"))'
        text = repr(wide) if dtype is DType.F64 else str(np.float32(wide))
        text = text if any(c in text for c in ".e") else f"{text}.0"
    return f"({text})" if text.startswith("-") else text


def full(value: float | int | bool, dtype: DType, shape: str = "()") -> str:
    """A tensor of one number."""
    return f"tl.full({shape}, {literal_text(value, dtype)}, tl.{ELEMENT_TYPES[dtype]})"


def rounded(code: Code, dtype: DType) -> Code:
    """A value cast to an element type by C's rules, as it is carried."""
    if code.value is not None:
        with np.errstate(all="ignore"):
            value = np.asarray(code.value, code.dtype.numpy).astype(dtype.numpy).astype(carried(dtype).numpy).item()
        return Code(literal_text(value, carried(dtype)), carried(dtype), value)
    if code.dtype in FLOATS8 and dtype is not code.dtype:
        code = Code(from_float8(code.text, code.dtype), DType.F32)
    text = code.text
    if dtype in FLOATS8:
        return code if dtype is code.dtype else Code(to_float8(rounded(code, DType.F32).text, dtype), dtype)
    if dtype in FOUR_BITS:
        return Code(to_four_bits(rounded(code, FOUR_BITS[dtype]).text, dtype), FOUR_BITS[dtype])
    if dtype is DType.BOOL:
        return code if code.dtype is DType.BOOL else Code(f"({text} != 0)", DType.BOOL)
    if dtype in (code.dtype, code.held):
        return code
    text = f"{text}.to(tl.{ELEMENT_TYPES[dtype]})"
    return Code(f"{text}.to(tl.float32)", DType.F32, None, dtype) if dtype.is_small_float else Code(text, dtype)


def print_expr(expr: Expr, values: Mapping[int, Code], dtype: DType) -> Code:
    """The expression. dtype: what a literal takes that stands beside no value. Raises NotPrintable."""
    match expr:
        case Arg(index):
            return values[index]
        case Literal(value):
            return Code(literal_text(value, dtype), dtype, value)
        case Convert(Literal(value), other):
            return rounded(Code("", carried(other), value), other)
        case Convert(arg, other):
            return rounded(print_expr(arg, values, dtype), other)
        case Apply(function, args):
            if not arguments(expr):
                return _computed(expr, dtype)
            operands = _operands(function, args, values, dtype)
            return replace(_applied(function, operands), held=_held(function, operands))


def _computed(expr: Expr, dtype: DType) -> Code:
    """An expression of literals, computed here."""
    value = interpret(expr, []).item()
    return Code(literal_text(value, dtype), dtype, value)


def _operands(function: str, args: tuple[Expr, ...], values: Mapping[int, Code], dtype: DType) -> list[Code]:
    first = 1 if function == "select" else 0
    known = [None if isinstance(a, Literal) else print_expr(a, values, dtype) for a in args]
    typed = [code.dtype for code in known[first:] if code is not None]
    own = next((code.dtype for code in known[first:] if code is not None and not code.is_literal), None)
    own = own or (typed[0] if typed else dtype)
    codes = []
    for number, (arg, code) in enumerate(zip(args, known, strict=True)):
        wanted = DType.BOOL if number < first else own
        found = print_expr(arg, values, wanted) if code is None else code
        if found.dtype is not wanted:
            raise NotPrintable(f"{function} mixes {found.dtype.value} with {wanted.value}")
        codes.append(found)
    return codes


def _applied(function: str, args: list[Code]) -> Code:
    own = args[-1].dtype
    if own in FLOATS8 and function != "select":
        raise NotPrintable(f"{function} of {own.value} is not printed")
    texts = [_operand(code) for code in args]
    if function == "select":
        if args[0].value is not None:
            return args[1] if args[0].value else args[2]
        if args[1].is_literal and args[2].is_literal:
            texts[1] = full(args[1].value or 0, own)
        return Code(f"tl.where({_tensor(args[0])}, {texts[1]}, {texts[2]})", own)
    if all(code.is_literal for code in args):
        texts[0] = _tensor(args[0])
    if function in _COMPARE:
        if own is DType.BOOL and function not in ("eq", "ne"):
            raise NotPrintable(f"{function} of truth values is not printed")
        return Code(f"({texts[0]} {_COMPARE[function]} {texts[1]})", DType.BOOL)
    if function in ("isnan", "isinf"):
        return Code(_classified(function, args[0]), DType.BOOL)
    if own is DType.BOOL:
        return Code(_logical(function, texts), own)
    if own.is_integer:
        return Code(_integer(function, args, texts), own)
    return Code(_float(function, args, texts), own)


def _held(function: str, args: list[Code]) -> DType | None:
    """The small type that holds a result without rounding, as it holds what the function chooses from."""
    if function not in _EXACT or args[-1].dtype is not DType.F32:
        return None
    numbers = args[1:] if function == "select" else args
    held = {code.held for code in numbers if not code.is_literal}
    kind = held.pop() if len(held) == 1 else None
    if kind is None or any(rounded(code, kind).value != code.value for code in numbers if code.is_literal):
        return None
    return kind


def _operand(code: Code) -> str:
    """As an operand beside a tensor: a plain number takes the tensor's type where that type is the usual one."""
    if code.value is not None and code.dtype not in (DType.F32, DType.I32, DType.I64):
        return full(code.value, code.dtype)
    return code.text


def _tensor(code: Code) -> str:
    return code.text if code.value is None else full(code.value, code.dtype)


def _classified(function: str, code: Code) -> str:
    text = _tensor(code)
    if not code.dtype.is_float:
        return f"({text} != {text})"
    return f"({text} != {text})" if function == "isnan" else f'(tl.abs({text}) == float("inf"))'


def _logical(function: str, texts: list[str]) -> str:
    if function == "logical_not":
        return f"({texts[0]} == 0)"
    if function not in _LOGICAL:
        raise NotPrintable(f"{function} of truth values is not printed")
    return f"({texts[0]} {_LOGICAL[function]} {texts[1]})"


def _integer(function: str, args: list[Code], texts: list[str]) -> str:
    if function in _INFIX or function in _BITWISE:
        return f"({texts[0]} {(_INFIX | _BITWISE)[function]} {texts[1]})"
    match function:
        case "max" | "min":
            return f"tl.{function}imum({texts[0]}, {texts[1]})"
        case "neg":
            return f"(0 - {texts[0]})"
        case "bitwise_not":
            return f"({texts[0]} ^ {full(-1 if args[0].dtype.is_signed else _ones(args[0].dtype), args[0].dtype)})"
        case "abs":
            return f"tl.abs({texts[0]})" if args[0].dtype.is_signed else texts[0]
        case "sign":
            low = "-1" if args[0].dtype.is_signed else "0"
            return f"tl.where({texts[0]} > 0, 1, tl.where({texts[0]} < 0, {low}, {texts[0]}))"
        case "div" | "mod" | "fmod":
            return _quotient(function, args, texts)
        case "shift_left" | "shift_right":
            return _shifted(function, args, texts)
    raise NotPrintable(f"{function} of integers is not printed")


def _shifted(function: str, args: list[Code], texts: list[str]) -> str:
    """By as many bits as the type has, or fewer than none, all is shifted out: the language leaves that open."""
    (a, b), dtype = texts, args[0].dtype
    bits, arithmetic = 8 * dtype.numpy.itemsize, function == "shift_right" and dtype.is_signed
    sign = "<<" if function == "shift_left" else ">>"
    if args[1].value is not None:
        inside = 0 <= args[1].value < bits
        b = b if inside else full(bits - 1, dtype)
        return f"({a} {sign} {b})" if inside or arithmetic else f"({a} * 0)"
    inside_text = f"({b} < {bits})" if not dtype.is_signed else f"(({b} >= 0) & ({b} < {bits}))"
    shifted = f"({a} {sign} tl.where({inside_text}, {b}, {bits - 1}))"
    return shifted if arithmetic else f"tl.where({inside_text}, {shifted}, 0)"


def _ones(dtype: DType) -> int:
    return int(np.iinfo(dtype.numpy).max)


def _quotient(function: str, args: list[Code], texts: list[str]) -> str:
    """Cut towards zero (div, fmod), or the remainder with the divisor's sign (mod); 0 for a divisor of 0."""
    a, b = texts[0], texts[1]
    checked = args[1].value is None
    if args[1].value == 0:
        return f"({a} * 0)"
    safe = f"tl.where({b} == 0, 1, {b})" if checked else b
    if function == "div":
        found = f"({a} // {safe})"
    elif function == "fmod" or not args[0].dtype.is_signed:
        found = f"({a} % {safe})"
    else:
        found = f"modulo({a}, {safe})"
    return f"tl.where({b} == 0, 0, {found})" if checked else found


def _float(function: str, args: list[Code], texts: list[str]) -> str:
    dtype = args[0].dtype
    if function in _INFIX:
        return f"({texts[0]} {_INFIX[function]} {texts[1]})"
    if function in _OWN:
        return f"tl.{function}({_tensor(args[0])})"
    match function:
        case "max" | "min":
            return f"tl.{function}imum({texts[0]}, {texts[1]}, propagate_nan=tl.PropagateNan.ALL)"
        case "neg":  # the language's own minus is 0 - x, which loses the sign of zero
            return f"({texts[0]} * {_operand(Code('-1.0', dtype, -1.0))})"
        case "abs":
            return f"tl.abs({texts[0]})"
        case "sqrt":
            return _root(args[0])
        case "div":
            return _ratio(dtype, _tensor(args[0]), _tensor(args[1]))
        case "quotient":  # this and the next are `smooth.py`'s
            return f"({_tensor(args[0])} / {_tensor(args[1])})"
        case "one_plus_erf" | "one_plus_tanh" | "logistic":
            return f"{function}({_tensor(args[0])})"
        case "reciprocal":
            return _ratio(dtype, full(1.0, dtype), _tensor(args[0]))
        case "sigmoid":
            return _ratio(dtype, full(1.0, dtype), f"(1.0 + tl.exp(0.0 - {_tensor(args[0])}))")
        case "sign":
            x = texts[0]
            return f"tl.where({x} > 0, {full(1.0, dtype)}, tl.where({x} < 0, {full(-1.0, dtype)}, {x}))"
        case "trunc":
            return f"tl.where({texts[0]} < 0, tl.ceil({texts[0]}), tl.floor({texts[0]}))"
        case "mod":
            rest, b = f"libdevice.fmod({_tensor(args[0])}, {_tensor(args[1])})", texts[1]
            return f"tl.where(({rest} != 0) & (({rest} < 0) != ({b} < 0)), {rest} + {b}, {rest})"
        case "pow" if args[1].value == 2:
            return f"({texts[0]} * {texts[0]})"
        case "pow" if args[1].value == 0.5:
            return _root(args[0])
    if function not in _LIBRARY:
        raise NotPrintable(f"{function} of floats is not printed")
    return f"libdevice.{_LIBRARY[function]}({', '.join(_tensor(a) for a in args)})"


def _root(code: Code) -> str:
    """The rounded root; in double precision the language's only one is."""
    return f"tl.sqrt{'' if code.dtype is DType.F64 else '_rn'}({_tensor(code)})"


def _ratio(dtype: DType, a: str, b: str) -> str:
    """The rounded quotient; in double precision the operator gives it, in single precision an approximation."""
    return f"({a} / {b})" if dtype is DType.F64 else f"tl.div_rn({a}, {b})"
