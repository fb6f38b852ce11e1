"""How each canonical op is spelt in ONNX: the operator, its attributes, and the attributes that are inputs there.

By default the operator is the one whose name has the same letters (`global_average_pool`: GlobalAveragePool), a suffix
`_dynamic` dropped; an attribute that the operator's schema has as an input becomes one. The tables hold exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import onnx
from onnx import AttributeProto, defs, helper

from fusible.compiler.frontend.export_reshape import short_reshape
from fusible.compiler.frontend.load import onnx_dtype
from fusible.compiler.ir.graph import Node
from fusible.compiler.ir.ops import attribute_values
from fusible.compiler.ir.symbols import SymInt
from fusible.compiler.ir.types import DType, TensorType
from fusible.errors import UnsupportedOp

__all__ = ["FIRST_OPSET", "Spelling", "spell", "spelling_opset"]

FIRST_OPSET = 21
_CONTRIB = {"dynamic_quantize_lstm": "DynamicQuantizeLSTM"}
_OPERATORS = {
    "attention_with_cache": "Attention",
    "attention_with_scores": "Attention",
    "batch_normalization_training": "BatchNormalization",
    "layer_normalization_statistics": "LayerNormalization",
    "max_pool_with_indices": "MaxPool",
}
_RENAMED = {
    "dtype": ("to", "output_datatype"),
    "stash_dtype": ("stash_type",),
    "k": ("K",),
}
_EXTRA: dict[str, dict[str, Any]] = {"batch_normalization_training": {"training_mode": 1}, "reshape": {"allowzero": 1}}
_VECTORS = frozenset({"K"})  # parameter inputs that are vectors of one element where we hold a number
_REASONS = {
    "fail": "it stands for a branch that contradicts its operands' types; ONNX has no operator that only fails",
    "fused": "it is a fused region, no operator; export before fusion",
    "tf_idf_vectorizer": "its pool is held in operands here, in attributes there",
}


@dataclass(slots=True)
class Spelling:
    """An ONNX node to be: `inputs` holds numbers of operands, parameters (attribute values) and None, in order."""

    operator: str
    domain: str
    inputs: list[int | tuple[str, Any] | None] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    schema: defs.OpSchema | None = None


@lru_cache(maxsize=1)
def _schemas() -> dict[str, defs.OpSchema]:
    found: dict[str, defs.OpSchema] = {}
    for schema in defs.get_all_schemas():
        key = schema.name.lower()
        if key not in found or schema.domain == "":
            found[key] = schema
    return found


def spell(node: Node) -> Spelling:
    """The ONNX form of a node without subgraphs. Raises UnsupportedOp if there is none."""
    name = node.op.name
    values = attribute_values(node.attrs)
    if name in _REASONS:
        raise _unsupported(node, _REASONS[name])
    if values.get("nearest_mode") == "simple":
        raise _unsupported(node, "its rounding is that of Resize in opset 10")
    if "::" in name or name in _CONTRIB:
        domain, _, operator = name.rpartition("::")
        spelling = Spelling(_CONTRIB.get(name, operator), domain or "com.microsoft")
        spelling.inputs = [None if v is None else i for i, v in enumerate(node.inputs)]
        spelling.attributes = {k: v for k, v in values.items() if v is not None and v != ()}
        if name in _CONTRIB and not spelling.attributes.pop("layout", 0) == 0:
            raise _unsupported(node, "the contributed operator has one layout")
        _add_hidden_size(node, spelling)
        return spelling
    short = short_reshape(node) if name == "reshape" else None
    if short is not None:
        schema = _schemas()[short[0].lower()]
        return Spelling(short[0], "", [0, (schema.inputs[1].name, short[1])], schema=schema)
    schema = _schema_of(node, values)
    spelling = Spelling(schema.name, schema.domain, schema=schema)
    parameters: dict[str, Any] = {}
    for key, value in values.items():
        _place(node, schema, key, value, spelling.attributes, parameters)
    spelling.inputs = _inputs(node, schema, parameters)
    if name in ("split", "split_dynamic") and len(spelling.inputs) > 1:
        spelling.attributes.pop("num_outputs", None)
    _add_hidden_size(node, spelling)
    for key, value in _EXTRA.get(name, {}).items():
        spelling.attributes[key] = value
    if name.startswith("reduce_") and values.get("axes") == ():
        spelling.attributes["noop_with_empty_axes"] = 1
    return spelling


def _add_hidden_size(node: Node, spelling: Spelling) -> None:
    """Recurrent operators state the width of their state, which our ops read off the weights."""
    axis = {"rnn": 2, "gru": 2, "lstm": 2, "dynamic_quantize_lstm": 1}.get(node.op.name)
    if axis is None:
        return
    weights = node.inputs[2]
    shape = weights.type.shape if weights is not None and isinstance(weights.type, TensorType) else None
    if shape is None or not isinstance(shape[axis], int):
        raise _unsupported(node, "the size of its state is not known")
    spelling.attributes["hidden_size"] = shape[axis]


def _schema_of(node: Node, values: dict[str, Any]) -> defs.OpSchema:
    name = node.op.name.removesuffix("_dynamic")
    wanted = _OPERATORS.get(name, name.replace("_", ""))
    if node.op.name == "reduce_dynamic":
        reduction = str(values.pop("reduction"))
        wanted = reduction.replace("_", "") if reduction.startswith("reduce") else f"reduce{reduction.replace('_', '')}"
    schema = _schemas().get(wanted.lower())
    if schema is None:
        raise _unsupported(node, "ONNX has no operator of that name")
    return schema


def _place(
    node: Node, schema: defs.OpSchema, key: str, value: Any, attributes: dict[str, Any], parameters: dict[str, Any]
) -> None:
    """Put an attribute where the schema has it."""
    formal = {f.name for f in schema.inputs}
    for name in (key, *_RENAMED.get(key, ())):
        if name in schema.attributes:
            if value is not None and value != () and not _is_default(node, schema.attributes[name], value):
                attributes[name] = value
            return
        if name in formal:
            parameters[name] = value
            return
    raise _unsupported(node, f"{schema.name} has no attribute {key!r}")


def _is_default(node: Node, formal: defs.OpSchema.Attribute, value: Any) -> bool:
    if formal.name == "output_dtype" and node.op.name == "dequantize_linear":
        scale = node.inputs[1]
        return scale is not None and isinstance(scale.type, TensorType) and scale.type.dtype is value
    if formal.default_value.type == AttributeProto.UNDEFINED or isinstance(value, DType):
        return False
    default = helper.get_attribute_value(formal.default_value)
    if isinstance(default, bytes):
        default = default.decode()
    if isinstance(value, (bool, int, float)) and isinstance(default, (int, float)):
        return float(value) == float(default)
    return bool(default == value)


def _inputs(node: Node, schema: defs.OpSchema, parameters: dict[str, Any]) -> list[int | tuple[str, Any] | None]:
    found: list[int | tuple[str, Any] | None] = []
    operands = list(range(len(node.inputs)))
    for formal in schema.inputs:
        if formal.name in parameters:
            value = parameters[formal.name]
            if formal.name in _VECTORS and not isinstance(value, tuple):
                value = (value,)
            found.append(None if value is None else (formal.name, value))
        elif formal.option == defs.OpSchema.FormalParameterOption.Variadic:
            found.extend(operands)
            operands = []
        elif operands:
            found.append(operands.pop(0))
        else:
            found.append(None)
    if operands:
        raise _unsupported(node, f"{schema.name} takes fewer inputs")
    placed = [p if not isinstance(p, int) or node.inputs[p] is not None else None for p in found]
    while placed and placed[-1] is None:
        placed.pop()
    return placed


def attribute_proto(node: Node, spelling: Spelling, name: str, value: Any) -> onnx.AttributeProto:
    """The attribute in the type that the schema wants. Raises UnsupportedOp if it depends on a symbol."""
    if isinstance(value, SymInt) or (isinstance(value, tuple) and any(isinstance(v, SymInt) for v in value)):
        raise _unsupported(node, f"attribute {name!r} is {value}, known only at run time")
    if isinstance(value, DType):
        value = onnx_dtype(value)
    kind = int(spelling.schema.attributes[name].type.value) if spelling.schema is not None else 0  # type: ignore[attr-defined]
    match kind:
        case AttributeProto.FLOAT:
            value = float(value)
        case AttributeProto.INT:
            value = int(value)
        case AttributeProto.FLOATS:
            value = [float(v) for v in value]
        case AttributeProto.INTS:
            value = [int(v) for v in (value if isinstance(value, tuple) else (value,))]
    return helper.make_attribute(name, list(value) if isinstance(value, tuple) else value)


def spelling_opset(spelling: Spelling, types: list[str]) -> int:
    """The oldest opset from `FIRST_OPSET` on whose schema has the attributes, inputs and input types."""
    assert spelling.schema is not None
    newest = spelling.schema.since_version
    first = FIRST_OPSET if spelling.domain == "" else 1
    for version in range(first, newest):
        if not defs.has(spelling.operator, version, spelling.domain):
            continue
        schema = defs.get_schema(spelling.operator, version, spelling.domain)
        fits = all(a in schema.attributes for a in spelling.attributes) and len(spelling.inputs) <= schema.max_input
        if fits and all(
            not text or text in schema.inputs[min(i, len(schema.inputs) - 1)].types for i, text in enumerate(types)
        ):
            return version
    return max(newest, first)


def _unsupported(node: Node, why: str) -> UnsupportedOp:
    return UnsupportedOp(node.op.name, 0, ", ".join(node.origin), f"it cannot be exported to ONNX: {why}")
