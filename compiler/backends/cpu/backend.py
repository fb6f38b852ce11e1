"""The CPU backend: nodes whose region can be printed become C, the others call NumPy, and the report says which.

Kernels with the same text are one function. All of them go into a few translation units, which compile in parallel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from fusible.compiler.backends.base import Block, Emitted, Support
from fusible.compiler.backends.cpu.c_band import Band
from fusible.compiler.backends.cpu.c_library import LibraryCall, requirement_call
from fusible.compiler.backends.cpu.c_recurrent import RECURRENT, recurrent_call
from fusible.compiler.backends.cpu.c_ring import Ring
from fusible.compiler.backends.cpu.c_serial import Serial, step_name
from fusible.compiler.backends.cpu.joins import Blocks, find_blocks
from fusible.compiler.backends.cpu.joins_in_groups import Printers, joins_to_take_out
from fusible.compiler.backends.cpu.kernel import (
    PLACEHOLDER,
    Machine,
    NativeKernel,
    NotPrintable,
)
from fusible.compiler.backends.cpu.layout import stored_orders
from fusible.compiler.backends.cpu.memo import Kernels
from fusible.compiler.backends.cpu.native import Storage
from fusible.compiler.backends.cpu.precision import Products, notes_on
from fusible.compiler.backends.numpy import NumpyBackend, writes_buffers
from fusible.compiler.ir.definition import Contraction
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.region.build import Built
from fusible.compiler.region.overwrite import overwritable
from fusible.compiler.region.reorder import Order
from fusible.passes.copy_images import copy_before
from fusible.passes.fuse_regions import ungroup
from fusible.passes.ledger import Entry, Kind
from fusible.passes.take_out import take_out
from fusible.runtime.native.machine import instruction_sets, usable_threads

__all__ = ["CpuBackend"]

_WHOLE = frozenset({*RECURRENT, "require"})  # calls of kernels that take operands without gaps
_UNITS = 8  # translation units at most; each compiles on its own


class CpuBackend(NumpyBackend):
    """Emits C where it can; collects the texts of the kernels and why others became calls of NumPy."""

    target = "cpu"

    def __init__(self, threads: int | None = None, *, exact: bool = False, bf16: bool = False) -> None:
        super().__init__()
        self.kernels: dict[str, str] = {}  # text -> name of the function
        self.host: dict[str, str] = {}  # step -> why it is no C
        self._packed: dict[tuple[int, str], np.ndarray] = {}
        self._keep: list[object] = []
        self._orders: dict[int, dict[Value, Order]] = {}
        self._blocks: dict[Value, Block] = {}
        self._done: set[Node] = set()
        self.entries: list[Entry] = []  # for the ledger
        self._kernels: dict[Node, tuple[Built, NativeKernel] | NotPrintable] = {}
        machine = Machine(threads or usable_threads(), 16 if "avx512f" in instruction_sets() else 8, exact, bf16)
        self._memo = Kernels(machine)
        self._bf16 = bf16
        self._products: list[Products] = []  # of what was emitted

    def supports(self, node: Node) -> Support:
        """As NumPy; a group that only C can print is taken too."""
        return super().supports(node)

    def order(self, value: Value) -> Order | None:
        """Channels last near convolutions."""
        node = value.producer
        return None if node is None or node.graph is None else self._of_graph(node.graph).get(value)

    def block(self, value: Value) -> Block | None:
        """The part of a concatenation's buffer that a value lives in."""
        return self._blocks.get(value)

    def done(self, node: Node) -> bool:
        """True for concatenations whose operands all live in the result."""
        return node in self._done

    def _of_graph(self, graph: Graph) -> dict[Value, Order]:
        if id(graph) not in self._orders:
            self._keep.append(graph)
            self._orders[id(graph)] = stored_orders(graph)
        return self._orders[id(graph)]

    def prepare(self, graph: Graph) -> None:
        """Print every kernel; take groups apart that cannot be printed with the orders that their operands got."""
        for inner in [g for g in graph.all_graphs() if not self._is_group(g)]:
            self._take_apart(inner)
            self._free_joins(inner)
            self._join_in_place(inner)

    def _take_apart(self, graph: Graph) -> None:
        again = True
        while again:
            again = False
            self._orders.pop(id(graph), None)
            for node in list(graph):
                if node.op.name == "fused" and isinstance(self._printed(node), Exception):
                    ungroup(graph, node)
                    again = True
            if again:
                self._kernels.clear()

    def _free_joins(self, graph: Graph) -> None:
        """Take concatenations out of groups where they can be made in place."""
        printers = Printers(self._may_be_native, self._prints_block, self._prints_rest)
        before = self._of_graph(graph)
        taken = joins_to_take_out(graph, before, printers)
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
            return node.op.name not in _WHOLE
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
            found = find_blocks(graph, self._of_graph(graph), refused)
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

    def _may_be_native(self, node: Node) -> bool:
        return writes_buffers(node) and replacement_kernel(node, self.target) is None

    def _is_native(self, node: Node) -> bool:
        return self._may_be_native(node) and not isinstance(self._printed(node), Exception)

    def _printed_in_place(
        self, graph: Graph, found: Blocks, refused: dict[Value, str]
    ) -> dict[Node, tuple[Built, NativeKernel]] | None:
        """The kernels that read or write blocks; None if one cannot, then its operands and results join the refused."""
        wholes, orders = found.wholes(), self._of_graph(graph)
        printed: dict[Node, tuple[Built, NativeKernel]] = {}
        before = len(refused)
        for node in graph:
            touched = [v for v in (*node.inputs, *node.outputs) if v is not None and v in wholes]
            if not touched or node in found.done or not self._may_be_native(node):
                continue
            if node.op.name in _WHOLE:
                refused.update(dict.fromkeys(touched, f"{node.op.name} reads and writes whole buffers"))
                continue
            try:
                printed[node] = self._memo.of_node(node, orders, wholes)
            except NotPrintable as refusal:
                if self._is_native(node):
                    refused.update({v: f"{_word(node)} cannot be printed with it: {refusal}" for v in touched})
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

    def _is_group(self, graph: Graph) -> bool:
        return graph.name in ("fused", "copy")

    def _printed(self, node: Node) -> tuple[Built, NativeKernel] | NotPrintable:
        """The kernel of a node, or why there is none."""
        if node not in self._kernels:
            assert node.graph is not None
            try:
                self._kernels[node] = self._memo.of_node(node, self._of_graph(node.graph))
            except NotPrintable as refusal:
                self._kernels[node] = refusal
        return self._kernels[node]

    def emit(self, node: Node, name: str) -> Emitted:
        """A native function if the node's region can be printed, else a NumPy call."""
        if not writes_buffers(node):
            self.host[name] = "its results are views, or of sizes known only when it runs"
            return super().emit(node, name)
        if replacement_kernel(node, self.target) is not None:
            self.host[name] = "a kernel was registered for it"
            return super().emit(node, name)
        try:
            if node.op.name == "require":
                return self._library(node, requirement_call(node, PLACEHOLDER))
            if node.op.name in RECURRENT:
                return self._library(node, self._recurrent(node))
            printed = self._printed(node)
            if isinstance(printed, Exception):
                raise printed
        except NotPrintable as refusal:
            self.host[name] = str(refusal)
            if isinstance(node.op.definition(node), Contraction):
                self._products.append(Products(0, ("calls of NumPy",)))
            return super().emit(node, name)
        return self._native(node, *printed)

    def _recurrent(self, node: Node) -> LibraryCall:
        """The call of a recurrent layer. Raises NotPrintable."""
        assert node.graph is not None
        orders = self._of_graph(node.graph)
        if any(v in orders for v in (*node.inputs, *node.outputs) if v is not None):
            raise NotPrintable("an operand or result is not stored row by row")
        self._products.append(Products(0, ("recurrent layers",)))
        return recurrent_call(node, PLACEHOLDER)

    def notes(self) -> list[str]:
        """What the report should say of what was emitted, beyond `host` and `entries`."""
        return notes_on(Products.total(self._products)) if self._bf16 else []

    def _library(self, node: Node, call: LibraryCall) -> Emitted:
        known = self._named(call.text, _word(node))
        return Emitted(known, "", True, call.dims, native=True, inputs=call.inputs, constants=call.constants)

    def _native(self, node: Node, built: Built, kernel: NativeKernel) -> Emitted:
        text = kernel.text
        for number, step in enumerate(kernel.steps):
            text = text.replace(step_name(number), self._named(step, f"{_word(node)}_step"))
        known = self._named(text, _word(node))
        self._products.append(kernel.products)
        assert node.graph is not None
        symbols: Mapping[str, Dim] = {s.name: SymInt.of(s) for s in node.graph.symbols}
        inputs, constants = self._operands(node, built, kernel)
        dims = tuple(symbols[d] if isinstance(d, str) else d for d in kernel.dims)
        anchor = kernel.anchor
        inplace = anchor.overwritable if isinstance(anchor, Band | Ring | Serial) else overwritable(built.region)
        return Emitted(known, "", True, dims, inplace, native=True, inputs=inputs, constants=constants)

    def _named(self, text: str, word: str) -> str:
        """The name of the function with this text."""
        return self.kernels.setdefault(text, f"k{len(self.kernels):03d}_{word}")

    def _operands(
        self, node: Node, built: Built, kernel: NativeKernel
    ) -> tuple[tuple[Value | None, ...], Mapping[int, np.ndarray]]:
        """What the kernel reads, in the order of its buffers; constants that it wants packed."""
        formal = dict(zip(node.subgraphs[0].inputs, node.inputs, strict=True)) if node.op.name == "fused" else {}
        inputs = tuple(formal.get(v, v) for v in built.inputs)
        constants: dict[int, np.ndarray] = {}
        for buffer, packing in kernel.packings.items():
            operand = inputs[buffer]
            assert operand is not None and operand.constant is not None
            key = id(operand.constant), packing.key
            if key not in self._packed:
                self._keep.append(operand.constant)
                self._packed[key] = packing.packed(operand.constant.array)
            constants[buffer] = self._packed[key]
        return inputs, constants

    def sources(self) -> dict[str, str]:
        """The translation units: file name -> text. Kernels are dealt out evenly, in order, for reproducible builds."""
        units = min(_UNITS, len(self.kernels))
        parts: list[list[str]] = [[] for _ in range(units)]
        for number, (text, name) in enumerate(self.kernels.items()):
            parts[number % units].append(text.replace(PLACEHOLDER, name))
        return {f"unit{n}.c": '#include "printed.h"\n\n' + "\n".join(texts) for n, texts in enumerate(parts)}


def _word(node: Node) -> str:
    """A name for people: the op, or the ops of a group; letters, digits and _ only."""
    ops = [inner.op.name for inner in node.subgraphs[0]] if node.op.name == "fused" else [node.op.name]
    text = "_".join(ops)
    short = text if len(text) <= 40 else f"{text[:32]}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in short)
