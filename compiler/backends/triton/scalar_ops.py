"""Operations that compute each element from those at its place: as C expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusible.compiler.backends.triton.elements import c_type, narrowed, widened
from fusible.compiler.backends.triton.libdevice import library_call
from fusible.compiler.backends.triton.ttir import Element, Operation, Pointer, Scalar, element_of

__all__ = ["EXPENSIVE", "SCALAR_OPS", "Unknown", "scalar_expression"]

EXPENSIVE = 8
"""What a call of a function costs, where an operator costs 1."""

Printed = Callable[[Operation, Sequence[str]], str]
_UNSIGNED = {Element.I1: "uint8_t", Element.I8: "uint8_t", Element.I16: "uint16_t", Element.I32: "uint32_t"}


class Unknown(Exception):
    """Raised with the reason why a form of a known operation has no expression."""


def scalar_expression(operation: Operation, arguments: Sequence[str]) -> str:
    """Return the C expression of one element of the result, given those of the operands (simple ones: names, literals).

    Raises Unknown.
    """
    return SCALAR_OPS[operation.name][0](operation, arguments)


def _element(operation: Operation, index: int = 0) -> Element:
    element = element_of(operation.operands[index].type)
    if not isinstance(element, Element):
        raise Unknown("it is not defined for pointers")
    return element


def _result(operation: Operation) -> Element:
    element = element_of(operation.results[0].type)
    if not isinstance(element, Element):
        raise Unknown("its result is a pointer")
    return element


def _suffix(element: Element) -> str:
    return "f64" if element is Element.F64 else "f32"


def _float(template: str) -> Printed:
    """`{0}`, `{1}`, ...: the operands as float or double; `{f}` ends a C function, `{s}` one of ours."""

    def printed(operation: Operation, arguments: Sequence[str]) -> str:
        element = _element(operation)
        if not element.is_float:
            raise Unknown(f"it is defined for floats, not for {element.value}")
        wide = [widened(element, each) for each in arguments]
        text = template.format(*wide, f="" if element is Element.F64 else "f", s=_suffix(element))
        return narrowed(element, f"({text})")

    return printed


def _int(template: str) -> Printed:
    """As `_float` for integers; `{u}` is the unsigned type, `{n}` ends one of our functions. i1 keeps one bit."""

    def printed(operation: Operation, arguments: Sequence[str]) -> str:
        element = _element(operation)
        if element.is_float:
            raise Unknown(f"it is defined for integers, not for {element.value}")
        kind = Element.I8 if element is Element.I1 else element
        text = template.format(*arguments, u=_unsigned(element), n=kind.value)
        return f"(({c_type(element)})(({text}) & 1))" if element is Element.I1 else f"(({c_type(element)})({text}))"

    return printed


def _unsigned(element: Element) -> str:
    return _UNSIGNED.get(element, "uint64_t")


_CMPI = {"eq": "==", "ne": "!=", "slt": "<", "sle": "<=", "sgt": ">", "sge": ">="}
_CMPU = {"ult": "<", "ule": "<=", "ugt": ">", "uge": ">="}
_CMPF = {
    "oeq": "{0} == {1}",
    "ogt": "{0} > {1}",
    "oge": "{0} >= {1}",
    "olt": "{0} < {1}",
    "ole": "{0} <= {1}",
    "one": "{0} < {1} || {0} > {1}",
    "ord": "{0} == {0} && {1} == {1}",
    "ueq": "!({0} < {1} || {0} > {1})",
    "ugt": "!({0} <= {1})",
    "uge": "!({0} < {1})",
    "ult": "!({0} >= {1})",
    "ule": "!({0} > {1})",
    "une": "{0} != {1}",
    "uno": "{0} != {0} || {1} != {1}",
}


def _cmpi(operation: Operation, arguments: Sequence[str]) -> str:
    predicate = operation.words[0]
    a, b = arguments
    if predicate in _CMPI:
        if element_of(operation.operands[0].type) is Element.I1 and predicate[0] == "s":
            a, b = f"-{a}", f"-{b}"
        return f"((uint8_t)({a} {_CMPI[predicate]} {b}))"
    if predicate not in _CMPU:
        raise Unknown(f"the predicate {predicate!r} is not known")
    kind = _unsigned(_element(operation))
    return f"((uint8_t)(({kind}){a} {_CMPU[predicate]} ({kind}){b}))"


def _cmpf(operation: Operation, arguments: Sequence[str]) -> str:
    template = _CMPF.get(operation.words[0])
    if template is None:
        raise Unknown(f"the predicate {operation.words[0]!r} is not known")
    element = _element(operation)
    return f"((uint8_t)({template.format(*(widened(element, each) for each in arguments))}))"


def _select(operation: Operation, arguments: Sequence[str]) -> str:
    condition, yes, no = arguments
    return f"({condition} ? {yes} : {no})"


def _convert_float(operation: Operation, arguments: Sequence[str]) -> str:
    source, target = _element(operation), _result(operation)
    rounding = operation.attributes.get("rounding", operation.attributes.get("roundingmode", "rtne"))
    if rounding not in ("rtne", "to_nearest_even"):
        raise Unknown(f"the rounding mode {rounding!r} is not known; rtne is")
    return narrowed(target, widened(source, arguments[0]), from_double=source is Element.F64)


def _int_to_float(signed: bool) -> Printed:
    def printed(operation: Operation, arguments: Sequence[str]) -> str:
        source, target = _element(operation), _result(operation)
        value = f"({_unsigned(source)}){arguments[0]}" if not signed else arguments[0]
        if source is Element.I1 and signed:
            value = f"-{arguments[0]}"
        exact = "double" if target is Element.F64 or (source.bits > 16 and target is not Element.F32) else "float"
        return narrowed(target, f"(({exact})({value}))", from_double=exact == "double")

    return printed


def _float_to_int(signed: bool) -> Printed:
    def printed(operation: Operation, arguments: Sequence[str]) -> str:
        source, target = _element(operation), _result(operation)
        value = widened(source, arguments[0])
        if target is Element.I1:
            return f"((uint8_t)((int64_t){value} & 1))"
        wide = c_type(target) if signed else _unsigned(target)
        return f"(({c_type(target)})({wide})({value}))"

    return printed


def _extend(signed: bool) -> Printed:
    def printed(operation: Operation, arguments: Sequence[str]) -> str:
        source, target = _element(operation), _result(operation)
        if not signed:
            return f"(({c_type(target)})({_unsigned(source)}){arguments[0]})"
        return f"(({c_type(target)}){'-' if source is Element.I1 else ''}{arguments[0]})"

    return printed


def _truncate(operation: Operation, arguments: Sequence[str]) -> str:
    target = _result(operation)
    return f"((uint8_t)({arguments[0]} & 1))" if target is Element.I1 else f"(({c_type(target)}){arguments[0]})"


def _bitcast(operation: Operation, arguments: Sequence[str]) -> str:
    source: Scalar = element_of(operation.operands[0].type)
    target: Scalar = element_of(operation.results[0].type)
    if source == target or (isinstance(source, Pointer) and isinstance(target, Pointer)):
        return arguments[0]
    if isinstance(source, Pointer) or isinstance(target, Pointer) or source.bits != target.bits:
        raise Unknown(f"from {source} to {target}")
    bits = f"{source.value}_bits({arguments[0]})" if source in (Element.F32, Element.F64) else arguments[0]
    if target in (Element.F32, Element.F64):
        return f"{target.value}_of_bits({bits})"
    return f"(({c_type(target)}){bits})"


def _add_pointer(operation: Operation, arguments: Sequence[str]) -> str:
    pointer = element_of(operation.operands[0].type)
    if not isinstance(pointer, Pointer):
        raise Unknown("its first operand is no pointer")
    return f"({arguments[0]} + (int64_t){arguments[1]} * {pointer.pointee.bytes})"


def _clamp(operation: Operation, arguments: Sequence[str]) -> str:
    bounded = "minnum_{s}(maxnum_{s}({0}, {1}), {2})"
    if operation.attributes.get("propagateNan", "none") != "none":
        bounded = "({0} != {0} ? {0} : " + bounded + ")"
    return _float(bounded)(operation, arguments)


def _external(operation: Operation, arguments: Sequence[str]) -> str:
    symbol = operation.attributes.get("symbol", "")
    call = library_call(symbol)
    if call is None:
        raise Unknown(f"the function {symbol!r} is not known; libdevice.py lists those that are")
    result = _result(operation)
    held = ((_element(operation, k), each) for k, each in enumerate(arguments))
    text = call.format(*(widened(element, each) for element, each in held))
    return f"(({c_type(result)})({text}))"


def _power_of_int(operation: Operation, arguments: Sequence[str]) -> str:
    element = _element(operation)
    return narrowed(
        element, f"(({'double' if element is Element.F64 else 'float'})pow({arguments[0]}, {arguments[1]}))"
    )


def _renamed(text: str) -> Printed:
    return lambda operation, arguments: text.format(*arguments)


def _table() -> dict[str, tuple[Printed, int]]:
    table: dict[str, tuple[Printed, int]] = {}
    for name, symbol in (("add", "+"), ("sub", "-"), ("mul", "*"), ("div", "/")):
        table[f"arith.{name}f"] = _float(f"{{0}} {symbol} {{1}}"), 1
    for name, symbol in (("addi", "+"), ("subi", "-"), ("muli", "*"), ("andi", "&"), ("ori", "|"), ("xori", "^")):
        table[f"arith.{name}"] = _int(f"{{0}} {symbol} {{1}}"), 1
    for name, template in {
        "shli": "({u}){0} << {1}", "shrsi": "{0} >> {1}", "shrui": "({u}){0} >> {1}",
        "maxsi": "{0} > {1} ? {0} : {1}", "minsi": "{0} < {1} ? {0} : {1}",
        "maxui": "({u}){0} > ({u}){1} ? {0} : {1}", "minui": "({u}){0} < ({u}){1} ? {0} : {1}",
        "divsi": "div_{n}({0}, {1})", "remsi": "rem_{n}({0}, {1})",
        "divui": "udiv_{n}({0}, {1})", "remui": "urem_{n}({0}, {1})",
    }.items():  # fmt: skip
        table[f"arith.{name}"] = _int(template), 2
    for name, template in {
        "arith.negf": "-{0}", "arith.maxnumf": "maxnum_{s}({0}, {1})", "arith.minnumf": "minnum_{s}({0}, {1})",
        "arith.maximumf": "maximum_{s}({0}, {1})", "arith.minimumf": "minimum_{s}({0}, {1})",
        "math.absf": "fabs{f}({0})", "math.floor": "floor{f}({0})", "math.ceil": "ceil{f}({0})",
        "math.trunc": "trunc{f}({0})", "math.roundeven": "rint{f}({0})", "math.copysign": "copysign{f}({0}, {1})",
        "math.fma": "fma{f}({0}, {1}, {2})", "tt.precise_divf": "{0} / {1}",
    }.items():  # fmt: skip
        table[name] = _float(template), 1
    for function in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos",
                     "atan", "sinh", "cosh", "tanh", "erf", "sqrt", "cbrt", "round"):  # fmt: skip
        table[f"math.{function}"] = _float(f"{function}{{f}}({{0}})"), EXPENSIVE
    table["math.rsqrt"] = _float("rsqrt_{s}({0})"), EXPENSIVE
    table["tt.precise_sqrt"] = _float("sqrt{f}({0})"), EXPENSIVE
    table["arith.remf"] = _float("fmod{f}({0}, {1})"), EXPENSIVE
    table["math.powf"] = _float("pow{f}({0}, {1})"), EXPENSIVE
    table["math.atan2"] = _float("atan2{f}({0}, {1})"), EXPENSIVE
    table["math.fpowi"] = _power_of_int, EXPENSIVE
    table["math.absi"] = _int("{0} < 0 ? -{0} : {0}"), 1
    table["tt.mulhiui"] = _int("umulhi_{n}({0}, {1})"), 2
    table["tt.clampf"] = _clamp, 2
    table["tt.extern_elementwise"] = _external, EXPENSIVE
    table |= {"arith.cmpi": (_cmpi, 1), "arith.cmpf": (_cmpf, 1), "arith.select": (_select, 1)}
    for name in ("arith.extf", "arith.truncf", "tt.fp_to_fp"):
        table[name] = _convert_float, 1
    table |= {"arith.sitofp": (_int_to_float(True), 1), "arith.uitofp": (_int_to_float(False), 1)}
    table |= {"arith.fptosi": (_float_to_int(True), 1), "arith.fptoui": (_float_to_int(False), 1)}
    table |= {"arith.extsi": (_extend(True), 0), "arith.extui": (_extend(False), 0)}
    table |= {"arith.trunci": (_truncate, 0), "arith.index_cast": (_truncate, 0)}
    table |= {"arith.bitcast": (_bitcast, 0), "tt.bitcast": (_bitcast, 0)}
    table |= {
        "tt.ptr_to_int": (_renamed("{0}"), 0),
        "tt.int_to_ptr": (_renamed("{0}"), 0),
        "tt.addptr": (_add_pointer, 1),
    }
    return table


SCALAR_OPS: dict[str, tuple[Printed, int]] = _table()
"""Operation -> what prints it, and what it costs (see `EXPENSIVE`)."""
