"""The CPU backend: nodes whose region can be printed become C, the others call NumPy, and the report says which.

Kernels with the same text are one function. All of them go into a few translation units, which compile in parallel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from fusible.compiler.backends.base import Block, Emitted, Support
from fusible.compiler.backends.cpu.c_gemm import Product
from fusible.compiler.backends.cpu.joins import Blocks, find_blocks
from fusible.compiler.backends.cpu.joins_in_groups import Printers, joins_to_take_out
from fusible.compiler.backends.cpu.kernel import (
    PLACEHOLDER,
    Machine,
    NativeKernel,
    NotPrintable,
    packed,
    print_region,
)
from fusible.compiler.backends.cpu.layout import channels_last, stored_orders
from fusible.compiler.backends.numpy import NumpyBackend, writes_buffers
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.build import Built, NoRegion, build_region
from fusible.compiler.region.group import home_of
from fusible.compiler.region.overwrite import overwritable
from fusible.compiler.region.region import Load, operands_of
from fusible.compiler.region.reorder import Order, reordered, widened
from fusible.passes.copy_images import copy_before
from fusible.passes.fuse_regions import ungroup
from fusible.passes.ledger import Entry, Kind
from fusible.passes.take_out import take_out
from fusible.runtime.native.machine import instruction_sets, usable_threads

__all__ = ["CpuBackend", "native_kernel", "native_refusal"]

_UNITS = 8  # translation units at most; each compiles on its own
_LARGEST_PACKED = 2**28  # floats


def native_kernel(
    node: Node,
    orders: Mapping[Value, Order],
    machine: Machine,
    wholes: Mapping[Value, tuple[Dim, ...]] = MappingProxyType({}),
) -> tuple[Built, NativeKernel]:
    """The region of a node (or of a `fused` node's subgraph) and its kernel. Raises NoRegion, NotPrintable.

    orders: how values are stored that are not row-major; wholes: the shapes of what some are blocks of.
    """
    if node.op.name == "fused":
        graph = node.subgraphs[0]
        inputs, outputs = list(graph.inputs), list(graph.outputs)
        given = dict(zip(inputs, node.inputs, strict=True)) | dict(zip(outputs, node.outputs, strict=True))
        return _kernel_of(list(graph), outputs, inputs, {f: v for f, v in given.items() if v}, orders, machine, wholes)
    inputs = list(dict.fromkeys(v for v in node.inputs if v is not None))
    return _kernel_of([node], list(node.outputs), inputs, {}, orders, machine, wholes)


def _kernel_of(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    given: Mapping[Value, Value],
    orders: Mapping[Value, Order],
    machine: Machine,
    wholes: Mapping[Value, tuple[Dim, ...]],
) -> tuple[Built, NativeKernel]:
    """The region of some nodes, and its kernel. given: the values that inputs and outputs of a group stand for."""
    built = build_region(nodes, outputs, inputs=inputs, home=home_of(nodes, outputs), inline_scalars=True)
    actual = {v: given.get(v, v) for v in (*built.inputs, *built.outputs)}
    known = {v: orders[a] for v, a in actual.items() if a in orders}
    built = _stored(built, known, {v: wholes[a] for v, a in actual.items() if a in wholes})
    constants = [n for n, v in enumerate(built.inputs) if actual[v].constant is not None]
    return built, print_region(built.region, constants, machine)


def _stored(
    built: Built, orders: Mapping[Value, Order], wholes: Mapping[Value, tuple[Dim, ...]] = MappingProxyType({})
) -> Built:
    """The region over buffers in their orders, or over the wholes that they are blocks of. Raises NotPrintable."""
    wide = [{n: wholes[v] for n, v in enumerate(vs) if v in wholes} for vs in (built.inputs, built.outputs)]
    for stage in built.region.stages:
        if isinstance(stage, Load) and stage.buffer in wide[0] and operands_of(stage):
            raise NotPrintable("an index that data give is checked against the end of the operand's own memory")
    region = widened(built.region, *wide)
    inputs = {n: orders[v] for n, v in enumerate(built.inputs) if v in orders}
    outputs = {n: orders[v] for n, v in enumerate(built.outputs) if v in orders}
    return Built(reordered(region, inputs, outputs), built.inputs, built.outputs)


def native_refusal(nodes: Sequence[Node], outputs: Sequence[Value]) -> str | None:
    """Why no native kernel can be printed for some nodes together, or None.

    Images around a convolution are taken to be stored channels last, as they will be.
    """
    try:
        built = build_region(nodes, outputs, home=home_of(nodes, outputs), inline_scalars=True)
        if any(node.op.name == "conv" for node in nodes):
            images = [v for v in (*built.inputs, *built.outputs) if v.constant is None and _is_image(v)]
            built = _stored(built, {v: channels_last(4) for v in images})
        print_region(built.region, [n for n, v in enumerate(built.inputs) if v.constant is not None])
    except (NoRegion, NotPrintable) as refusal:
        return str(refusal)
    return None


def _is_image(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is not None and len(value.type.shape) == 4


class CpuBackend(NumpyBackend):
    """Emits C where it can; collects the texts of the kernels and why others became calls of NumPy."""

    target = "cpu"

    def __init__(self, threads: int | None = None, *, exact: bool = False) -> None:
        super().__init__()
        self.kernels: dict[str, str] = {}  # text -> name of the function
        self.host: dict[str, str] = {}  # step -> why it is no C
        self._packed: dict[tuple[int, str], np.ndarray] = {}
        self._keep: list[object] = []
        self._orders: dict[int, dict[Value, Order]] = {}
        self._blocks: dict[Value, Block] = {}
        self._done: set[Node] = set()
        self.entries: list[Entry] = []  # for the ledger
        self._kernels: dict[Node, tuple[Built, NativeKernel] | NoRegion | NotPrintable] = {}
        self._machine = Machine(threads or usable_threads(), 16 if "avx512f" in instruction_sets() else 8, exact)

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
        printers = Printers(self._is_native, self._prints_block, self._prints_rest)
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
        try:
            native_kernel(node, self._of_graph(node.graph), self._machine, {value: whole})
        except (NoRegion, NotPrintable):
            return False
        return True

    def _prints_rest(self, group: Node, join: Node, order: Order | None) -> bool:
        assert group.graph is not None
        inner = group.subgraphs[0]
        given = {f: v for f, v in zip(inner.inputs, group.inputs, strict=True) if v is not None}
        given.update(zip(inner.outputs, group.outputs, strict=True))
        orders = {**self._of_graph(group.graph), **({} if order is None else {join.output: order})}
        try:
            _kernel_of([n for n in inner if n is not join], inner.outputs, [], given, orders, self._machine, {})
        except (NoRegion, NotPrintable):
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
            try:
                printed[node] = native_kernel(node, orders, self._machine, wholes)
            except (NoRegion, NotPrintable) as refusal:
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

    def _printed(self, node: Node) -> tuple[Built, NativeKernel] | NoRegion | NotPrintable:
        """The kernel of a node, or why there is none."""
        if node not in self._kernels:
            assert node.graph is not None
            try:
                self._kernels[node] = native_kernel(node, self._of_graph(node.graph), self._machine)
            except (NoRegion, NotPrintable) as refusal:
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
        printed = self._printed(node)
        if isinstance(printed, Exception):
            self.host[name] = str(printed)
            return super().emit(node, name)
        return self._native(node, *printed)

    def _native(self, node: Node, built: Built, kernel: NativeKernel) -> Emitted:
        known = self.kernels.setdefault(kernel.text, f"k{len(self.kernels):03d}_{_word(node)}")
        assert node.graph is not None
        symbols: Mapping[str, Dim] = {s.name: SymInt.of(s) for s in node.graph.symbols}
        inputs, constants = self._operands(node, built, kernel)
        dims = tuple(symbols[d] if isinstance(d, str) else d for d in kernel.dims)
        inplace = overwritable(built.region)
        return Emitted(known, "", True, dims, inplace, native=True, inputs=inputs, constants=constants)

    def _operands(
        self, node: Node, built: Built, kernel: NativeKernel
    ) -> tuple[tuple[Value | None, ...], Mapping[int, np.ndarray]]:
        """What the kernel reads, in the order of its buffers; constants that it wants packed."""
        formal = dict(zip(node.subgraphs[0].inputs, node.inputs, strict=True)) if node.op.name == "fused" else {}
        inputs = tuple(formal.get(v, v) for v in built.inputs)
        if kernel.anchor is None:
            return inputs, {}
        buffer = kernel.anchor.buffer
        operand = inputs[buffer]
        assert operand is not None and operand.constant is not None
        load = built.region.stages[kernel.anchor.right]
        anchor = kernel.anchor
        layout = anchor.rights if isinstance(anchor, Product) else (anchor.kind, anchor.winograd, anchor.geometry)
        key = id(operand.constant), repr((load, layout, built.region.extents))
        if key not in self._packed:
            self._keep.append(operand.constant)
            self._packed[key] = packed(built.region, kernel, operand.constant.array)
        return inputs, {buffer: self._packed[key]}

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
