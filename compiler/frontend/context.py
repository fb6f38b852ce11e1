"""What a handler sees of one ONNX node: inputs, attributes, known contents, and how to build ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from onnx import AttributeProto, NodeProto

from fusible.compiler.frontend.load import dtype_of, tensor_constant
from fusible.compiler.frontend.scope import Scope
from fusible.compiler.frontend.signature import type_of_proto
from fusible.compiler.ir.broadcast import bcast
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import Content, Op
from fusible.compiler.ir.requirements import Relation, decide, requirement
from fusible.compiler.ir.symbol_values import solved_call, substitute_calls
from fusible.compiler.ir.symbols import Dim, SymInt
from fusible.compiler.ir.types import DType, Shape, TensorType, Type
from fusible.errors import InvalidModel, InvalidNode, UnsupportedOp

if TYPE_CHECKING:
    from fusible.compiler.frontend.convert import Importer

__all__ = ["NodeContext"]

_FIELDS = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
}


class NodeContext:
    """One node being imported. `opset` is the version of the node's own domain."""

    def __init__(
        self,
        importer: Importer,
        node: NodeProto,
        inputs: Sequence[Value | None],
        scope: Scope,
        opsets: Mapping[str, int],
        opset: int,
        label: str,
    ) -> None:
        self.importer, self.node, self.scope, self.opsets = importer, node, scope, opsets
        self.opset, self.label = opset, label
        self.inputs: list[Value | None] = list(inputs)
        self.attributes: dict[str, AttributeProto] = {}
        for attribute in node.attribute:
            if attribute.name in self.attributes:
                self.invalid(f"attribute {attribute.name!r} is given twice")
            self.attributes[attribute.name] = attribute

    def replacing(self, index: int, value: Value) -> NodeContext:
        """The same node with another value for input `index`, for handlers of operators that differ in little else."""
        context = copy(self)
        context.inputs = [value if k == index else own for k, own in enumerate(self.inputs)]
        return context

    # Errors

    def invalid(self, message: str) -> NoReturn:
        """The node breaks the standard."""
        raise InvalidNode(f"{self.node.op_type} at {self.label!r}: {message}")

    def unsupported(self, why: str) -> NoReturn:
        """The node is right but we cannot compile it."""
        raise UnsupportedOp(f"{self.node.domain or 'ai.onnx'}::{self.node.op_type}", self.opset, self.label, why)

    def broadcast(self, a: Dim, b: Dim) -> Dim:
        """The broadcast of two dimensions, which the graph requires where a run decides. ValueError if it cannot be."""
        if not self._may_hold(Relation.BROADCAST, a, b):
            raise ValueError(f"dimensions {a} and {b} do not broadcast")
        return bcast(a, b)

    def require_equal(self, a: Dim, b: Dim, otherwise: str) -> None:
        """Require that two dimensions are equal. InvalidModel with what is wrong `otherwise`, if they differ."""
        if not self._may_hold(Relation.EQUAL, a, b):
            self.invalid(f"{otherwise}: {a} and {b}")

    def require_at_most(self, a: Dim, b: Dim, otherwise: str) -> None:
        """Require that a <= b. InvalidModel with what is wrong `otherwise`, if that never holds."""
        if not self._may_hold(Relation.AT_MOST, a, b):
            self.invalid(f"{otherwise}: {b} is less than {a}")

    def same_size(self, a: Dim, b: Dim, otherwise: str) -> None:
        """The same for one size computed in two ways: from here on, b stands wherever a does."""
        self.require_equal(a, b, otherwise)
        solved = solved_call(a, b)
        if solved is not None:
            self.scope.solved.setdefault(*solved)

    def _may_hold(self, relation: Relation, a: Dim, b: Dim) -> bool:
        """False if a relation never holds; where symbols decide, the graph requires it."""
        holds = decide(relation, a, b)
        if holds is None:
            self.graph.requirements[requirement(relation, a, b, f"{self.node.op_type} at {self.label!r}")] = None
        return holds is not False

    # Inputs

    @property
    def graph(self) -> Graph:
        """The graph that nodes are added to."""
        return self.scope.graph

    @property
    def outputs(self) -> int:
        """The number of outputs the node lists (trailing unnamed ones do not count)."""
        names = list(self.node.output)
        while names and not names[-1]:
            names.pop()
        return len(names)

    def wants(self, index: int) -> bool:
        """True if output `index` has a name, so that somebody may use it."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def optional(self, index: int) -> Value | None:
        """Input `index`, or None if absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> Value:
        """Input `index`; InvalidModel if absent."""
        value = self.optional(index)
        if value is None:
            self.invalid(f"required input {index} is missing")
        return value

    def all_inputs(self) -> list[Value]:
        """Every input of a variadic op; none may be absent."""
        return [self.required(i) for i in range(len(self.inputs))]

    def tensor_type(self, index: int) -> TensorType:
        """The type of a required tensor input."""
        type_ = self.required(index).type
        if not isinstance(type_, TensorType):
            self.invalid(f"input {index} must be a tensor, got {type_}")
        return type_

    def shape(self, index: int) -> Shape | None:
        """The shape of a required tensor input, None if its rank is unknown."""
        return self.tensor_type(index).shape

    def rank(self, index: int) -> int | None:
        """The rank of a required tensor input, None if unknown."""
        return self.tensor_type(index).rank

    def known_rank(self, index: int) -> int:
        """The rank of a tensor input; UnsupportedOp if unknown."""
        rank = self.rank(index)
        if rank is None:
            self.unsupported(f"the rank of input {index} is not known; state it with shapes={{...}}")
        return rank

    def content(self, index: int) -> Content | None:
        """The known elements (numbers and SymInts, dtype object) of input `index`; None if absent or unknown."""
        value = self.optional(index)
        content, solved = None if value is None else value.content, self.scope.solved
        if content is None or not solved or not any(isinstance(x, SymInt) for x in content.flat):
            return content
        result = np.empty(content.size, object)
        result[:] = [substitute_calls(x, solved) if isinstance(x, SymInt) else x for x in content.flat]
        return result.reshape(content.shape)

    def dims(self, index: int) -> tuple[Dim, ...] | None:
        """The known elements of an integer input as flat dims (ints or SymInts); None if absent or unknown."""
        content = self.content(index)
        if content is None:
            return None
        return tuple(x if isinstance(x, SymInt) else int(x) for x in content.ravel())

    def static(self, index: int) -> np.ndarray | None:
        """The elements of input `index` as an array if wholly known now (any size for constants), else None."""
        value = self.optional(index)
        if value is None:
            return None
        if value.constant is not None:
            return value.constant.array
        content = value.content
        if content is None or any(isinstance(x, SymInt) for x in content.flat):
            return None
        return content.astype(self.tensor_type(index).dtype.numpy)

    # Attributes

    def _get(self, name: str, kind: Any) -> Any:
        attribute = self.attributes.get(name)
        if attribute is None:
            return None
        if attribute.type != kind:
            wanted = AttributeProto.AttributeType.Name(kind)
            self.invalid(f"attribute {name!r} must be of type {wanted}")
        return getattr(attribute, _FIELDS[kind])

    def has_attr(self, name: str) -> bool:
        """True if the attribute is given."""
        return name in self.attributes

    def attr_int(self, name: str, default: int | None = None) -> int:
        """An integer attribute; without default it is required."""
        found = self._get(name, AttributeProto.INT)
        return int(self._default(name, found, default))

    def attr_float(self, name: str, default: float | None = None) -> float:
        """A float attribute (fp32 precision, as stored)."""
        found = self._get(name, AttributeProto.FLOAT)
        return float(self._default(name, found, default))

    def attr_string(self, name: str, default: str | None = None) -> str:
        """A string attribute."""
        found = self._get(name, AttributeProto.STRING)
        value = self._default(name, found, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def attr_ints(self, name: str) -> tuple[Any, ...] | None:
        """A list of integers, None if absent."""
        found = self._get(name, AttributeProto.INTS)
        return None if found is None else tuple(int(i) for i in found)

    def attr_floats(self, name: str) -> tuple[Any, ...] | None:
        """A list of floats, None if absent."""
        found = self._get(name, AttributeProto.FLOATS)
        return None if found is None else tuple(float(f) for f in found)

    def attr_strings(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, None if absent."""
        found = self._get(name, AttributeProto.STRINGS)
        return None if found is None else tuple(s.decode("utf-8", "replace") for s in found)

    def attr_dtype(self, name: str, default: DType | None = None) -> DType:
        """An attribute that holds an ONNX data type number."""
        if name not in self.attributes and default is not None:
            return default
        return dtype_of(self.attr_int(name), f"{self.node.op_type} at {self.label!r}")

    def attr_tensor(self, name: str) -> Constant | None:
        """A tensor attribute as a constant, None if absent."""
        found = self._get(name, AttributeProto.TENSOR)
        if found is None:
            return None
        where = f"attribute {name!r} of node {self.label!r}"
        return tensor_constant(found, self.importer.model.folder, self.importer.limits, where)

    def attr_type(self, name: str) -> Type | None:
        """A type attribute, None if absent."""
        found = self._get(name, AttributeProto.TYPE_PROTO)
        if found is None:
            return None
        return type_of_proto(self.graph.symbols, found, f"attribute {name!r} of node {self.label!r}", name)

    def attr_graph(self, name: str) -> Any:
        """A graph attribute (GraphProto); it is required."""
        return self._default(name, self._get(name, AttributeProto.GRAPH), None)

    def _default(self, name: str, found: Any, default: Any) -> Any:
        value = default if found is None else found
        if value is None:
            self.invalid(f"required attribute {name!r} is missing")
        return value

    # Building

    def add(self, op: str | Op, *inputs: Value | None, **attrs: Any) -> Value:
        """Add a node with one output."""
        return self.graph.add(op, *inputs, **attrs)

    def add_node(self, op: str | Op, *inputs: Value | None, outputs: int | None = None, **attrs: Any) -> Node:
        """Add a node with any number of outputs."""
        return self.graph.add_node(op, inputs, attrs, outputs=outputs)

    def constant(self, data: np.ndarray | Constant) -> Value:
        """A constant value."""
        return self.graph.constant(data)

    def ints_constant(self, values: Sequence[int]) -> Value:
        """A 1-D int64 constant."""
        return self.graph.constant(np.asarray(values, dtype=np.int64).reshape(-1))

    def scalar_like(self, value: Value, number: float | int) -> Value:
        """A 0-d constant of the element type of `value`."""
        assert isinstance(value.type, TensorType)
        return self.graph.constant(np.asarray(number).astype(value.type.dtype.numpy))

    def subgraph(self, name: str, types: Sequence[Type]) -> tuple[Graph, Scope]:
        """Import a graph attribute as a graph of its own whose inputs have `types`; captures follow the inputs."""
        proto = self.attr_graph(name)
        if len(proto.input) != len(types):
            self.invalid(f"{name} has {len(proto.input)} inputs, {len(types)} are needed")
        graph = Graph(proto.name or name, self.graph.symbols)
        scope = Scope(graph, self.scope, self.scope.depth + 1)
        for info, type_ in zip(proto.input, types, strict=True):
            scope.define(info.name, graph.input(type_, info.name), f"{name} of {self.label!r}")
        self.importer.initializers(proto, scope)
        self.importer.body(proto, scope, self.opsets)
        self.importer.results(proto, scope)
        return graph, scope

    def inline_subgraph(self, name: str) -> list[Value]:
        """Import a graph attribute without inputs straight into the current graph and return its results."""
        proto = self.attr_graph(name)
        scope = Scope(self.graph, self.scope, self.scope.depth + 1)
        self.importer.initializers(proto, scope)
        self.importer.body(proto, scope, self.opsets)
        found = [(o.name, scope.find(o.name)) for o in proto.output]
        for output, value in found:
            if value is None:
                self.invalid(f"output {output!r} of {name} is computed by no node")
        return [value for _, value in found if value is not None]

    def custom(self, op: Op) -> list[Value]:
        """Build a registered op of another domain, attributes by name."""
        attrs = {name: attribute_value(self.attributes[name]) for name in op.attribute_names if name in self.attributes}
        unknown = [name for name in self.attributes if name not in op.attribute_names]
        if unknown:
            self.invalid(
                f"attribute {unknown[0]!r} is unknown; {op.name} has {', '.join(op.attribute_names) or 'none'}"
            )
        return list(self.graph.add_node(op, self.inputs, attrs, outputs=op.outputs or self.outputs).outputs)


def attribute_value(attribute: AttributeProto) -> Any:
    """A plain Python value for an attribute of a simple type."""
    match attribute.type:
        case AttributeProto.INT:
            return int(attribute.i)
        case AttributeProto.FLOAT:
            return float(attribute.f)
        case AttributeProto.STRING:
            return attribute.s.decode("utf-8", "replace")
        case AttributeProto.INTS:
            return tuple(int(i) for i in attribute.ints)
        case AttributeProto.FLOATS:
            return tuple(float(f) for f in attribute.floats)
        case AttributeProto.STRINGS:
            return tuple(s.decode("utf-8", "replace") for s in attribute.strings)
    kind = AttributeProto.AttributeType.Name(attribute.type)
    raise InvalidModel(f"attribute {attribute.name!r} of type {kind} cannot be given to a custom op")
