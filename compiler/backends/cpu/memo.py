"""Kernels of one compilation: nodes of the same structure, stored alike, have one kernel and are printed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from fusible.compiler.backends.cpu.native import Shape, Storage
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.structure import structure
from fusible.compiler.region.build import Built, NoRegion
from fusible.compiler.region.region import Region
from fusible.compiler.region.reorder import Order

__all__ = ["Kernels", "Known", "PrintKernel"]

_NONE: Mapping[Value, Shape] = MappingProxyType({})
Kernel = TypeVar("Kernel")

PrintKernel = Callable[
    [Sequence[Node], Sequence[Value], Sequence[Value], Mapping[Value, Value], Storage], tuple[Built, Kernel]
]
"""(nodes, outputs, inputs, given, storage) -> their region and its kernel, as `native.kernel_of` says."""


@dataclass(frozen=True)
class Known(Generic[Kernel]):
    """A kernel, and its operands and results as numbers of the values that the structure mentions.

    A constant that a definition made, which equal structures have equal, is there itself.
    """

    region: Region
    inputs: tuple[int | Value, ...]
    outputs: tuple[int, ...]
    kernel: Kernel

    @property
    def portable(self) -> bool:
        """True if it holds nothing of the graph that it was printed for."""
        return all(isinstance(operand, int) for operand in self.inputs)


class Kernels(Generic[Kernel]):
    """Prints kernels, or remembers those that it printed."""

    def __init__(
        self, print_kernel: PrintKernel[Kernel], known: dict[tuple[str, str], Known[Kernel] | str] | None = None
    ) -> None:
        """Print by a function. known: what is remembered from the beginning, which is added to."""
        self._print = print_kernel
        self._known = {} if known is None else known

    def of_node(
        self, node: Node, orders: Mapping[Value, Order], wholes: Mapping[Value, Shape] = _NONE
    ) -> tuple[Built, Kernel]:
        """The region of a node (or of a `fused` node's subgraph) and its kernel. Raises NotPrintable.

        orders: how values are stored that are not row-major; wholes: the shapes of what some are blocks of.
        """
        storage = Storage(orders, wholes)
        if node.op.name == "fused":
            graph = node.subgraphs[0]
            inputs, outputs = list(graph.inputs), list(graph.outputs)
            given = dict(zip(inputs, node.inputs, strict=True)) | dict(zip(outputs, node.outputs, strict=True))
            return self.of(list(graph), outputs, inputs, {f: v for f, v in given.items() if v}, storage)
        inputs = list(dict.fromkeys(v for v in node.inputs if v is not None))
        return self.of([node], list(node.outputs), inputs, {}, storage)

    def of(
        self,
        nodes: Sequence[Node],
        outputs: Sequence[Value],
        inputs: Sequence[Value],
        given: Mapping[Value, Value],
        storage: Storage,
    ) -> tuple[Built, Kernel]:
        """See `PrintKernel`. Raises NotPrintable."""
        text, values = structure(nodes, outputs, inputs)
        key = text, repr([_stored(given.get(v, v), storage) for v in values])
        if key not in self._known:
            self._known[key] = self._printed(nodes, outputs, inputs, given, storage, values)
        known = self._known[key]
        if isinstance(known, str):
            raise NotPrintable(known)
        operands = tuple(values[n] if isinstance(n, int) else n for n in known.inputs)
        results = tuple(values[n] for n in known.outputs)
        return Built(known.region, operands, results), known.kernel

    def _printed(
        self,
        nodes: Sequence[Node],
        outputs: Sequence[Value],
        inputs: Sequence[Value],
        given: Mapping[Value, Value],
        storage: Storage,
        values: Sequence[Value],
    ) -> Known[Kernel] | str:
        try:
            built, kernel = self._print(nodes, outputs, inputs, given, storage)
        except (NoRegion, NotPrintable) as refusal:
            return str(refusal)
        number = {v: n for n, v in enumerate(values)}
        operands = tuple(number.get(v, v) for v in built.inputs)
        results = tuple(number[v] for v in built.outputs)
        return Known(built.region, operands, results, kernel)


def _stored(value: Value, storage: Storage) -> tuple[object, ...]:
    """What a kernel knows of how a value is stored."""
    return storage.orders.get(value), storage.wholes.get(value), value.constant is not None
