"""Graph inputs: ONNX type protos to types, dimension names to symbols, the caller's shapes applied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

import onnx

from fusible.compiler.frontend.load import dtype_of
from fusible.compiler.ir.graph import Graph, Value
from fusible.compiler.ir.ops import SymbolTable
from fusible.compiler.ir.symbols import Dim, Symbol, is_symbol_name
from fusible.compiler.ir.types import OptionalType, SequenceType, TensorType, Type, type_symbols
from fusible.errors import InvalidModel, LimitExceeded, UsageError

__all__ = ["ShapeRequest", "declare_input", "symbol_name", "type_of_proto"]

ShapeRequest: TypeAlias = "int | tuple[int | str | tuple[int, int], ...] | list[int | str]"


def declare_input(
    graph: Graph, info: onnx.ValueInfoProto, shapes: Mapping[str, ShapeRequest], used: dict[str, bool]
) -> Value:
    """Add a graph input for a ValueInfoProto, with `shapes` applied; marks in `used` what was."""
    type_ = type_of_proto(graph.symbols, info.type, f"input {info.name!r}", info.name, shapes, used)
    if info.name in shapes and isinstance(type_, TensorType):
        used[info.name] = True
        type_ = TensorType(type_.dtype, _whole_shape(graph.symbols, info.name, type_, shapes, used))
    known = {s for value in graph.inputs for s in type_symbols(value.type)}
    value = graph.input(type_, info.name)
    graph.defines += tuple(s for s in type_symbols(type_) if s not in known)
    return value


def type_of_proto(
    symbols: SymbolTable,
    proto: onnx.TypeProto,
    where: str,
    hint: str,
    shapes: Mapping[str, ShapeRequest] | None = None,
    used: dict[str, bool] | None = None,
) -> Type:
    """The type that a TypeProto states. Raises InvalidModel for maps, sparse tensors and bad dimensions."""
    match proto.WhichOneof("value"):
        case "tensor_type":
            dtype = dtype_of(proto.tensor_type.elem_type, where)
            if not proto.tensor_type.HasField("shape"):
                return TensorType(dtype, None)
            dims = proto.tensor_type.shape.dim
            if len(dims) > 64:
                raise LimitExceeded("rank", len(dims), 64, where)
            return TensorType(
                dtype,
                tuple(
                    _dim(symbols, d, f"{symbol_name(hint)}_d{n}", where, shapes or {}, used if used is not None else {})
                    for n, d in enumerate(dims)
                ),
            )
        case "sequence_type":
            return SequenceType(_element(symbols, proto.sequence_type.elem_type, where, hint))
        case "optional_type":
            return OptionalType(_element(symbols, proto.optional_type.elem_type, where, hint))
        case None:
            raise InvalidModel(f"{where} has no type")
        case other:
            raise InvalidModel(f"{where} has type {other}, which is not supported")


def _element(symbols: SymbolTable, proto: onnx.TypeProto, where: str, hint: str) -> Type:
    """Elements of a sequence differ in shape, so their symbolic dims are forgotten."""
    element = type_of_proto(SymbolTable(), proto, where, hint)
    if isinstance(element, TensorType) and type_symbols(element):
        return TensorType(element.dtype, None)
    return element


def symbol_name(text: str) -> str:
    """An identifier made of any text; `i0`, `v3`, `w1_0` and their like name axes and values of regions."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")[:60] or "d"
    return name if is_symbol_name(name) and not re.fullmatch(r"[a-z][0-9]+(_[0-9]+)?", name) else f"d_{name}"


def _dim(
    symbols: SymbolTable,
    dim: onnx.TensorShapeProto.Dimension,
    fallback: str,
    where: str,
    shapes: Mapping[str, ShapeRequest],
    used: dict[str, bool],
) -> Dim:
    # Exporters write an unknown extent as -1, as "" or as "?"; two of these need not be equal.
    if dim.HasField("dim_value") and dim.dim_value != -1:
        if not 0 <= dim.dim_value < 2**40:
            raise InvalidModel(f"{where}: dimension {dim.dim_value} is out of range")
        return int(dim.dim_value)
    name = dim.dim_param if re.search(r"\w", dim.dim_param) else fallback
    return named_dim(symbols, name, shapes, used)


def named_dim(
    symbols: SymbolTable, name: str, shapes: Mapping[str, ShapeRequest], used: dict[str, bool]
) -> Dim:
    """The dimension that a name stands for: a literal or bounded symbol if `shapes` says so."""
    request = shapes.get(name)
    if isinstance(request, int):
        used[name] = True
        return _literal(request, name)
    lower, upper = 0, None
    if request is not None:
        used[name] = True
        lower, upper = _bounds(request, name)
    identifier = next((k for k, v in symbols.display.items() if v == name), None)
    if identifier is None:
        identifier = symbol_name(name)
        while symbols.get(identifier) is not None:
            identifier += "_"
        symbols.display[identifier] = name
    return symbols.add(Symbol(identifier, lower, upper))


def _literal(value: int, name: str) -> int:
    if isinstance(value, bool) or value < 0:
        raise UsageError(f"shapes: {name!r} must be a non-negative integer, got {value!r}")
    return value


def _bounds(request: object, name: str) -> tuple[int, int]:
    match request:
        case (int(low), int(high)) if 0 <= low <= high:
            return low, high
    raise UsageError(f"shapes: {name!r} must be an integer or bounds (low, high), got {request!r}")


def _whole_shape(
    symbols: SymbolTable, name: str, declared: TensorType, shapes: Mapping[str, ShapeRequest], used: dict[str, bool]
) -> tuple[Dim, ...]:
    request = shapes[name]
    if not isinstance(request, (tuple, list)):
        raise UsageError(f"shapes: input {name!r} needs a whole shape, got {request!r}")
    if declared.shape is not None and len(request) != len(declared.shape):
        raise UsageError(f"shapes: input {name!r} has rank {len(declared.shape)}, got {list(request)}")
    result: list[Dim] = []
    for axis, item in enumerate(request):
        old = declared.shape[axis] if declared.shape is not None else None
        if isinstance(item, int):
            if isinstance(old, int) and old != item:
                raise UsageError(f"shapes: dimension {axis} of input {name!r} is fixed to {old}, got {item}")
            result.append(_literal(item, name))
        elif isinstance(item, str):
            result.append(named_dim(symbols, item, shapes, used))
        else:
            low, high = _bounds(item, name)
            identifier = f"{symbol_name(name)}_{axis}"
            while symbols.get(identifier) is not None:
                identifier += "_"
            result.append(symbols.add(Symbol(identifier, low, high)))
    return tuple(result)
