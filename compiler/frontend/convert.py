"""ONNX graph -> our graph IR: names to values, nodes to canonical ops through handlers, functions inlined."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx
from onnx import AttributeProto, GraphProto, NodeProto

import fusible.compiler.frontend.schema as schema
from fusible.compiler.frontend.context import NodeContext
from fusible.compiler.frontend.expansion import expanded_nodes
from fusible.compiler.frontend.handlers import HANDLERS
from fusible.compiler.frontend.load import LoadedModel, tensor_constant
from fusible.compiler.frontend.order import sorted_nodes
from fusible.compiler.frontend.scope import Scope
from fusible.compiler.frontend.signature import ShapeRequest, declare_input
from fusible.compiler.frontend.sparse import sparse_constant
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.ops import OPS
from fusible.compiler.options import Limits
from fusible.errors import InvalidModel, LimitExceeded, UnsupportedOp, UsageError

__all__ = ["Importer", "import_model"]

FunctionKey = tuple[str, str, str]  # domain, name, overload


def import_model(
    model: LoadedModel, *, shapes: Mapping[str, ShapeRequest] | None = None, limits: Limits | None = None
) -> Graph:
    """Import a loaded model. `shapes` as in `fusible.compile`.

    Raises InvalidModel, UnsupportedOp, LimitExceeded, UsageError (shapes that name nothing).
    """
    return Importer(model, limits or Limits()).run(dict(shapes or {}))


@dataclass
class Importer:
    """The state of one import: opset versions, functions, limits used up."""

    model: LoadedModel
    limits: Limits
    opsets: dict[str, int] = field(default_factory=dict)
    functions: dict[FunctionKey, onnx.FunctionProto] = field(default_factory=dict)
    nodes: int = 0
    deadline: float = 0.0

    def run(self, shapes: dict[str, ShapeRequest]) -> Graph:
        """Import the main graph."""
        self.deadline = time.monotonic() + self.limits.compile_seconds
        self.opsets = _opsets(self.model.proto.opset_import, "the model")
        for function in self.model.proto.functions:
            key = (_domain(function.domain), function.name, function.overload)
            if key in self.functions:
                raise InvalidModel(f"function {function.domain}::{function.name} is defined twice")
            self.functions[key] = function
        proto = self.model.proto.graph
        total = expanded_nodes(proto, self.functions)
        if total > self.limits.nodes:
            raise LimitExceeded("nodes", total, self.limits.nodes, "the graph with its functions inlined")
        graph = Graph(proto.name or "graph")
        scope = Scope(graph)
        self.initializers(proto, scope, self.model.raw_data)
        used = dict.fromkeys(shapes, False)
        for info in proto.input:
            if info.name not in scope.values:
                scope.define(info.name, declare_input(graph, info, shapes, used), "the graph's inputs")
        unused = [name for name, hit in used.items() if not hit]
        if unused:
            known = [i.name for i in graph.inputs] + sorted(s.name for s in graph.symbols)
            raise UsageError(f"shapes: {unused[0]!r} is no input or symbol of the model; it has {', '.join(known)}")
        self.body(proto, scope, self.opsets)
        self.results(proto, scope)
        return graph

    def initializers(
        self, proto: GraphProto, scope: Scope, apart: Mapping[int, memoryview] = MappingProxyType({})
    ) -> None:
        """Bind constants; one that is also an input counts as a constant. apart: raw data that the message lacks."""
        for number, tensor in enumerate(proto.initializer):
            where = f"initialiser {tensor.name!r}"
            raw, unread = apart.get(number, b""), self.model.unread(number) if apart else None
            constant = tensor_constant(tensor, self.model.folder, self.limits, where, raw, unread)
            scope.define(tensor.name, scope.graph.constant(constant, tensor.name), where)
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            constant = sparse_constant(sparse, self.model.folder, self.limits, f"sparse initialiser {name!r}")
            scope.define(name, scope.graph.constant(constant, name), f"sparse initialiser {name!r}")

    def results(self, proto: GraphProto, scope: Scope) -> None:
        """Set the graph's outputs by name."""
        names = [info.name for info in proto.output]
        if len(set(names)) != len(names):
            raise InvalidModel(f"graph {proto.name!r} lists an output twice: {names}")
        values = []
        for name in names:
            value = scope.find(name)
            if value is None:
                raise InvalidModel(f"output {name!r} of graph {proto.name!r} is computed by no node")
            values.append(value)
        scope.graph.set_outputs(values, names)

    def body(self, proto: GraphProto, scope: Scope, opsets: Mapping[str, int]) -> None:
        """Import the nodes of a graph into its scope."""
        for node in sorted_nodes(proto, scope):
            self.node(node, scope, opsets)

    def node(self, node: NodeProto, scope: Scope, opsets: Mapping[str, int], caller: str = "") -> None:
        """Import one node: a handler, a model-local function, a registered custom op or a standard function body."""
        self._count(node, scope)
        label = caller or node.name or next((o for o in node.output if o), node.op_type)
        inputs = [self._operand(name, scope, label) for name in node.input]
        domain = _domain(node.domain)
        function = self.functions.get((domain, node.op_type, node.overload))
        version = opsets.get(domain)
        if function is None and version is None and not (domain and OPS.get(f"{domain}::{node.op_type}")):
            raise InvalidModel(f"node {label!r} uses domain {domain!r}, for which the model imports no opset")
        if function is not None:
            results: Sequence[Value | None] = self._call(function, node, inputs, scope, label)
        else:
            results = self._builtin(node, inputs, scope, opsets, label, version or 1)
        if len(results) < len(node.output):
            if any(node.output[len(results) :]):
                raise UnsupportedOp(_title(node), version or 0, label, f"output {len(results)} is not available")
        for name, value in zip(node.output, results, strict=False):
            if name and value is not None:
                value.name = value.name or name
                scope.define(name, value, f"node {label!r}")

    def _count(self, node: NodeProto, scope: Scope) -> None:
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise LimitExceeded("nodes", self.nodes, self.limits.nodes, f"node {node.name!r}")
        if scope.depth > self.limits.depth:
            raise LimitExceeded("depth", scope.depth, self.limits.depth, f"node {node.name!r}")
        if self.nodes % 64 == 0 and time.monotonic() > self.deadline:
            raise LimitExceeded("compile_seconds", "more", self.limits.compile_seconds, f"node {node.name!r}")

    @staticmethod
    def _operand(name: str, scope: Scope, label: str) -> Value | None:
        if not name:
            return None
        value = scope.find(name)
        if value is None:
            raise InvalidModel(f"node {label!r} uses {name!r}, which no input, initialiser or earlier node defines")
        return value

    def _builtin(
        self,
        node: NodeProto,
        inputs: list[Value | None],
        scope: Scope,
        opsets: Mapping[str, int],
        label: str,
        version: int,
    ) -> Sequence[Value | None]:
        domain = _domain(node.domain)
        context = NodeContext(self, node, inputs, scope, opsets, version, label)
        with scope.graph.inserting_before(None, (label,)):
            handler = HANDLERS.find(domain, node.op_type, version)
            if handler is not None:
                schema.check_node(context)
                return handler.convert(context)
            custom = OPS.get(f"{domain}::{node.op_type}") if domain else None
            if custom is not None:
                return context.custom(custom)
            schema.check_node(context)
            body = schema.function_body(context)
        if body is not None:
            return self._call(body, node, inputs, scope, label)
        raise UnsupportedOp(_title(node), version, label, schema.why_unknown(domain, node.op_type, version))

    def _call(
        self,
        function: onnx.FunctionProto,
        node: NodeProto,
        inputs: list[Value | None],
        scope: Scope,
        label: str,
    ) -> Sequence[Value | None]:
        """Inline a function: its body is imported in a fresh scope over the same graph."""
        if len(inputs) > len(function.input):
            raise InvalidModel(f"node {label!r} gives {len(inputs)} inputs to a function of {len(function.input)}")
        inner = Scope(scope.graph, None, scope.depth + 1)
        for name, value in zip(function.input, inputs, strict=False):
            if value is not None:
                inner.values[name] = value
        absent = {n for n in function.input if n not in inner.values}
        attributes = {a.name: a for a in function.attribute_proto} | {a.name: a for a in node.attribute}
        opsets = dict(self.opsets) | _opsets(function.opset_import, f"function {function.name!r}")
        for body_node in function.node:
            bound = bind_attributes(body_node, attributes)
            for index, name in enumerate(bound.input):
                if name in absent:
                    bound.input[index] = ""
            self.node(bound, inner, opsets, caller=label)
        return [inner.values.get(name) for name in function.output]


def bind_attributes(node: NodeProto, attributes: Mapping[str, AttributeProto]) -> NodeProto:
    """A copy of a function's node with references to the function's attributes filled in, nested graphs too."""
    bound = NodeProto()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            given = attributes.get(attribute.ref_attr_name)
            if given is not None:
                copy = bound.attribute.add()
                copy.CopyFrom(given)
                copy.name = attribute.name
            continue
        copy = bound.attribute.add()
        copy.CopyFrom(attribute)
        if copy.HasField("g"):
            nested = [bind_attributes(n, attributes) for n in copy.g.node]
            del copy.g.node[:]
            copy.g.node.extend(nested)
    return bound


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _title(node: NodeProto) -> str:
    return f"{_domain(node.domain) or 'ai.onnx'}::{node.op_type}"


def _opsets(imports: Sequence[onnx.OperatorSetIdProto], where: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in imports:
        domain = _domain(item.domain)
        if item.version < 1:
            raise InvalidModel(f"{where} imports opset {item.version} of domain {domain!r}")
        found[domain] = item.version
    return found


