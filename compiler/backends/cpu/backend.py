"""The CPU backend: nodes whose region can be printed become C, the others call NumPy, and the report says which.

Kernels with the same text are one function. All of them go into a few translation units, which compile in parallel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fusible.compiler.backends.base import Emitted, Support
from fusible.compiler.backends.cpu.c_recurrent import RECURRENT, LibraryCall, recurrent_call
from fusible.compiler.backends.cpu.kernel import (
    PLACEHOLDER,
    Machine,
    NativeKernel,
    NotPrintable,
    print_group,
    print_region,
)
from fusible.compiler.backends.cpu.layout import channels_last, stored_orders
from fusible.compiler.backends.numpy import NumpyBackend, writes_buffers
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.ir.types import TensorType
from fusible.compiler.region.build import Built, NoRegion, build_region
from fusible.compiler.region.group import build_group, home_of
from fusible.compiler.region.region import Group
from fusible.compiler.region.reorder import Order, reordered
from fusible.passes.fuse_regions import ungroup
from fusible.runtime.native.machine import instruction_sets, usable_threads

__all__ = ["CpuBackend", "native_kernel", "native_refusal"]

_UNITS = 8  # translation units at most; each compiles on its own
_LARGEST_PACKED = 2**28  # floats


def native_kernel(node: Node, orders: Mapping[Value, Order], machine: Machine) -> tuple[Built, NativeKernel]:
    """The region of a node (or of a `fused` node's subgraph) and its kernel. Raises NoRegion, NotPrintable."""
    if node.op.name == "fused":
        graph = node.subgraphs[0]
        nodes, outputs, inputs = list(graph), list(graph.outputs), list(graph.inputs)
        given = dict(zip(inputs, node.inputs, strict=True)) | dict(zip(outputs, node.outputs, strict=True))
    else:
        nodes, outputs = [node], list(node.outputs)
        inputs = list(dict.fromkeys(v for v in node.inputs if v is not None))
        given = {}
    known: dict[Value, Order] = {}
    for value in (*inputs, *outputs):
        actual = given.get(value) or value
        if actual in orders:
            known[value] = orders[actual]
    constants = {v for v in inputs if (given.get(v) or v).constant is not None}
    return _printed(nodes, outputs, inputs, known, constants, machine)


def _printed(
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    orders: Mapping[Value, Order],
    constants: Collection[Value],
    machine: Machine,
) -> tuple[Built, NativeKernel]:
    """The kernel of one region or, if there is none, of two with an image between them."""
    try:
        whole = build_region(nodes, outputs, inputs=inputs, home=home_of(nodes, outputs), inline_scalars=True)
        whole = _stored(whole, orders)
        known = [n for n, v in enumerate(whole.inputs) if v in constants]
        return whole, print_region(whole.region, known, machine, loops=len(nodes) == 1)
    except NotPrintable as refusal:
        parts = chain_parts(nodes, outputs)
        if len(parts) < 2:
            raise
        try:
            return _printed_chain(parts, outputs, inputs, orders, constants, machine)
        except (NoRegion, NotPrintable) as other:
            raise NotPrintable(f"{refusal}; {other}") from other


def _printed_chain(
    parts: Sequence[Sequence[Node]],
    outputs: Sequence[Value],
    inputs: Sequence[Value],
    orders: Mapping[Value, Order],
    constants: Collection[Value],
    machine: Machine,
) -> tuple[Built, NativeKernel]:
    built = build_group(parts, outputs, inputs=inputs, inline_scalars=True)
    between = [part[-1].outputs[0] for part in parts[:-1]]
    orders = {**orders, **dict.fromkeys(between, channels_last(4))}
    group = built.group
    values = (*built.inputs, *built.outputs, *between)
    found = {n: orders[v] for n, v in enumerate(values) if v in orders}
    steps = []
    for step in group.steps:
        read = {n: found[b] for n, b in enumerate(step.inputs) if b in found}
        written = {n: found[b] for n, b in enumerate(step.outputs) if b in found}
        steps.append(replace(step, region=reordered(step.region, read, written)))
    buffers = list(group.buffers)
    for step in steps:
        numbers = (*step.inputs, *step.outputs)
        for number, buffer in zip(numbers, (*step.region.inputs, *step.region.outputs), strict=True):
            buffers[number] = buffer
    group = Group(group.inputs, group.outputs, tuple(buffers), tuple(steps))
    kernel = print_group(group, [n for n, v in enumerate(built.inputs) if v in constants], machine)
    return Built(group.steps[-1].region, built.inputs, built.outputs), kernel


def chain_parts(nodes: Sequence[Node], outputs: Sequence[Value]) -> list[list[Node]]:
    """The nodes in parts, one part for each convolution that reads what another computes; one if none does."""
    home = home_of(nodes, outputs)
    anchor = None if home is None else home.producer
    image = anchor.inputs[0] if anchor is not None and anchor.op.name == "conv" else None
    if image is None or image.producer not in nodes or len(image.users) != 1 or image in outputs:
        return [list(nodes)]
    inside = set(nodes)
    before: set[Node] = set()
    waiting = [image.producer]
    while waiting:
        node = waiting.pop()
        if node is not None and node in inside and node not in before:
            before.add(node)
            waiting += [v.producer for v in node.inputs if v is not None]
    return [*chain_parts([n for n in nodes if n in before], [image]), [n for n in nodes if n not in before]]


def _stored(built: Built, orders: Mapping[Value, Order]) -> Built:
    """The region over buffers in their orders."""
    inputs = {n: orders[v] for n, v in enumerate(built.inputs) if v in orders}
    outputs = {n: orders[v] for n, v in enumerate(built.outputs) if v in orders}
    return Built(reordered(built.region, inputs, outputs), built.inputs, built.outputs)


def native_refusal(nodes: Sequence[Node], outputs: Sequence[Value]) -> str | None:
    """Why no native kernel can be printed for some nodes together, or None.

    Images around a convolution are taken to be stored channels last, as they will be.
    """
    inside = {v for node in nodes for v in node.outputs}
    inputs = list(dict.fromkeys(v for n in nodes for v in n.inputs if v is not None and v not in inside))
    constants = {v for v in inputs if v.constant is not None}
    orders: dict[Value, Order] = {}
    if any(node.op.name == "conv" for node in nodes):
        orders = {v: channels_last(4) for v in (*inputs, *outputs) if v.constant is None and _is_image(v)}
    try:
        _printed(nodes, outputs, [], orders, constants, Machine())
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
        self._kernels: dict[Node, tuple[Built, NativeKernel] | NoRegion | NotPrintable] = {}
        self._machine = Machine(threads or usable_threads(), 16 if "avx512f" in instruction_sets() else 8, exact)

    def supports(self, node: Node) -> Support:
        """As NumPy; a group that only C can print is taken too."""
        return super().supports(node)

    def order(self, value: Value) -> Order | None:
        """Channels last near convolutions."""
        node = value.producer
        return None if node is None or node.graph is None else self._of_graph(node.graph).get(value)

    def _of_graph(self, graph: Graph) -> dict[Value, Order]:
        if id(graph) not in self._orders:
            self._keep.append(graph)
            self._orders[id(graph)] = stored_orders(graph)
        return self._orders[id(graph)]

    def prepare(self, graph: Graph) -> None:
        """Print every kernel; take groups apart that cannot be printed with the orders that their operands got."""
        for inner in [g for g in graph.all_graphs() if not self._is_group(g)]:
            again = True
            while again:
                again = False
                self._orders.pop(id(inner), None)
                for node in list(inner):
                    if node.op.name == "fused" and isinstance(self._printed(node), Exception):
                        ungroup(inner, node)
                        again = True
                if again:
                    self._kernels.clear()

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
        try:
            if node.op.name in RECURRENT:
                return self._library(node, self._recurrent(node))
            printed = self._printed(node)
            if isinstance(printed, Exception):
                raise printed
        except (NoRegion, NotPrintable) as refusal:
            self.host[name] = str(refusal)
            return super().emit(node, name)
        return self._native(node, *printed)

    def _recurrent(self, node: Node) -> LibraryCall:
        """The call of a recurrent layer. Raises NotPrintable."""
        assert node.graph is not None
        orders = self._of_graph(node.graph)
        if any(v in orders for v in (*node.inputs, *node.outputs) if v is not None):
            raise NotPrintable("an operand or result is not stored row by row")
        return recurrent_call(node, PLACEHOLDER)

    def _library(self, node: Node, call: LibraryCall) -> Emitted:
        known = self.kernels.setdefault(call.text, f"k{len(self.kernels):03d}_{_word(node)}")
        return Emitted(known, "", True, call.dims, native=True, inputs=call.inputs, constants=call.constants)

    def _native(self, node: Node, built: Built, kernel: NativeKernel) -> Emitted:
        known = self.kernels.setdefault(kernel.text, f"k{len(self.kernels):03d}_{_word(node)}")
        assert node.graph is not None
        symbols: Mapping[str, Dim] = {s.name: SymInt.of(s) for s in node.graph.symbols}
        inputs, constants = self._operands(node, built, kernel)
        dims = tuple(symbols[d] if isinstance(d, str) else d for d in kernel.dims)
        return Emitted(known, "", True, dims, native=True, inputs=inputs, constants=constants)

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
