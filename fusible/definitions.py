"""The vocabulary of op definitions, for `fusible.register_op`."""

from __future__ import annotations

from fusible.compiler.ir.definition import (
    Composite,
    Contraction,
    Definition,
    Elementwise,
    Opaque,
    Positions,
    Reduce,
    Scan,
    View,
)
from fusible.compiler.region.expr import Apply, Arg, Convert, Literal, apply
from fusible.compiler.region.index import Bound, IndexMap, Indirect, axis, identity, loaded

__all__ = [
    "Apply",
    "Arg",
    "Bound",
    "Composite",
    "Contraction",
    "Convert",
    "Definition",
    "Elementwise",
    "IndexMap",
    "Indirect",
    "Literal",
    "Opaque",
    "Positions",
    "Reduce",
    "Scan",
    "View",
    "apply",
    "axis",
    "identity",
    "loaded",
]
