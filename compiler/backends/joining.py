"""What is concatenated is computed where it belongs in the result, by backends that print regions (decision 009)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic

from fusible.compiler.backends.base import Block, word_of
from fusible.compiler.backends.cpu.joins import Blocks, find_blocks
from fusible.compiler.backends.cpu.joins_in_groups import Printers, joins_to_take_out
from fusible.compiler.backends.cpu.memo import Kernel, Known, PrintKernel
from fusible.compiler.backends.cpu.native import Storage
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.numpy import writes_buffers
from fusible.compiler.backends.regions import RegionBackend
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim
from fusible.compiler.region.build import Built
from fusible.compiler.region.reorder import Order
from fusible.passes.copy_images import copy_before
from fusible.passes.ledger import Kind
from fusible.passes.take_out import take_out

__all__ = ["JoiningBackend"]


class JoiningBackend(RegionBackend[Kernel], Generic[Kernel]):
    """Places what concatenations join, as far as every kernel that reads or writes it can be printed so."""

    def __init__(
        self, print_kernel: PrintKernel[Kernel], known: dict[tuple[str, str], Known[Kernel] | str] | None = None
    ) -> None:
        super().__init__(print_kernel, known)
        self._blocks: dict[Value, Block] = {}
        self._done: set[Node] = set()

    def block(self, value: Value) -> Block | None:
        """The part of a concatenation's buffer that a value lives in."""
        return self._blocks.get(value)

    def done(self, node: Node) -> bool:
        """True for concatenations whose operands all live in the result."""
        return node in self._done

    def _prepare(self, graph: Graph) -> None:
        self._take_apart(graph)
        self._free_joins(graph)
        self._join_in_place(graph)

    def _free_joins(self, graph: Graph) -> None:
        """Take concatenations out of groups where they can be made in place."""
        printers = Printers(self._may_be_native, self._prints_block, self._prints_rest)
        before = self._of_graph(graph)
        taken = joins_to_take_out(graph, before, printers, self.target)
        for group, join in taken:
            self._kernels.pop(group)
            take_out(graph, group, join)
        self._reorder(graph, before)

    def _reorder(self, graph: Graph, before: Mapping[Value, Order]) -> None:
        """Derive the orders of a changed graph; kernels that were printed for others are forgotten."""
        self._orders.pop(id(graph))
        now = self._of_graph(graph)
        for node in list(self._kernels):
            if any(now.get(v) != before.get(v) for v in (*node.inputs, *node.outputs) if v is not None):
                if node.graph is graph:
                    del self._kernels[node]

    def _prints_block(self, node: Node, value: Value, whole: tuple[Dim, ...]) -> bool:
        assert node.graph is not None
        if not self._is_native(node):
            return self._wants_whole(node) is None
        try:
            self._memo.of_node(node, self._of_graph(node.graph), {value: whole})
        except NotPrintable:
            return False
        return True

    def _prints_rest(self, group: Node, join: Node, order: Order | None) -> bool:
        assert group.graph is not None
        inner = group.subgraphs[0]
        given = {f: v for f, v in zip(inner.inputs, group.inputs, strict=True) if v is not None}
        given.update(zip(inner.outputs, group.outputs, strict=True))
        orders = {**self._of_graph(group.graph), **({} if order is None else {join.output: order})}
        try:
            self._memo.of([n for n in inner if n is not join], inner.outputs, [], given, Storage(orders))
        except NotPrintable:
            return False
        return True

    def _join_in_place(self, graph: Graph) -> None:
        """Let what is concatenated be computed where it belongs, as far as every kernel concerned can be printed."""
        refused: dict[Value, str] = {}
        copied: set[Node] = set()
        while True:
            found = find_blocks(graph, self._of_graph(graph), refused, target=self.target)
            printed = self._printed_in_place(graph, found, refused)
            if printed is None:
                continue
            if not found.missing:
                break
            self._copy_missing(graph, found, copied, refused)
        self._kernels.update(printed)
        self._blocks.update(found.blocks)
        self._done |= found.done
        self.entries += found.entries

    def _wants_whole(self, node: Node) -> str | None:
        """Why a node can neither read nor write blocks, or None."""
        return None

    def _misplaced(
        self, node: Node, built: Built, kernel: Kernel, blocks: Mapping[Value, Block]
    ) -> Mapping[Value, str]:
        """Values that a kernel cannot take where their blocks begin, with the reason."""
        return {}

    def _may_be_native(self, node: Node) -> bool:
        return writes_buffers(node) and replacement_kernel(node, self.target) is None

    def _is_native(self, node: Node) -> bool:
        return self._may_be_native(node) and not isinstance(self._printed(node), Exception)

    def _printed_in_place(
        self, graph: Graph, found: Blocks, refused: dict[Value, str]
    ) -> dict[Node, tuple[Built, Kernel]] | None:
        """The kernels that read or write blocks; None if one cannot, then its operands and results join the refused."""
        wholes, orders = found.wholes(), self._of_graph(graph)
        printed: dict[Node, tuple[Built, Kernel]] = {}
        before = len(refused)
        for node in graph:
            touched = [v for v in (*node.inputs, *node.outputs) if v is not None and v in wholes]
            if not touched or node in found.done:
                continue
            reason = self._wants_whole(node)
            if reason is not None:
                refused.update(dict.fromkeys(touched, reason))
                continue
            if not self._may_be_native(node):
                continue
            try:
                printed[node] = self._memo.of_node(node, orders, wholes)
            except NotPrintable as refusal:
                if self._is_native(node):
                    refused.update({v: f"{word_of(node)} cannot be printed with it: {refusal}" for v in touched})
                continue
            refused.update(self._misplaced(node, *printed[node], found.blocks))
        return printed if len(refused) == before else None

    def _copy_missing(self, graph: Graph, found: Blocks, copied: set[Node], refused: dict[Value, str]) -> None:
        """Give concatenations copies for the operands that cannot live in them, once; what is left then is given up."""
        before = self._of_graph(graph)
        for node, positions in found.missing.items():
            if node in copied:
                operands = [v for v in node.inputs if v is not None and v in found.blocks]
                refused.update(dict.fromkeys(operands, "a copy of its neighbour cannot be stored in place"))
                continue
            copied.add(node)
            self._kernels.pop(node, None)
            self.entries += [e for e in found.entries if e.kind is Kind.REFUSED and e.nodes[-1:] == node.origin[-1:]]
            for position in positions:
                value = node.inputs[position]
                assert value is not None
                graph.set_input(node, position, copy_before(graph, node, value))
        self._reorder(graph, before)
