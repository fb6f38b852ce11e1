"""What the backends share that print regions: how values are stored, and the kernels of nodes, each printed once."""

from __future__ import annotations

from typing import Generic

from fusible.compiler.backends.cpu.layout import stored_orders
from fusible.compiler.backends.cpu.memo import Kernel, Kernels, Known, PrintKernel
from fusible.compiler.backends.cpu.nest import NotPrintable
from fusible.compiler.backends.numpy import NumpyBackend, writes_buffers
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.region.build import Built
from fusible.compiler.region.reorder import Order
from fusible.passes.fuse_regions import ungroup

__all__ = ["RegionBackend", "is_group"]


class RegionBackend(NumpyBackend, Generic[Kernel]):
    """Prints the regions of nodes as kernels of some kind, for values in the orders in which they are stored."""

    def __init__(
        self, print_kernel: PrintKernel[Kernel], known: dict[tuple[str, str], Known[Kernel] | str] | None = None
    ) -> None:
        super().__init__()
        self._memo = Kernels(print_kernel, known)
        self._keep: list[object] = []
        self._orders: dict[int, dict[Value, Order]] = {}
        self._kernels: dict[Node, tuple[Built, Kernel] | NotPrintable] = {}

    def order(self, value: Value) -> Order | None:
        """Channels last near convolutions."""
        node = value.producer
        return None if node is None or node.graph is None else self._of_graph(node.graph).get(value)

    def prepare(self, graph: Graph) -> None:
        """Print every kernel; take groups apart that cannot be printed with the orders that their operands got."""
        for inner in [g for g in graph.all_graphs() if not is_group(g)]:
            self._prepare(inner)

    def _prepare(self, graph: Graph) -> None:
        """Prepare one graph, without those inside its nodes."""
        self._take_apart(graph)

    def _of_graph(self, graph: Graph) -> dict[Value, Order]:
        if id(graph) not in self._orders:
            self._keep.append(graph)
            self._orders[id(graph)] = stored_orders(graph)
        return self._orders[id(graph)]

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

    def _printed(self, node: Node) -> tuple[Built, Kernel] | NotPrintable:
        """The kernel of a node, or why there is none."""
        if node not in self._kernels:
            assert node.graph is not None
            try:
                self._kernels[node] = self._memo.of_node(node, self._of_graph(node.graph))
            except NotPrintable as refusal:
                self._kernels[node] = refusal
        return self._kernels[node]

    def _host_reason(self, node: Node) -> str | None:
        """Why a node is a call of NumPy whatever its region, or None."""
        if not writes_buffers(node):
            return "its results are views, or of sizes known only when it runs"
        if replacement_kernel(node, self.target) is not None:
            return "a kernel was registered for it"
        return None


def is_group(graph: Graph) -> bool:
    """True for what a `fused` node holds."""
    return graph.name in ("fused", "copy")
