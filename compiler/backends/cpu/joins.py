"""Concatenations without copies: what is joined is computed where it belongs in the result.

An operand of a concatenation may live in the result's buffer, as a block of it: whoever computes it stores there, its
other readers read there, and if that holds for every operand the concatenation needs no step. Of several concatenations
of the same values the last one, which is the largest of a growing chain, gives the buffer; one whose operands lie there
side by side already is itself a block. Inputs and outputs of the model and constants have memory of their own: if only
some of the operands can live in the result, the others are copied there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fusible.compiler.backends.base import Block
from fusible.compiler.backends.numpy import writes_buffers
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.ir.types import DType, TensorType, type_symbols
from fusible.compiler.region.reorder import Order
from fusible.compiler.region.tensors import shape_of
from fusible.passes.copy_images import is_planned
from fusible.passes.fusion import literal_bytes
from fusible.passes.ledger import Cost, Entry, Kind

__all__ = ["Blocks", "Join", "find_blocks", "is_join", "joins_of"]

PASS = "place-joins"
_LAUNCH_BYTES = 16384  # to move as many takes about as long as one more step


@dataclass(frozen=True, slots=True)
class Join:
    """A concatenation: what it joins along which axis, its result, and how that is or would be stored."""

    node: Node
    operands: tuple[Value, ...]
    result: Value
    order: Order | None

    def corners(self, corner: tuple[Dim, ...]) -> list[tuple[Dim, ...]]:
        """Where each operand begins in something in which the result begins at `corner`."""
        along = self.node.attrs.axis % len(corner)
        found: list[tuple[Dim, ...]] = []
        for value in self.operands:
            found.append(corner)
            corner = tuple(c + shape_of(value)[d] if d == along else c for d, c in enumerate(corner))
        return found


@dataclass(slots=True)
class Blocks:
    """What lives in the buffer of something larger.

    blocks: where each value lives. done: concatenations that need no step. missing: the positions of the operands that
    must be copied before the others of a concatenation can live in its result. entries: for the ledger.
    """

    blocks: dict[Value, Block] = field(default_factory=dict)
    done: set[Node] = field(default_factory=set)
    missing: dict[Node, tuple[int, ...]] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def wholes(self) -> dict[Value, tuple[Dim, ...]]:
        """The shapes of what the values are blocks of."""
        return {value: block.whole for value, block in self.blocks.items()}


def find_blocks(
    graph: Graph,
    orders: Mapping[Value, Order],
    refused: Mapping[Value, str],
    joins: Sequence[Join] | None = None,
    target: str = "cpu",
) -> Blocks:
    """The blocks of one graph, whose subgraphs have their own.

    orders: how values are stored that are not row-major. refused: values that may not be blocks, and why. joins: the
    concatenations, in the order of the graph, if they are not those of `joins_of`. target: for which kernels may have
    been registered.
    """
    search = _Search(graph, orders, refused, target)
    for join in reversed(joins_of(graph, orders) if joins is None else joins):
        search.join(join)
    return search.found


def joins_of(graph: Graph, orders: Mapping[Value, Order]) -> list[Join]:
    """The concatenations that are nodes of a graph, in order."""
    return [
        Join(node, tuple(v for v in node.inputs if v is not None), node.output, orders.get(node.output))
        for node in graph
        if is_join(node)
    ]


def is_join(node: Node) -> bool:
    """True for concatenations."""
    return node.op.name == "concat"


class _Joinable:
    """What may live in the buffer of something larger, as far as the graph tells; printers have their own say."""

    def __init__(self, graph: Graph, target: str) -> None:
        self.target = target
        self.results = set(graph.outputs)
        self.late = {s.name for node in graph for s in node.defines}

    def unplanned(self, value: Value) -> str | None:
        """Why a value has no planned buffer, or None."""
        if value in self.results:
            return "it is an output"
        node = value.producer
        if node is None or not is_planned(value) or not writes_buffers(node):
            return "its memory is not planned"
        if any(s.name in self.late for s in type_symbols(value.type)):
            return "its size is known only when it is computed"
        return None

    def obstacle(self, value: Value) -> str | None:
        """Why a value cannot be a block of anything, or None."""
        node = value.producer
        if value.constant is not None or node is None:
            return "it is a constant" if value.constant is not None else "it is an input"
        reason = self.unplanned(value)
        if reason is not None:
            return reason
        if replacement_kernel(node, self.target) is not None:
            return "a registered kernel computes it"
        for reader in value.users:
            if reader.subgraphs and reader.op.name != "fused":
                return "a branch or a loop takes it"
            if replacement_kernel(reader, self.target) is not None:
                return "a registered kernel reads it"
        return None


class _Search:
    def __init__(self, graph: Graph, orders: Mapping[Value, Order], refused: Mapping[Value, str], target: str) -> None:
        self.orders, self.refused = orders, refused
        self.joinable = _Joinable(graph, target)
        self.roots: dict[Value, Order | None] = {}
        self.found = Blocks()

    def join(self, join: Join) -> None:
        """Give the result's buffer, or a block of it, to the operands."""
        reason = self.joinable.unplanned(join.result)
        if reason is not None:
            self._note(join, None, reason)
            return
        base = self.found.blocks.get(join.result)
        if base is None:
            common = self._common(join)
            if common is not None:
                self.found.blocks[join.result] = common
                self.found.done.add(join.node)
                self._note(join, join.result, None, launches=1)
                return
            base = Block(join.result, (0,) * len(shape_of(join.result)), shape_of(join.result))
            self.roots[join.result] = join.order
        self._fill(join, base)

    def _fill(self, join: Join, base: Block) -> None:
        reasons = [self._reason(join, n) for n in range(len(join.operands))]
        fit = [n for n, reason in enumerate(reasons) if reason is None]
        missing = tuple(n for n, reason in enumerate(reasons) if reason is not None)
        for n in missing:
            self._note(join, join.operands[n], reasons[n])
        if not fit:
            return
        if missing and not self._worth_copies(join, fit, missing):
            self._note(join, None, f"{len(missing)} operands would be copied one by one")
            return
        for n, corner in enumerate(join.corners(base.corner)):
            if n in fit:
                self.found.blocks[join.operands[n]] = Block(base.root, corner, base.whole)
                self._note(join, join.operands[n], None, launches=int(not missing and n == fit[-1]))
        if missing:
            self.found.missing[join.node] = missing
        else:
            self.found.done.add(join.node)

    def _worth_copies(self, join: Join, fit: Sequence[int], missing: Sequence[int]) -> bool:
        """True if not copying some operands saves more than copying each of the others by a step of its own costs."""
        type_ = join.result.type
        copyable = isinstance(type_, TensorType) and type_.dtype is DType.F32
        saved = sum(2 * literal_bytes(join.operands[n]) for n in fit)
        return copyable and saved > (len(missing) - 1) * _LAUNCH_BYTES

    def _reason(self, join: Join, position: int) -> str | None:
        """Why an operand cannot live in the result, or None."""
        value = join.operands[position]
        if value in self.refused:
            return self.refused[value]
        if value in join.operands[:position]:
            return "it is joined twice"
        if value in self.found.blocks:
            return "it lives in another concatenation"
        reason = self.joinable.obstacle(value)
        if reason is None and self.orders.get(value) != join.order:
            return "its dimensions are stored in another order"
        return reason

    def _common(self, join: Join) -> Block | None:
        """The block that the operands make up, if they lie side by side in one buffer."""
        if join.result in self.refused or self.joinable.obstacle(join.result) is not None:
            return None
        blocks = [self.found.blocks.get(v) for v in join.operands]
        first = blocks[0]
        if first is None or self.roots[first.root] != join.order:
            return None
        if blocks != [Block(first.root, corner, first.whole) for corner in join.corners(first.corner)]:
            return None
        return first

    def _note(self, join: Join, value: Value | None, reason: str | None, launches: int = 0) -> None:
        producer = None if value is None else value.producer
        if producer is not None and producer.subgraphs and producer.subgraphs[0].name == "copy":
            return  # made for the sake of its neighbours
        nodes = tuple(dict.fromkeys((*(() if producer is None else producer.origin), *join.node.origin)))
        culprits = () if value is None else (value.name,)
        cost = Cost(0 if value is None else 2 * literal_bytes(value), launches)
        if reason is None:
            text = "its operands lie side by side" if value is join.result else "it is computed where it is joined"
            self.found.entries.append(Entry(Kind.FUSED, PASS, "", nodes, text, culprits, saved=cost))
        else:
            self.found.entries.append(Entry(Kind.REFUSED, PASS, "", nodes, reason, culprits, cost=cost))
