"""Symbolic integers: the dimensions, sizes and index expressions that are not known before a run.

A `SymInt` is a polynomial with integer coefficients over *atoms*: symbols (`batch`), and calls of the
functions below on other SymInts. It is kept in one normal form, so equality of texts is equality of
polynomials. Everything is immutable; the text is the key and parses back (`dimension_text`).

Functions: `floordiv` and `mod` (rounding towards minus infinity), `max`, `min`, and `bcast`, the ONNX
broadcast of two dimensions (`b if a == 1 else a`).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from operator import attrgetter
from typing import TypeAlias

from fusible.compiler.ir.intervals import Interval, interval_product, narrower

__all__ = [
    "Call",
    "Dim",
    "SymInt",
    "Symbol",
    "bounds_of",
    "call_of",
    "ceildiv",
    "dim_text",
    "exact_div",
    "floordiv",
    "is_symbol_name",
    "maximum",
    "minimum",
    "modulo",
    "product",
]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED = frozenset({"floordiv", "mod", "max", "min", "bcast"})
_MAX_TERMS = 256
_MOST_QUOTIENTS = 3  # of an expression whose bounds are sought with each of them written out


@lru_cache(maxsize=4096)
def is_symbol_name(name: str) -> bool:
    """True for identifiers that are no Python keyword and no function of shape expressions."""
    return bool(_IDENTIFIER.match(name)) and name not in _RESERVED and not keyword.iskeyword(name)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A named unknown integer with bounds (both inclusive; upper None = unbounded)."""

    name: str
    lower: int = 0
    upper: int | None = None

    def __post_init__(self) -> None:
        if not is_symbol_name(self.name):
            raise ValueError(f"symbol name {self.name!r} is not an identifier")

    @property
    def text(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one of the functions; its text is its key."""

    function: str
    args: tuple[Dim, ...]
    text: str


Atom: TypeAlias = "Symbol | Call"
_Monomial: TypeAlias = "tuple[Atom, ...]"  # sorted by text, repeated for powers; () is the constant term


class SymInt:
    """An integer expression over symbols, in normal form. Build with operators, `floordiv`, `maximum`..."""

    __slots__ = ("_bounds", "_symbols", "_text", "terms")

    def __init__(self, terms: tuple[tuple[_Monomial, int], ...]) -> None:
        self.terms = terms
        self._bounds: Interval | None = None
        self._symbols: dict[Symbol, None] | None = None  # what symbol_values.symbols_of found
        self._text: str | None = None

    @property
    def text(self) -> str:
        """The expression as it parses back; printed when first wanted: of most intermediate ones it never is."""
        if self._text is None:
            self._text = _print_terms(self.terms)
        return self._text

    @staticmethod
    def of(symbol: Symbol) -> SymInt:
        return _lone(symbol)

    def __repr__(self) -> str:
        return self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, SymInt) and self.text == other.text)

    def __add__(self, other: Dim) -> Dim:
        if not isinstance(other, SymInt):
            return self._plus(int(other)) if other else self
        return _from_dict(_add(_terms(self), _terms(other)))

    def __mul__(self, other: Dim) -> Dim:
        if not isinstance(other, SymInt):
            return self._times(int(other)) if other != 1 else self
        return _from_dict(_multiply(_terms(self), _terms(other)))

    def _plus(self, number: int) -> SymInt:
        """A constant more: the other terms keep their form and order."""
        last, rest = (self.terms[-1][1], self.terms[:-1]) if not self.terms[-1][0] else (0, self.terms)
        return SymInt((*rest, ((), last + number)) if last + number else rest)

    def _times(self, number: int) -> Dim:
        """A multiple: every term keeps its form and place."""
        return SymInt(tuple((monomial, number * c) for monomial, c in self.terms)) if number else 0

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return modulo(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return modulo(other, self)

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of symbolic integer {self.text} is not known before a run")


Dim: TypeAlias = int | SymInt


@lru_cache(maxsize=4096)
def _lone(symbol: Symbol) -> SymInt:
    return SymInt((((symbol,), 1),))


def _terms(value: Dim) -> dict[_Monomial, int]:
    if isinstance(value, SymInt):
        return dict(value.terms)
    return {(): int(value)} if value else {}


def _add(left: dict[_Monomial, int], right: Mapping[_Monomial, int]) -> dict[_Monomial, int]:
    result = dict(left)
    for monomial, coefficient in right.items():
        result[monomial] = result.get(monomial, 0) + coefficient
    return result


def _multiply(left: Mapping[_Monomial, int], right: Mapping[_Monomial, int]) -> dict[_Monomial, int]:
    if len(left) * len(right) > _MAX_TERMS:
        raise OverflowError("symbolic shape expression has too many terms")
    result: dict[_Monomial, int] = {}
    for m1, c1 in left.items():
        for m2, c2 in right.items():
            monomial = tuple(sorted(m1 + m2, key=attrgetter("text"))) if m1 and m2 else m1 or m2
            monomial = _absorb(monomial) if len(monomial) > 1 else monomial
            result[monomial] = result.get(monomial, 0) + c1 * c2
    return result


def _absorb(monomial: _Monomial) -> _Monomial:
    """`x * min(1, x)` is x for x >= 0: exporters compute such lengths from broadcast masks."""
    names = {a.name for a in monomial if isinstance(a, Symbol) and a.lower >= 0}
    return tuple(a for a in monomial if not (isinstance(a, Call) and _is_one_or_none(a, names)))


def _is_one_or_none(call: Call, names: set[str]) -> bool:
    return call.function == "min" and call.args[0] == 1 and dim_text(call.args[1]) in names


def _order(item: tuple[_Monomial, int]) -> tuple[int, list[str]]:
    # Highest degree first, constant last; alphabetical among equals.
    return (-len(item[0]), [a.text for a in item[0]])


def _from_dict(terms: Mapping[_Monomial, int]) -> Dim:
    kept = {m: c for m, c in terms.items() if c}
    if len(kept) == 1:
        ((monomial, coefficient),) = kept.items()
        return SymInt(((monomial, coefficient),)) if monomial else coefficient
    for monomial in [m for m in kept if len(m) == 1 and isinstance(m[0], Call) and m[0].function == "mod"]:
        if monomial in kept:  # it may have been joined with one before it
            kept = _joined(kept, monomial)
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]  # what was joined
    return SymInt(tuple(sorted(kept.items(), key=_order)))


def _joined(terms: dict[_Monomial, int], monomial: _Monomial) -> dict[_Monomial, int]:
    """The terms with `k*b*floordiv(x, b) + k*mod(x, b)` written as `k*x`; `monomial` is the mod.

    Of `k*b*mod(floordiv(x, b), c) + k*mod(x, b)` becomes `k*mod(x, b*c)`: the digits of a position come together.
    """
    call, k = monomial[0], terms[monomial]
    if not isinstance(call, Call) or not isinstance(call.args[1], int):
        return terms
    x, b = call.args
    whole = (Call("floordiv", (x, b), f"floordiv({dim_text(x)}, {b})"),)
    if terms.get(whole) != k * b:
        return _joined_digits(terms, monomial, whole[0], k)
    rest = {m: c for m, c in terms.items() if m not in (monomial, whole)}
    return {m: c for m, c in _add(rest, {m: k * c for m, c in _terms(x).items()}).items() if c}


def _joined_digits(terms: dict[_Monomial, int], low: _Monomial, quotient: Call, k: int) -> dict[_Monomial, int]:
    """The terms with the digit `low` and the one above it, if that is there, as one remainder, joined further."""
    x, b = quotient.args
    assert isinstance(b, int)
    for high, coefficient in terms.items():
        call = high[0] if len(high) == 1 else None
        if not isinstance(call, Call) or call.function != "mod" or not isinstance(call.args[1], int):
            continue
        if call.args[1] > 0 < b and coefficient == k * b and dim_text(call.args[0]) == quotient.text:
            together = (Call("mod", (x, b * call.args[1]), f"mod({dim_text(x)}, {b * call.args[1]})"),)
            rest = {m: c for m, c in terms.items() if m not in (low, high)}
            kept = {m: c for m, c in _add(rest, {together: k}).items() if c}
            return _joined(kept, together) if together in kept else kept
    return terms


def _print_terms(terms: tuple[tuple[_Monomial, int], ...]) -> str:
    if len(terms) == 1 and terms[0][1] == 1 and len(terms[0][0]) == 1:
        return terms[0][0][0].text
    parts: list[str] = []
    for monomial, coefficient in terms:
        factors = [a.text for a in monomial]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(coefficient)))
        sign = "-" if coefficient < 0 else "+"
        body = "*".join(factors)
        if not parts:
            parts.append(body if sign == "+" else f"-{body}")
        else:
            parts.append(f" {sign} {body}")
    return "".join(parts)


def call_of(function: str, *args: Dim) -> SymInt:
    """A call that stays as it is."""
    text = f"{function}({', '.join(dim_text(a) for a in args)})"
    return SymInt((((Call(function, args, text),), 1),))


def dim_text(value: Dim) -> str:
    """The canonical text of a dimension."""
    return value.text if isinstance(value, SymInt) else str(int(value))


def exact_div(dividend: Dim, divisor: Dim) -> Dim | None:
    """The polynomial quotient if `divisor` divides `dividend` without remainder, else None.

    Ordinary multivariate long division by the leading term; used for the -1 of a reshape.
    """
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend // divisor if divisor and dividend % divisor == 0 else None
    rest, quotient = _terms(dividend), dict[_Monomial, int]()
    by = sorted(_terms(divisor).items(), key=_order)
    if not by:
        return None
    lead, lead_coefficient = by[0]
    for _ in range(_MAX_TERMS):
        rest = {m: c for m, c in rest.items() if c}
        if not rest:
            return _from_dict(quotient)
        monomial, coefficient = min(rest.items(), key=_order)
        factor = _divide_monomial(monomial, lead)
        if factor is None or coefficient % lead_coefficient:
            return None
        step = {factor: coefficient // lead_coefficient}
        quotient = _add(quotient, step)
        rest = _add(rest, {m: -c for m, c in _multiply(step, dict(by)).items()})
    return None


def _divide_monomial(monomial: _Monomial, by: _Monomial) -> _Monomial | None:
    left = list(monomial)
    for atom in by:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def floordiv(a: Dim, b: Dim) -> Dim:
    """`a // b`, rounding towards minus infinity. Raises ZeroDivisionError for a literal zero divisor."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if isinstance(b, int) and b == 0:
        raise ZeroDivisionError("symbolic division by zero")
    if isinstance(a, int) and a == 0:
        return 0
    exact = exact_div(a, b)
    if exact is not None:
        return exact
    if isinstance(b, int) and isinstance(a, SymInt):
        # (b*q + r) // b = q + r // b for every integer q.
        whole = {m: c // b for m, c in a.terms if c % b == 0 or not m}
        rest = {m: (c if m else c % b) for m, c in a.terms if not (m and c % b == 0)}
        remainder = _from_dict(rest)
        low, high = bounds_of(remainder)
        if low is not None and high is not None and low // b == high // b:
            return _from_dict(_add(whole, {(): low // b}))
        parted = _parted(remainder, b)
        if parted is not None:
            scale, quotient, _ = parted
            return _from_dict(whole) + floordiv(quotient, b // scale)
        return _from_dict(_add(whole, _terms(call_of("floordiv", remainder, b))))
    return call_of("floordiv", a, b)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """`-(-a // b)`: rounding towards plus infinity."""
    return -floordiv(-a, b)


def modulo(a: Dim, b: Dim) -> Dim:
    """`a mod b` with the sign of b."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if exact_div(a, b) is not None:
        return 0
    if isinstance(b, int) and isinstance(a, SymInt):
        a = _from_dict({m: c % b for m, c in a.terms})
        low, high = bounds_of(a)
        if isinstance(a, int) or (low is not None and low >= 0 and high is not None and high < b):
            return a % b if isinstance(a, int) else a
        parted = _parted(a, b)
        if parted is not None:
            scale, quotient, rest = parted
            return modulo(quotient, b // scale) * scale + rest
    return call_of("mod", a, b)


def _parted(a: Dim, b: int) -> tuple[int, Dim, Dim] | None:
    """(s, q, r) with a = s*q + r, 0 <= r < s and s a divisor of b: the digits of a position come apart."""
    if not isinstance(a, SymInt) or b <= 1:
        return None
    for scale in sorted({gcd(c, b) for m, c in a.terms if m} - {1}, reverse=True):
        rest = _from_dict({m: c for m, c in a.terms if c % scale})
        low, high = bounds_of(rest)
        if low is not None and low >= 0 and high is not None and high < scale:
            return scale, _from_dict({m: c // scale for m, c in a.terms if c % scale == 0}), rest
    return None


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions, folded where the bounds decide."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    low, high = bounds_of(a - b)
    if low is not None and low >= 0:
        return a
    if high is not None and high <= 0:
        return b
    return call_of("max", *sorted((a, b), key=dim_text))


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions, folded where the bounds decide."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    low, high = bounds_of(a - b)
    if low is not None and low >= 0:
        return b
    if high is not None and high <= 0:
        return a
    return call_of("min", *sorted((a, b), key=dim_text))


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dimensions (1 for none)."""
    number, symbolic = 1, list[SymInt]()
    for dim in dims:
        if isinstance(dim, SymInt):
            symbolic.append(dim)
        else:
            number *= int(dim)
    result: Dim = number
    for dim in symbolic:  # one expression for all the literals
        result = dim * result
    return result


def bounds_of(value: Dim) -> Interval:
    """An interval (None = unbounded) that contains every value of the expression."""
    if isinstance(value, int):
        return value, value
    if value._bounds is None:
        # Kept on the object: two models may give symbols of one name different bounds.
        value._bounds = _bounds_of_terms(value)
    return value._bounds


def _bounds_of_terms(value: SymInt) -> Interval:
    low, high = _plain_bounds(value)
    quotients = [(m[0], c) for m, c in value.terms if len(m) == 1 and isinstance(m[0], Call) and _divisor(m[0]) > 1]
    for atom, coefficient in quotients if len(quotients) <= _MOST_QUOTIENTS else ():
        # d * floordiv(x, d) is x less 0 to d - 1; `scale` times the value has such a term.
        divisor = _divisor(atom)
        scale = divisor // gcd(coefficient, divisor)
        times = scale * coefficient // divisor
        rest = (value - SymInt((((atom,), coefficient),))) * scale + atom.args[0] * times
        least, most = sorted((0, times * (divisor - 1)))
        lows, highs = bounds_of(rest)
        low = narrower(max, low, None if lows is None else -((most - lows) // scale))
        high = narrower(min, high, None if highs is None else (highs - least) // scale)
    return low, high


def _divisor(call: Call) -> int:
    """The literal by which a call divides, or 0."""
    return call.args[1] if call.function == "floordiv" and isinstance(call.args[1], int) else 0


def _plain_bounds(value: SymInt) -> Interval:
    """The sums of the bounds of the terms."""
    low: int | None = 0
    high: int | None = 0
    for monomial, coefficient in value.terms:
        interval: Interval = (1, 1)
        for atom in monomial:
            interval = interval_product(interval, _atom_bounds(atom))
        interval = interval_product(interval, (coefficient, coefficient))
        low = None if low is None or interval[0] is None else low + interval[0]
        high = None if high is None or interval[1] is None else high + interval[1]
    return low, high


def _atom_bounds(atom: Atom) -> Interval:
    if isinstance(atom, Symbol):
        return atom.lower, atom.upper
    a, b = bounds_of(atom.args[0]), bounds_of(atom.args[1])
    match atom.function:
        case "floordiv" if b[0] is not None and b[0] > 0:
            if b[0] == b[1]:
                return (None if a[0] is None else a[0] // b[0], None if a[1] is None else a[1] // b[0])
            return (0 if a[0] is not None and a[0] >= 0 else None, a[1] if a[1] is not None and a[1] >= 0 else None)
        case "mod" if b[0] is not None and b[0] > 0:
            return 0, None if b[1] is None else b[1] - 1
        case "max":
            lows = [x for x in (a[0], b[0]) if x is not None]
            return (max(lows) if lows else None, None if a[1] is None or b[1] is None else max(a[1], b[1]))
        case "min":
            highs = [x for x in (a[1], b[1]) if x is not None]
            return (None if a[0] is None or b[0] is None else min(a[0], b[0]), min(highs) if highs else None)
        case "bcast":
            low = None if a[0] is None or b[0] is None else min(a[0], b[0])
            return low, None if a[1] is None or b[1] is None else max(a[1], b[1])
    return None, None
