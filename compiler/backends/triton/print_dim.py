"""Integer expressions over axes, shape symbols and values as Triton's language writes them."""

from __future__ import annotations

from collections.abc import Mapping

from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt, bounds_of

__all__ = ["DimPrinter", "FLOOR_DIVIDE", "MODULO"]

FLOOR_DIVIDE = '''@triton.jit
def floor_divide(a, b):
    """The quotient rounded towards minus infinity: the language's own is cut towards zero."""
    quotient = a // b
    rest = a - quotient * b
    return tl.where((rest != 0) & ((rest < 0) != (b < 0)), quotient - 1, quotient)
'''
MODULO = '''@triton.jit
def modulo(a, b):
    """The remainder with the sign of the divisor."""
    rest = a % b
    return tl.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)
'''


class DimPrinter:
    """Prints expressions; `functions` are the texts of the functions that they call."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}

    def text(self, dim: Dim, names: Mapping[str, str]) -> str:
        """The expression. names: the text of each symbol."""
        if not isinstance(dim, SymInt):
            return str(dim) if dim >= 0 else f"({dim})"
        parts: list[str] = []
        for monomial, coefficient in dim.terms:
            factors = [self._atom(atom, names) for atom in monomial]
            if abs(coefficient) != 1 or not factors:
                factors.append(str(abs(coefficient)))
            body = " * ".join(factors)
            if parts:
                parts.append(f" {'-' if coefficient < 0 else '+'} {body}")
            else:
                parts.append(body if coefficient > 0 else f"{body} * -1")
        text = "".join(parts)
        alone = len(dim.terms) == 1 and dim.terms[0][1] == 1 and len(dim.terms[0][0]) == 1
        return text if alone or " " not in text else f"({text})"

    def _atom(self, atom: Symbol | Call, names: Mapping[str, str]) -> str:
        if isinstance(atom, Symbol):
            return names[atom.name]
        a, b = (self.text(argument, names) for argument in atom.args)
        low, divisor = bounds_of(atom.args[0])[0], bounds_of(atom.args[1])[0]
        plain = low is not None and low >= 0 and divisor is not None and divisor > 0
        match atom.function:
            case "floordiv" if plain:
                return f"({a} // {b})"
            case "mod" if plain:
                return f"({a} % {b})"
            case "floordiv":
                self.functions["floor_divide"] = FLOOR_DIVIDE
                return f"floor_divide({a}, {b})"
            case "mod":
                self.functions["modulo"] = MODULO
                return f"modulo({a}, {b})"
            case "max" | "min":
                return f"tl.{atom.function}imum({a}, {b})"
        return f"tl.where({a} == 1, {b}, {a})"
