"""What regions need to know of a graph's values: that they are tensors of a known rank."""

from __future__ import annotations

from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim, bounds_of
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


def holds(bound: Bound) -> bool:
    """True if the bound holds for certain."""
    below, above = bounds_of(bound.expr - bound.low)[0], bounds_of(bound.high - bound.expr)[0]
    return below is not None and below >= 0 and above is not None and above >= 1
