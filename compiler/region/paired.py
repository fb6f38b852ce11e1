"""Two products of one vector, which can be summed side by side: f(sum over k of x w, sum over k of x u).

What a gated feed-forward layer has at one row: the gate and what it gates read the same vector, and each weight once.
"""

from __future__ import annotations

from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.region.region import Contract, Load, Region, operands_of

__all__ = ["are_paired"]


def are_paired(region: Region) -> bool:
    """True for two contractions over the same axes, neither of which leads to the other, that are as good as sums.

    They are if each reads every element of one of its operands once: tiles would not read less.
    """
    if len(region.contractions) != 2:
        return False
    first, second = (region.stages[p] for p in region.contractions)
    assert isinstance(first, Contract) and isinstance(second, Contract)
    if first.axes != second.axes or region.contractions[0] in _leading(region, second.args):
        return False
    points = product(region.extents)
    return all(points in _read(region, contract.args) for contract in (first, second))


def _leading(region: Region, values: tuple[int, ...]) -> set[int]:
    """The stages that values are made of."""
    positions = {v: p for p, first in enumerate(region.first_values) for v in _made(region, p, first)}
    found: set[int] = set()
    waiting = list(values)
    while waiting:
        position = positions[waiting.pop()]
        if position not in found:
            found.add(position)
            waiting += operands_of(region.stages[position])
    return found


def _made(region: Region, position: int, first: int) -> range:
    return range(first, first + len(region.results(region.stages[position])))


def _read(region: Region, values: tuple[int, ...]) -> list[Dim]:
    """The numbers of elements of the buffers that operands are loaded from."""
    stages = [region.stages[p] for p in sorted(_leading(region, values))]
    return [product(region.inputs[s.buffer].shape) for s in stages if isinstance(s, Load)]
