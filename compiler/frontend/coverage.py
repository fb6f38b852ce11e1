"""What keeps a model from being imported: every unsupported operator in it, not only the first.

An unsupported node's outputs have no type, so nodes that depend on it cannot be imported either; of those only
the existence of a handler or function body is checked. The same holds for the nodes of a subgraph whose import stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnx import AttributeProto, GraphProto, NodeProto, defs

from fusible.compiler.frontend.convert import FunctionKey, Importer
from fusible.compiler.frontend.handlers import HANDLERS
from fusible.compiler.frontend.load import LoadedModel
from fusible.compiler.frontend.scope import Scope
from fusible.compiler.frontend.signature import ShapeRequest
from fusible.compiler.ir.graph import Graph
from fusible.compiler.ir.ops import OPS
from fusible.compiler.options import Limits
from fusible.errors import UnsupportedOp

__all__ = ["Coverage", "Operator", "Way", "import_covering", "way_of"]

Way = Literal["handler", "function body", "model function", "custom op", "none"]
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of a model: how it is imported, how many nodes use it, and the reasons against some of them.

    reasons: (node, why) for each node that cannot be imported; empty if the operator is supported.
    """

    domain: str
    name: str
    opset: int
    way: Way
    count: int
    reasons: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """`domain::name`, without `ai.onnx`."""
        return f"{self.domain}::{self.name}" if self.domain else self.name


@dataclass(frozen=True, slots=True)
class Coverage:
    """All operators of a model, and its graph if every one is supported."""

    operators: tuple[Operator, ...]
    graph: Graph | None

    @property
    def supported(self) -> bool:
        """True if the whole model can be imported."""
        return self.graph is not None


def import_covering(model: LoadedModel, limits: Limits, shapes: Mapping[str, ShapeRequest] | None = None) -> Coverage:
    """Import a model as far as it goes and list its operators.

    Raises InvalidModel, LimitExceeded, UsageError as `import_model`; an unsupported operator is no error here.
    """
    importer = _CoveringImporter(model, limits)
    graph = importer.run(dict(shapes or {}))
    return Coverage(tuple(_operators(importer)), None if importer.reasons else graph)


def way_of(domain: str, name: str, opset: int) -> Way:
    """How an operator outside the model's own functions is imported."""
    if HANDLERS.find(domain, name, opset) is not None:
        return "handler"
    if domain and OPS.get(f"{domain}::{name}") is not None:
        return "custom op"
    try:
        schema = defs.get_schema(name, opset, domain)
    except defs.SchemaError:
        return "none"
    # The type stubs of onnx lack both attributes.
    fixed, dependent = schema.has_function, schema.has_context_dependent_function  # type: ignore[attr-defined]
    return "function body" if fixed or dependent else "none"


@dataclass
class _CoveringImporter(Importer):
    """An importer that goes on after an unsupported node of the main graph."""

    reasons: dict[tuple[str, str, str], str] = field(default_factory=dict)  # domain, operator, node -> why
    missing: set[str] = field(default_factory=set)  # names that were not computed

    def node(self, node: NodeProto, scope: Scope, opsets: Mapping[str, int], caller: str = "") -> None:
        """Import a node of the main graph, or note why that cannot be done; inner nodes stop their outer one."""
        if scope.depth > 0:
            super().node(node, scope, opsets, caller)
            return
        if self.missing.isdisjoint(_names_read(node)):
            try:
                super().node(node, scope, opsets, caller)
            except UnsupportedOp as error:
                domain, name = _split(error.op)
                self.reasons[domain, name, error.node] = error.why
            else:
                return
        self.missing.update(name for name in node.output if name)
        for inner in _with_inner_nodes(node):
            self._look_up(inner)

    def results(self, proto: GraphProto, scope: Scope) -> None:
        """Set the outputs, if all of them were computed."""
        if self.missing.isdisjoint(info.name for info in proto.output):
            super().results(proto, scope)

    def _look_up(self, node: NodeProto) -> None:
        domain, label = _domain(node.domain), node.name or next(iter(node.output), node.op_type)
        already = any(key[:2] == (domain, node.op_type) for key in self.reasons)
        if (domain, node.op_type, node.overload) in self.functions or already:
            return
        opset = self.opsets.get(domain, 1)
        if way_of(domain, node.op_type, opset) == "none":
            self.reasons[domain, node.op_type, label] = f"there is no handler for it at opset {opset}"


def _operators(importer: _CoveringImporter) -> Iterator[Operator]:
    """The operators of the model in order of name, those inside functions and subgraphs included."""
    proto = importer.model.proto
    uses: Counter[FunctionKey] = Counter()
    for outer in (*proto.graph.node, *(node for function in proto.functions for node in function.node)):
        uses.update((_domain(n.domain), n.op_type, n.overload) for n in _with_inner_nodes(outer))
    found = {(domain, name) for domain, name, _ in importer.reasons}
    listed = {(domain, name) for domain, name, _ in uses}
    counts = Counter({key: sum(n for (d, o, _), n in uses.items() if (d, o) == key) for key in listed | found})
    for domain, name in sorted(counts):
        opset = importer.opsets.get(domain, 1)
        own = any(key[:2] == (domain, name) for key in importer.functions)
        way: Way = "model function" if own else way_of(domain, name, opset)
        reasons = tuple((node, why) for (d, o, node), why in importer.reasons.items() if (d, o) == (domain, name))
        yield Operator(domain, name, opset, way, counts[domain, name], reasons)


def _with_inner_nodes(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for graph in _subgraphs(node):
        for inner in graph.node:
            yield from _with_inner_nodes(inner)


def _names_read(node: NodeProto) -> Iterator[str]:
    """The names that a node or the nodes in its subgraphs read; those that a subgraph defines itself do no harm."""
    for inner in _with_inner_nodes(node):
        yield from inner.input
        for graph in _subgraphs(inner):
            yield from (info.name for info in graph.output)


def _subgraphs(node: NodeProto) -> Sequence[GraphProto]:
    return [
        graph
        for attribute in node.attribute
        if attribute.type in _GRAPHS
        for graph in ([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)
    ]


def _split(title: str) -> tuple[str, str]:
    domain, _, name = title.rpartition("::")
    return _domain(domain), name


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
