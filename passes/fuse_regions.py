"""Fuse nodes into groups that a native kernel computes in one go:  f(g(x))  ->  one `fused` node.

Nodes are taken in order; each draws in the groups of its operands where that is legal, computes nothing twice, and
gives a region that the target can print. A group has one result, and whatever it draws in had no other reader, so the
partition stays without cycles. Views (reshape, transpose, slice...) may have several readers: each gets its own copy,
for a view costs nothing once it is an index map. So may dequantisations, where kernels unpack what they read; those
that the target had rather do once are groups of their own, and so stay as they are when constants are folded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fusible.compiler.ir.assumed import assumed_size
from fusible.compiler.ir.definition import Composite, Contraction, Elementwise, Opaque, Reduce, View
from fusible.compiler.ir.facts import replacement_kernel
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.symbol_values import symbols_of
from fusible.compiler.ir.symbols import Dim, product
from fusible.compiler.ir.types import DType, TensorType
from fusible.passes.base import GraphPass, PassContext
from fusible.passes.exactness import Exactness
from fusible.passes.fusion import copy_node, graphs_outside_groups, is_pointwise, is_scale, literal_bytes
from fusible.passes.ledger import Cost, Entry, Kind
from fusible.passes.packed_weights import READS_PACKED, why_apart

__all__ = ["MOST_READ", "FuseRegions", "Printable", "ungroup"]

Printable = Callable[[Sequence[Node], Sequence[Value]], "str | None"]
"""(nodes, outputs) -> why no kernel can be printed for them, or None."""

_LARGEST = 48  # nodes of a group
MOST_READ = 128  # values that a group reads: kernels of native code take 256 operands, GPUs' 4096 bytes of them
_INTEGER_PRODUCTS = frozenset({"matmul_integer", "conv_integer", "qlinear_matmul", "qlinear_conv"})
_LITTLE = 6  # nodes that are computed again rather than launched, if they make a number or a line of them


class FuseRegions(GraphPass):
    """The pass `fuse-regions`. The target says what it can print: `context.target["printable"]`."""

    name = "fuse-regions"
    exactness = Exactness.REASSOCIATING

    def run(self, graph: Graph, context: PassContext) -> int:
        """Run on every graph but the inside of groups made before."""
        return sum(self.run_one(inner, context) for inner in graphs_outside_groups(graph))

    def run_one(self, graph: Graph, context: PassContext) -> int:
        """Group, then replace each group of two or more."""
        printable = context.target.get("printable")
        if not callable(printable):
            return 0
        search = _Search(graph, context, printable, self.name)
        groups = search.groups()
        made = 0
        alone: list[Node] = []
        for members in groups:
            apart = search.why_apart(members[0]) is not None
            if (len(members) > 1 or apart) and context.take():
                fused = _replace(graph, members, context, self.name)
                alone += [fused] if apart else []
                made += 1
        for node in alone:
            _to_reader(graph, node)
        return made


class _Search:
    def __init__(self, graph: Graph, context: PassContext, printable: Printable, name: str) -> None:
        self.graph, self.context, self.printable, self.name = graph, context, printable, name
        self.order = {node: n for n, node in enumerate(graph)}
        self.group: dict[Node, list[Node]] = {}
        self.target = str(context.target.get("name", ""))
        self.packed = bool(context.target.get(READS_PACKED))
        self.results = set(graph.outputs)
        self.apart: dict[Node, str | None] = {}
        self.views: dict[Node, bool] = {}  # nodes stay as they are until all groups are found

    def groups(self) -> list[list[Node]]:
        """The groups, in the order of their last nodes; a view that was copied into readers is in several."""
        for node in self.graph:
            self.context.check_deadline("fuse-regions")
            if _candidate(node) and replacement_kernel(node, self.target) is None:
                self.group[node] = self._grown(node)
        found = {id(g): g for g in self.group.values()}
        absorbed = {id(n) for g in found.values() for n in g[:-1] if not self._is_free(n) or self._all_inside(n)}
        return [g for g in found.values() if id(g[-1]) not in absorbed]

    def _is_view(self, node: Node) -> bool:
        """As `_is_view`, which is asked of a node again and again."""
        if node not in self.views:
            self.views[node] = _is_view(node)
        return self.views[node]

    def why_apart(self, node: Node) -> str | None:
        """Why a dequantisation is a kernel of its own, or None."""
        if node not in self.apart:
            self.apart[node] = why_apart(node, self.context.target) if self.packed else None
        return self.apart[node]

    def _all_inside(self, node: Node) -> bool:
        """True if every reader of a view has a copy of its own."""
        if node.output in self.results:
            return False
        return all(user in self.group and node in self.group[user] for user in node.output.users)

    def _grown(self, node: Node) -> list[Node]:
        members = self._attention(node) or [node]
        for value in dict.fromkeys(node.inputs):
            producer = value.producer if value is not None else None
            if value is None or producer is None or producer not in self.group or producer in members:
                continue
            drawn = self.group[producer]
            reason = self._refusal(value, node, drawn, members)
            if reason is None:
                merged = sorted({*members, *drawn}, key=self.order.__getitem__)
                reason = self.printable(merged, [node.outputs[0]])
                if reason is None:
                    members = merged
                    self._claim(members)
                    continue
            cost = Cost(2 * literal_bytes(value), 1)
            nodes = (*producer.origin, *node.origin)
            entry = Entry(Kind.REFUSED, self.name, "", nodes, reason, (value.name,), cost=cost)
            self.context.ledger.add(entry)
        return members

    def _attention(self, node: Node) -> list[Node] | None:
        """The members of attention whose second product is `node`: the softmax's group and the product before it."""
        if not isinstance(node.op.definition(node), Contraction):
            return None
        for value in node.inputs:
            weights = self._only_reader(value, node)
            if weights is None or not any(n.op.name == "softmax" for n in weights) or _has_product(weights):
                continue
            for operand in (v for n in weights for v in n.inputs if v is not None and v.producer not in weights):
                scores = self._only_reader(operand, *weights)
                if scores is None or not _has_product(scores):
                    continue
                found = self._printable_attention(node, {node, *weights, *scores})
                if found is not None:
                    self._claim(found)
                    return found
        return None

    def _printable_attention(self, node: Node, core: set[Node]) -> list[Node] | None:
        """The members of attention, with all of what leads to its operands that a kernel can do by the way."""
        reasons: dict[str, None] = {}
        for members in (core | self._before(core, scales=True), core | self._before(core), core):
            found = sorted(members, key=self.order.__getitem__)
            reason = self.printable(found, [node.outputs[0]])
            if reason is None:
                return found
            reasons[reason] = None
        nodes = tuple(dict.fromkeys(o for n in sorted(core, key=self.order.__getitem__) for o in n.origin))
        cost = Cost(sum(2 * literal_bytes(n.output) for n in core if n is not node), len(core) - 1)
        self.context.ledger.add(Entry(Kind.REFUSED, self.name, "attention", nodes, "; ".join(reasons), cost=cost))
        return None

    def _claim(self, members: list[Node]) -> None:
        """Make members one group; views that stand for themselves may be in others as well."""
        for node in members:
            if node in self.group and not all(self._is_free(n) for n in self.group[node]):
                self.group[node] = members

    def _only_reader(self, value: Value | None, *readers: Node) -> list[Node] | None:
        """The group that makes a value, if it ends there and nobody but the readers sees it."""
        producer = None if value is None else value.producer
        if value is None or producer is None or value in self.results or not set(value.users) <= set(readers):
            return None
        made = self.group.get(producer)
        return made if made is not None and made[-1] is producer else None

    def _before(self, members: set[Node], *, scales: bool = False) -> set[Node]:
        """The views that lead to what members read; scales: and products with a number that nobody else reads."""
        found: set[Node] = set()
        waiting = [v.producer for n in members for v in n.inputs if v is not None]
        while waiting:
            producer = waiting.pop()
            if producer is None or producer not in self.group or producer in members | found:
                continue
            if self._is_view(producer):
                # Attention reads its operands by address, in even steps: what is joined is made by a kernel of its own.
                taken = all(self._is_view(n) and len(n.inputs) == 1 for n in self.group[producer])
            else:
                alone = all(self._is_view(n) or is_scale(n) for n in self.group[producer])
                taken = scales and alone and producer.output not in self.results
                taken = taken and set(producer.output.users) <= members | found
            if taken:
                found.add(producer)
                waiting += [v.producer for v in producer.inputs if v is not None]
        return found

    def _refusal(self, value: Value, node: Node, drawn: Sequence[Node], members: Sequence[Node]) -> str | None:
        """Why the producer's group stays outside, or None."""
        if (apart := self.why_apart(drawn[0])) is not None:
            return apart
        views = all(self._is_free(n) for n in drawn)
        if value in self.results and not views:
            return "the value is an output of the model"
        if self.packed and not views and _reads_quantised(node, value):
            return "a product reads it as it is stored, quantised"
        readers = [user for user in value.users if user is not node and user not in members]
        if readers and not views:
            return f"the value has {len(readers) + 1} readers"
        joined = any(len(n.inputs) > 1 and _is_view(n) for n in drawn)
        if joined and value in self.results:
            return "it is joined from several values, and made anyway, as an output of the model"
        if joined and readers:
            return f"it is joined from several values, and each of its {len(readers) + 1} readers would do so again"
        if drawn[-1] is not value.producer:
            return "the producer is inside another group"
        if len(drawn) + len(members) > _LARGEST:
            return f"the group would have more than {_LARGEST} nodes"
        if len(_read({*members, *drawn})) > MOST_READ:
            return f"the group would read more than {MOST_READ} values"
        if views or (self.packed and (_is_little(value, node, drawn) or self._is_joined_once(node, drawn))):
            return None
        return _repetition(value, node, drawn)

    def _is_joined_once(self, join: Node, drawn: Sequence[Node]) -> bool:
        """True for a concatenation of what is made element by element where nobody gains by making it in place.

        Either something is to be copied in any case (an operand of the graph's, as a cache of keys is), or each operand
        would be a launch of its own, or one element-wise node reads it all, as that of a rotation by halves does. An
        element of an operand is in the result once.
        """
        if join.op.name != "concat" or not all(map(is_pointwise, drawn)):
            return False
        readers = join.output.users
        if len(readers) == 1 and isinstance(readers[0].op.definition(readers[0]), Elementwise):
            return True
        makers = [None if v is None else v.producer for v in join.inputs]
        if None in makers:
            return True
        return all(n in self.group and all(map(is_pointwise, self.group[n])) for n in makers if n is not None)

    def _is_free(self, node: Node) -> bool:
        """True for what costs a reader nothing: a view, and where kernels unpack what they read, a dequantisation.

        What is stored has a fraction of the bytes that its numbers would have.
        """
        if self.packed and node.op.name == "dequantize_linear":
            return self.why_apart(node) is None
        return self._is_view(node)


def _read(members: set[Node]) -> set[Value]:
    """What nodes read of others' results, inputs and constants."""
    read = {v for node in members for v in node.inputs if v is not None}
    return {v for v in read if v.producer not in members}


def _products_read(value: Value) -> bool:
    """True if a product reads a value, perhaps through views."""
    return any(
        isinstance(user.op.definition(user), Contraction) or (_is_view(user) and any(map(_products_read, user.outputs)))
        for user in value.users
    )


def _reads_quantised(node: Node, value: Value) -> bool:
    """True for a product of a quantised value, and for a dequantisation whose result products read."""
    if node.op.name == "dequantize_linear":
        return _products_read(node.output)
    made = value.producer is not None and value.producer.op.name == "quantize_linear"
    return made and isinstance(node.op.definition(node), Contraction | Composite) and node.op.name in _INTEGER_PRODUCTS


def _has_product(nodes: Sequence[Node]) -> bool:
    return any(isinstance(node.op.definition(node), Contraction) for node in nodes)


def _is_little(value: Value, node: Node, drawn: Sequence[Node]) -> bool:
    """True for one number, or one for each column, made element by element: a tile computes it once, beside its own.

    Products have it computed for each of their programs, so it must not be their operand.
    """
    definition = node.op.definition(node)
    if len(drawn) > _LITTLE or not all(_is_view(n) or isinstance(n.op.definition(n), Elementwise) for n in drawn):
        return False
    assert isinstance(value.type, TensorType) and value.type.shape is not None
    return isinstance(definition, Elementwise) and all(d == 1 for d in value.type.shape[:-1])


def _repetition(value: Value, node: Node, drawn: Sequence[Node]) -> str | None:
    """Why the reader would compute the value's elements more than once, or None."""
    definition = node.op.definition(node)
    match definition:
        case Contraction():
            # A kernel may compute a band of what it reads just before, and rows under windows that slide over each
            # channel for itself. Other windows read each row too often.
            if value is not node.inputs[0] or (_slides(node, definition) and not _by_channel(node, definition)):
                return "a product reads each element of its operand many times"
            return None
        case Reduce(index=index):
            if index.bounds or any(len(_axes(c)) > 1 for c in index.components):
                return "windows overlap: an element would be computed several times"
        case View() if _is_shuffled(node):
            return None  # each element of its operands is in the result once
        case View():
            if any(m.indirect for m in definition.maps):
                return "elements are read where data say, perhaps several times"
    before, after = assumed_size(_elements(value)), assumed_size(_elements(node.outputs[0]))
    reduces = any(isinstance(n.op.definition(n), (Reduce, Composite)) for n in drawn)
    if not isinstance(definition, (Reduce, Composite)) and not reduces and after > before:
        return "it is broadcast: each element would be computed many times"
    return None


def _is_shuffled(join: Node) -> bool:
    """True for a concatenation that is only read in another order: its operands cannot be stored side by side."""
    readers = join.output.users
    views = [n for reader in readers[:1] for n in (reader, *(u for o in reader.outputs for u in o.users))]
    return join.op.name == "concat" and len(readers) == 1 and [n.op.name for n in views] == ["reshape", "transpose"]


def _slides(node: Node, contraction: Contraction) -> bool:
    """True if windows of the first operand overlap, or might."""
    type_ = node.output.type
    assert isinstance(type_, TensorType) and type_.shape is not None
    rank = len(type_.shape)
    single = {f"i{rank + n}" for n, extent in enumerate(contraction.extents) if extent == 1}
    return any(len(_axes(c) - single) > 1 for c in contraction.maps[0].components)


def _by_channel(node: Node, contraction: Contraction) -> bool:
    """True if every channel is summed for itself: only axes of the windows are summed over."""
    slid = {a for c in contraction.maps[0].components for a in _axes(c) if len(_axes(c)) > 1}
    type_ = node.output.type
    assert isinstance(type_, TensorType) and type_.shape is not None
    rank = len(type_.shape)
    return all(e == 1 or f"i{rank + n}" in slid for n, e in enumerate(contraction.extents))


def _axes(component: Dim) -> set[str]:
    return {s.name for s in symbols_of(component) if s.name[0] == "i" and s.name[1:].isdigit()}


def _elements(value: Value) -> Dim:
    assert isinstance(value.type, TensorType) and value.type.shape is not None
    return product(value.type.shape)


def _candidate(node: Node) -> bool:
    """True for nodes with one result of known rank whose definition a region can be made of."""
    if not node.op.pure or node.op.dynamic or node.subgraphs or len(node.outputs) != 1 or node.defines:
        return False
    types = [v.type for v in (*node.inputs, *node.outputs) if v is not None]
    if not all(isinstance(t, TensorType) and t.shape is not None and t.dtype is not DType.STRING for t in types):
        return False
    return not isinstance(node.op.definition(node), Opaque)


def _is_view(node: Node) -> bool:
    definition = node.op.definition(node)
    return isinstance(definition, View) and not any(m.indirect for m in definition.maps)


def _to_reader(graph: Graph, weight: Node) -> None:
    """Let a weight be made just before its first reader: models may have all dequantisations at the beginning."""
    readers = set(weight.outputs[0].users)
    first = next((node for node in graph if node in readers), None)
    if first is not None:
        graph.move_before(weight, first)


def _replace(graph: Graph, members: Sequence[Node], context: PassContext, name: str) -> Node:
    """Put one `fused` node in the place of a group, and return it."""
    last, inside = members[-1], set(members)
    inner = Graph("fused", graph.symbols)
    mapped: dict[Value, Value] = {}
    operands: list[Value] = []
    saved = 0
    for node in members:
        for value in node.inputs:
            if value is not None and value not in mapped and value.constant is not None and value.constant.size == 1:
                mapped[value] = value  # free in subgraphs; the kernel has it as a literal
            elif value is not None and value not in mapped and (value.producer is None or value.producer not in inside):
                mapped[value] = inner.input_for(value)
                operands.append(value)
        copy = copy_node(inner, node, mapped)
        mapped[node.output] = copy.output
        saved += 2 * literal_bytes(node.output) if node is not last and not _is_view(node) else 0
    inner.set_outputs([mapped[last.output]])
    origin = tuple(dict.fromkeys(o for node in members for o in node.origin))
    with graph.inserting_before(last, origin):
        fused = graph.add_node("fused", operands, {}, outputs=1, subgraphs=[inner])
    graph.replace(last, fused.outputs[0])
    for node in reversed(members[:-1]):
        if node.graph is graph and not node.output.uses and node.output not in graph.outputs:
            graph.erase(node)
    chain = " -> ".join(node.op.name for node in members)
    context.ledger.add(Entry(Kind.FUSED, name, "", origin, chain, saved=Cost(saved, len(members) - 1)))
    return fused


def ungroup(graph: Graph, group: Node) -> None:
    """Put the nodes of a `fused` node back in its place."""
    inner = group.subgraphs[0]
    mapped: dict[Value, Value] = {f: v for f, v in zip(inner.inputs, group.inputs, strict=True) if v is not None}
    with graph.inserting_before(group, group.origin):
        for node in inner:
            copy = copy_node(graph, node, mapped)
            mapped.update(zip(node.outputs, copy.outputs, strict=True))
    graph.replace(group, [mapped[v] for v in inner.outputs])
