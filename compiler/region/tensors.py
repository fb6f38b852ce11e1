"""What regions need to know of a graph's values: that they are tensors of a known rank."""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbol_values import substitute, symbols_of
from fusible.compiler.ir.symbols import Call, Dim, Symbol, SymInt, bounds_of
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.index import Bound
from fusible.compiler.region.region import Buffer

__all__ = ["NoRegion", "buffer_of", "holds", "shape_of", "type_of"]


class NoRegion(Exception):
    """The nodes have no region: `reason`, and the node that stands in the way."""

    def __init__(self, reason: str, node: Node | None = None) -> None:
        super().__init__(reason)
        self.reason, self.node = reason, node


def type_of(value: Value) -> TensorType:
    """The type of a tensor. Raises NoRegion for any other value."""
    if not isinstance(value.type, TensorType):
        raise NoRegion(f"{value.name or 'a value'} is no tensor", value.producer)
    return value.type


def shape_of(value: Value) -> tuple[Dim, ...]:
    """The shape of a tensor. Raises NoRegion if its rank is not known."""
    shape = type_of(value).shape
    if shape is None:
        raise NoRegion(f"the rank of {value.name or 'a value'} is not known", value.producer)
    return shape


def buffer_of(value: Value) -> Buffer:
    """The buffer that holds a tensor."""
    return Buffer(type_of(value).dtype, shape_of(value))


def holds(bound: Bound, extents: Sequence[Dim] = ()) -> bool:
    """True if the bound holds for certain. extents: of the axes i0, i1, ..."""
    below, above = bounds_of(bound.expr - bound.low)[0], _least(bound.high - _last(bound.expr, extents))
    return below is not None and below >= 0 and above is not None and above >= 1


def _last(expr: Dim, extents: Sequence[Dim]) -> Dim:
    """The expression at the end of the axes, of a size known only at the call, along which it takes even steps up."""
    ends: dict[str, Dim] = {}
    for axis, extent in enumerate(extents):
        if isinstance(expr, SymInt) and isinstance(extent, SymInt) and _steps_up(expr, f"i{axis}"):
            ends[f"i{axis}"] = extent - 1
    return substitute(expr, ends) if ends else expr


def _steps_up(expr: SymInt, name: str) -> bool:
    alone, symbols = 0, 0
    for monomial, number in expr.terms:
        named = sum(symbol.name == name for atom in monomial for symbol in symbols_of(SymInt((((atom,), 1),))))
        symbols += named
        alone += named == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol) and number > 0
    return symbols == alone == 1


def _least(dim: Dim) -> int | None:
    """A lower bound, if one is known: of -n q, where q is a rounded down quotient a / n, it is -a."""
    low = bounds_of(dim)[0]
    if low is not None or not isinstance(dim, SymInt):
        return low
    least: Dim = 0
    for monomial, number in dim.terms:
        term: Dim = SymInt(((monomial, number),)) if monomial else number
        match monomial:
            case (Call("floordiv", (dividend, int() as divisor)),) if divisor > 0 > number and number % divisor == 0:
                term = dividend * (number // divisor)
        least = least + term
    return bounds_of(least)[0]
