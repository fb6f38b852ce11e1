"""Infer the types of a node again, and compare them with the types it has.

Inference gives out fresh symbols for dimensions that a node defines. The second time they get names of their own
(`ScratchSymbols`), and `match_types` finds what stands in their place: the node's own symbols, or a dimension that is
known better by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusible.compiler.ir.graph import Graph, Node, Value, check_arity, infer_types
from fusible.compiler.ir.ops import Infer, Op, SymbolTable
from fusible.compiler.ir.symbol_values import substitute
from fusible.compiler.ir.symbols import Dim, Symbol, SymInt, bounds_of
from fusible.compiler.ir.types import OptionalType, SequenceType, TensorType, Type

__all__ = [
    "ScratchSymbols",
    "bare_symbol",
    "bare_symbols",
    "capture_start",
    "captured_inputs",
    "infer_again",
    "infer_stated",
    "match_types",
    "within",
]


class ScratchSymbols(SymbolTable):
    """Looks names up in another table and gives out fresh ones that no model has, without keeping them there."""

    def __init__(self, parent: SymbolTable) -> None:
        super().__init__()
        self._parent = parent

    def get(self, name: str) -> Symbol | None:
        """The symbol of that name here or in the parent."""
        return super().get(name) or self._parent.get(name)

    def fresh(self, hint: str, lower: int = 0, upper: int | None = None) -> SymInt:
        """A new symbol whose name no other table gives out."""
        return super().fresh(f"__{hint}", lower, upper)


def infer_again(node: Node, symbols: SymbolTable) -> tuple[list[Type], Infer]:
    """The types that inference gives a node now. Raises InvalidModel as the first inference would."""
    return infer_stated(node.op, node.inputs, node.attrs, symbols, node.subgraphs, len(node.outputs), node.where)


def infer_stated(
    op: Op,
    inputs: Sequence[Value | None],
    attrs: Any,
    symbols: SymbolTable,
    subgraphs: Sequence[Graph],
    outputs: int,
    where: str,
) -> tuple[list[Type], Infer]:
    """The types that inference would give a node, its fresh symbols named as `ScratchSymbols` does."""
    infer = Infer(op, inputs, attrs, ScratchSymbols(symbols), subgraphs, outputs, where)
    check_arity(infer)
    return infer_types(infer), infer


def bare_symbol(dim: Dim) -> Symbol | None:
    """The symbol that a dimension consists of, if it is nothing else."""
    if isinstance(dim, SymInt) and len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            return monomial[0]
    return None


def bare_symbols(type_: Type) -> list[Symbol]:
    """The symbols that stand alone as a dimension of a tensor type: a value of the type tells what they are."""
    dims = type_.shape if isinstance(type_, TensorType) and type_.shape is not None else ()
    return [s for d in dims if (s := bare_symbol(d)) is not None]


def match_types(inferred: Sequence[Type], stated: Sequence[Type], fresh: Sequence[Symbol]) -> dict[str, Dim] | None:
    """What stands in `stated` where `inferred` has fresh symbols; None if the types do not agree.

    `stated` may be more precise where inference does not know: a literal for a fresh symbol within its bounds, any
    shape for an unknown rank.
    """
    binding: dict[str, Dim] = {}
    names = {s.name for s in fresh}
    if len(inferred) != len(stated):
        return None
    if not all(_bind(a, b, names, binding) for a, b in zip(inferred, stated, strict=True)):
        return None
    if not all(_agree(a, b, binding) for a, b in zip(inferred, stated, strict=True)):
        return None
    return binding


def _bind(inferred: Type | None, stated: Type | None, names: set[str], binding: dict[str, Dim]) -> bool:
    if not isinstance(inferred, TensorType) or not isinstance(stated, TensorType):
        return True
    for pattern, dim in zip(inferred.shape or (), stated.shape or (), strict=False):
        symbol = bare_symbol(pattern)
        if symbol is not None and symbol.name in names and symbol.name not in binding:
            if not within(dim, symbol):
                return False
            binding[symbol.name] = dim
    return True


def within(dim: Dim, symbol: Symbol) -> bool:
    """False if the dimension can have no value within the symbol's bounds."""
    low, high = bounds_of(dim)
    return (high is None or high >= symbol.lower) and (low is None or symbol.upper is None or low <= symbol.upper)


def _agree(inferred: Type | None, stated: Type | None, binding: Mapping[str, Dim]) -> bool:
    match inferred, stated:
        case TensorType(), TensorType():
            if inferred.dtype is not stated.dtype:
                return False
            if inferred.shape is None or stated.shape is None:
                return inferred.shape is None
            return len(inferred.shape) == len(stated.shape) and all(
                substitute(a, binding) == b for a, b in zip(inferred.shape, stated.shape, strict=True)
            )
        case SequenceType(element=a), SequenceType(element=b):
            return a is None or _agree(a, b, binding)
        case OptionalType(element=a), OptionalType(element=b):
            return a is None or _agree(a, b, binding)
    return False


def capture_start(op: Op, attrs: Any) -> tuple[int, int] | None:
    """The first operand that a subgraph captures and the input of the subgraph that stands for it."""
    match op.name:
        case "if":
            return 1, 0
        case "loop":
            return 2 + attrs.carried, 2 + attrs.carried
    return None


def captured_inputs(node: Node, subgraph: Graph) -> list[tuple[Value, Value]]:
    """The pairs (operand of the node, input of its subgraph) that are one value, captured from outside."""
    start = capture_start(node.op, node.attrs)
    if start is None:
        return []
    pairs = zip(node.inputs[start[0] :], subgraph.inputs[start[1] :], strict=False)
    return [(outer, inner) for outer, inner in pairs if outer is not None]
