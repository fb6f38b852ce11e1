"""Concatenations inside groups that are better made in place, outside the group.

A group that joins its operands and computes with the result reads each operand by a case of its own. If all of them can
live in the result's buffer, the same bytes are read as one tensor, and nobody copies anything. A group of nothing but
views stays as it is: reading its operands where they are is all that it does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from fusible.compiler.backends.cpu.joins import Join, find_blocks, is_join, joins_of
from fusible.compiler.ir.definition import View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.reorder import Order

__all__ = ["Printers", "joins_to_take_out"]


@dataclass(frozen=True, slots=True)
class Printers:
    """What the backend can do.

    native: whether our own kernel may compute a node. block: whether that is still so if a value that it reads or
    writes is a block of something of a shape. rest: whether a group can be printed without one of its nodes, whose
    result it then reads in an order.
    """

    native: Callable[[Node], bool]
    block: Callable[[Node, Value, tuple[Dim, ...]], bool]
    rest: Callable[[Node, Node, Order | None], bool]


def joins_to_take_out(
    graph: Graph, orders: Mapping[Value, Order], printers: Printers, target: str = "cpu"
) -> list[tuple[Node, Node]]:
    """(group, concatenation inside it): those that should stand in front of their groups, in order."""
    chosen = list(_inside(graph, orders, printers))
    known: dict[tuple[Value, tuple[Dim, ...]], bool] = {}

    def fits(value: Value, whole: tuple[Dim, ...], groups: Collection[Node]) -> bool:
        if (value, whole) not in known:
            known[value, whole] = _prints(value, whole, groups, printers)
        return known[value, whole]

    place = {node: n for n, node in enumerate(graph)}
    while chosen:
        outside = [(place[join.node], join) for join in joins_of(graph, orders)]
        joins = sorted([*outside, *((place[group], join) for group, join in chosen)], key=lambda pair: pair[0])
        found = find_blocks(graph, orders, {}, [join for _, join in joins], target)
        wholes, groups = found.wholes(), {group for group, _ in chosen}
        unfit = [
            (group, join)
            for group, join in chosen
            if join.node not in found.done or not all(fits(v, wholes[v], groups) for v in join.operands)
        ]
        if not unfit:
            break
        chosen.remove(unfit[-1])  # the first that had its choice of operands; the others may do without it
    return [(group, join.node) for group, join in chosen]


def _inside(graph: Graph, orders: Mapping[Value, Order], printers: Printers) -> Iterator[tuple[Node, Join]]:
    """The first concatenation of each group that computes with it, if its operands are the group's."""
    for group in graph:
        if group.op.name != "fused" or len(group.outputs) != 1 or not printers.native(group):
            continue
        inner = group.subgraphs[0]
        given = {f: v for f, v in zip(inner.inputs, group.inputs, strict=True) if v is not None}
        for node in inner:
            operands = tuple(given[v] for v in node.inputs if v in given)
            if is_join(node) and len(operands) == len(node.inputs) and _computes(inner, node):
                order = orders.get(operands[0])
                if printers.rest(group, node, order):
                    yield group, Join(node, operands, node.output, order)
                break


def _computes(inner: Graph, join: Node) -> bool:
    """True if a group does more than join and look at the result in other ways."""
    return any(node is not join and not isinstance(node.op.definition(node), View) for node in inner)


def _prints(value: Value, whole: tuple[Dim, ...], groups: Collection[Node], printers: Printers) -> bool:
    """True if those who make and read a value can do so where it would live; groups: readers of concatenations only."""
    nodes = [n for n in dict.fromkeys([value.producer, *value.users]) if n is not None and n not in groups]
    return all(printers.block(node, value, whole) for node in nodes if printers.native(node))
