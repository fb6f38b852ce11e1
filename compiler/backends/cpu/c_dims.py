"""Integer expressions over axes and symbols as C, and what is linear in an axis."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt, bounds_of, product

__all__ = ["Names", "axes_in", "c_dim", "coefficient", "flat_offset", "mentions"]


class Names(dict[str, str]):
    """The C name of each symbol, and parameters in the place of numbers and of expressions of sizes.

    Kernels that differ in sizes only then have the same text and are compiled once. Each number printed is a parameter
    of its own, `prefix` and its place in `numbers`, so that equal sizes by chance do not tell texts apart. An
    expression of `sizes`, the shape symbols, is a parameter too: it is computed once for a shape, not for each element.
    literal: a number is a number. Without `numbers` there are no parameters.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        prefix: str = "",
        numbers: list[Dim] | None = None,
        *,
        sizes: Collection[str] = (),
        literal: bool = False,
    ) -> None:
        super().__init__(names)
        self.prefix, self.numbers, self.sizes, self.literal = prefix, numbers, sizes, literal

    def number(self, value: int) -> str:
        """The name of a new parameter, or the number itself."""
        if self.numbers is None or self.literal:
            return f"{value}L" if abs(value) >= 2**31 else str(value)
        self.numbers.append(value)
        return f"{self.prefix}{len(self.numbers) - 1}"

    def size(self, value: SymInt) -> str:
        """The name of the parameter that has the value of an expression of sizes."""
        assert self.numbers is not None
        if value not in self.numbers:
            self.numbers.append(value)
        return f"{self.prefix}{self.numbers.index(value)}"

    def is_size(self, atom: Symbol | Call) -> bool:
        """True if an atom is known before the kernel runs, and printed as a parameter."""
        symbols = (atom,) if isinstance(atom, Symbol) else tuple(s for a in atom.args for s in symbols_of(a))
        known = self.numbers is not None and all(s.name in self.sizes for s in symbols)
        return known and (isinstance(atom, Symbol) or _has_value(atom))

    def copy(self) -> Names:
        """The same names over the same parameters."""
        return self | {}

    def __or__(self, other: Mapping[str, str]) -> Names:  # type: ignore[override]
        return Names({**self, **other}, self.prefix, self.numbers, sizes=self.sizes, literal=self.literal)


def _has_value(call: Call) -> bool:
    """True if nothing in a call divides by what may be 0, as a kernel of no points may: it computes nothing."""
    inner = [a for d in call.args if isinstance(d, SymInt) for m, _ in d.terms for a in m if isinstance(a, Call)]
    least = bounds_of(call.args[1])[0]
    divides = call.function in ("floordiv", "mod")
    return (not divides or (least is not None and least > 0)) and all(_has_value(a) for a in inner)


def c_dim(dim: Dim, names: Names) -> str:
    """The C expression (type long). `names`: the C name of each symbol.

    Divisions round towards minus infinity; where the dividend cannot be negative C's own do.
    """
    if not isinstance(dim, SymInt):
        return names.number(dim) if dim > 1 else str(dim)
    parts: list[str] = []
    for atoms, coefficient_ in _by_atoms(dim, names):
        factors = [_atom(atom, names) for atom in atoms]
        negative = isinstance(coefficient_, int) and coefficient_ < 0
        if not isinstance(coefficient_, int):
            factors.insert(0, _size(coefficient_, names))
        elif abs(coefficient_) != 1 or not factors:
            factors.insert(0, names.number(abs(coefficient_)) if abs(coefficient_) > 1 else "1")
        sign, body = "-" if negative else "+", " * ".join(factors)
        parts.append(f" {sign} {body}" if parts else (body if sign == "+" else f"-{body}"))
    text = "".join(parts)
    return f"({text})" if " " in text or text.startswith("-") else text


def _by_atoms(dim: SymInt, names: Names) -> list[tuple[tuple[Symbol | Call, ...], Dim]]:
    """The terms as (what varies while the kernel runs, the sizes and numbers by which it is multiplied)."""
    found: dict[tuple[Symbol | Call, ...], Dim] = {}
    for monomial, number in dim.terms:
        known = tuple(atom for atom in monomial if names.is_size(atom))
        varying = tuple(atom for atom in monomial if not names.is_size(atom))
        factor: Dim = SymInt(((known, number),)) if known else number
        found[varying] = found.get(varying, 0) + factor
    return list(found.items())


def _size(value: SymInt, names: Names) -> str:
    """An expression of sizes: one alone by its own name."""
    (monomial, number), *others = value.terms
    if not others and number == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
        return names[monomial[0].name]
    return names.size(value)


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


def axes_in(dim: Dim) -> list[int]:
    """The numbers of the axes that an expression mentions."""
    return [int(s.name[1:]) for s in symbols_of(dim) if s.name[0] == "i" and s.name[1:].isdigit()]


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
