"""The CPU backend: nodes whose region can be printed become C, the others call NumPy, and the report says which.

Kernels with the same text are one function. All of them go into a few translation units, which compile in parallel.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fusible.compiler.backends.base import Block, Emitted, Support, word_of
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
from fusible.compiler.backends.cpu.native import Storage, kernel_of
from fusible.compiler.backends.cpu.precision import Products, notes_on
from fusible.compiler.backends.numpy import writes_buffers
from fusible.compiler.backends.regions import RegionBackend
from fusible.compiler.ir.definition import Contraction
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.region.build import Built
from fusible.compiler.region.overwrite import overwritable
from fusible.compiler.region.reorder import Order
from fusible.passes.copy_images import copy_before
from fusible.passes.ledger import Kind
from fusible.passes.take_out import take_out
from fusible.runtime.native.machine import instruction_sets, usable_threads
from fusible.runtime.native.program import NativeCode

__all__ = ["CpuBackend"]

_WHOLE = frozenset({*RECURRENT, "require"})  # calls of kernels that take operands without gaps
_UNITS = 8  # translation units at most; each compiles on its own


class CpuBackend(RegionBackend[NativeKernel]):
    """Emits C where it can; collects the texts of the kernels and why others became calls of NumPy."""

    target = "cpu"

    def __init__(self, threads: int | None = None, *, exact: bool = False, bf16: bool = False) -> None:
        lanes = 16 if "avx512f" in instruction_sets() else 8
        machine = Machine(threads or usable_threads(), lanes, exact, bf16)
        super().__init__(partial(kernel_of, machine=machine))
        self.kernels: dict[str, str] = {}  # text -> name of the function
        self._packed: dict[tuple[int, str], np.ndarray] = {}
        self._blocks: dict[Value, Block] = {}
        self._done: set[Node] = set()
        self._bf16 = bf16
        self._products: list[Products] = []  # of what was emitted

    def supports(self, node: Node) -> Support:
        """As NumPy; a group that only C can print is taken too."""
        return super().supports(node)

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
                    refused.update({v: f"{word_of(node)} cannot be printed with it: {refusal}" for v in touched})
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

    def emit(self, node: Node, name: str) -> Emitted:
        """A native function if the node's region can be printed, else a NumPy call."""
        reason = self._host_reason(node)
        if reason is not None:
            self.host[name] = reason
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

    def language(self, kernel: str) -> str:
        """C or NumPy."""
        return "numpy" if kernel in self.host else "c"

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
        known = self._named(call.text, word_of(node))
        return Emitted(known, "", True, call.dims, native=True, inputs=call.inputs, constants=call.constants)

    def _native(self, node: Node, built: Built, kernel: NativeKernel) -> Emitted:
        text = kernel.text
        for number, step in enumerate(kernel.steps):
            text = text.replace(step_name(number), self._named(step, f"{word_of(node)}_step"))
        known = self._named(text, word_of(node))
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

    def native_code(self) -> NativeCode | None:
        """The kernels in translation units, dealt out evenly and in order, for reproducible builds."""
        if not self.kernels:
            return None
        units = min(_UNITS, len(self.kernels))
        parts: list[list[str]] = [[] for _ in range(units)]
        for number, (text, name) in enumerate(self.kernels.items()):
            parts[number % units].append(text.replace(PLACEHOLDER, name))
        sources = {f"unit{n}.c": '#include "printed.h"\n\n' + "\n".join(texts) for n, texts in enumerate(parts)}
        return NativeCode(sources, tuple(self.kernels.values()))
