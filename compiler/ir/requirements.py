"""What the sizes of a graph must satisfy for it to run: relations between dimensions that only a run can decide.

Inference meets them where an operand's size is a symbol: `Add` of f32[C, 5] and f32[3, 5] wants C to be 1 or 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Dim, Symbol, bounds_of, dim_text

__all__ = ["Relation", "Requirement", "decide", "requirement"]


class Relation(StrEnum):
    """How two dimensions must stand to each other; `runtime.requirements` checks the same relations by name.

    EQUAL: a == b. FITS: a is b or 1. BROADCAST: equal, or one of them is 1. AT_MOST: a <= b.
    """

    EQUAL = "equal"
    FITS = "fits"
    BROADCAST = "broadcast"
    AT_MOST = "at_most"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A relation that must hold; where: the op and the ONNX nodes that want it."""

    relation: Relation
    left: Dim
    right: Dim
    where: str = field(default="", compare=False)

    @property
    def symbols(self) -> dict[Symbol, None]:
        """The symbols of both sides."""
        return {**symbols_of(self.left), **symbols_of(self.right)}

    @property
    def known(self) -> bool | None:
        """Whether it holds, None if a run decides."""
        return decide(self.relation, self.left, self.right)

    def substituted(self, values: Mapping[str, Dim]) -> Requirement:
        """The same with symbols replaced by name."""
        left, right = substitute(self.left, values), substitute(self.right, values)
        return Requirement(self.relation, left, right, self.where)

    def __str__(self) -> str:
        return f"{self.relation}({dim_text(self.left)}, {dim_text(self.right)})"


def requirement(relation: Relation, left: Dim, right: Dim, where: str = "") -> Requirement:
    """What a run decides, in the form in which it reads best: of a symbol and a literal, what the symbol must be."""
    if isinstance(left, int) and relation in (Relation.EQUAL, Relation.BROADCAST):
        left, right = right, left
    if relation is Relation.BROADCAST and isinstance(right, int):
        relation = Relation.FITS
    if relation is Relation.FITS and isinstance(left, int):
        return Requirement(Relation.EQUAL, right, left, where)  # the literal is not 1, or nothing would be required
    return Requirement(relation, left, right, where)


def decide(relation: Relation, a: Dim, b: Dim) -> bool | None:
    """Whether a relation holds for all values of the symbols (True) or for none (False); None otherwise."""
    match relation:
        case Relation.EQUAL:
            return _equal(a, b)
        case Relation.AT_MOST:
            low, high = bounds_of(b - a)
            return True if low is not None and low >= 0 else False if high is not None and high < 0 else None
        case Relation.FITS:
            return _either(_equal(a, 1), _equal(a, b))
    return _either(_either(_equal(a, 1), _equal(b, 1)), _equal(a, b))


def _equal(a: Dim, b: Dim) -> bool | None:
    if a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    low, high = bounds_of(a - b)
    return False if (low is not None and low > 0) or (high is not None and high < 0) else None


def _either(a: bool | None, b: bool | None) -> bool | None:
    if a or b:
        return True
    return None if a is None or b is None else False
