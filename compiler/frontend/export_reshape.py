"""Reshapes to sizes that are known only at run time, in forms that need no arithmetic on shapes.

Dimensions of 1 that come or go are an Unsqueeze or a Squeeze; else a dimension that stays in its place is written 0,
and one other -1.
"""

from __future__ import annotations

from collections.abc import Sequence

from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import TensorType

__all__ = ["short_reshape"]


def short_reshape(node: Node) -> tuple[str, tuple[int, ...]] | None:
    """(operator, its second operand) of a `reshape` with symbolic sizes, or None if there is no such form.

    The operator is Unsqueeze, Squeeze (with axes), or Reshape with `allowzero` 0.
    """
    type_ = None if node.inputs[0] is None else node.inputs[0].type
    new: tuple[Dim, ...] = node.attrs.shape
    if not isinstance(type_, TensorType) or type_.shape is None or all(isinstance(d, int) for d in new):
        return None
    old = type_.shape
    for operator, longer, shorter in (("Squeeze", old, new), ("Unsqueeze", new, old)):
        axes = _left_out(longer, shorter)
        if axes:
            return operator, axes
    return _with_places(old, new)


def _left_out(longer: Sequence[Dim], shorter: Sequence[Dim]) -> tuple[int, ...] | None:
    """The positions of the ones that `longer` has more than `shorter`; None if there are other differences."""
    axes, at = [], 0
    for position, dim in enumerate(longer):
        if at < len(shorter) and dim == shorter[at]:
            at += 1
        elif dim == 1:
            axes.append(position)
        else:
            return None
    return tuple(axes) if at == len(shorter) else None


def _with_places(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[str, tuple[int, ...]] | None:
    if 0 in new:
        return None  # a 0 would mean the operand's dimension, and beside it -1 would mean nothing
    target: list[int] = []
    for position, dim in enumerate(new):
        if isinstance(dim, int):
            target.append(dim)
        else:
            target.append(0 if position < len(old) and old[position] == dim else -1)
    return ("Reshape", tuple(target)) if target.count(-1) <= 1 else None
