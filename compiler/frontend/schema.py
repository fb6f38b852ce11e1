"""Checks of a node against the operator schemas that the onnx package knows, and standard function bodies."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import onnx
from onnx import defs, helper

from fusible.compiler.frontend.contrib_schemas import contrib_schema
from fusible.compiler.frontend.load import onnx_dtype
from fusible.compiler.ir.types import DType, OptionalType, SequenceType, TensorType, Type

if TYPE_CHECKING:
    from fusible.compiler.frontend.context import NodeContext

__all__ = ["check_node", "function_body", "why_unknown"]


@lru_cache(maxsize=4096)
def _schema(domain: str, name: str, version: int) -> defs.OpSchema | None:
    if not defs.has(name, domain):
        return contrib_schema(domain, name)
    try:
        return defs.get_schema(name, version, domain)
    except defs.SchemaError:
        return None


@cache
def _type_texts() -> dict[str, str]:
    names = {d: helper.tensor_dtype_to_string(onnx_dtype(d)).partition(".")[2].lower() for d in DType}
    return {d.value: f"tensor({n})" for d, n in names.items()}


def type_text(type_: Type | None) -> str | None:
    """The schema's spelling of a type; None where it is not wholly known."""
    match type_:
        case TensorType(dtype=dtype):
            return _type_texts()[dtype.value]
        case SequenceType(element=element):
            inner = type_text(element)
            return None if inner is None else f"seq({inner})"
        case OptionalType(element=element):
            inner = type_text(element)
            return None if inner is None else f"optional({inner})"
    return None


def check_node(context: NodeContext) -> None:
    """Attributes, number and element types of the inputs against the schema; InvalidModel if they do not fit."""
    node = context.node
    domain = "" if node.domain == "ai.onnx" else node.domain
    schema = _schema(domain, node.op_type, context.opset)
    if schema is None:
        return
    for name, given in context.attributes.items():
        known = schema.attributes.get(name)
        if known is None:
            context.invalid(f"attribute {name!r} is unknown in opset {context.opset}")
        if int(given.type) != _attribute_type(known):
            context.invalid(
                f"attribute {name!r} must be of type {onnx.AttributeProto.AttributeType.Name(_attribute_type(known))}"
            )
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in context.attributes:
            context.invalid(f"required attribute {name!r} is missing")
    given_inputs = len(context.inputs)
    if not schema.min_input <= given_inputs <= schema.max_input:
        context.invalid(f"takes {schema.min_input} to {schema.max_input} inputs, got {given_inputs}")
    if context.outputs > schema.max_output:
        context.invalid(f"has at most {schema.max_output} outputs, {context.outputs} are asked for")
    _check_types(context, schema)


def _attribute_type(known: Any) -> int:
    """The number of a schema attribute's type (the stubs of onnx do not know that it is an enum)."""
    return int(known.type.value)


def _check_types(context: NodeContext, schema: defs.OpSchema) -> None:
    bound: dict[str, str] = {}
    for index, value in enumerate(context.inputs):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if value is None:
            if formal.option == defs.OpSchema.FormalParameterOption.Single:
                context.invalid(f"required input {index} ({formal.name}) is missing")
            continue
        text = type_text(value.type)
        if text is None:
            continue
        if text not in formal.types:
            context.invalid(
                f"input {index} ({formal.name}) has type {text}, allowed: {', '.join(sorted(formal.types))}"
            )
        homogeneous = formal.is_homogeneous or formal.option != defs.OpSchema.FormalParameterOption.Variadic
        if homogeneous and bound.setdefault(formal.type_str, text) != text:
            context.invalid(f"input {index} ({formal.name}) has type {text}, an earlier one {bound[formal.type_str]}")


def function_body(context: NodeContext) -> onnx.FunctionProto | None:
    """The standard's own definition of the node's op as a function, if it has one that fits the node."""
    node = context.node
    domain = "" if node.domain == "ai.onnx" else node.domain
    schema: Any = _schema(domain, node.op_type, context.opset)
    if schema is None:
        return None
    body: onnx.FunctionProto | None = None
    if schema.has_function:
        body = schema.function_body
    elif schema.has_context_dependent_function:
        types = [_type_proto(v.type if v is not None else None) for v in context.inputs]
        try:
            text = schema.get_context_dependent_function(
                node.SerializeToString(), [t.SerializeToString() for t in types]
            )
        except (ValueError, RuntimeError) as error:
            context.invalid(f"the standard has no function body for this form: {error}")
        body = onnx.FunctionProto.FromString(text) if text else None
    if body is None or not body.node:
        return None
    filled = onnx.FunctionProto()
    filled.CopyFrom(body)
    given = {a.name for a in filled.attribute_proto}
    for name, attribute in schema.attributes.items():
        # Defaults of the schema hold for attributes that neither the node nor the body gives.
        if name not in given and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            filled.attribute_proto.add().CopyFrom(attribute.default_value)
    if not any(o.domain == "" for o in filled.opset_import):
        # A body of another domain (ai.onnx.preview) is written in the ONNX operators of the model's own version.
        version = context.opset if domain == "" else context.opsets.get("", defs.onnx_opset_version())
        filled.opset_import.append(helper.make_opsetid("", version))
    return filled


def _type_proto(type_: Type | None) -> onnx.TypeProto:
    match type_:
        case TensorType(dtype=dtype, shape=shape):
            dims = None if shape is None else [d if isinstance(d, int) else None for d in shape]
            return helper.make_tensor_type_proto(onnx_dtype(dtype), dims)
        case SequenceType(element=element):
            return helper.make_sequence_type_proto(_type_proto(element))
        case OptionalType(element=element):
            return helper.make_optional_type_proto(_type_proto(element))
    return onnx.TypeProto()


def why_unknown(domain: str, name: str, version: int) -> str:
    """Why no handler took an op: for the error message."""
    if _schema(domain, name, version) is not None:
        return "it is a standard operator without a handler here and without a function body"
    if domain in ("", "ai.onnx.ml", "ai.onnx.preview.training"):
        return f"no such operator exists in opset {version} of domain {domain or 'ai.onnx'!r}"
    return f"domain {domain!r} is not known here"
