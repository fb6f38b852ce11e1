"""The static cost of nodes and graphs: operations and bytes, from the ops' definitions, before anything runs.

`flops` counts scalar operations (an addition, a product, a comparison, an exponential: one each; integer ones too):

- Elementwise: the calls in its expression that depend on an operand, equal ones once, for each output element.
- Contraction: two for each term of each output element (a product of k operands: k), one for a bias. Terms that fall
  into padding count, as in the figures that papers give for convolutions.
- Reduce: one for each folded element, and those of `map` and `finish`. Scan: one for each element. View: none.
  Composite: the sum over its graph.
- Opaque: by `compiler/cost_table.py`; what stands there neither has `flops` None, and `unknown` says why.

`bytes_read` and `bytes_written` are what a kernel of its own moves at least: every operand once (a view reads no more
elements than it gives), every result once. Renamings of a whole tensor (reshape and its like) move nothing. Sizes are
those of the storage in NumPy: a four-bit integer takes a byte.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fusible.compiler.cost_table import MOVES_NOTHING, NOT_AS_DEFINED, OPAQUE_FLOPS, READS_NO_ELEMENT
from fusible.compiler.ir.definition import Composite, Contraction, Definition, Elementwise, Opaque, Reduce, Scan, View
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbol_values import evaluate
from fusible.compiler.ir.symbols import Dim, maximum, minimum, product
from fusible.compiler.ir.types import DType, TensorType, Type
from fusible.compiler.region.expr import Apply, Convert, Expr, arguments
from fusible.errors import FusibleError

__all__ = ["Cost", "Costs", "arithmetic", "graph_cost", "node_cost", "reads", "total_cost", "trip_count"]

_Count: TypeAlias = "Dim | Opaque"  # a number of operations, or why there is none
_TOO_LONG = "the expression of its size is too long"


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations, bytes read and bytes written, each a number or an expression over shape symbols.

    flops: None if it is not known. unknown: why it is not, or what the bytes leave out; () if everything is counted.
    """

    flops: Dim | None
    bytes_read: Dim
    bytes_written: Dim
    unknown: tuple[str, ...] = ()

    @property
    def bytes(self) -> Dim:
        """Read and written."""
        return self.bytes_read + self.bytes_written

    def at(self, sizes: Mapping[str, int]) -> Cost:
        """The cost in numbers, for these values of the shape symbols. Raises KeyError naming one without a value."""
        flops = None if self.flops is None else int(evaluate(self.flops, sizes))
        read, written = int(evaluate(self.bytes_read, sizes)), int(evaluate(self.bytes_written, sizes))
        return Cost(flops, read, written, self.unknown)


class Costs:
    """Costs of many nodes of graphs that do not change meanwhile: what two of the same op, attributes and types cost is
    computed once, and that of any node once.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Cost] = {}
        self._counts: dict[Hashable, _Count] = {}

    def graph(self, graph: Graph) -> Cost:
        """See `graph_cost`."""
        return total_cost([self.node(node) for node in graph])

    def node(self, node: Node) -> Cost:
        """See `node_cost`."""
        match node.op.name:
            case "if":
                return _larger([self.graph(branch) for branch in node.subgraphs])
            case "loop":
                return self._loop(node)
        key = _key(node)
        if key is None:
            key = node  # like no other
        if key not in self._known:
            self._known[key] = self._counted(node)
        return self._known[key]

    def _loop(self, node: Node) -> Cost:
        body = self.graph(node.subgraphs[0])
        try:
            return _repeated(body, trip_count(node), node)
        except OverflowError:
            return Cost(None, 0, 0, (*body.unknown, f"loop at {node.where}: {_TOO_LONG}"))

    def _counted(self, node: Node) -> Cost:
        try:
            definition, unknown = node.op.definition(node), list[str]()
            flops = self._flops(node, definition)
            read, written = _total(_reads(node, definition, unknown)), _total(_writes(node, unknown))
        except OverflowError:
            return Cost(None, 0, 0, (f"{node.op.name}: {_TOO_LONG}",))
        if isinstance(flops, Opaque):
            return Cost(None, read, written, (*unknown, f"{node.op.name}: {flops.reason}"))
        return Cost(flops, read, written, tuple(unknown))

    def _flops(self, node: Node, definition: Definition) -> _Count:
        if node.op.name in NOT_AS_DEFINED:
            known = NOT_AS_DEFINED[node.op.name](node)
            return Opaque("the rank of an operand is not known") if known is None else known
        match definition:
            case Composite(build):
                try:
                    return self._inside(build(node))
                except FusibleError as error:
                    # Sizes that no definition fits: an estimate must not end a compilation.
                    return Opaque(f"its definition cannot be written out: {error}")
            case Opaque():
                entry = OPAQUE_FLOPS.get(node.op.name)
                known = None if entry is None else entry(node)
                return definition if known is None else known
        return _of_definition(definition, node)

    def _inside(self, graph: Graph) -> _Count:
        """The operations of the graph that a composite op stands for; its bytes never leave the node."""
        counts: list[Dim] = []
        for node in graph:
            count = self._count(node)
            if isinstance(count, Opaque):
                return Opaque(f"{node.op.name}: {count.reason}")
            counts.append(count)
        return _total(counts)

    def _count(self, node: Node) -> _Count:
        if node.op.name in ("if", "loop"):
            cost = self.node(node)
            return Opaque("; ".join(cost.unknown)) if cost.flops is None else cost.flops
        key = _key(node)
        if key is None:
            return self._flops(node, node.op.definition(node))
        if key not in self._counts:
            self._counts[key] = self._flops(node, node.op.definition(node))
        return self._counts[key]


def node_cost(node: Node) -> Cost:
    """The cost of one node. Of `If` the larger branch, of `Loop` the body times its trip count (see `graph_cost`)."""
    return Costs().node(node)


def graph_cost(graph: Graph) -> Cost:
    """The sum over the nodes: what a run costs if every node is a kernel of its own.

    flops is None as soon as one node's is. Of a `Loop` whose trip count is not known one iteration counts, and
    `unknown` says so.
    """
    return Costs().graph(graph)


def arithmetic(expr: Expr) -> int:
    """The calls in a scalar expression that depend on an operand; equal subexpressions count once, conversions not."""
    calls: set[Apply] = set()
    pending: list[Expr] = [expr]
    while pending:
        match pending.pop():
            case Apply() as call if call not in calls and arguments(call):
                calls.add(call)
                pending.extend(call.args)
            case Convert(arg, _):
                pending.append(arg)
    return len(calls)


def trip_count(node: Node) -> Dim | None:
    """How often a `Loop` runs at most, if its trip count is known before the run."""
    trip = node.inputs[0]
    if trip is None or trip.content is None or trip.content.size != 1:
        return None
    found = trip.content.reshape(-1)[0]
    return found if not isinstance(found, int) else max(0, found)


# Operations


def _key(node: Node) -> Hashable | None:
    """What the cost of a node depends on; None for nodes that hold graphs, and for ops of the user's."""
    if node.subgraphs or node.op.function is not None:
        return None
    types = tuple(None if v is None else v.type for v in node.inputs)
    first: dict[Value | None, int] = {}  # an operand that stands twice is read once
    places = tuple(first.setdefault(v, i) for i, v in enumerate(node.inputs))
    return node.op.name, node.attrs, types, places, tuple(v.type for v in node.outputs)


def _of_definition(definition: Definition, node: Node) -> _Count:
    outputs = _elements(node.outputs[0].type)
    if outputs is None:
        return Opaque("the rank of its result is not known")
    match definition:
        case Elementwise(expr):
            return outputs * arithmetic(expr)
        case Contraction(extents, maps):
            bias = definition.bias is not None and _present(node, definition.bias_operand)
            return outputs * product(extents) * len(maps) + (outputs if bias else 0)
        case Reduce(_, extents):
            folded = product(extents) * (arithmetic(definition.map) + 1)
            return outputs * (folded + arithmetic(definition.finish))
        case Scan():
            return outputs
    return 0


# Bytes


def reads(node: Node) -> list[Dim]:
    """The bytes that a node reads of each operand (0 for one that is absent, or that an operand before it is)."""
    return _reads(node, node.op.definition(node), [])


def _reads(node: Node, definition: Definition, unknown: list[str]) -> list[Dim]:
    """What cannot be counted is appended to `unknown`."""
    if node.op.name in READS_NO_ELEMENT | MOVES_NOTHING:
        return [0] * len(node.inputs)
    result = _total(_writes(node, []))
    seen: set[Value] = set()
    found: list[Dim] = []
    for index, value in enumerate(node.inputs):
        size: Dim = 0
        if value is not None and value not in seen:
            seen.add(value)
            size = _bytes(value, unknown)
            if isinstance(definition, View) and index in definition.operands:
                size = minimum(size, result)
            elif node.op.name == "fused":
                size = minimum(size, _looked_at(node.subgraphs[0].inputs[index], node.subgraphs[0]))
        found.append(size)
    return found


def _looked_at(value: Value, group: Graph) -> Dim:
    """The bytes of a value that a group reads at most: of what only views look at, those that their readers read."""
    whole = _bytes(value, [])
    if value in group.outputs:
        return whole
    parts: list[Dim] = []
    for reader in value.users:
        definition = reader.op.definition(reader)
        places = [n for n, operand in enumerate(reader.inputs) if operand is value]
        if not isinstance(definition, View) or not set(places) <= set(definition.operands):
            return whole
        parts += [_looked_at(output, group) for output in reader.outputs]
    return minimum(whole, _total(parts))


def _writes(node: Node, unknown: list[str]) -> list[Dim]:
    return [] if node.op.name in MOVES_NOTHING else [_bytes(value, unknown) for value in node.outputs]


def _bytes(value: Value, unknown: list[str]) -> Dim:
    elements = _elements(value.type)
    if elements is None:
        unknown.append(f"{value.name or 'a value'}: {value.type} is of no known size, its bytes are left out")
        return 0
    assert isinstance(value.type, TensorType)
    return elements * value.type.dtype.numpy.itemsize


def _elements(type_: Type) -> Dim | None:
    """The number of elements of a tensor; None for sequences, optionals, text and unknown ranks."""
    return type_.elements if isinstance(type_, TensorType) and type_.dtype is not DType.STRING else None


def _present(node: Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


# Sums


def total_cost(costs: Sequence[Cost]) -> Cost:
    """The sum of costs; its flops are None as soon as one's are."""
    unknown = tuple(dict.fromkeys(reason for cost in costs for reason in cost.unknown))
    known = [cost.flops for cost in costs if cost.flops is not None]
    flops = _total(known) if len(known) == len(costs) else None
    return Cost(flops, _total(c.bytes_read for c in costs), _total(c.bytes_written for c in costs), unknown)


def _larger(branches: Sequence[Cost]) -> Cost:
    first, second = branches
    unknown = tuple(dict.fromkeys(first.unknown + second.unknown))
    flops = None if first.flops is None or second.flops is None else maximum(first.flops, second.flops)
    read, written = maximum(first.bytes_read, second.bytes_read), maximum(first.bytes_written, second.bytes_written)
    return Cost(flops, read, written, unknown)


def _repeated(body: Cost, trip: Dim | None, node: Node) -> Cost:
    if trip is None:
        reason = f"loop at {node.where}: its number of iterations is known only when it runs, one is counted"
        return Cost(None, body.bytes_read, body.bytes_written, (*body.unknown, reason))
    flops = None if body.flops is None else body.flops * trip
    return Cost(flops, body.bytes_read * trip, body.bytes_written * trip, body.unknown)


def _total(counts: Iterable[Dim]) -> Dim:
    """The sum, two by two: adding one by one would print a growing expression again and again."""
    left = list(counts)
    while len(left) > 1:
        left = [left[i] + left[i + 1] if i + 1 < len(left) else left[i] for i in range(0, len(left), 2)]
    return left[0] if left else 0
