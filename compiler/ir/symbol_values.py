"""Symbolic integers looked into: their symbols, other values in the place of these, numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.symbols import (
    Call,
    Dim,
    Symbol,
    SymInt,
    floordiv,
    maximum,
    minimum,
    modulo,
)

__all__ = ["FOLD", "evaluate", "solved_call", "substitute", "substitute_calls", "symbols_of"]


def symbols_of(value: Dim) -> dict[Symbol, None]:
    """The symbols of an expression, in order of appearance. Not to be changed: it is kept with the expression."""
    if isinstance(value, int):
        return {}
    if value._symbols is not None:
        return value._symbols
    found: dict[Symbol, None] = {}
    for monomial, _ in value.terms:
        for atom in monomial:
            if isinstance(atom, Symbol):
                found[atom] = None
            else:
                for arg in atom.args:
                    found.update(symbols_of(arg))
    value._symbols = found
    return found


FOLD: dict[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv,
    "mod": modulo,
    "max": maximum,
    "min": minimum,
    "bcast": bcast,
}


def substitute(value: Dim, values: Mapping[str, Dim]) -> Dim:
    """Replace symbols by name; the result is normalised again."""
    if isinstance(value, int):
        return value
    for symbol in symbols_of(value):
        new = values.get(symbol.name)
        if new is not None and new is not SymInt.of(symbol):
            break
    else:
        return value  # nothing but the symbols themselves, with their bounds, would take their places
    result: Dim = 0
    for monomial, coefficient in value.terms:
        term: Dim = coefficient
        for atom in monomial:
            if isinstance(atom, Symbol):
                known = values.get(atom.name)
                term = term * (SymInt.of(atom) if known is None else known)
            else:
                term = term * FOLD[atom.function](*(substitute(a, values) for a in atom.args))
        result = result + term
    return result


def solved_call(value: Dim, other: Dim) -> tuple[str, Dim] | None:
    """What `value == other` says of a call: its text and its value, if it is all that `value` has beside a literal."""
    if isinstance(value, int):
        return None
    terms = [(m, c) for m, c in value.terms if m]
    if len(terms) != 1 or len(terms[0][0]) != 1 or terms[0][1] not in (1, -1):
        return None
    ((atom,), coefficient) = terms[0]
    constant = sum(c for m, c in value.terms if not m)
    return (atom.text, (other - constant) * coefficient) if isinstance(atom, Call) else None


def substitute_calls(value: Dim, values: Mapping[str, Dim]) -> Dim:
    """Replace calls by their text, outer ones first; the result is normalised again."""
    if isinstance(value, int) or not values:
        return value
    result: Dim = 0
    for monomial, coefficient in value.terms:
        term: Dim = coefficient
        for atom in monomial:
            if isinstance(atom, Symbol):
                term = term * SymInt.of(atom)
            elif (known := values.get(atom.text)) is not None:
                term = term * known
            else:
                term = term * FOLD[atom.function](*(substitute_calls(a, values) for a in atom.args))
        result = result + term
    return result


def evaluate(value: Dim, env: Mapping[str, Any]) -> Any:
    """Compute with ints or integer arrays for symbols (arrays: element by element).

    Raises KeyError naming a symbol that has no value.
    """
    if not isinstance(value, SymInt):
        return value
    total: Any = 0
    for monomial, coefficient in value.terms:
        total = total + prod((_evaluate_atom(a, env) for a in monomial), start=coefficient)
    return total


def _evaluate_atom(atom: Symbol | Call, env: Mapping[str, Any]) -> Any:
    if isinstance(atom, Symbol):
        return env[atom.name]
    a, b = (evaluate(x, env) for x in atom.args)
    if isinstance(a, int) and isinstance(b, int):
        return FOLD[atom.function](a, b)
    match atom.function:
        case "floordiv":
            return a // b
        case "mod":
            return a % b
        case "max":
            return a + (b - a) * (b > a)
        case "min":
            return a + (b - a) * (b < a)
    return a * (a != 1) + b * (a == 1)
