"""Graphs back to ONNX: any state of a graph before fusion becomes a model that other runtimes run.

Captured values of subgraphs become implicit captures again, sizes that depend on symbols are computed from the shapes
of the values that define the symbols. The opset is the oldest from 21 on that has every operator, form and type used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TypeProto, helper, numpy_helper

from fusible.compiler.frontend.export_dims import DimWriter
from fusible.compiler.frontend.export_nodes import FIRST_OPSET, Spelling, attribute_proto, spell, spelling_opset
from fusible.compiler.frontend.load import onnx_dtype
from fusible.compiler.frontend.schema import type_text
from fusible.compiler.ir.constant import Constant
from fusible.compiler.ir.graph import Graph, Node, Value
from fusible.compiler.ir.ops import attribute_values
from fusible.compiler.ir.reinfer import bare_symbol, bare_symbols, captured_inputs
from fusible.compiler.ir.symbols import SymInt
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, Type
from fusible.errors import UsageError

__all__ = ["export_onnx"]

_FLOAT_PARAMETERS = frozenset({"scales", "iou_threshold", "score_threshold", "lower_edge_hertz", "upper_edge_hertz"})


def export_onnx(graph: Graph) -> onnx.ModelProto:
    """The ONNX model of an unfused graph: same inputs, outputs and symbols.

    Raises UnsupportedOp for a node that ONNX cannot express, UsageError for an input without a name or an element type
    that is not known.
    """
    writer = _ModelWriter(graph)
    body, _ = writer.body(graph, None, {})
    inputs = [writer.value_info(v.name, v.type) for v in graph.inputs]
    outputs = [
        writer.value_info(name, v.type) for name, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    proto = helper.make_graph(body, graph.name or "graph", inputs, outputs, writer.initializers)
    imports = [helper.make_opsetid(domain, version) for domain, version in writer.opsets.items()]
    version = helper.find_min_ir_version_for(imports, ignore_unknown=True)
    return helper.make_model(proto, opset_imports=imports, ir_version=max(10, version), producer_name="fusible")


@dataclass
class _Scope:
    """One ONNX graph under construction."""

    nodes: list[NodeProto] = field(default_factory=list)
    names: dict[Value, str] = field(default_factory=dict)
    dims: DimWriter | None = None


class _ModelWriter:
    def __init__(self, root: Graph) -> None:
        self._root = root
        self._taken: set[str] = set()
        self._shared: dict[Value, str] = {}  # constants
        self._vectors: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._labels: dict[str, int] = {}
        self.initializers: list[onnx.TensorProto] = []
        self.opsets: dict[str, int] = {"": FIRST_OPSET}
        for name in [v.name for v in root.inputs] + root.output_names:
            if not name:
                raise UsageError("an input or output of the graph has no name")
            self._taken.add(name)

    # Names and types

    def _fresh(self, hint: str) -> str:
        name, number = hint or "value", 1
        while name in self._taken:
            number += 1
            name = f"{hint or 'value'}_{number}"
        self._taken.add(name)
        return name

    def value_info(self, name: str, type_: Type) -> onnx.ValueInfoProto:
        """A ValueInfoProto; symbols appear under the model's own names."""
        return helper.make_value_info(name, self.type_proto(type_))

    def type_proto(self, type_: Type | None) -> TypeProto:
        """The TypeProto of a type; UsageError where the element type is unknown."""
        match type_:
            case TensorType(dtype=dtype, shape=shape):
                dims = None if shape is None else [self._dim_text(d) for d in shape]
                return helper.make_tensor_type_proto(onnx_dtype(dtype), dims)
            case SequenceType(element=element):
                return helper.make_sequence_type_proto(self.type_proto(element))
            case OptionalType(element=element):
                return helper.make_optional_type_proto(self.type_proto(element))
        raise UsageError("a sequence or optional whose element type is not known cannot be exported")

    def _dim_text(self, dim: int | SymInt) -> int | str | None:
        if isinstance(dim, int):
            return dim
        symbol = bare_symbol(dim)
        return None if symbol is None else self._root.symbols.display.get(symbol.name, symbol.name)

    # Constants

    def _array(self, array: np.ndarray) -> str:
        """An initialiser for a parameter; equal ones are shared."""
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._vectors:
            self._vectors[key] = self._initializer(array, "parameter")
        return self._vectors[key]

    def _initializer(self, array: np.ndarray, hint: str) -> str:
        name = self._fresh(hint)
        self.initializers.append(_tensor(array, name))
        return name

    def _constant(self, value: Value, constant: Constant) -> str:
        if value not in self._shared:
            self._shared[value] = self._initializer(constant.array, value.name or "constant")
        return self._shared[value]

    # Graphs

    def body(self, graph: Graph, outer: _Scope | None, names: dict[Value, str]) -> tuple[list[NodeProto], list[str]]:
        """The nodes of a graph and the names of its outputs. `names`: those of a subgraph's inputs."""
        scope = _Scope(names=dict(names))
        parent = outer.dims if outer is not None else None
        scope.dims = DimWriter(
            lambda operator, inputs, **attributes: self._emit(scope, operator, inputs, **attributes),
            self._array,
            parent,
        )
        for value in graph.inputs:
            scope.names.setdefault(value, value.name)
            standing = {s.name for s in bare_symbols(value.type)}
            self._define(scope, value, standing if outer is None else {s.name for s in graph.defines})
        results = graph.output_names if outer is None else [self._fresh(v.name) for v in graph.outputs]
        for value, name in zip(graph.outputs, results, strict=True):
            if value.producer is not None and value.producer.graph is graph and value not in scope.names:
                scope.names[value] = name
        for node in graph:
            self._node(scope, node)
        for value, name in zip(graph.outputs, results, strict=True):
            if self._name(scope, value) != name:
                scope.nodes.append(helper.make_node("Identity", [self._name(scope, value)], [name]))
        return scope.nodes, results

    def _name(self, scope: _Scope, value: Value) -> str:
        return self._constant(value, value.constant) if value.constant is not None else scope.names[value]

    @staticmethod
    def _define(scope: _Scope, value: Value, symbols: set[str]) -> None:
        """The symbols that stand alone in the type of a value are read from it, and so are expressions."""
        assert scope.dims is not None
        if isinstance(value.type, TensorType):
            for axis, dim in enumerate(value.type.shape or ()):
                symbol = bare_symbol(dim)
                if symbol is not None and symbol.name in symbols:
                    scope.dims.define(symbol.name, scope.names[value], axis)
                elif symbol is None and isinstance(dim, SymInt):
                    scope.dims.note(dim, scope.names[value], axis)

    def _emit(self, scope: _Scope, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self._fresh(operator.lower())
        scope.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    # Nodes

    def _node(self, scope: _Scope, node: Node) -> None:
        for value in node.outputs:
            if value not in scope.names:
                scope.names[value] = self._fresh(value.name)
        match node.op.name:
            case "dims":
                self._dims(scope, node)
            case "if" | "loop":
                self._control(scope, node)
            case "require":
                self._require(scope, node)
            case _:
                self._plain(scope, node)
        defined = {s.name for s in node.defines}
        for value in node.outputs:
            self._define(scope, value, defined)

    def _plain(self, scope: _Scope, node: Node) -> None:
        spelling = spell(node)
        inputs, types = [], []
        for item in spelling.inputs:
            value = node.inputs[item] if isinstance(item, int) else None
            types.append((type_text(value.type) or "") if value is not None else "")
            if value is not None:
                inputs.append(self._name(scope, value))
            else:
                inputs.append("" if item is None or isinstance(item, int) else self._parameter(scope, node, *item))
        self._need(spelling, types)
        proto = self._proto(scope, node, spelling.operator, inputs, spelling.domain)
        for name, attribute in spelling.attributes.items():
            proto.attribute.append(attribute_proto(node, spelling, name, attribute))

    def _proto(self, scope: _Scope, node: Node, operator: str, inputs: Sequence[str], domain: str = "") -> NodeProto:
        names = [scope.names[v] for v in node.outputs]
        label = ", ".join(node.origin)
        number = self._labels[label] = self._labels.get(label, 0) + 1
        label = f"{label} ({number})" if label and number > 1 else label
        scope.nodes.append(helper.make_node(operator, list(inputs), names, name=label, domain=domain))
        return scope.nodes[-1]

    def _need(self, spelling: Spelling, types: list[str]) -> None:
        version = 1 if spelling.schema is None else spelling_opset(spelling, types)
        if spelling.domain not in self.opsets or self.opsets[spelling.domain] < version:
            self.opsets[spelling.domain] = version

    def _parameter(self, scope: _Scope, node: Node, name: str, value: Any) -> str:
        """The ONNX input that a static attribute becomes."""
        assert scope.dims is not None
        if name in _FLOAT_PARAMETERS:
            return self._array(np.asarray(value, dtype=np.float32))
        if name == "roi":
            first = node.inputs[0]
            assert first is not None and isinstance(first.type, TensorType)
            return self._array(np.asarray(value, dtype=first.type.dtype.numpy))
        if isinstance(value, tuple):
            return scope.dims.tensor(value)
        if isinstance(value, SymInt):
            return self._emit(scope, "Reshape", [scope.dims.dim(value), self._array(np.zeros(0, np.int64))])
        return self._array(np.asarray(value, dtype=np.int64))

    def _dims(self, scope: _Scope, node: Node) -> None:
        assert scope.dims is not None
        attrs = attribute_values(node.attrs)
        flat = scope.dims.tensor(attrs["values"])
        shaped = [flat, self._array(np.asarray(attrs["shape"], dtype=np.int64))]
        if attrs["dtype"] is not DType.I64:
            name = self._emit(scope, "Reshape", shaped)
            proto = self._proto(scope, node, "Cast", [name])
            proto.attribute.append(helper.make_attribute("to", onnx_dtype(attrs["dtype"])))
        else:
            self._proto(scope, node, "Reshape", shaped)

    def _require(self, scope: _Scope, node: Node) -> None:
        """Element 0 of a constant of one where the condition is as expected, else element 1, which ends the run."""
        (condition,) = node.inputs
        assert condition is not None
        wrong = self._name(scope, condition)
        if node.attrs.expected:
            wrong = self._emit(scope, "Not", [wrong])
        index = self._emit(scope, "Cast", [wrong], to=onnx.TensorProto.INT64)
        self._proto(scope, node, "Gather", [self._array(np.asarray([node.attrs.expected])), index])

    def _control(self, scope: _Scope, node: Node) -> None:
        keys = ("then_branch", "else_branch") if node.op.name == "if" else ("body",)
        count = 1 if node.op.name == "if" else 2 + node.attrs.carried
        graphs = [self._subgraph(scope, node, g) for g in node.subgraphs]
        operands = ["" if v is None else self._name(scope, v) for v in node.inputs[:count]]
        proto = self._proto(scope, node, node.op.name.capitalize(), operands)
        for key, graph in zip(keys, graphs, strict=True):
            proto.attribute.append(helper.make_attribute(key, graph))

    def _subgraph(self, scope: _Scope, node: Node, graph: Graph) -> GraphProto:
        captured = {inner: self._name(scope, outer) for outer, inner in captured_inputs(node, graph)}
        own = [v for v in graph.inputs if v not in captured]
        names = {v: self._fresh(v.name) for v in own}
        body, results = self.body(graph, scope, captured | names)
        inputs = [self.value_info(names[v], _rank_only(v.type)) for v in own]
        outputs = [self._loose_info(name, v.type) for name, v in zip(results, graph.outputs, strict=True)]
        return helper.make_graph(body, graph.name or "graph", inputs, outputs)

    def _loose_info(self, name: str, type_: Type) -> onnx.ValueInfoProto:
        return onnx.ValueInfoProto(name=name) if not _known(type_) else self.value_info(name, _rank_only(type_))


def _known(type_: Type | None) -> bool:
    if isinstance(type_, (SequenceType, OptionalType)):
        return _known(type_.element)
    return type_ is not None


def _rank_only(type_: Type) -> Type:
    """Without dimensions that are not literal: the symbols of a subgraph mean nothing outside."""
    if isinstance(type_, TensorType) and type_.static_shape is None:
        return TensorType(type_.dtype, None)
    return type_


def _tensor(array: np.ndarray, name: str) -> onnx.TensorProto:
    if array.dtype == object:
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.STRING, dims=array.shape)
        tensor.string_data.extend(str(t).encode("utf-8", "surrogateescape") for t in array.reshape(-1))
        return tensor
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
