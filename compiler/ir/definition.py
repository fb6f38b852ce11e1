"""What an op computes, in a form from which fusibility follows. Every op carries one.

`Elementwise` one scalar expression per output element; `Positions` an integer expression of the element's index;
`View` reads elements elsewhere, computes nothing;
`Reduce` folds an index space with a combiner, `Scan` keeps the partial results of a fold along an axis;
`Contraction` sums products over an index space; `Composite` is a small graph of simpler ops; `Opaque` says why it is
none of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.expr import Arg, Expr
from fusible.compiler.region.index import IndexMap

if TYPE_CHECKING:
    from fusible.compiler.ir.graph import Graph, Node

__all__ = [
    "Composite",
    "Contraction",
    "Definition",
    "Elementwise",
    "Opaque",
    "Positions",
    "Reduce",
    "Scan",
    "View",
    "same",
]


@dataclass(frozen=True, slots=True)
class Elementwise:
    """`out[i] = expr(x0[i], x1[i], ...)` over NumPy-broadcast operands; computed in `compute` if given.

    The result is rounded once to the output's element type.
    """

    expr: Expr


@dataclass(frozen=True, slots=True)
class Positions:
    """`out[i] = expr`, an integer expression over the output's axes and shape symbols; no element is read."""

    expr: Dim


@dataclass(frozen=True, slots=True)
class View:
    """`out[i] = x_k[maps[k](i)]` for the first operand k whose map's bounds hold at i.

    `operands[k]` is the node input that maps[k] reads. The last map may have a fill value. A View has one output
    unless `output_maps` is used by splitting ops: then output j is described by `maps[j]` of operand 0 alone
    (`split=True`).
    """

    maps: tuple[IndexMap, ...]
    operands: tuple[int, ...] = (0,)
    split: bool = False


@dataclass(frozen=True, slots=True)
class Reduce:
    """`out[i] = finish(fold_r map(x0[index(i, r)]), n)` with r over `extents`.

    The iteration space is the output's axes i0.. followed by the reduction axes. `combiner`: sum, prod, max, min.
    In `finish`, x0 is the folded value and x1 the number of valid elements (as a value of the same type).
    Elements outside the map's bounds do not take part. The combiners argmax, argmin, argmax_last and argmin_last give
    the position (i64) of the extreme along the one reduction axis: of the first or the last among equals; NaN wins.
    """

    combiner: str
    extents: tuple[Dim, ...]
    index: IndexMap
    map: Expr = Arg(0)
    finish: Expr = Arg(0)


@dataclass(frozen=True, slots=True)
class Scan:
    """`out[..., i, ...] = fold of x0[..., 0..i, ...]` along `axis` with the combiner (sum, prod).

    exclusive: without element i itself, the first result being the combiner's start. reverse: from the end. Small
    floats are folded in fp32 and rounded at each output.
    """

    combiner: str
    axis: int
    exclusive: bool = False
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Contraction:
    """`out[i] = sum_r prod_k x_k[maps[k](i, r)]` with r over `extents` (then `+ bias` through `bias`).

    maps[k] belongs to node input `operands[k]`; outside a map's bounds the factor is its fill. Integer operands are
    widened to the output's element type before the product.
    """

    extents: tuple[Dim, ...]
    maps: tuple[IndexMap, ...]
    operands: tuple[int, ...] = (0, 1)
    bias: IndexMap | None = None
    bias_operand: int = 2


@dataclass(frozen=True, slots=True)
class Composite:
    """A graph of simpler ops with the node's inputs and outputs, built on demand for one node."""

    build: Callable[[Node], Graph]


@dataclass(frozen=True, slots=True)
class Opaque:
    """Not describable above; `reason` is shown wherever fusion asks."""

    reason: str


Definition: TypeAlias = "Elementwise | Positions | View | Reduce | Scan | Contraction | Composite | Opaque"


def same(definition: Definition) -> Callable[[Node], Definition]:
    """A definition that does not depend on the node."""
    return lambda node: definition
