"""The CPU backend: nodes whose region can be printed become C, the others call NumPy, and the report says which.

Kernels with the same text are one function. All of them go into a few translation units, which compile in parallel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from fusible.compiler.backends.base import Emitted, Support
from fusible.compiler.backends.cpu.c_gemm import packed_operand
from fusible.compiler.backends.cpu.kernel import PLACEHOLDER, NativeKernel, NotPrintable, print_region
from fusible.compiler.backends.numpy import NumpyBackend, writes_buffers
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.region.build import Built, NoRegion, build_region
from fusible.compiler.region.group import home_of

__all__ = ["CpuBackend", "native_kernel", "native_refusal"]

_UNITS = 8  # translation units at most; each compiles on its own
_LARGEST_PACKED = 2**28  # floats


def native_kernel(node: Node) -> tuple[Built, NativeKernel]:
    """The region of a node (or of a `fused` node's subgraph) and its kernel. Raises NoRegion, NotPrintable."""
    if node.op.name == "fused":
        graph = node.subgraphs[0]
        nodes, outputs = list(graph), list(graph.outputs)
        inputs = list(graph.inputs)
        given = {formal: actual for formal, actual in zip(inputs, node.inputs, strict=True) if actual is not None}
    else:
        nodes, outputs = [node], list(node.outputs)
        inputs = list(dict.fromkeys(v for v in node.inputs if v is not None))
        given = {v: v for v in inputs}
    built = build_region(nodes, outputs, inputs=inputs, home=home_of(nodes, outputs), inline_scalars=True)
    constants = [n for n, v in enumerate(built.inputs) if given.get(v, v).constant is not None]
    return built, print_region(built.region, constants)


def native_refusal(nodes: Sequence[Node], outputs: Sequence[Value]) -> str | None:
    """Why no native kernel can be printed for some nodes together, or None."""
    try:
        built = build_region(nodes, outputs, home=home_of(nodes, outputs), inline_scalars=True)
        print_region(built.region, [n for n, v in enumerate(built.inputs) if v.constant is not None])
    except (NoRegion, NotPrintable) as refusal:
        return str(refusal)
    return None


class CpuBackend(NumpyBackend):
    """Emits C where it can; collects the texts of the kernels and why others became calls of NumPy."""

    target = "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.kernels: dict[str, str] = {}  # text -> name of the function
        self.host: dict[str, str] = {}  # step -> why it is no C
        self._packed: dict[tuple[int, str], np.ndarray] = {}
        self._keep: list[object] = []

    def supports(self, node: Node) -> Support:
        """As NumPy; a group that only C can print is taken too."""
        return super().supports(node)

    def emit(self, node: Node, name: str) -> Emitted:
        """A native function if the node's region can be printed, else a NumPy call."""
        if not writes_buffers(node):
            self.host[name] = "its results are views, or of sizes known only when it runs"
            return super().emit(node, name)
        if replacement_kernel(node, self.target) is not None:
            self.host[name] = "a kernel was registered for it"
            return super().emit(node, name)
        try:
            built, kernel = native_kernel(node)
            return self._native(node, built, kernel)
        except (NoRegion, NotPrintable) as refusal:
            self.host[name] = str(refusal)
            return super().emit(node, name)

    def _native(self, node: Node, built: Built, kernel: NativeKernel) -> Emitted:
        known = self.kernels.setdefault(kernel.text, f"k{len(self.kernels):03d}_{_word(node)}")
        assert node.graph is not None
        symbols: Mapping[str, Dim] = {s.name: SymInt.of(s) for s in node.graph.symbols}
        inputs, constants = self._operands(node, built, kernel)
        return Emitted(
            known, "", True, tuple(symbols[s] for s in kernel.symbols), (), False, native=True, inputs=inputs,
            constants=constants,
        )  # fmt: skip

    def _operands(
        self, node: Node, built: Built, kernel: NativeKernel
    ) -> tuple[tuple[Value | None, ...], Mapping[int, np.ndarray]]:
        """What the kernel reads, in the order of its buffers; constants that it wants packed."""
        formal = dict(zip(node.subgraphs[0].inputs, node.inputs, strict=True)) if node.op.name == "fused" else {}
        inputs = tuple(formal.get(v, v) for v in built.inputs)
        if kernel.product is None:
            return inputs, {}
        operand = inputs[kernel.product.buffer]
        assert operand is not None and operand.constant is not None
        load = built.region.stages[kernel.product.right]
        key = id(operand.constant), repr((load, kernel.product.rights, built.region.extents))
        if key not in self._packed:
            self._keep.append(operand.constant)
            self._packed[key] = packed_operand(built.region, kernel.product, operand.constant.array)
        return inputs, {kernel.product.buffer: self._packed[key]}

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
