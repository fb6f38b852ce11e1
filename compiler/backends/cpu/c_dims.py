"""Integer expressions over axes and symbols as C, and what is linear in an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt, bounds_of, product

__all__ = ["Names", "c_dim", "coefficient", "flat_offset", "mentions"]


class Names(dict[str, str]):
    """The C name of each symbol, and parameters in the place of numbers.

    Kernels that differ in sizes only then have the same text and are compiled once. Each number printed is a parameter
    of its own, `prefix` and its place in `numbers`, so that equal sizes by chance do not tell texts apart. Without
    `numbers` there are no parameters: a number is a number.
    """

    def __init__(self, names: Mapping[str, str], prefix: str = "", numbers: list[int] | None = None) -> None:
        super().__init__(names)
        self.prefix, self.numbers = prefix, numbers

    def number(self, value: int) -> str:
        """The name of a new parameter, or the number itself."""
        if self.numbers is None:
            return f"{value}L" if abs(value) >= 2**31 else str(value)
        self.numbers.append(value)
        return f"{self.prefix}{len(self.numbers) - 1}"

    def copy(self) -> Names:
        """The same names over the same parameters."""
        return Names(self, self.prefix, self.numbers)

    def __or__(self, other: Mapping[str, str]) -> Names:  # type: ignore[override]
        return Names({**self, **other}, self.prefix, self.numbers)


def c_dim(dim: Dim, names: Names) -> str:
    """The C expression (type long). `names`: the C name of each symbol.

    Divisions round towards minus infinity; where the dividend cannot be negative C's own do.
    """
    if not isinstance(dim, SymInt):
        return names.number(dim) if dim > 1 else str(dim)
    parts: list[str] = []
    for monomial, coefficient_ in dim.terms:
        factors = [_atom(atom, names) for atom in monomial]
        if abs(coefficient_) != 1 or not factors:
            factors.insert(0, names.number(abs(coefficient_)) if abs(coefficient_) > 1 else "1")
        sign = "-" if coefficient_ < 0 else "+"
        body = " * ".join(factors)
        parts.append(f" {sign} {body}" if parts else (body if sign == "+" else f"-{body}"))
    text = "".join(parts)
    return f"({text})" if " " in text or text.startswith("-") else text


def _atom(atom: Symbol | Call, names: Names) -> str:
    if isinstance(atom, Symbol):
        return names[atom.name]
    a, b = (c_dim(argument, names) for argument in atom.args)
    low, divisor = bounds_of(atom.args[0])[0], bounds_of(atom.args[1])[0]
    plain = low is not None and low >= 0 and divisor is not None and divisor > 0
    match atom.function:
        case "floordiv":
            return f"({a} / {b})" if plain else f"long_floor_divide({a}, {b})"
        case "mod":
            return f"({a} % {b})" if plain else f"long_modulo({a}, {b})"
        case "max" | "min":
            return f"long_{atom.function}({a}, {b})"
    return f"long_broadcast({a}, {b})"


def flat_offset(components: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    """The position in a row-major tensor of the element at an index."""
    offset: Dim = 0
    for dimension, component in enumerate(components):
        offset = offset + component * product(shape[dimension + 1 :])
    return offset


def mentions(dim: Dim, name: str) -> bool:
    """True if the expression mentions a symbol, be it in a call."""
    return any(symbol.name == name for symbol in symbols_of(dim))


def coefficient(dim: Dim, axis: int) -> Dim | None:
    """k where the expression is k * i<axis> + something without that axis; None if it is not of that form."""
    name = f"i{axis}"
    if not isinstance(dim, SymInt) or not mentions(dim, name):
        return 0
    step: Dim = 0
    for monomial, number in dim.terms:
        own = [isinstance(atom, Symbol) and atom.name == name for atom in monomial]
        rest = tuple(atom for atom, is_own in zip(monomial, own, strict=True) if not is_own)
        if sum(own) > 1 or any(isinstance(a, Call) and any(mentions(d, name) for d in a.args) for a in rest):
            return None
        if any(own):
            step = step + (SymInt(((rest, number),)) if rest else number)
    return step
