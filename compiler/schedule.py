"""The order of nodes in which the least memory is live at once.

Branches that do not depend on each other may be computed in any order, and which one decides how much must be kept. The
order as it stands is compared with a greedy one, which always takes the node after which the least is live; the better
one stays. Symbolic dimensions count as 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fusible.compiler.ir.analysis import node_symbols
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.types import TensorType
from fusible.passes.fusion import literal_bytes

__all__ = ["peak_bytes", "schedule"]

Home = Callable[[Value], Value]
"""The value in whose buffer a value lives: itself, the larger one that it is a block of, or what it is a view of."""

_LEAST_GAIN = 0.98  # an order that saves less than a fiftieth is not worth a change
_MOST_NODES = 3000  # the search is quadratic where very many nodes are independent


def schedule(graph: Graph, home: Home) -> bool:
    """Reorder the nodes of one graph if fewer bytes are live at once then; True if it was done."""
    nodes = list(graph)
    aim = _LEAST_GAIN * peak_bytes(nodes, graph.outputs, home)
    if len(nodes) > _MOST_NODES or max(_Memory(nodes, (), home).own(), default=0) >= aim:
        return False
    order = _greedy(graph, nodes, home)
    if peak_bytes(order, graph.outputs, home) >= aim:
        return False
    for node in order:
        graph.move_before(node, None)
    return True


def peak_bytes(nodes: Sequence[Node], outputs: Iterable[Value], home: Home) -> int:
    """The most bytes of results that are live while one of the nodes, in this order, is computed."""
    memory = _Memory(nodes, outputs, home)
    return max((memory.run(node) for node in nodes), default=0)


class _Memory:
    """What is live after the nodes that have run."""

    def __init__(self, nodes: Iterable[Node], outputs: Iterable[Value], home: Home) -> None:
        self.home = home
        self.readers: dict[Value, int] = {}  # buffer -> readers and writers that have not run
        self.live = 0
        self.held: set[Value] = set()
        self.kept = {home(v) for v in outputs}
        self.touched = {node: self._buffers(node) for node in nodes}
        for buffers in self.touched.values():
            for buffer in buffers:
                self.readers[buffer] = self.readers.get(buffer, 0) + 1

    def _buffers(self, node: Node) -> tuple[Value, ...]:
        """The buffers that a node reads or writes; inputs and constants are there anyway."""
        homes = [self.home(v) for v in (*node.inputs, *node.outputs) if v is not None]
        return tuple(dict.fromkeys(v for v in homes if v.producer is not None and isinstance(v.type, TensorType)))

    def own(self) -> list[int]:
        """The bytes that each node needs, whatever the order."""
        return [sum(literal_bytes(b) for b in buffers) for buffers in self.touched.values()]

    def change(self, node: Node) -> tuple[int, int]:
        """(bytes that a node adds while it runs, bytes that it frees then)."""
        new = sum(literal_bytes(b) for b in self.touched[node] if b not in self.held)
        return new, sum(literal_bytes(b) for b in self.touched[node] if self.readers[b] == 1 and b not in self.kept)

    def run(self, node: Node) -> int:
        """Compute a node; what is live meanwhile."""
        new, freed = self.change(node)
        during = self.live + new
        self.live = during - freed
        for buffer in self.touched[node]:
            self.held.add(buffer)
            self.readers[buffer] -= 1
        return during


def _greedy(graph: Graph, nodes: Sequence[Node], home: Home) -> list[Node]:
    """An order in which every node comes after what it needs, and leaves as little as possible."""
    memory = _Memory(nodes, graph.outputs, home)
    place = {node: n for n, node in enumerate(nodes)}
    needs = _needs(nodes)
    waiting = {node: len(found) for node, found in needs.items()}
    followers: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node, found in needs.items():
        for other in found:
            followers[other].append(node)
    ready = [node for node in nodes if not waiting[node]]
    order: list[Node] = []

    def left(node: Node) -> tuple[int, int, int]:
        new, freed = memory.change(node)
        return new - freed, new, place[node]

    while ready:
        node = min(ready, key=left)
        ready.remove(node)
        memory.run(node)
        order.append(node)
        for follower in followers[node]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    return order


def _needs(nodes: Sequence[Node]) -> dict[Node, set[Node]]:
    """What must have run before each node: what makes its operands and symbols; impure nodes keep their order."""
    defines = {s.name: node for node in nodes for s in node.defines}
    inside = set(nodes)
    needs: dict[Node, set[Node]] = {}
    impure: Node | None = None
    for node in nodes:
        found = {v.producer for v in node.inputs if v is not None and v.producer in inside and v.producer is not None}
        parts = [node, *(n for s in node.subgraphs for g in s.all_graphs() for n in g)]
        found |= {defines[s.name] for part in parts for s in node_symbols(part) if s.name in defines}
        if any(not part.op.pure for part in parts):
            found |= set() if impure is None else {impure}
            impure = node
        found.discard(node)
        needs[node] = found
    return needs
