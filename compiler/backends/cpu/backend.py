"""The CPU backend: nodes whose region can be printed become C, the others call NumPy, and the report says which.

Kernels with the same text are one function. All of them go into a few translation units, which compile in parallel.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fusible.compiler.backends.base import Emitted, Pending, Support, word_of
from fusible.compiler.backends.cpu.c_band import Band
from fusible.compiler.backends.cpu.c_library import LibraryCall
from fusible.compiler.backends.cpu.c_ops import calls_library, library_call
from fusible.compiler.backends.cpu.c_recurrent import RECURRENT
from fusible.compiler.backends.cpu.c_ring import Ring
from fusible.compiler.backends.cpu.c_serial import Serial, step_name
from fusible.compiler.backends.cpu.kernel import PLACEHOLDER, NativeKernel, NotPrintable, Packing
from fusible.compiler.backends.cpu.native import kernel_of
from fusible.compiler.backends.cpu.precision import Arithmetic, Products, notes_on
from fusible.compiler.backends.joining import JoiningBackend
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.definition import Contraction
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.region.build import Built
from fusible.compiler.region.overwrite import overwritable
from fusible.runtime.native.program import NativeCode

__all__ = ["CpuBackend"]

_UNITS = 8  # translation units at most; each compiles on its own
_LARGE = 1 << 20  # bytes of a constant that is worth a thread's while


class CpuBackend(JoiningBackend[NativeKernel]):
    """Emits C where it can; collects the texts of the kernels and why others became calls of NumPy."""

    target = "cpu"

    def __init__(self, *, exact: bool = False, bf16: bool = False) -> None:
        super().__init__(partial(kernel_of, arithmetic=Arithmetic(exact, bf16)))
        self.kernels: dict[str, str] = {}  # text -> name of the function
        self._packed: dict[tuple[int, str], np.ndarray | Pending] = {}
        self._bf16 = bf16
        self._products: list[Products] = []  # of what was emitted

    def supports(self, node: Node) -> Support:
        """As NumPy; a group that only C can print is taken too."""
        return super().supports(node)

    def _wants_whole(self, node: Node) -> str | None:
        """Library kernels know of no gaps."""
        return f"{node.op.name} reads and writes whole buffers" if calls_library(node) else None

    def emit(self, node: Node, name: str) -> Emitted:
        """A native function if the node's region can be printed, else a NumPy call."""
        reason = self._host_reason(node)
        if reason is not None:
            self.host[name] = reason
            return super().emit(node, name)
        try:
            if calls_library(node):
                assert node.graph is not None
                return self._library(node, library_call(node, PLACEHOLDER, self._of_graph(node.graph)))
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

    def notes(self) -> list[str]:
        """What the report should say of what was emitted, beyond `host` and `entries`."""
        return notes_on(Products.total(self._products)) if self._bf16 else []

    def _library(self, node: Node, call: LibraryCall) -> Emitted:
        known = self._named(call.text, word_of(node))
        if node.op.name in RECURRENT:
            self._products.append(Products(0, ("recurrent layers",)))
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
    ) -> tuple[tuple[Value | None, ...], Mapping[int, np.ndarray | Pending]]:
        """What the kernel reads, in the order of its buffers; constants that it wants packed."""
        formal = dict(zip(node.subgraphs[0].inputs, node.inputs, strict=True)) if node.op.name == "fused" else {}
        inputs = tuple(formal.get(v, v) for v in built.inputs)
        constants: dict[int, np.ndarray | Pending] = {}
        for buffer, packing in kernel.packings.items():
            operand = inputs[buffer]
            assert operand is not None and operand.constant is not None
            key = id(operand.constant), packing.key
            if key not in self._packed:
                self._keep.append(operand.constant)
                self._packed[key] = _packed(packing, operand.constant)
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


def _packed(packing: Packing, constant: Constant) -> np.ndarray | Pending:
    """The operand as its kernel reads it: a large one is packed when the plan is complete, by threads."""
    type_ = packing.known_type() if constant.nbytes >= _LARGE else None
    if type_ is None:
        return packing.packed(constant.array)
    return Pending(*type_, lambda: packing.packed(constant.content))
