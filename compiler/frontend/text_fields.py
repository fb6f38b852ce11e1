"""Text in a model must be UTF-8: protobuf hands damaged text over as bytes, and nothing after here expects that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from onnx import ModelProto, TensorProto

from fusible.errors import InvalidModel

__all__ = ["check_text"]


_TEXT_OR_MESSAGE = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
_OF_TENSORS = [field for field in TensorProto.DESCRIPTOR.fields if field.type in _TEXT_OR_MESSAGE]


def check_text(model: ModelProto) -> None:
    """Raise InvalidModel for a text field that is not UTF-8. Tensor data are not looked at."""
    stack: list[Any] = [model]
    while stack:
        message = stack.pop()
        for field, value in _fields(message):
            if field.type == FieldDescriptor.TYPE_STRING:
                _check(field.full_name, value)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                stack.extend([value] if hasattr(value, "ListFields") else value)


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """The fields that are set; of a tensor without its data, of which ListFields would make copies."""
    if not isinstance(message, TensorProto):
        yield from message.ListFields()
        return
    for field in _OF_TENSORS:
        if not field.has_presence or message.HasField(field.name):
            yield field, getattr(message, field.name)


def _check(field: str, value: Any) -> None:
    for text in [value] if isinstance(value, (str, bytes)) else value:
        if isinstance(text, bytes):
            raise InvalidModel(f"field {field} is not UTF-8 text: {text[:40]!r}")
