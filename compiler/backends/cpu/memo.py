"""Kernels of one compilation: nodes of the same structure, stored alike, have one kernel and are printed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fusible.compiler.backends.cpu.kernel import Machine, NativeKernel, NotPrintable
from fusible.compiler.backends.cpu.native import Shape, Storage, kernel_of
from fusible.compiler.ir.graph import Node, Value
from fusible.compiler.ir.structure import structure
from fusible.compiler.region.build import Built, NoRegion
from fusible.compiler.region.region import Region
from fusible.compiler.region.reorder import Order

__all__ = ["Kernels"]

_NONE: Mapping[Value, Shape] = MappingProxyType({})


@dataclass(frozen=True)
class _Known:
    """A kernel, and its operands and results as numbers of the values that the structure mentions."""

    region: Region
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: NativeKernel


class Kernels:
    """Prints kernels for a machine, or remembers those that it printed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._known: dict[tuple[str, str], _Known | str] = {}

    def of_node(
        self, node: Node, orders: Mapping[Value, Order], wholes: Mapping[Value, Shape] = _NONE
    ) -> tuple[Built, NativeKernel]:
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
    ) -> tuple[Built, NativeKernel]:
        """See `native.kernel_of`. Raises NotPrintable."""
        text, values = structure(nodes, outputs, inputs)
        key = text, repr([_stored(given.get(v, v), storage) for v in values])
        if key not in self._known:
            self._known[key] = self._printed(nodes, outputs, inputs, given, storage, values)
        known = self._known[key]
        if isinstance(known, str):
            raise NotPrintable(known)
        operands, results = (tuple(values[n] for n in numbers) for numbers in (known.inputs, known.outputs))
        return Built(known.region, operands, results), known.kernel

    def _printed(
        self,
        nodes: Sequence[Node],
        outputs: Sequence[Value],
        inputs: Sequence[Value],
        given: Mapping[Value, Value],
        storage: Storage,
        values: Sequence[Value],
    ) -> _Known | str:
        try:
            built, kernel = kernel_of(nodes, outputs, inputs, given, storage, self._machine)
        except (NoRegion, NotPrintable) as refusal:
            return str(refusal)
        number = {v: n for n, v in enumerate(values)}
        operands, results = tuple(number[v] for v in built.inputs), tuple(number[v] for v in built.outputs)
        return _Known(built.region, operands, results, kernel)


def _stored(value: Value, storage: Storage) -> tuple[object, ...]:
    """What a kernel knows of how a value is stored."""
    return storage.orders.get(value), storage.wholes.get(value), value.constant is not None
